//! Which packets to ask about: at the edges of all that a world's files name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use porin::compile::explain::Packet;
use porin::config::model::{Config, Peer, Rule};
use porin::types::{Direction, PortSpec, Protocol};

use crate::reference::Facts;

pub struct Probes {
    /// IPv6, then IPv4.
    endpoints: [Vec<IpAddr>; 2],
    others: [Vec<IpAddr>; 2],
    ports: Vec<(Protocol, Vec<u16>)>,
    sources: Vec<u16>,
    aims: Vec<Aim>,
    state: u64,
}

/// What a single rule names; nothing for any.
#[derive(Clone)]
struct Aim {
    ports: Vec<(Protocol, u16)>,
    sources: Vec<u16>,
}

impl Probes {
    pub fn new(config: &Config, facts: &Facts, seed: u64) -> Self {
        let mut others: BTreeSet<IpAddr> = facts.host.iter().copied().collect();
        networks(config).iter().for_each(|network| others.extend(edges_of(network)));
        others.extend(["198.51.100.9", "2001:db8:ffff::9"].map(|a| a.parse::<IpAddr>().unwrap()));
        let of = |all: Vec<IpAddr>| {
            let (six, four) = all.into_iter().partition(IpAddr::is_ipv6);
            [six, four]
        };
        let own = facts.endpoints.iter().flat_map(|(_, addresses)| addresses.iter().copied());
        Probes {
            endpoints: of(own.collect()),
            others: of(others.into_iter().collect()),
            ports: ports(config),
            sources: sources(config),
            aims: rules(config).map(|rule| aim(config, rule)).collect(),
            state: seed,
        }
    }

    /// Splitmix64: the same for the same seed, on every machine.
    fn next(&mut self, below: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below as u64) as usize
    }

    fn end(&mut self, family: usize) -> IpAddr {
        let endpoints = self.endpoints[family].len();
        if endpoints > 0 && self.next(10) < 6 {
            let at = self.next(endpoints);
            return self.endpoints[family][at];
        }
        let at = self.next(self.others[family].len());
        self.others[family][at]
    }

    /// Makes a packet one that a rule is about, as far as ports go.
    fn aim(&mut self, packet: &mut Packet) {
        if self.aims.is_empty() {
            return;
        }
        let at = self.next(self.aims.len());
        let Aim { ports, sources } = self.aims[at].clone();
        if !ports.is_empty() {
            (packet.protocol, packet.port) = ports[self.next(ports.len())];
        }
        if !sources.is_empty() {
            packet.source_port = sources[self.next(sources.len())];
        }
    }

    pub fn probe(&mut self) -> Packet {
        let family = self.next(2);
        let (source, destination) = (self.end(family), self.end(family));
        let at = self.next(self.ports.len());
        let (protocol, ports) = self.ports[at].clone();
        let port = ports[self.next(ports.len())];
        let at = self.next(self.sources.len());
        let source_port = self.sources[at];
        let mut packet = Packet { source, destination, protocol, source_port, port };
        if self.next(2) == 0 {
            self.aim(&mut packet);
        }
        if !has_ports(packet.protocol) {
            packet.source_port = 0;
        }
        packet
    }
}

pub fn has_ports(protocol: Protocol) -> bool {
    matches!(protocol.0, 6 | 17 | 33 | 132 | 136)
}

fn rules(config: &Config) -> impl Iterator<Item = &Rule> {
    let rules = |direction| {
        config.policies.values().filter_map(move |policy| policy.rules(direction)).flatten()
    };
    Direction::BOTH.into_iter().flat_map(rules)
}

fn aim(config: &Config, rule: &Rule) -> Aim {
    let of = |spec: &PortSpec| match spec {
        PortSpec::Match(ports) => vec![*ports],
        PortSpec::Named { name, .. } => {
            config.endpoints.iter().filter_map(|e| e.ports.get(name).copied()).collect()
        }
    };
    let ports = rule.ports.iter().flat_map(of).flat_map(|ports| {
        let ends = [ports.ports.first(), ports.ports.last()];
        // Of protocols without any it is always 0.
        let ends = if has_ports(ports.protocol) || is_icmp(ports.protocol) { ends } else { [0; 2] };
        ends.map(|port| (ports.protocol, port))
    });
    let sources = rule.source_ports.iter().flat_map(|range| [range.first(), range.last()]);
    Aim { ports: ports.collect(), sources: sources.collect() }
}

fn is_icmp(protocol: Protocol) -> bool {
    matches!(protocol.0, 1 | 58)
}

fn networks(config: &Config) -> BTreeSet<IpNet> {
    let host = &config.host;
    let mut all: BTreeSet<IpNet> = host.pools.iter().map(|pool| pool.network).collect();
    all.extend(host.remote_hosts.iter().chain(&host.unmanaged));
    let groups = config.groups.iter();
    all.extend(groups.flat_map(|group| group.networks.iter().chain(&group.except)));
    for peer in rules(config).flat_map(|rule| &rule.peers) {
        if let Peer::Cidr(set) = peer {
            all.insert(set.network);
            all.extend(&set.except);
        }
    }
    all
}

/// The first and the last address, and those beside them.
fn edges_of(network: &IpNet) -> Vec<IpAddr> {
    match network {
        IpNet::V6(net) => {
            let (first, last) = (u128::from(net.network()), u128::from(net.broadcast()));
            let edges = [first.wrapping_sub(1), first, last, last.wrapping_add(1)];
            edges.map(|edge| IpAddr::V6(edge.into())).to_vec()
        }
        IpNet::V4(net) => {
            let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
            let edges = [first.wrapping_sub(1), first, last, last.wrapping_add(1)];
            edges.map(|edge| IpAddr::V4(edge.into())).to_vec()
        }
    }
}

fn around(first: u16, last: u16) -> [u16; 4] {
    [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
}

/// Each protocol that there could be a difference about, with the ports at the ends of ranges.
fn ports(config: &Config) -> Vec<(Protocol, Vec<u16>)> {
    let mut all: BTreeMap<Protocol, BTreeSet<u16>> = BTreeMap::new();
    // Something of each kind; those without ports have just the one.
    for (protocol, port) in [(6, 80), (17, 53), (33, 9), (132, 80), (136, 9), (47, 0), (89, 0)] {
        all.entry(Protocol(protocol)).or_default().insert(port);
    }
    all.insert(Protocol::ICMP, BTreeSet::from([0x0800, 0x0d00, 0x0d01]));
    all.insert(Protocol::ICMPV6, BTreeSet::from([0x8000, 0xc800, 0xc803]));
    let named = config.endpoints.iter().flat_map(|endpoint| endpoint.ports.values().copied());
    let written = rules(config).flat_map(|rule| &rule.ports).filter_map(|spec| match spec {
        PortSpec::Match(ports) => Some(*ports),
        PortSpec::Named { .. } => None,
    });
    for ports in named.chain(written) {
        if has_ports(ports.protocol) || is_icmp(ports.protocol) {
            let edges = around(ports.ports.first(), ports.ports.last());
            all.entry(ports.protocol).or_default().extend(edges);
        }
    }
    all.into_iter().map(|(protocol, ports)| (protocol, ports.into_iter().collect())).collect()
}

fn sources(config: &Config) -> Vec<u16> {
    let ranges = rules(config).flat_map(|rule| &rule.source_ports);
    let edges = ranges.flat_map(|range| around(range.first(), range.last()));
    edges.chain([40000, 53]).collect::<BTreeSet<u16>>().into_iter().collect()
}
