//! The policy semantics as the design words them (section 5), plainly: no numbers, no tables, no order tricks. It shares
//! the words of files with porin, as data, and nothing that compares them.

use std::net::IpAddr;

use ipnet::IpNet;

use porin::compile::explain::Packet;
use porin::config::model::{Config, Endpoint, Group, Peer, Policy, Rule};
use porin::types::selector::Requirement;
use porin::types::{Action, Direction, Entity, Mode, Name, PortSpec, Selector, Tier, Verdict};

/// What is not written in files: who got which addresses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    pub endpoints: Vec<(Name, Vec<IpAddr>)>,
    pub host: Vec<IpAddr>,
}

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

/// What one end says, and what says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Says {
    pub verdict: Verdict,
    pub by: By,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    Nobody,
    /// What a policy denies because nothing of its tier matches.
    Default(Name),
    Rule(Name, u32),
}

enum Who<'a> {
    Endpoint(&'a Endpoint),
    Host,
    RemoteHost,
    Unmanaged,
    World,
    Unassigned,
}

/// One end.
struct End<'a> {
    who: Who<'a>,
    address: IpAddr,
}

/// `shadow`: as if shadow policies were enforced.
pub fn judge(config: &Config, facts: &Facts, packet: &Packet, shadow: bool) -> Expected {
    let end = |address| End { who: who(config, facts, address), address };
    let (from, to) = (end(packet.source), end(packet.destination));
    if matches!(from.who, Who::Unassigned) || matches!(to.who, Who::Unassigned) {
        return Expected::NoEndpoint;
    }
    let case = Case { config, packet, receiver: &to };
    let egress = case.says(Direction::Egress, &from, &to, shadow);
    let ingress = case.says(Direction::Ingress, &to, &from, shadow);
    match (&egress, &ingress) {
        (None, None) => Expected::NotOurs,
        _ => Expected::Judged { egress, ingress },
    }
}

/// Whether an address is of an endpoint that the policy is about.
pub fn selects(config: &Config, facts: &Facts, policy: &Policy, address: IpAddr) -> bool {
    match who(config, facts, address) {
        Who::Endpoint(endpoint) => picks(config, &policy.subject, endpoint),
        _ => false,
    }
}

/// Whether shadow policies have a word in it at all: one that says anything picks either end.
pub fn in_shadow(config: &Config, facts: &Facts, packet: &Packet) -> bool {
    let shadows = |policy: &Policy| {
        policy.mode == Mode::Shadow && (policy.ingress.is_some() || policy.egress.is_some())
    };
    config.policies.values().any(|policy| {
        let selects = |address| selects(config, facts, policy, address);
        shadows(policy) && (selects(packet.source) || selects(packet.destination))
    })
}

fn who<'a>(config: &'a Config, facts: &Facts, address: IpAddr) -> Who<'a> {
    if let Some((name, _)) = facts.endpoints.iter().find(|(_, own)| own.contains(&address)) {
        return Who::Endpoint(config.endpoints.iter().find(|e| e.name == *name).unwrap());
    }
    let any = |mut networks: Box<dyn Iterator<Item = &IpNet> + '_>| {
        networks.any(|network| inside(address, network))
    };
    if facts.host.contains(&address) || own_address(config, address.is_ipv6()) == Some(address) {
        return Who::Host;
    }
    if any(Box::new(config.host.pools.iter().map(|pool| &pool.network))) {
        return Who::Unassigned;
    }
    if any(Box::new(config.host.remote_hosts.iter())) {
        return Who::RemoteHost;
    }
    if any(Box::new(config.host.unmanaged.iter())) {
        return Who::Unmanaged;
    }
    Who::World
}

/// The host's in the first pool of each family: the one after the network's. (No pool here reserves that.)
fn own_address(config: &Config, ipv6: bool) -> Option<IpAddr> {
    let mut networks = config.host.pools.iter().map(|pool| pool.network);
    let first = networks.find(|network| network.addr().is_ipv6() == ipv6)?;
    Some(match first.network() {
        IpAddr::V6(a) => IpAddr::V6((u128::from(a) + 1).into()),
        IpAddr::V4(a) => IpAddr::V4((u32::from(a) + 1).into()),
    })
}

