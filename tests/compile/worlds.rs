//! Random worlds: a few labels, networks and ports, in every combination that files can say, so that most rules meet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use porin::config::model::{
    AddressWish, Config, Endpoint, Flows, Group, Host, LabelFilter, Masquerade, Peer, Policy, Rule,
    Uplink,
};
use porin::types::{Action, Entity, Mode, PortMatch, PortRange, Selector, Tier};

use crate::world::{self, origin};

/// A world but for what judges it.
#[derive(Debug, Clone)]
pub struct Draft {
    pub config: Config,
    pub host: Vec<IpAddr>,
}

/// Seeds are not kept, as they mean something else whenever these worlds change: what failed is kept as files.
pub fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// The interface to the outside.
pub const UPLINK: &str = "up0";

const PEERS: [&str; 34] = [
    "",
    "app=a",
    "app=b,env=p",
    "app in (a,c)",
    "!env",
    "env",
    "env!=p",
    "uid=1",
    "app notin (a,b)",
    "app==c,uid",
    "entity:host",
    "entity:remote-host",
    "entity:unmanaged",
    "entity:world",
    "entity:world-ipv4",
    "entity:world-ipv6",
    "entity:cluster",
    "entity:all",
    "group:g1",
    "group:g2",
    "group:g3",
    "cidr:0.0.0.0/0",
    "cidr:::/0",
    "cidr:203.0.113.0/24",
    "cidr:203.0.113.128/25",
    "cidr:203.0.113.7/32",
    "cidr:10.0.0.0/8",
    "cidr:10.1.0.0/24",
    "cidr:10.1.128.0/17",
    "cidr:2001:db8::/32",
    "cidr:2001:db8:1::/48",
    "cidr:fd00::/8",
    "cidr:fd00:1::/65",
    "cidr:fd00:1::e1/128",
];

/// Of CIDR peers and groups.
const EXCEPT: [&str; 7] = [
    "203.0.113.128/25",
    "203.0.113.7/32",
    "10.1.0.0/16",
    "10.1.0.0/25",
    "2001:db8:1::/48",
    "fd00:1::/64",
    "fd00:1::e2/128",
];

const NETWORKS: [&str; 10] = [
    "203.0.113.0/24",
    "203.0.113.64/26",
    "198.51.100.0/24",
    "10.0.0.0/8",
    "10.1.0.0/24",
    "10.1.128.0/17",
    "2001:db8::/32",
    "2001:db8:1:8000::/49",
    "fd00:1::/64",
    "0.0.0.0/1",
];

/// Where other hosts are, and containers that are not porin's. They meet pools, each other, and the host's addresses.
const OTHERS: [&str; 7] = [
    "203.0.113.0/25",
    "203.0.113.0/29",
    "10.1.2.0/23",
    "10.2.0.0/15",
    "2001:db8:1::/49",
    "2001:db8::/32",
    "fd00:1::/48",
];

const HOST: [&str; 6] =
    ["192.0.2.1", "203.0.113.7", "10.1.0.200", "2001:db8:1::1", "fd00:1::aaaa", "fd00:2::1"];

const PORTS: [&str; 33] = [
    "tcp",
    "udp",
    "sctp",
    "80/tcp",
    "80/tcp+udp",
    "443/tcp",
    "1-79/tcp",
    "80-443/tcp",
    "8000-8100/tcp",
    "1-65535/udp",
    "1024-65535/tcp",
    "53/udp",
    "53/any",
    "*/tcp+sctp",
    "9/udplite",
    "9-10/dccp",
    "web/tcp",
    "web/tcp+udp",
    "dns/udp",
    "dns/any",
    "icmp",
    "icmpv6",
    "icmp/echo-request",
    "icmp/8",
    "icmp/13",
    "icmp/13/0",
    "icmp/destination-unreachable/port-unreachable",
    "icmpv6/echo-request",
    "icmpv6/200",
    "icmpv6/200/3",
    "gre",
    "protocol/47",
    "protocol/89",
];

const SOURCES: [&[(u16, u16)]; 6] = [
    &[(1024, 65535)],
    &[(1, 1023)],
    &[(53, 53)],
    &[(53, 53), (1000, 2000)],
    &[(2000, 2001), (65535, 65535)],
    &[(1, 65535)],
];

fn some(texts: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(texts, 0..=most)
}

/// Inside, but not the same.
fn within(outer: &IpNet, inner: &IpNet) -> bool {
    outer.prefix_len() < inner.prefix_len() && crate::reference::inside(inner.addr(), outer)
}

