//! Which policies pick a label set, without asking each of them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::model::Policy;
use crate::types::Labels;
use crate::types::selector::Requirement;

/// Places in the list of policies.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Those that ask for one of some values of a key: key -> value -> policies.
    by_label: HashMap<String, HashMap<String, Vec<u32>>>,
    /// All others.
    rest: Vec<u32>,
}

impl Index {
    pub fn new(policies: &[Arc<Policy>]) -> Self {
        let mut index = Index::default();
        for (place, policy) in (0..).zip(policies) {
            let fewest = policy
                .subject
                .requirements()
                .filter_map(|requirement| match requirement {
                    Requirement::In(key, values) => Some((key, values)),
                    _ => None,
                })
                .min_by_key(|(_, values)| values.len());
            let Some((key, values)) = fewest else {
                index.rest.push(place);
                continue;
            };
            let by_value = index.by_label.entry(key.as_str().to_owned()).or_default();
            for value in values {
                by_value.entry(value.clone()).or_default().push(place);
            }
        }
        index
    }

    /// In the order of the list.
    pub fn picking(&self, labels: &Labels, policies: &[Arc<Policy>]) -> Vec<Arc<Policy>> {
        let asked = labels.iter().filter_map(|(key, value)| {
            self.by_label.get(key.as_str()).and_then(|by_value| by_value.get(value))
        });
        let mut places: Vec<u32> = asked.chain([&self.rest]).flatten().copied().collect();
        places.sort_unstable();
        let policies = places.iter().filter_map(|place| policies.get(*place as usize));
        policies.filter(|policy| policy.subject.matches(labels)).cloned().collect()
    }
}
