//! What policies say of a direction, ranked, and how much of it can concern label sets that are only partly known.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::model::{self, AssertKind, Group, LabelFilter, Policies, Policy, Rule};
use ipnet::IpNet;

use crate::types::{
    Action, Direction, Entity, Labels, Mode, Name, PortMatch, PortSpec, Protocol, Tier,
};

use super::domain::{Domain, Tri};
use super::region::Region;
use crate::compile::classes::Kind;
use crate::compile::precedence;
use crate::compile::sets::{SetName, SetNames};

/// Addresses of one class that are no endpoint's.
#[derive(Debug, Clone)]
pub struct Outside {
    pub kind: Kind,
    pub sets: SetNames,
}

/// One end of a flow: endpoints with any of these label sets, or outside addresses of one class.
#[derive(Debug, Clone)]
pub enum Party<'a> {
    Endpoint(Domain<'a>),
    Outside(&'a Outside),
}

impl<'a> Party<'a> {
    pub fn domain(&self) -> Option<&Domain<'a>> {
        match self {
            Party::Endpoint(domain) => Some(domain),
            Party::Outside(_) => None,
        }
    }
}

/// What names in rules stand for.
pub struct Meanings<'a> {
    pub filter: &'a LabelFilter,
    pub groups: &'a BTreeMap<Name, Arc<Group>>,
    pub pools: Vec<IpNet>,
    /// The sets that have addresses in a pool: an endpoint may be in them.
    pub inside: Vec<SetName>,
    /// The label sets and named ports of the endpoints that there are.
    pub bearers: Vec<Bearer>,
    /// The ports that any of them gives a name to.
    pub named: BTreeMap<(Name, Protocol), Region>,
}

/// Labels and named ports of an endpoint.
pub type Bearer = (Arc<Labels>, BTreeMap<Name, PortMatch>);

/// What an entry's named ports are for a receiver with these.
fn named_region(entry: &Entry, ports: &BTreeMap<Name, PortMatch>) -> Region {
    let written = entry.rule.map(|rule| rule.ports.as_slice()).unwrap_or_default();
    let named = written.iter().filter(|port| matches!(port, PortSpec::Named { .. }));
    Region::of(&named.filter_map(|port| port.of(ports)).collect::<Vec<_>>())
}

/// A rule, or a default deny.
pub struct Entry<'a> {
    pub precedence: u32,
    pub tier: Tier,
    pub action: Action,
    pub policy: &'a Policy,
    /// None: the policy's default.
    pub rule: Option<&'a Rule>,
    pub region: Region,
    /// What it takes to look at it, about.
    pub cost: usize,
    /// By ports' names: which of them a receiver has depends on its endpoints.
    guessed: bool,
    /// It matches endpoints by addresses, and all that they can have.
    everywhere: bool,
    egress: bool,
}

