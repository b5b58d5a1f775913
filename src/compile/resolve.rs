//! One policy with numbers in place of selectors, entities, groups and networks: what it contributes to its subjects' tables.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::model::{self, Group, Policy};
use crate::desired::selectors::Selectors;
use crate::types::http::L7;
use crate::types::{
    Action, Cookie, Direction, Entity, Identity, Mode, Name, Peer, PortMatch, PortSpec, Selector,
    Tier,
};

use super::classes::{Classes, Kind};
use super::plan::{PortPrefix, SourceClass};
use super::ports;
use super::roles::{NamedPorts, Roles};
use super::rules::{Cookies, Wanted};
use super::sets::SetName;
use super::sources::Sources;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    pub policy: Name,
    pub tier: Tier,
    pub mode: Mode,
    pub priority: u16,
    ingress: Option<Contribution>,
    egress: Option<Contribution>,
}

/// To one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contribution {
    /// None: the policy does not make the direction default deny.
    pub default: Option<Cookie>,
    pub rules: Vec<ResolvedRule>,
}

/// What a rule matches: each of `peers` with each of `ports` and `named`; and each of `own`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResolvedRule {
    pub action: Action,
    pub cookie: Cookie,
    /// Sorted, unique. Empty: nobody that there is.
    pub peers: Vec<Peer>,
    pub ports: Vec<PortPrefix>,
    /// Named ports of the subject: of ingress rules.
    pub named: Vec<PortSpec>,
    /// Named ports of the peers: of egress rules. Sorted, unique.
    pub own: Vec<(Peer, PortPrefix)>,
    pub sources: Vec<SourceClass>,
    /// What it asks of requests; none: nothing.
    pub l7: Option<Arc<L7>>,
}

impl ResolvedRule {
    /// The ports at a subject with these named ports. Sorted, unique.
    pub fn ports(&self, subject: &NamedPorts) -> Vec<PortPrefix> {
        if self.named.is_empty() {
            return self.ports.clone();
        }
        let named: Vec<PortMatch> = self.named.iter().filter_map(|port| port.of(subject)).collect();
        let mut all = self.ports.clone();
        if !named.is_empty() {
            all.extend(ports::prefixes(&named));
        }
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl Resolved {
    pub fn direction(&self, direction: Direction) -> Option<&Contribution> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }
}

/// What numbers are there for what policies name.
pub(super) struct Numbers<'a> {
    pub selectors: &'a Selectors,
    pub classes: &'a Classes,
    pub roles: &'a Roles,
    pub sources: &'a Sources,
    pub groups: &'a BTreeMap<Name, Arc<Group>>,
    pub cookies: &'a Cookies,
}

