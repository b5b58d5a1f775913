//! The policy semantics as the design words them (section 5: points 1 to 4, 6, 7), plainly: no numbers, no tables, no order tricks.

use std::net::IpAddr;

use porin::compile::explain::Packet;
use porin::config::model::{Config, Peer, Policy, Rule};
use porin::desired::snapshot::Snapshot;
use porin::types::{Action, Direction, Entity, Labels, Name};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    NoEndpoint,
    NotOurs,
    /// What each end says, where it is an endpoint.
    Judged {
        egress: Option<Says>,
        ingress: Option<Says>,
    },
}

/// Whether it may pass, and what decided: policy and rule; no rule: its default; none: no policy.
pub type Says = (bool, Option<(Name, Option<u32>)>);

enum Who {
    Endpoint(Labels),
    Host,
    Unassigned,
    World,
}

pub fn judge(config: &Config, snapshot: &Snapshot, packet: &Packet) -> Expected {
    let who = |address| who(config, snapshot, address);
    let (from, to) = (who(packet.source), who(packet.destination));
    if matches!(from, Who::Unassigned) || matches!(to, Who::Unassigned) {
        return Expected::NoEndpoint;
    }
    let egress = says(config, Direction::Egress, &from, &to, packet.destination, packet);
    let ingress = says(config, Direction::Ingress, &to, &from, packet.source, packet);
    match (&egress, &ingress) {
        (None, None) => Expected::NotOurs,
        _ => Expected::Judged { egress, ingress },
    }
}

fn who(config: &Config, snapshot: &Snapshot, address: IpAddr) -> Who {
    for endpoint in snapshot.endpoints.values() {
        if endpoint.ipv6.map(IpAddr::V6) == Some(address)
            || endpoint.ipv4.map(IpAddr::V4) == Some(address)
        {
            let written = config.endpoints.iter().find(|e| e.name == endpoint.name).unwrap();
            let filter = &config.host.labels;
            return Who::Endpoint(written.labels.filtered(|key| filter.wants(key)));
        }
    }
    // The pools of these worlds have no reserved ranges: the host is the address after the network's.
    let own = |network: ipnet::IpNet| network.hosts().find(|host| *host != network.network());
    let first = |v6| {
        let mut networks = config.host.pools.iter().map(|pool| pool.network);
        networks.find(|network| network.addr().is_ipv6() == v6)
    };
    let sources = [true, false].map(|v6| first(v6).and_then(own));
    if snapshot.host_addresses.contains(&address) || sources.contains(&Some(address)) {
        return Who::Host;
    }
    match config.host.pools.iter().any(|pool| pool.network.contains(&address)) {
        true => Who::Unassigned,
        false => Who::World,
    }
}

fn says(
    config: &Config,
    direction: Direction,
    subject: &Who,
    peer: &Who,
    address: IpAddr,
    packet: &Packet,
) -> Option<Says> {
    let Who::Endpoint(labels) = subject else { return None };
    let mut speaking: Vec<&Policy> = config
        .policies
        .iter()
        .map(|policy| &**policy)
        .filter(|policy| policy.subject.matches(labels) && policy.rules(direction).is_some())
        .collect();
    speaking.sort_by(|a, b| a.name.cmp(&b.name));
    let Some(first) = speaking.first() else { return Some((true, None)) };
    for action in [Action::Deny, Action::Allow] {
        for policy in &speaking {
            for (index, rule) in (0..).zip(policy.rules(direction).unwrap()) {
                if rule.action == action && matches(rule, peer, address, packet) {
                    let decided = Some((policy.name.clone(), Some(index)));
                    return Some((action == Action::Allow, decided));
                }
            }
        }
    }
    Some((false, Some((first.name.clone(), None))))
}

fn matches(rule: &Rule, who: &Who, address: IpAddr, packet: &Packet) -> bool {
    let outside = matches!(who, Who::Host | Who::World);
    let peer = |peer: &Peer| match peer {
        Peer::Selector(selector) => {
            matches!(who, Who::Endpoint(labels) if selector.matches(labels))
        }
        Peer::Entity(Entity::All) => true,
        Peer::Entity(Entity::Host) => matches!(who, Who::Host),
        Peer::Entity(Entity::World) => matches!(who, Who::World),
        Peer::Entity(_) | Peer::Group(_) => false,
        Peer::Cidr(cidr) => {
            let excepted = cidr.except.iter().any(|except| except.contains(&address));
            outside && cidr.network.contains(&address) && !excepted
        }
    };
    let port = |ports: &porin::types::PortSpec| {
        let ports = ports.of(&Default::default());
        ports.is_some_and(|ports| ports.matches(packet.protocol, packet.port))
    };
    (rule.peers.is_empty() || rule.peers.iter().any(peer))
        && (rule.ports.is_empty() || rule.ports.iter().any(port))
}
