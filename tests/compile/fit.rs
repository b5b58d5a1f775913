//! What does not fit is refused, saying by how much, and nothing is changed by it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use porin::compile::compile;
use porin::config::model::{Config, Group, Peer, Policy, Rule};
use porin::types::{Mode, PortRange};

use crate::world::*;

/// Why a config does not fit, which must be one reason. What was in force before must stay as it was.
fn refused(large: Config) -> String {
    let small = || config(host(), vec![endpoint("e", "n=0")], vec![]);
    let mut world = World::new(small(), &[]);
    let before = world.commit();
    world.configure(large);
    let snapshot = world.snapshot();
    let faults = compile(&snapshot, &mut world.memory).unwrap_err();
    assert_eq!(faults.len(), 1, "{faults:?}");
    world.configure(small());
    assert_eq!(format!("{before:?}"), format!("{:?}", world.commit()));
    faults[0].to_string()
}

#[test]
fn more_rules_of_a_direction_than_have_an_order_are_refused() {
    let rules = vec![allow(&["entity:host"], &[]); (1 << 18) + 3];
    let policy = policy("long", "n=0", Some(rules), None);
    assert_eq!(
        refused(config(host(), vec![endpoint("e", "n=0")], vec![policy])),
        "the policy table of the endpoints with labels `n=0` does not fit: 262147 rules of one direction, \
         3 more than the 262144 that fit (write fewer policies for them, wider port ranges, or fewer CIDRs)"
    );
}

#[test]
fn source_ports_that_make_too_many_classes_are_refused() {
    let from_port = |port| {
        let source_ports = vec![PortRange::new(port, port).unwrap()];
        Rule { source_ports, ..allow(&[], &["53/udp"]) }
    };
    let rules = (0..140).map(|n| from_port(2 * n + 1)).collect();
    let policy = policy("ports", "n=0", Some(rules), None);
    assert_eq!(
        refused(config(host(), vec![endpoint("e", "n=0")], vec![policy])),
        "the `source-ports` of all rules split each other into 140 classes of ports, 13 more than the 127 that fit \
         (use the same ranges in more rules)"
    );
}

#[test]
fn groups_with_too_many_networks_are_refused() {
    // Two families' worlds and the pools are prefixes, too.
    let network = |n: u32| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from((20 << 24) + 2 * n), 32));
    let group = Group {
        name: name("feeds"),
        selectors: Vec::new(),
        entities: Vec::new(),
        networks: (0..1_000_000).map(network).collect(),
        except: Vec::new(),
        origin: origin(1),
    };
    let rule = Rule { peers: vec![Peer::Group(name("feeds"))], ..allow(&[], &[]) };
    let policy = policy("p", "n=0", None, Some(vec![rule]));
    let config = config(host(), vec![endpoint("e", "n=0")], vec![policy]);
    assert_eq!(
        refused(Config { groups: vec![Arc::new(group)], ..config }),
        "the CIDRs of all rules split into 1000006 prefixes, 6 more than the 1000000 that fit (merge neighbouring CIDRs)"
    );
}

#[test]
fn a_table_that_is_too_large_is_refused_and_memory_stays() {
    let endpoints = || (0..40).map(|i| endpoint(&format!("e{i}"), &format!("n={i}"))).collect();
    let mut world = World::new(config(host(), endpoints(), vec![]), &[]);
    let before = world.commit();
    // Every odd port of every peer: no two make a prefix.
    let odd: Vec<String> = (0..32_768).map(|i| format!("{}/tcp", 2 * i + 1)).collect();
    let odd: Vec<&str> = odd.iter().map(String::as_str).collect();
    let large = policy("large", "n=0", Some(vec![allow(&[""], &odd)]), None);
    world.configure(config(host(), endpoints(), vec![large]));
    let snapshot = world.snapshot();
    let faults = compile(&snapshot, &mut world.memory).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert_eq!(
        faults[0].to_string(),
        "the policy table of the endpoints with labels `n=0` does not fit: 1310721 entries, 310721 more than the 1000000 that fit \
         (write fewer policies for them, wider port ranges, or fewer CIDRs)"
    );
    world.configure(config(host(), endpoints(), vec![]));
    let after = world.commit();
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
}

#[test]
fn cidrs_that_split_each_other_too_often_are_refused_before_they_are_listed() {
    // Each address is in all sets but one: as many classes as rules, each in as many sets.
    let rules = |many: u32| {
        let peer = |i| format!("cidr:0.0.0.0/0!192.0.{}.{}/32", i / 256, i % 256);
        let peers: Vec<String> = (0..many).map(peer).collect();
        let rules = peers.iter().map(|peer| allow(&[peer], &[])).collect();
        policy("mixed", "n=0", None, Some(rules))
    };
    let endpoints = || vec![endpoint("e", "n=0")];
    let mut world = World::new(config(host(), endpoints(), vec![rules(100)]), &[]);
    let before = world.commit();
    world.configure(config(host(), endpoints(), vec![rules(50_000)]));
    let snapshot = world.snapshot();
    let faults = compile(&snapshot, &mut world.memory).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert_eq!(
        faults[0].to_string(),
        "the 50000 different CIDR peers of all rules split each other into too many parts: an address is in \
         too many of them at once, more than 4000000 times over all parts \
         (give rules the same `except`, or let them name only what they mean)"
    );
    world.configure(config(host(), endpoints(), vec![rules(100)]));
    let after = world.commit();
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
}

/// There are 16,383 policy slots.
#[test]
fn a_shadow_policy_for_everybody_needs_few_slots() {
    let endpoints: Vec<_> =
        (0..9000).map(|i| endpoint(&format!("e{i}"), &format!("n={i}"))).collect();
    let shadow = |rule| Policy { mode: Mode::Shadow, ..policy("all", "", Some(vec![rule]), None) };
    let ahead = shadow(allow(&["n=1"], &["80/tcp"]));
    let own = |i| policy(&format!("p{i}"), &format!("n={i}"), Some(vec![]), None);
    let policies: Vec<_> = (0..3).map(own).chain([ahead]).collect();
    let mut world = World::new(config(host(), endpoints.clone(), policies.clone()), &[]);
    let plan = world.commit();
    // Of those whom a policy picks: each has a default of its own, which `all` goes before; all others are alike.
    let shadows: BTreeSet<_> = plan.endpoints.values().map(|e| e.shadow.unwrap()).collect();
    let enforced: BTreeSet<_> = plan.endpoints.values().map(|e| e.policy).collect();
    assert_eq!((enforced.len(), shadows.len()), (9000, 1));
    assert_eq!(plan.policies.len(), 9001);
    assert!(plan.endpoints.values().all(|e| e.features.shadow));
    // Another such policy has another slot while the old one may be looked into.
    let mut edited = policies.clone();
    edited[3] = shadow(allow(&["n=2"], &["80/tcp"]));
    world.configure(config(host(), endpoints.clone(), edited));
    let after = world.commit();
    let now: BTreeSet<_> = after.endpoints.values().map(|e| e.shadow.unwrap()).collect();
    assert_eq!(now.len(), 1);
    assert!(now.is_disjoint(&shadows));
    assert!(after.endpoints.iter().all(|(slot, e)| e.policy == plan.endpoints[slot].policy));
    // One that makes no difference to anybody has none.
    let mut moot = policies;
    moot[3] = Policy { default_deny: false, ..shadow(allow(&["n=none"], &[])) };
    world.configure(config(host(), endpoints, moot));
    let after = world.commit();
    assert_eq!(after.policies.len(), 9000);
    assert!(after.endpoints.values().all(|e| e.shadow.is_none() && !e.features.shadow));
}