/// Whether the leading bits are alike.
pub fn inside(address: IpAddr, network: &IpNet) -> bool {
    let length = usize::from(network.prefix_len());
    match (address, network.addr()) {
        (IpAddr::V6(a), IpAddr::V6(b)) => same(&a.octets(), &b.octets(), length),
        (IpAddr::V4(a), IpAddr::V4(b)) => same(&a.octets(), &b.octets(), length),
        _ => false,
    }
}

fn same(a: &[u8], b: &[u8], bits: usize) -> bool {
    let bit = |bytes: &[u8], at: usize| bytes[at / 8] & (0x80 >> (at % 8)) != 0;
    (0..bits).all(|at| bit(a, at) == bit(b, at))
}

struct Case<'a> {
    config: &'a Config,
    packet: &'a Packet,
    receiver: &'a End<'a>,
}

impl Case<'_> {
    fn says(&self, direction: Direction, subject: &End, peer: &End, shadow: bool) -> Option<Says> {
        let Who::Endpoint(endpoint) = subject.who else { return None };
        let mut speaking: Vec<&Policy> = self.config.policies.values().map(|p| &**p).collect();
        speaking.retain(|policy| {
            policy.rules(direction).is_some()
                && (shadow || policy.mode == Mode::Enforce)
                && picks(self.config, &policy.subject, endpoint)
        });
        speaking.sort_by(|a, b| a.name.cmp(&b.name));
        for tier in [Tier::Admin, Tier::Normal, Tier::Baseline] {
            let of_tier = speaking.iter().filter(|policy| policy.tier == tier).copied();
            let of_tier: Vec<&Policy> = of_tier.collect();
            match self.tier_says(direction, &of_tier, peer) {
                Some((Action::Allow, by)) => return Some(Says { verdict: Verdict::Allow, by }),
                Some((Action::Deny, by)) => return Some(Says { verdict: Verdict::Deny, by }),
                Some((Action::Reject, by)) => return Some(Says { verdict: Verdict::Reject, by }),
                Some((Action::Pass, _)) | None => {}
            }
        }
        Some(Says { verdict: Verdict::Allow, by: By::Nobody })
    }

    fn tier_says(
        &self,
        direction: Direction,
        policies: &[&Policy],
        peer: &End,
    ) -> Option<(Action, By)> {
        let rules = |policy: &Policy| policy.rules(direction).unwrap().to_vec();
        if policies.first().is_some_and(|policy| policy.tier == Tier::Normal) {
            // No order, but deny beats reject, and so on; of equals the first is named.
            for action in [Action::Deny, Action::Reject, Action::Pass, Action::Allow] {
                for policy in policies {
                    for (index, rule) in (0..).zip(rules(policy)) {
                        if rule.action == action && self.matches(&rule, peer) {
                            return Some((action, By::Rule(policy.name.clone(), index)));
                        }
                    }
                }
            }
        } else {
            // One after the other: by priority, then name, then place.
            let mut ordered = policies.to_vec();
            ordered.sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
            for policy in ordered {
                for (index, rule) in (0..).zip(rules(policy)) {
                    if self.matches(&rule, peer) {
                        return Some((rule.action, By::Rule(policy.name.clone(), index)));
                    }
                }
            }
        }
        let denying = policies.iter().find(|policy| policy.default_deny)?;
        Some((Action::Deny, By::Default(denying.name.clone())))
    }

    fn matches(&self, rule: &Rule, peer: &End) -> bool {
        (rule.peers.is_empty() || rule.peers.iter().any(|p| self.means(rule, p, peer)))
            && (rule.ports.is_empty() || rule.ports.iter().any(|ports| self.port(ports)))
            && (rule.source_ports.is_empty() || self.source_port(rule))
    }

    fn means(&self, rule: &Rule, written: &Peer, peer: &End) -> bool {
        let by_address = match peer.who {
            Who::Endpoint(_) => rule.match_endpoints,
            Who::Host | Who::RemoteHost | Who::Unmanaged | Who::World => true,
            Who::Unassigned => false,
        };
        let within = |networks: &[IpNet]| networks.iter().any(|net| inside(peer.address, net));
        match written {
            Peer::Selector(selector) => self.selects(selector, peer),
            Peer::Entity(entity) => is_entity(*entity, peer),
            Peer::Cidr(set) => by_address && within(&[set.network]) && !within(&set.except),
            Peer::Group(name) => {
                let named = |group: &&std::sync::Arc<Group>| group.name == *name;
                let group = self.config.groups.iter().find(named).unwrap();
                group.selectors.iter().any(|selector| self.selects(selector, peer))
                    || group.entities.iter().any(|entity| is_entity(*entity, peer))
                    || by_address && within(&group.networks) && !within(&group.except)
            }
        }
    }

    fn selects(&self, selector: &Selector, peer: &End) -> bool {
        matches!(peer.who, Who::Endpoint(endpoint) if picks(self.config, selector, endpoint))
    }

    fn port(&self, written: &PortSpec) -> bool {
        let (protocol, ports) = match written {
            PortSpec::Match(ports) => (ports.protocol, Some(*ports)),
            PortSpec::Named { name, protocol } => match self.receiver.who {
                Who::Endpoint(endpoint) => (*protocol, endpoint.ports.get(name).copied()),
                _ => (*protocol, None),
            },
        };
        let port = match (self.packet.protocol.0, self.packet.port) {
            // An echo request has code 0 to rules, whatever is in it.
            (1, 0x0800..=0x08ff) => 0x0800,
            (58, 0x8000..=0x80ff) => 0x8000,
            (_, port) => port,
        };
        ports.is_some_and(|ports| {
            ports.protocol.0 == protocol.0
                && self.packet.protocol.0 == protocol.0
                && ports.ports.first() <= port
                && port <= ports.ports.last()
        })
    }

    fn source_port(&self, rule: &Rule) -> bool {
        // TCP, UDP, DCCP, SCTP, UDP-Lite.
        let has_ports = [6, 17, 33, 132, 136].contains(&self.packet.protocol.0);
        let port = self.packet.source_port;
        let hit = |range: &porin::types::PortRange| range.first() <= port && port <= range.last();
        has_ports && rule.source_ports.iter().any(hit)
    }
}