fn rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![
        4 => Just(Action::Allow),
        3 => Just(Action::Deny),
        2 => Just(Action::Pass),
        1 => Just(Action::Reject),
    ];
    let ports = prop_oneof![2 => some(&PORTS, 3), 1 => Just(Vec::new())];
    let except = prop_oneof![2 => Just(Vec::new()), 1 => some(&EXCEPT, 3)];
    let sources = weighted(0.25, select(SOURCES.to_vec()));
    let parts = (action, some(&PEERS, 3), except, ports, sources, proptest::bool::weighted(0.25));
    parts.prop_map(|(action, peers, except, ports, sources, match_endpoints)| {
        let mut rule = world::rule(action, &peers, &ports);
        let mut except = except.iter().map(|t| t.parse().unwrap()).collect::<Vec<IpNet>>();
        // None leaves nothing of a network.
        except.retain(|except| {
            let left = |peer: &Peer| match peer {
                Peer::Cidr(set) => set.network != *except && !within(except, &set.network),
                _ => true,
            };
            rule.peers.iter().all(left)
        });
        for peer in &mut rule.peers {
            if let Peer::Cidr(set) = peer {
                let mut own: Vec<_> =
                    except.iter().filter(|e| within(&set.network, e)).copied().collect();
                own.sort();
                set.except = own;
            }
        }
        let range = |(first, last): &(u16, u16)| PortRange::new(*first, *last).unwrap();
        rule.source_ports = sources.unwrap_or_default().iter().map(range).collect();
        // It says nothing of rules without networks.
        let network = |peer: &Peer| matches!(peer, Peer::Cidr(_) | Peer::Group(_));
        rule.match_endpoints = match_endpoints && rule.peers.iter().any(network);
        rule
    })
}

pub fn policy(name: &'static str) -> impl Strategy<Value = Policy> {
    let subject = select(vec!["", "", "app=a", "app=b", "env=p", "!env", "app in (b,c)", "uid=1"]);
    let tier = prop_oneof![
        4 => Just((Tier::Normal, 0)),
        2 => select(vec![0, 1, 1, 5, 1000]).prop_map(|priority| (Tier::Admin, priority)),
        2 => select(vec![0, 1, 1, 5, 1000]).prop_map(|priority| (Tier::Baseline, priority)),
    ];
    let rules = || weighted(0.7, vec(rule(), 0..5));
    let mode = prop_oneof![5 => Just(Mode::Enforce), 1 => Just(Mode::Shadow)];
    let parts = (subject, tier, proptest::bool::weighted(0.5), mode, rules(), rules());
    parts.prop_map(move |(subject, (tier, priority), default_deny, mode, ingress, egress)| {
        let policy = world::policy(name, subject, ingress, egress);
        Policy { tier, priority, default_deny, mode, ..policy }
    })
}

/// At most six, in the order of their names.
pub fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let all = ["p1", "p2", "p3", "p4", "p5", "p6"].map(|name| weighted(0.8, policy(name)));
    Vec::from(all).prop_map(|all| all.into_iter().flatten().collect())
}

fn wish(fixed: &'static str) -> impl Strategy<Value = AddressWish> {
    prop_oneof![
        3 => Just(AddressWish::Auto),
        2 => Just(AddressWish::Fixed(fixed.parse().unwrap())),
        1 => Just(AddressWish::None),
    ]
}

fn endpoint(name: &'static str, ipv6: &'static str, ipv4: &'static str) -> BoxedStrategy<Endpoint> {
    let labels = select(vec!["app=a", "app=a,env=p", "app=b,env=p", "app=c,uid=1", "env=d", ""]);
    let port = |ports: [&'static str; 3]| weighted(0.6, select(ports.to_vec()));
    let web = port(["80/tcp", "8080/tcp", "443/udp"]);
    let dns = port(["53/udp", "5353/udp", "53/tcp"]);
    let parts = (labels, web, dns, wish(ipv6), wish(ipv4));
    let made = parts.prop_map(move |(labels, web, dns, ipv6, ipv4)| {
        let named = [("web", web), ("dns", dns)].into_iter();
        let named = named.filter_map(|(name, port)| Some((world::name(name), port?)));
        let ports: BTreeMap<_, PortMatch> =
            named.map(|(name, port)| (name, port.parse().unwrap())).collect();
        let nowhere = [ipv6, ipv4] == [AddressWish::None; 2];
        let ipv6 = if nowhere { AddressWish::Auto } else { ipv6 };
        Endpoint { ports, ipv6, ipv4, ..world::endpoint(name, labels) }
    });
    made.boxed()
}

/// Who there may be, with the fixed addresses of each: at the edges of networks.
const ENDPOINTS: [(&str, &str, &str); 5] = [
    ("e1", "fd00:1::e1", "10.1.0.127"),
    ("e2", "fd00:1::e2", "10.1.0.128"),
    ("e3", "fd00:1::7fff:ffff:ffff:ffff", "10.1.0.255"),
    ("e4", "fd00:1::8000:0:0:0", "10.1.1.0"),
    ("e5", "fd00:1::ffff:ffff:ffff:fffe", "10.1.128.0"),
];

pub fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let all = ENDPOINTS.map(|(name, ipv6, ipv4)| weighted(0.7, endpoint(name, ipv6, ipv4)));
    Vec::from(all).prop_map(|all| all.into_iter().flatten().collect())
}

