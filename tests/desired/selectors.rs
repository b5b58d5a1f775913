//! The selector cache says what asking every identity anew would say, and keeps what did not change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use porin::desired::selectors::Selectors;
use porin::types::{Identity, Label, Labels, Selector};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

fn labels() -> impl Strategy<Value = Labels> {
    let pairs = vec![("a", "1"), ("a", "2"), ("b", "1"), ("b", ""), ("c", "x")];
    subsequence(pairs, 0..=4).prop_map(|pairs| {
        let label = |(key, value): (&str, &str)| Label {
            key: key.parse().unwrap(),
            value: value.to_owned(),
        };
        pairs.into_iter().map(label).collect()
    })
}

const SELECTORS: [&str; 9] =
    ["", "a", "!a", "a=1", "a in (1,2),b", "a!=1", "b=,c", "a notin (1),!c", "nobody"];

proptest! {
    #[test]
    fn the_cache_is_always_right(
        steps in proptest::collection::vec(
            (
                proptest::collection::btree_map(256..266u32, labels(), 0..6),
                proptest::collection::vec((select(SELECTORS.to_vec()), any::<bool>()), 0..6),
            ),
            1..10,
        ),
    ) {
        let mut cache = Selectors::default();
        let mut users: BTreeMap<&str, usize> = BTreeMap::new();
        for (identities, uses) in steps {
            for (text, acquire) in uses {
                let selector: Selector = text.parse().unwrap();
                let count = users.entry(text).or_default();
                if acquire {
                    cache.acquire(&selector);
                    *count += 1;
                } else if *count > 0 {
                    cache.release(&selector);
                    *count -= 1;
                }
            }
            let identities: BTreeMap<Identity, Arc<Labels>> =
                identities.into_iter().map(|(n, l)| (Identity(n), Arc::new(l))).collect();
            let before: Vec<_> =
                SELECTORS.iter().map(|text| cache.picks(&text.parse().unwrap())).collect();
            let changed = cache.set_identities(&Arc::new(identities.clone()));
            let mut differs = false;
            for (text, before) in SELECTORS.iter().zip(before) {
                let selector: Selector = text.parse().unwrap();
                let picks = cache.picks(&selector);
                let matching = identities.iter().filter(|(_, labels)| selector.matches(labels));
                let expected: BTreeSet<Identity> = match users.get(text) {
                    Some(1..) => matching.map(|(identity, _)| *identity).collect(),
                    _ => BTreeSet::new(),
                };
                prop_assert_eq!(&*picks, &expected, "{}", text);
                differs |= before != picks;
            }
            prop_assert!(changed || !differs);
        }
    }
}