impl<'a> Meanings<'a> {
    /// All that is enforced in a direction for senders with this source port (none: no rule looks at it), the highest
    /// precedence first. For `always`, a rule that allows some requests denies: the others.
    pub fn entries(
        &self,
        policies: &'a Policies,
        direction: Direction,
        source: Option<u16>,
        kind: AssertKind,
    ) -> Vec<Entry<'a>> {
        let mut entries = Vec::new();
        let mut order = 0;
        for policy in policies.values().filter(|policy| policy.mode == Mode::Enforce) {
            let Some(rules) = policy.rules(direction) else { continue };
            if policy.default_deny {
                let (tier, action) = (policy.tier, Action::Deny);
                let precedence = precedence::of_default(tier);
                entries.push(Entry {
                    precedence,
                    tier,
                    action,
                    policy,
                    rule: None,
                    region: Region::all(),
                    cost: 1,
                    guessed: false,
                    everywhere: false,
                    egress: direction == Direction::Egress,
                });
            }
            for rule in rules {
                let (tier, action) = (policy.tier, rule.action);
                let precedence = precedence::of(
                    tier,
                    policy.priority.into(),
                    action,
                    !rule.l7.is_empty(),
                    order,
                );
                let action = match kind {
                    AssertKind::Always if !rule.l7.is_empty() => Action::Deny,
                    _ => action,
                };
                order += 1;
                let everywhere = rule.match_endpoints && self.everywhere(&rule.peers);
                for (region, guessed) in [(self.certain(rule), false), (self.guessed(rule), true)] {
                    let region = match (rule.source_ports.as_slice(), source) {
                        ([], _) => region,
                        (ranges, Some(port)) if ranges.iter().any(|range| range.contains(port)) => {
                            region.and(&Region::with_ports())
                        }
                        _ => continue,
                    };
                    if !region.is_empty() {
                        entries.push(Entry {
                            precedence,
                            tier,
                            action,
                            policy,
                            rule: Some(rule),
                            region,
                            cost: 1
                                + rule.peers.len()
                                + if guessed { self.bearers.len() } else { 0 },
                            guessed,
                            everywhere,
                            egress: direction == Direction::Egress,
                        });
                    }
                }
            }
        }
        // Stable: of equal defaults the first by name stays first.
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.precedence));
        entries
    }

    /// The ports that a rule or assertion has whoever receives.
    fn certain(&self, rule: &Rule) -> Region {
        if rule.ports.is_empty() {
            return Region::all();
        }
        let number = |port: &PortSpec| match port {
            PortSpec::Match(ports) => Some(*ports),
            PortSpec::Named { .. } => None,
        };
        Region::of(&rule.ports.iter().filter_map(number).collect::<Vec<_>>())
    }

    fn guessed(&self, rule: &Rule) -> Region {
        rule.ports.iter().fold(Region::default(), |region, port| region.or(&self.named(port)))
    }

    fn named(&self, port: &PortSpec) -> Region {
        match port {
            PortSpec::Named { name, protocol } => {
                self.named.get(&(name.clone(), *protocol)).cloned().unwrap_or_default()
            }
            PortSpec::Match(_) => Region::default(),
        }
    }

    /// The ports of an assertion, whoever receives.
    pub fn region(&self, ports: &[PortSpec]) -> Region {
        let number = |port: &PortSpec| match port {
            PortSpec::Match(ports) => Some(*ports),
            PortSpec::Named { .. } => None,
        };
        match ports {
            [] => Region::all(),
            ports => Region::of(&ports.iter().filter_map(number).collect::<Vec<_>>()),
        }
    }

    /// Does an entry concern this subject and this peer?
    pub fn concerns(&self, entry: &Entry, subject: &Domain, peer: &Party) -> Tri {
        let picked = subject.picked(&entry.policy.subject);
        if picked == Tri::No {
            return Tri::No;
        }
        if entry.rule.is_none() {
            return picked;
        }
        let all = picked.and(self.is_peer(entry, peer));
        if !entry.guessed || all == Tri::No {
            return all;
        }
        let receiver = if entry.egress { peer.domain() } else { Some(subject) };
        receiver.map_or(Tri::No, |receiver| all.and(self.has_ports(entry, receiver)))
    }

    /// Is a party one of the entry's peers? A default's are all.
    pub fn is_peer(&self, entry: &Entry, peer: &Party) -> Tri {
        let Some(rule) = entry.rule else { return Tri::Yes };
        match peer {
            Party::Endpoint(_) if entry.everywhere => Tri::Yes,
            _ => self.any(&rule.peers, rule.match_endpoints, peer),
        }
    }

    /// Do these receivers call the entry's ports by the names in its rule? Label sets that no endpoint has are taken to
    /// do as endpoints do that use the names.
    fn has_ports(&self, entry: &Entry, receiver: &Domain) -> Tri {
        let region = |ports: &BTreeMap<Name, PortMatch>| named_region(entry, ports);
        if let Some(ports) = receiver.ports() {
            return if region(ports).is_empty() { Tri::No } else { Tri::Yes };
        }
        let meant = self.bearers.iter().filter(|(labels, _)| receiver.has(labels));
        let meant: Vec<Region> = meant.map(|(_, ports)| region(ports)).collect();
        if meant.is_empty() {
            let all = self.bearers.iter().map(|(_, ports)| region(ports));
            let alike = all.filter(|region| !region.is_empty()).all(|r| entry.region.within(&r));
            return if alike { Tri::Yes } else { Tri::Maybe };
        }
        if meant.iter().all(|region| entry.region.within(region)) {
            Tri::Yes
        } else if receiver.is_one() && meant.iter().all(|r| r.and(&entry.region).is_empty()) {
            Tri::No
        } else {
            Tri::Maybe
        }
    }

    /// The ports that an entry is about, at its receiver.
    pub fn ports<'e>(&self, entry: &'e Entry, subject: &Domain, peer: &Party) -> Cow<'e, Region> {
        let receiver = if entry.egress { peer.domain() } else { Some(subject) };
        match receiver.and_then(|receiver| receiver.ports()) {
            Some(ports) if entry.guessed => {
                Cow::Owned(named_region(entry, ports).and(&entry.region))
            }
            _ => Cow::Borrowed(&entry.region),
        }
    }

    /// The endpoints that there are among the receivers, if an entry with named ports may concern some of them and not
    /// others.
    pub fn unlike<'b>(
        &'b self,
        entry: &Entry,
        subject: &Domain,
        peer: &Party,
    ) -> Option<impl Iterator<Item = &'b Bearer>> {
        let receiver = if entry.egress { peer.domain()? } else { subject };
        let open = entry.guessed && receiver.ports().is_none();
        if !open || self.has_ports(entry, receiver) != Tri::Maybe {
            return None;
        }
        let meant = self.bearers.iter().filter(|(labels, _)| receiver.has(labels));
        Some(meant.collect::<Vec<_>>().into_iter())
    }

    /// Whether these networks together have every address of every pool.
    fn everywhere(&self, peers: &[model::Peer]) -> bool {
        let has = |pool: &IpNet| {
            peers.iter().any(|peer| {
                let (networks, except) = match peer {
                    model::Peer::Cidr(cidr) => (std::slice::from_ref(&cidr.network), &cidr.except),
                    model::Peer::Group(name) => match self.groups.get(name) {
                        Some(group) => (group.networks.as_slice(), &group.except),
                        None => return false,
                    },
                    model::Peer::Selector(_) | model::Peer::Entity(_) => return false,
                };
                let spares = |e: &IpNet| e.contains(pool) || pool.contains(e);
                networks.iter().any(|net| net.contains(pool)) && !except.iter().any(spares)
            })
        };
        !self.pools.is_empty() && self.pools.iter().all(has)
    }

    /// Is a party one of these peers? Without any: everyone.
    pub fn any(&self, peers: &[model::Peer], endpoints: bool, party: &Party) -> Tri {
        if peers.is_empty() {
            return Tri::Yes;
        }
        let mut any = Tri::No;
        for peer in peers {
            any = any.or(self.is(peer, endpoints, party));
            if any == Tri::Yes {
                break;
            }
        }
        any
    }

    pub fn is(&self, peer: &model::Peer, endpoints: bool, party: &Party) -> Tri {
        match peer {
            model::Peer::Selector(selector) => match party {
                Party::Endpoint(domain) => domain.picked(selector),
                Party::Outside(_) => Tri::No,
            },
            model::Peer::Entity(entity) => is_entity(*entity, party),
            model::Peer::Cidr(cidr) => {
                let is = |name: &SetName| matches!(name, SetName::Cidr(other) if other == cidr);
                self.within(is, endpoints, party)
            }
            model::Peer::Group(group) => {
                let is = |name: &SetName| matches!(name, SetName::Group(other) if other == group);
                let within = self.within(is, endpoints, party);
                let Some(group) = self.groups.get(group) else { return within };
                let entities =
                    group.entities.iter().fold(within, |any, e| any.or(is_entity(*e, party)));
                let Party::Endpoint(domain) = party else { return entities };
                group.selectors.iter().fold(entities, |any, s| any.or(domain.picked(s)))
            }
        }
    }

    fn within(&self, is: impl Fn(&SetName) -> bool, endpoints: bool, party: &Party) -> Tri {
        match party {
            Party::Outside(outside) if outside.sets.iter().any(|name| is(name)) => Tri::Yes,
            Party::Endpoint(_) if endpoints && self.inside.iter().any(is) => Tri::Maybe,
            _ => Tri::No,
        }
    }
}

fn is_entity(entity: Entity, party: &Party) -> Tri {
    let is = match (entity, party) {
        (Entity::All, _) | (Entity::Cluster, Party::Endpoint(_)) => true,
        (_, Party::Endpoint(_)) => false,
        (Entity::Host, Party::Outside(outside)) => outside.kind == Kind::Host,
        (Entity::RemoteHost, Party::Outside(outside)) => outside.kind == Kind::RemoteHost,
        (Entity::Unmanaged, Party::Outside(outside)) => outside.kind == Kind::Unmanaged,
        (Entity::WorldIpv4, Party::Outside(outside)) => outside.kind == Kind::WorldIpv4,
        (Entity::WorldIpv6, Party::Outside(outside)) => outside.kind == Kind::WorldIpv6,
        (Entity::World, Party::Outside(outside)) => {
            matches!(outside.kind, Kind::WorldIpv4 | Kind::WorldIpv6)
        }
        (Entity::Cluster, Party::Outside(outside)) => {
            matches!(outside.kind, Kind::Host | Kind::RemoteHost | Kind::Unmanaged)
        }
    };
    if is { Tri::Yes } else { Tri::No }
}
