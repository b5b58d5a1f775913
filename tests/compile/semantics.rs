//! Cases that a person can check by reading them.

use std::net::IpAddr;

use ipnet::IpNet;
use porin::compile::compile;
use porin::compile::explain::{Outcome, Packet, Party, judge, party};
use porin::compile::plan::{Plan, PolicyKey, PortPrefix, SourceClass};
use porin::config::model::{AddressWish, Attachment, Host, Policy, Uplink};
use porin::desired::snapshot::Adopted;
use porin::desired::{Change, UplinkFact};
use porin::types::{Action, AddressKey, Cookie, Direction, Mac, Peer, Protocol, Verdict};

use crate::world::*;

fn plan(policies: Vec<Policy>) -> Plan {
    let endpoints = vec![endpoint("api", "app=api"), endpoint("db", "app=db")];
    World::new(config(host(), endpoints, policies), &["192.0.2.1", "2001:db8::1"]).commit()
}

fn parse(plan: &Plan, who: &str) -> IpAddr {
    who.parse().unwrap_or_else(|_| address(plan, who, true))
}

fn passes(plan: &Plan, from: &str, to: &str, protocol: Protocol, port: u16) -> bool {
    let (source, destination) = (parse(plan, from), parse(plan, to));
    let judged = judge(plan, &Packet { source, destination, protocol, source_port: 0, port });
    assert!(!matches!(judged.outcome, Outcome::Fault | Outcome::NotOurs), "{judged:?}");
    judged.outcome == Outcome::Allowed
}

#[test]
fn a_denied_port_beats_an_allowed_peer_and_the_other_way_round() {
    let allowed_peer = plan(vec![
        policy("a", "app=db", Some(vec![allow(&["app=api"], &[])]), None),
        policy("b", "app=db", Some(vec![deny(&[], &["80/tcp"])]), None),
    ]);
    assert!(!passes(&allowed_peer, "api", "db", Protocol::TCP, 80));
    assert!(passes(&allowed_peer, "api", "db", Protocol::TCP, 81));
    let denied_peer = plan(vec![policy(
        "a",
        "app=db",
        Some(vec![allow(&[], &["80/tcp"]), deny(&["app=api"], &[]), allow(&["app=api"], &["tcp"])]),
        None,
    )]);
    assert!(!passes(&denied_peer, "api", "db", Protocol::TCP, 80));
    assert!(passes(&denied_peer, "2001:db8::9", "db", Protocol::TCP, 80));
    let one_peer = plan(vec![policy(
        "a",
        "app=db",
        Some(vec![allow(&["app=api"], &["tcp"]), deny(&["app=api"], &["80-443/tcp"])]),
        None,
    )]);
    for (port, open) in [(79, true), (80, false), (200, false), (443, false), (444, true)] {
        assert_eq!(passes(&one_peer, "api", "db", Protocol::TCP, port), open, "{port}");
    }
}

#[test]
fn both_ends_must_agree_and_an_empty_direction_denies_all() {
    let plan = plan(vec![
        policy("a", "app=db", Some(vec![allow(&["app=api"], &["5432/tcp"])]), None),
        policy("b", "app=api", None, Some(vec![])),
    ]);
    assert!(!passes(&plan, "api", "db", Protocol::TCP, 5432));
    assert!(passes(&plan, "db", "192.0.2.1", Protocol::TCP, 1));
    assert!(!passes(&plan, "api", "192.0.2.1", Protocol::TCP, 1));
    assert!(passes(&plan, "192.0.2.1", "api", Protocol::TCP, 1));
}

#[test]
fn a_denial_names_the_first_of_several() {
    let ingress = || Some(vec![allow(&["app=db"], &[]), deny(&["app=api"], &["80/tcp"])]);
    let plan = plan(vec![
        policy("z", "app=db", ingress(), None),
        policy("b", "", Some(vec![deny(&[], &["tcp"])]), None),
        policy("c", "app=db", ingress(), None),
    ]);
    let (source, destination) = (address(&plan, "api", true), address(&plan, "db", true));
    let judged = judge(
        &plan,
        &Packet { source, destination, protocol: Protocol::TCP, source_port: 0, port: 80 },
    );
    let rule = &plan.rules[&judged.ingress.unwrap().cookie];
    assert_eq!((rule.policy.as_str(), rule.rule), ("b", Some(0)));
    let judged = judge(
        &plan,
        &Packet { source, destination, protocol: Protocol::UDP, source_port: 0, port: 80 },
    );
    let rule = &plan.rules[&judged.ingress.unwrap().cookie];
    assert_eq!((rule.policy.as_str(), rule.rule, rule.action), ("b", None, Action::Deny));
}

