//! No number ever means two things to anybody who can still see the older one.

use std::collections::{BTreeMap, BTreeSet};

use porin::desired::numbering::Numbering;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    /// Assign these; true: and commit.
    Assign(BTreeSet<u8>, bool),
    Commit,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = proptest::collection::btree_set(0..20u8, 0..8);
    let step = prop_oneof![
        6 => (keys, proptest::bool::weighted(0.7)).prop_map(|(k, c)| Step::Assign(k, c)),
        1 => Just(Step::Commit),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn numbers_rest_for_two_further_commits(
        recovered in proptest::collection::vec((proptest::option::of(0..20u8), 3..40u32), 0..6),
        steps in steps(),
    ) {
        let mut numbering = Numbering::new(5..=24);
        let mut committed: Vec<BTreeMap<u32, u8>> = Vec::new();
        let mut before = BTreeMap::new();
        for (key, number) in recovered {
            if numbering.recover(key, number) {
                prop_assert!((5..=24).contains(&number));
                prop_assert!(!before.contains_key(&number));
                before.insert(number, key);
            }
        }
        for step in steps {
            if let Step::Assign(keys, _) = &step {
                let without = numbering.assign(keys.iter().copied());
                let held = numbering.held();
                prop_assert!(held.keys().all(|key| keys.contains(key)));
                prop_assert_eq!(held.len() + without.len(), keys.len());
                let numbers: BTreeSet<u32> = held.values().copied().collect();
                prop_assert_eq!(numbers.len(), held.len());
                prop_assert!(numbers.iter().all(|number| (5..=24).contains(number)));
                // Free numbers may be missing only because they rest.
                let taken = held.len() + numbering.resting();
                prop_assert!(without.is_empty() || taken >= 20, "{taken}");
            }
            let now: BTreeMap<u32, u8> =
                numbering.held().iter().map(|(key, number)| (*number, *key)).collect();
            // What was committed last, and the two before it.
            for old in committed.iter().rev().take(3) {
                for (number, key) in &now {
                    prop_assert!(old.get(number).is_none_or(|other| other == key), "{number}");
                }
            }
            if committed.len() < 3 {
                for (number, key) in &now {
                    let strange = before.get(number).is_some_and(|other| *other != Some(*key));
                    prop_assert!(!strange, "recovered {number} means something else");
                }
            }
            if !matches!(step, Step::Assign(_, false)) {
                numbering.committed();
                committed.push(now);
            }
        }
    }
}

#[test]
fn unused_numbers_come_before_rested_ones() {
    let mut numbering = Numbering::new(1..=4);
    let number = |numbering: &mut Numbering<&'static str>, key| {
        numbering.assign([key]);
        numbering.committed();
        numbering.number(key)
    };
    for (key, expected) in [
        ("a", Some(1)),
        ("b", Some(2)),
        ("a", Some(1)),
        ("c", Some(3)),
        ("d", Some(4)),
        ("e", Some(2)),
        ("f", Some(1)),
    ] {
        assert_eq!(number(&mut numbering, key), expected, "{key}");
    }
}

#[test]
fn all_at_once_replaced_by_others_get_numbers_after_two_further_commits() {
    let mut numbering = Numbering::new(1..=2);
    assert!(numbering.assign(["a", "b"]).is_empty());
    numbering.committed();
    let mut commits = 0;
    while !numbering.assign(["c", "d"]).is_empty() {
        numbering.committed();
        commits += 1;
        assert!(commits < 10);
    }
    assert_eq!(commits, 3, "the one that frees them, and two more");
}

#[test]
fn the_whole_range_of_32_bits_is_no_trouble() {
    let mut numbering = Numbering::new(u32::MAX..=u32::MAX);
    assert_eq!(numbering.assign(["a", "b"]), ["b"]);
    assert_eq!(numbering.number("a"), Some(u32::MAX));
}
