//! One policy with numbers in place of selectors, entities and CIDR sets: what it contributes to its subjects' tables.

use crate::config::model::{self, Policy};
use crate::desired::selectors::Selectors;
use crate::types::{Action, Cookie, Direction, Entity, Name, Peer};

use super::classes::Classes;
use super::plan::PortPrefix;
use super::ports;
use super::rules::{Cookies, Wanted};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    pub policy: Name,
    ingress: Option<Contribution>,
    egress: Option<Contribution>,
}

/// To one direction; that there is one makes it default deny.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contribution {
    pub default: Cookie,
    pub rules: Vec<ResolvedRule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResolvedRule {
    pub action: Action,
    pub cookie: Cookie,
    /// Sorted, unique. Empty: nobody that there is.
    pub peers: Vec<Peer>,
    pub ports: Vec<PortPrefix>,
}

impl Resolved {
    pub fn direction(&self, direction: Direction) -> Option<&Contribution> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }
}

/// All selectors of the policy must have been acquired, its CIDR sets be known to the classes if it has subjects.
pub(super) fn resolve(
    policy: &Policy,
    wanted: &Wanted,
    selectors: &Selectors,
    classes: &Classes,
    cookies: &Cookies,
) -> Resolved {
    let contribution = |direction| {
        let rules = policy.rules(direction)?;
        let resolved = (0..).zip(rules).map(|(index, rule)| ResolvedRule {
            action: rule.action,
            cookie: cookies.cookie(wanted, direction, Some(index)),
            peers: peers(rule, selectors, classes),
            ports: ports::prefixes(
                &rule.ports.iter().filter_map(|p| p.of(&Default::default())).collect::<Vec<_>>(),
            ),
        });
        let default = cookies.cookie(wanted, direction, None);
        Some(Contribution { default, rules: resolved.collect() })
    };
    Resolved {
        policy: policy.name.clone(),
        ingress: contribution(Direction::Ingress),
        egress: contribution(Direction::Egress),
    }
}

fn peers(rule: &model::Rule, selectors: &Selectors, classes: &Classes) -> Vec<Peer> {
    let any = |peer: &model::Peer| matches!(peer, model::Peer::Entity(Entity::All));
    if rule.peers.is_empty() || rule.peers.iter().any(any) {
        return vec![Peer::ANY];
    }
    let mut peers = Vec::new();
    for peer in &rule.peers {
        match peer {
            model::Peer::Selector(selector) => {
                peers.extend(selectors.picks(selector).iter().map(|id| Peer::from(*id)));
            }
            model::Peer::Entity(Entity::Host) => peers.extend(classes.host()),
            model::Peer::Entity(Entity::World) => peers.extend(classes.world()),
            model::Peer::Entity(Entity::All) => {}
            model::Peer::Cidr(cidr) => peers.extend(classes.members(cidr)),
            model::Peer::Entity(_) | model::Peer::Group(_) => {}
        }
    }
    peers.sort_unstable();
    peers.dedup();
    peers
}

/// Whether two policies say the same, wherever it is written.
pub(super) fn same_rules(a: &Policy, b: &Policy) -> bool {
    let same = |a: &model::Rule, b: &model::Rule| {
        a.action == b.action && a.peers == b.peers && a.ports == b.ports
    };
    let direction = |direction| match (a.rules(direction), b.rules(direction)) {
        (None, None) => true,
        (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => false,
    };
    a.name == b.name && a.subject == b.subject && Direction::BOTH.into_iter().all(direction)
}

/// Everything that a policy names as a peer.
pub(super) fn peers_of(policy: &Policy) -> impl Iterator<Item = &model::Peer> {
    let rules = Direction::BOTH.into_iter().filter_map(|direction| policy.rules(direction));
    rules.flatten().flat_map(|rule| &rule.peers)
}