impl Numbers<'_> {
    /// All selectors of the policy must have been acquired; its sets, source ports and named ports be known if it has
    /// subjects.
    pub fn resolve(&self, policy: &Policy, wanted: &Wanted) -> Resolved {
        let contribution = |direction| {
            let rules = policy.rules(direction)?;
            let cookie = |index| self.cookies.cookie(wanted, direction, index);
            let rules = (0..)
                .zip(rules)
                .map(|(index, rule)| self.rule(direction, rule, cookie(Some(index))));
            let default = policy.default_deny.then(|| cookie(None));
            Some(Contribution { default, rules: rules.collect() })
        };
        Resolved {
            policy: policy.name.clone(),
            tier: policy.tier,
            mode: policy.mode,
            priority: policy.priority,
            ingress: contribution(Direction::Ingress),
            egress: contribution(Direction::Egress),
        }
    }

    fn rule(&self, direction: Direction, rule: &model::Rule, cookie: Cookie) -> ResolvedRule {
        let (mut matches, mut named) = (Vec::new(), Vec::new());
        for port in &rule.ports {
            match port {
                PortSpec::Match(ports) => matches.push(*ports),
                PortSpec::Named { .. } => named.push(port.clone()),
            }
        }
        let any = named.is_empty() && rule.ports.is_empty();
        let ports = if any || !matches.is_empty() { ports::prefixes(&matches) } else { Vec::new() };
        let peers = self.peers(rule);
        let own = match direction {
            Direction::Ingress => Vec::new(),
            Direction::Egress => self.own(&peers, &std::mem::take(&mut named)),
        };
        ResolvedRule {
            action: rule.action,
            cookie,
            peers,
            ports,
            named,
            own,
            sources: self.sources.classes(&rule.source_ports).to_vec(),
            l7: (!rule.l7.is_empty()).then(|| Arc::new(rule.l7.clone())),
        }
    }

    /// Whom a rule means. Sorted, unique.
    fn peers(&self, rule: &model::Rule) -> Vec<Peer> {
        let any = |peer: &model::Peer| match peer {
            model::Peer::Entity(entity) => *entity == Entity::All,
            model::Peer::Group(name) => {
                self.group(name).is_some_and(|group| group.entities.contains(&Entity::All))
            }
            _ => false,
        };
        if rule.peers.is_empty() || rule.peers.iter().any(any) {
            return vec![Peer::ANY];
        }
        let mut peers = Vec::new();
        for peer in &rule.peers {
            match peer {
                model::Peer::Selector(selector) => self.selector(selector, &mut peers),
                model::Peer::Entity(entity) => self.entity(*entity, &mut peers),
                model::Peer::Cidr(cidr) => {
                    self.set(&SetName::Cidr(cidr.clone()), rule.match_endpoints, &mut peers);
                }
                model::Peer::Group(name) => {
                    let Some(group) = self.group(name) else { continue };
                    group.selectors.iter().for_each(|selector| self.selector(selector, &mut peers));
                    group.entities.iter().for_each(|entity| self.entity(*entity, &mut peers));
                    self.set(&SetName::Group(name.clone()), rule.match_endpoints, &mut peers);
                }
            }
        }
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    fn group(&self, name: &Name) -> Option<&Group> {
        self.groups.get(name).map(|group| &**group)
    }

    fn selector(&self, selector: &Selector, peers: &mut Vec<Peer>) {
        for identity in self.selectors.picks(selector).iter() {
            self.identity(*identity, peers);
        }
    }

    fn identity(&self, identity: Identity, peers: &mut Vec<Peer>) {
        if self.roles.is_plain() {
            return peers.push(Peer::from(identity));
        }
        peers.extend(self.roles.of(identity).map(|role| role.peer));
    }

    fn entity(&self, entity: Entity, peers: &mut Vec<Peer>) {
        let kinds: &[Kind] = match entity {
            Entity::Host => &[Kind::Host],
            Entity::RemoteHost => &[Kind::RemoteHost],
            Entity::Unmanaged => &[Kind::Unmanaged],
            Entity::WorldIpv4 => &[Kind::WorldIpv4],
            Entity::WorldIpv6 => &[Kind::WorldIpv6],
            Entity::World => &[Kind::WorldIpv4, Kind::WorldIpv6],
            Entity::Cluster => {
                self.selector(&Selector::default(), peers);
                &[Kind::Host, Kind::RemoteHost, Kind::Unmanaged]
            }
            // Taken for any before.
            Entity::All => &[],
        };
        kinds.iter().for_each(|kind| peers.extend(self.classes.of(*kind)));
    }

    fn set(&self, set: &SetName, endpoints: bool, peers: &mut Vec<Peer>) {
        peers.extend(self.classes.members(set));
        if endpoints {
            peers.extend(self.roles.index().within(set));
        }
    }

    /// Of the peers that have ports of these names: which.
    fn own(&self, peers: &[Peer], named: &[PortSpec]) -> Vec<(Peer, PortPrefix)> {
        if named.is_empty() {
            return Vec::new();
        }
        let index = self.roles.index();
        let naming = |port: &PortSpec| match port {
            PortSpec::Named { name, .. } => index.naming(name).to_vec(),
            PortSpec::Match(_) => Vec::new(),
        };
        let meant: Cow<'_, [Peer]> = match peers.first() {
            Some(&Peer::ANY) => {
                let all: BTreeSet<Peer> = named.iter().flat_map(naming).collect();
                all.into_iter().collect()
            }
            _ => Cow::Borrowed(peers),
        };
        let mut own = Vec::new();
        for peer in meant.iter() {
            let Some(known) = index.ports(*peer) else { continue };
            let ports: Vec<PortMatch> = named.iter().filter_map(|port| port.of(known)).collect();
            if !ports.is_empty() {
                own.extend(ports::prefixes(&ports).into_iter().map(|prefix| (*peer, prefix)));
            }
        }
        own.sort_unstable();
        own.dedup();
        own
    }
}

/// Whether two policies say the same, wherever it is written.
pub(super) fn same_rules(a: &Policy, b: &Policy) -> bool {
    let same = |(a, b): (&model::Rule, &model::Rule)| {
        let place = || b.origin.clone();
        model::Rule { origin: place(), ..a.clone() } == *b
    };
    let direction = |direction| match (a.rules(direction), b.rules(direction)) {
        (None, None) => true,
        (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b).all(same),
        _ => false,
    };
    let head = |policy: &Policy| {
        (policy.name.clone(), policy.tier, policy.priority, policy.default_deny, policy.mode)
    };
    head(a) == head(b) && a.subject == b.subject && Direction::BOTH.into_iter().all(direction)
}

/// Both directions' rules.
pub(super) fn rules_of(policy: &Policy) -> impl Iterator<Item = &model::Rule> {
    let rules = Direction::BOTH.into_iter().filter_map(|direction| policy.rules(direction));
    rules.flatten()
}

/// Everything that a policy names as a peer.
pub(super) fn peers_of(policy: &Policy) -> impl Iterator<Item = &model::Peer> {
    rules_of(policy).flat_map(|rule| &rule.peers)
}
