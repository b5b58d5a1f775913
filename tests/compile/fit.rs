//! What does not fit is refused, saying by how much, and nothing is changed by it.

use porin::compile::compile;

use crate::world::*;

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