#[test]
fn every_table_has_both_defaults() {
    let plan = plan(vec![policy("a", "app=db", Some(vec![allow(&[], &[])]), None)]);
    assert_eq!(plan.policies.len(), 2);
    for table in plan.policies.values() {
        for direction in Direction::BOTH {
            let (peer, source, ports) = (Peer::ANY, SourceClass::ANY, PortPrefix::Any);
            let key = PolicyKey { peer, direction, source, ports };
            let entry = table.entries.iter().find(|(k, _)| *k == key);
            assert_eq!(entry.unwrap().1.verdict, Verdict::Allow);
        }
        assert!(table.entries.is_sorted_by(|(a, _), (b, _)| a < b));
    }
}

#[test]
fn what_is_covered_already_makes_no_entry() {
    let ingress = vec![
        deny(&["app=api"], &["tcp"]),
        deny(&["app=api"], &["80/tcp"]),
        allow(&["app=api"], &["443/tcp"]),
        allow(&["app=api"], &["53/udp"]),
    ];
    let plan = plan(vec![policy("a", "app=db", Some(ingress), None)]);
    let db = plan.endpoints.values().find(|e| e.endpoint.name.as_str() == "db").unwrap();
    let peers = plan.policies[&db.policy].entries.iter().filter(|(key, _)| key.peer != Peer::ANY);
    assert_eq!(peers.count(), 2);
}

