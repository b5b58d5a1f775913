//! What a plan says of a packet, and what in it says so: the datapath's judgement, step by step.
//!
//! It knows of policy alone. Replies, ICMP errors about flows, spoofing and routes are not asked here.

use std::net::IpAddr;

use crate::types::{
    AddressKey, Cookie, Direction, Peer, PolicySlot, Protocol, RulesetId, Slot, Verdict,
};

use super::plan::{Plan, PlannedEndpoint, PolicyValue, PrefixValue, SourceClass};

/// The first packet of a flow. `port`: the destination's; for ICMP and ICMPv6 `type << 8 | code`; else 0.
/// `source_port`: 0 for protocols without ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: Protocol,
    pub source_port: u16,
    pub port: u16,
}

/// Who an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    Endpoint {
        slot: Slot,
        peer: Peer,
    },
    Host {
        peer: Peer,
    },
    World {
        peer: Peer,
    },
    /// In a pool, but nobody's.
    Unassigned,
}

impl Party {
    fn peer(self) -> Option<Peer> {
        match self {
            Party::Endpoint { peer, .. } | Party::Host { peer } | Party::World { peer } => {
                Some(peer)
            }
            Party::Unassigned => None,
        }
    }
}

/// What one end's policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    /// What decided; [`Cookie::NONE`]: no policy speaks of it.
    pub cookie: Cookie,
    /// What is asked of requests of what is allowed; none: nothing.
    pub ruleset: Option<RulesetId>,
    /// The entry that decided: that of the peer, or the one for any.
    pub entry: Peer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    pub source: Party,
    pub destination: Party,
    /// Of the sender's policy, if it is an endpoint.
    pub egress: Option<Decision>,
    /// Of the receiver's policy, if it is one.
    pub ingress: Option<Decision>,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Allowed,
    /// By the policy of this direction, asked in the datapath's order.
    Denied(Direction),
    /// One address is in a pool, but no endpoint's: dropped unjudged.
    NoEndpoint,
    /// Likewise, telling the sender.
    Rejected(Direction),
    /// Neither is an endpoint's: none of porin's business.
    NotOurs,
    /// The plan lacks what it must have: dropped.
    Fault,
}

/// Judges the first packet of a flow as the datapath does.
pub fn judge(plan: &Plan, packet: &Packet) -> Judgement {
    judge_by(plan, packet, |endpoint| endpoint.policy)
}

/// The same, as if policies in shadow mode were enforced.
pub fn judge_shadow(plan: &Plan, packet: &Packet) -> Judgement {
    judge_by(plan, packet, |endpoint| endpoint.shadow.unwrap_or(endpoint.policy))
}

fn judge_by(
    plan: &Plan,
    packet: &Packet,
    policy: impl Fn(&PlannedEndpoint) -> PolicySlot,
) -> Judgement {
    let (source, destination) = (party(plan, packet.source), party(plan, packet.destination));
    let known = source.is_some() && destination.is_some();
    let source = source.unwrap_or(Party::Unassigned);
    let destination = destination.unwrap_or(Party::Unassigned);
    let mut judgement =
        Judgement { source, destination, egress: None, ingress: None, outcome: Outcome::Allowed };
    let (Some(from), Some(to)) = (source.peer(), destination.peer()) else {
        judgement.outcome = if known { Outcome::NoEndpoint } else { Outcome::Fault };
        return judgement;
    };
    if let Party::Endpoint { slot, .. } = source {
        judgement.egress = decide(plan, &policy, slot, Direction::Egress, to, packet);
        judgement.outcome = outcome(judgement.egress, Direction::Egress);
    }
    if let Party::Endpoint { slot, .. } = destination {
        judgement.ingress = decide(plan, &policy, slot, Direction::Ingress, from, packet);
        if judgement.outcome == Outcome::Allowed {
            judgement.outcome = outcome(judgement.ingress, Direction::Ingress);
        }
    }
    let endpoint = |party| matches!(party, Party::Endpoint { .. });
    if !endpoint(source) && !endpoint(destination) {
        judgement.outcome = Outcome::NotOurs;
    }
    judgement
}

/// Who an address is: an endpoint, or what its longest prefix says. None: the plan has no answer, which is a fault.
pub fn party(plan: &Plan, address: IpAddr) -> Option<Party> {
    if let Some(slot) = plan.addresses.get(&AddressKey::from(address)) {
        let [ipv6, ipv4] = plan.endpoints.get(slot)?.peers;
        let peer = if address.is_ipv6() { ipv6 } else { ipv4 };
        return Some(Party::Endpoint { slot: *slot, peer });
    }
    let PrefixValue { peer, host, pool } = longest_prefix(plan, address)?;
    Some(match (host, pool) {
        (true, _) => Party::Host { peer },
        (_, true) => Party::Unassigned,
        _ => Party::World { peer },
    })
}

fn longest_prefix(plan: &Plan, address: IpAddr) -> Option<PrefixValue> {
    let mut prefix = Some(ipnet::IpNet::from(address));
    while let Some(candidate) = prefix {
        if let Some(value) = plan.prefixes.entries.get(&candidate.trunc()) {
            return Some(*value);
        }
        prefix = candidate.supernet();
    }
    None
}

fn decide(
    plan: &Plan,
    policy: impl Fn(&PlannedEndpoint) -> PolicySlot,
    slot: Slot,
    direction: Direction,
    peer: Peer,
    packet: &Packet,
) -> Option<Decision> {
    let table = plan.policies.get(&policy(plan.endpoints.get(&slot)?))?;
    let source = match packet.protocol.has_ports() {
        true => plan.sources.class(packet.source_port),
        false => SourceClass::ANY,
    };
    let port = packet.protocol.judged_port(packet.port);
    let look_up = |peer, source| {
        let found = table.longest_match(peer, direction, source, packet.protocol, port);
        found.map(|value| (value, peer))
    };
    let mut best: Option<(PolicyValue, Peer)> = None;
    let sources = [source, SourceClass::ANY];
    // Without a class there are but two look-ups.
    for source in &sources[usize::from(source == SourceClass::ANY)..] {
        for peer in [peer, Peer::ANY] {
            let found = look_up(peer, *source);
            if found.is_some_and(|(value, _)| {
                best.is_none_or(|(best, _)| value.precedence > best.precedence)
            }) {
                best = found;
            }
        }
    }
    let (PolicyValue { verdict, cookie, ruleset, .. }, entry) = best?;
    Some(Decision { verdict, cookie, ruleset, entry })
}

fn outcome(decision: Option<Decision>, direction: Direction) -> Outcome {
    match decision.map(|decision| decision.verdict) {
        Some(Verdict::Allow) => Outcome::Allowed,
        Some(Verdict::Deny) => Outcome::Denied(direction),
        Some(Verdict::Reject) => Outcome::Rejected(direction),
        None => Outcome::Fault,
    }
}