fn is_entity(entity: Entity, peer: &End) -> bool {
    let ipv6 = peer.address.is_ipv6();
    match entity {
        Entity::Host => matches!(peer.who, Who::Host),
        Entity::RemoteHost => matches!(peer.who, Who::RemoteHost),
        Entity::Unmanaged => matches!(peer.who, Who::Unmanaged),
        Entity::World => matches!(peer.who, Who::World),
        Entity::WorldIpv4 => matches!(peer.who, Who::World) && !ipv6,
        Entity::WorldIpv6 => matches!(peer.who, Who::World) && ipv6,
        Entity::Cluster => {
            matches!(peer.who, Who::Endpoint(_) | Who::Host | Who::RemoteHost | Who::Unmanaged)
        }
        Entity::All => true,
    }
}

/// Labels that make no identity are as if they were not there.
fn picks(config: &Config, selector: &Selector, endpoint: &Endpoint) -> bool {
    let filter = &config.host.labels;
    let hit = |patterns: &[String], key: &str| {
        patterns.iter().any(|pattern| match pattern.split_once('*') {
            Some((begin, _)) => key.len() >= begin.len() && &key[..begin.len()] == begin,
            None => key == pattern,
        })
    };
    let wanted = |key: &str| {
        (filter.include.is_empty() || hit(&filter.include, key)) && !hit(&filter.exclude, key)
    };
    let value = |key: &str| {
        let mut labels = endpoint.labels.iter();
        let found = labels.find(|(own, _)| own.as_str() == key && wanted(key));
        found.map(|(_, value)| value.to_owned())
    };
    selector.requirements().all(|requirement| match requirement {
        Requirement::Exists(key) => value(key.as_str()).is_some(),
        Requirement::Absent(key) => value(key.as_str()).is_none(),
        Requirement::In(key, values) => match value(key.as_str()) {
            Some(own) => values.iter().any(|value| *value == own),
            None => false,
        },
        Requirement::NotIn(key, values) => match value(key.as_str()) {
            Some(own) => !values.iter().any(|value| *value == own),
            None => true,
        },
    })
}