/// Without what the loader refuses: pools, other hosts and what is unmanaged may meet to the compiler, but not in files.
pub fn loadable(mut draft: Draft) -> Draft {
    let host = &mut draft.config.host;
    let mut taken: Vec<IpNet> = host.pools.iter().map(|pool| pool.network).collect();
    for networks in [&mut host.remote_hosts, &mut host.unmanaged] {
        networks.retain(|network| {
            let meets = |other: &IpNet| {
                other == network || within(other, network) || within(network, other)
            };
            let free = !taken.iter().any(meets);
            taken.extend(free.then_some(*network));
            free
        });
    }
    let says = |policy: &Policy| policy.ingress.is_some() || policy.egress.is_some();
    draft.config.policies =
        draft.config.policies.into_iter().filter(|(_, policy)| says(policy)).collect();
    draft
}

/// Without what depends on what was before: automatic addresses are fixed ones.
pub fn fixed(mut draft: Draft) -> Draft {
    for endpoint in &mut draft.config.endpoints {
        let named = |(name, ..): &&(&str, &str, &str)| *name == endpoint.name.as_str();
        let (_, ipv6, ipv4) = ENDPOINTS.iter().find(named).unwrap();
        let fix = |wish: &mut AddressWish, address: &str| {
            if *wish == AddressWish::Auto {
                *wish = AddressWish::Fixed(address.parse().unwrap());
            }
        };
        let endpoint = Arc::make_mut(endpoint);
        fix(&mut endpoint.ipv6, ipv6);
        fix(&mut endpoint.ipv4, ipv4);
    }
    draft
}

fn group(name: &'static str) -> impl Strategy<Value = Group> {
    let entities = ["host", "remote-host", "unmanaged", "world-ipv4", "cluster", "all"];
    let entities = prop_oneof![2 => Just(Vec::new()), 1 => subsequence(entities.to_vec(), 0..=1)];
    let parts = (some(&PEERS[1..9], 1), entities, some(&NETWORKS, 4), some(&EXCEPT, 3));
    parts.prop_map(move |(selectors, entities, networks, except)| {
        let networks: Vec<IpNet> = networks.iter().map(|text| text.parse().unwrap()).collect();
        let except: Vec<IpNet> = except.iter().map(|text| text.parse().unwrap()).collect();
        let alone = |all: &[IpNet]| {
            let mut left: Vec<IpNet> =
                all.iter().filter(|one| !all.iter().any(|o| within(o, one))).copied().collect();
            left.sort();
            left
        };
        // As the loader leaves them.
        let networks = alone(&networks);
        let mut except = alone(&except);
        except.retain(|e| networks.iter().any(|network| within(network, e)));
        Group {
            name: world::name(name),
            selectors: selectors.iter().map(|text| text.parse::<Selector>().unwrap()).collect(),
            entities: entities.iter().map(|text| text.parse::<Entity>().unwrap()).collect(),
            networks,
            except,
            origin: origin(1),
        }
    })
}

pub fn groups() -> impl Strategy<Value = Vec<Group>> {
    Vec::from(["g1", "g2", "g3"].map(group))
}

pub fn host() -> impl Strategy<Value = Host> {
    let exclude = select(vec![vec![], vec!["uid".to_owned()], vec!["e*".to_owned()]]);
    let include = prop_oneof![
        4 => Just(Vec::new()),
        1 => Just(vec!["app".to_owned(), "u*".to_owned()]),
    ];
    (include, exclude, some(&OTHERS, 2), some(&OTHERS, 2)).prop_map(
        |(include, exclude, remote_hosts, unmanaged)| {
            let networks = |texts: Vec<&str>| {
                let networks: BTreeSet<IpNet> = texts.iter().map(|t| t.parse().unwrap()).collect();
                networks.into_iter().collect()
            };
            let all = world::host();
            Host {
                labels: LabelFilter { include, exclude },
                remote_hosts: networks(remote_hosts),
                unmanaged: networks(unmanaged),
                uplinks: vec![Uplink { interface: UPLINK.to_owned(), origin: origin(1) }],
                flows: Flows { enabled: true, rate: 1_000_000 },
                masquerade: Masquerade { enabled: false, ..all.masquerade.clone() },
                ..all
            }
        },
    )
}

pub fn draft() -> impl Strategy<Value = Draft> {
    (host(), some(&HOST, 4), groups(), endpoints(), policies()).prop_map(
        |(host, addresses, groups, endpoints, policies)| {
            let config = world::config(host, endpoints, policies);
            let groups = groups.into_iter().map(Arc::new).collect();
            let host = addresses.iter().map(|text| text.parse().unwrap()).collect();
            Draft { config: Config { groups, ..config }, host }
        },
    )
}