#[test]
fn the_host_the_pools_and_the_world_are_told_apart() {
    let plan = plan(vec![policy(
        "a",
        "app=db",
        None,
        Some(vec![allow(&["cidr:192.0.2.0/24!192.0.2.64/26", "cidr:fd00::/8"], &[])]),
    )]);
    let who = |text: &str| party(&plan, text.parse().unwrap()).unwrap();
    assert!(matches!(who("192.0.2.1"), Party::Host { .. }));
    assert!(matches!(who("fd00:1::1"), Party::Host { .. }), "the host's own in the pool");
    assert!(matches!(who("10.1.0.1"), Party::Host { .. }));
    assert_eq!(who("fd00:1::2:3:4"), Party::Unassigned);
    assert!(matches!(who("fd00:2::1"), Party::World { .. }));
    assert_eq!(plan.host_sources, ["fd00:1::1", "10.1.0.1"].map(|a| a.parse::<IpAddr>().unwrap()));
    for (to, open) in [
        ("192.0.2.1", true),
        ("192.0.2.63", true),
        ("192.0.2.64", false),
        ("192.0.2.127", false),
        ("192.0.2.128", true),
        ("192.0.3.0", false),
        ("fd00:1::1", true),
        ("fd00:1::2:3:4", false),
        ("fd00:2::1", true),
        ("api", false),
    ] {
        assert_eq!(passes(&plan, "db", to, Protocol::UDP, 1), open, "{to}");
    }
    let kinds: Vec<_> = plan.classes.values().map(|class| class.kind).collect();
    for kind in ["host", "world", "pool"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    let described = plan.classes.values().find(|class| class.cidrs.len() == 1).unwrap();
    assert!(
        described.cidrs[0].starts_with("192.0.2.0/24 except") || &*described.cidrs[0] == "fd00::/8"
    );
}

#[test]
fn cidrs_of_policies_without_subjects_make_no_classes() {
    let rules = || Some(vec![allow(&["cidr:203.0.113.0/24"], &[])]);
    let none = plan(vec![policy("a", "app=nobody", None, rules())]);
    assert_eq!(none.prefixes, plan(vec![]).prefixes);
    assert_ne!(none.prefixes, plan(vec![policy("a", "app=db", None, rules())]).prefixes);
}

#[test]
fn programs_have_what_their_endpoints_need() {
    let fact = |interface: &str, address4: Option<&str>| UplinkFact {
        interface: interface.to_owned(),
        ifindex: 3,
        mac: Mac([2, 0, 0, 0, 0, 1]),
        mtu: 1400,
        address4: address4.map(|text| text.parse().unwrap()),
    };
    let uplinks = vec![Uplink { interface: "up0".to_owned(), origin: origin(1) }];
    let six =
        porin::config::model::Endpoint { ipv4: AddressWish::None, ..endpoint("six", "app=six") };
    let endpoints = vec![endpoint("api", "app=api"), endpoint("db", "app=db"), six];
    let policies = vec![policy("a", "app=db", None, Some(vec![]))];
    let config = config(Host { uplinks, ..host() }, endpoints, policies);
    let mut world = World::new(config, &[]);
    world.desired.apply(Change::Uplinks(vec![fact("up0", Some("192.0.2.1"))]));
    let plan = world.commit();
    let of = |name: &str| {
        let found = plan.endpoints.values().find(|e| e.endpoint.name.as_str() == name);
        let found = found.unwrap();
        assert_eq!(found.endpoint.made().unwrap().mtu, 1400);
        found.features
    };
    let (api, db, six) = (of("api"), of("db"), of("six"));
    assert!(api.masquerade && api.ipv4 && api.ipv6 && !api.egress_policy && !api.ingress_policy);
    assert!(db.egress_policy);
    assert!(!six.ipv4 && !six.masquerade && six.nat_ports == (0, 0));
    let uplink = plan.uplinks.values().next().unwrap().features;
    assert!(uplink.ipv4 && uplink.ipv6 && uplink.masquerade && uplink.egress_policy);
    world.desired.apply(Change::Uplinks(vec![fact("up0", None)]));
    // Without an address all that would have to be masqueraded is dropped there.
    let plan = world.commit();
    let uplink = plan.uplinks.values().next().unwrap();
    assert!(uplink.features.masquerade && uplink.uplink.address4.is_none());
}

#[test]
fn an_adopted_endpoint_is_judged_alike_and_its_address_is_nobody_else_s() {
    let attachment = Attachment::Adopted { interface: "veth7".to_owned() };
    let outside = "172.17.0.7".parse().unwrap();
    let seven = porin::config::model::Endpoint {
        attachment,
        ipv6: AddressWish::None,
        ipv4: AddressWish::Fixed(outside),
        ..endpoint("seven", "app=api")
    };
    let endpoints = vec![endpoint("api", "app=api"), endpoint("db", "app=db"), seven];
    let policies = vec![policy("a", "app=db", Some(vec![allow(&["app=api"], &[])]), None)];
    let mut world = World::new(config(host(), endpoints, policies), &[]);
    // There, or not.
    for found in [true, false] {
        let interface = match found {
            true => Ok(Adopted { ifindex: 7, via: 3 }),
            false => Err("there is no interface `veth7`".to_owned()),
        };
        let interfaces = FromIterator::from_iter([("seven".parse().unwrap(), interface)]);
        world.desired.apply(Change::Interfaces(interfaces));
        let (snapshot, _) = world.desired.snapshot().unwrap();
        let plan = compile(&snapshot, &mut world.memory).unwrap();
        world.desired.committed();
        world.memory.committed();
        let prefix = &plan.prefixes.entries[&IpNet::from(outside)];
        assert!(prefix.pool && !prefix.host);
        assert_eq!(plan.addresses.contains_key(&AddressKey::from(outside)), found);
        let of = |name: &str| plan.endpoints.values().find(|e| e.endpoint.name.as_str() == name);
        assert_eq!(of("api").unwrap().features.adopts, found);
        assert!(!of("api").unwrap().features.adopted);
        let destination = address(&plan, "db", false);
        let packet = Packet {
            source: outside,
            destination,
            protocol: Protocol::TCP,
            source_port: 1,
            port: 2,
        };
        let judged = judge(&plan, &packet);
        match of("seven") {
            Some(seven) => {
                assert!(
                    seven.features.adopted && !seven.features.masquerade && !seven.features.ipv6
                );
                assert_eq!(judged.outcome, Outcome::Allowed);
            }
            None => assert_ne!(judged.outcome, Outcome::Allowed),
        }
    }
}

#[test]
fn without_policies_all_may_pass_and_nobody_is_named() {
    let plan = plan(vec![]);
    let (source, destination) = (address(&plan, "api", false), address(&plan, "db", false));
    let judged = judge(
        &plan,
        &Packet { source, destination, protocol: Protocol(47), source_port: 0, port: 0 },
    );
    assert_eq!(judged.outcome, Outcome::Allowed);
    assert_eq!(judged.egress.unwrap().cookie, Cookie::NONE);
    assert!(plan.rules.is_empty());
}
