//! Which identities each selector picks, kept up to date instead of asked again.
//!
//! A set that did not change stays the same `Arc`, so that who depends on it can tell by the pointer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::HashMap;

use crate::types::selector::Requirement;
use crate::types::{Identity, Labels, Selector};

pub type Picks = Arc<BTreeSet<Identity>>;

/// Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub struct Selectors {
    identities: Arc<BTreeMap<Identity, Arc<Labels>>>,
    /// Label key -> value -> the identities that have it.
    by_label: Index,
    cached: HashMap<Arc<Selector>, Cached>,
}

#[derive(Debug, Clone)]
struct Cached {
    users: usize,
    picks: Picks,
}

impl Selectors {
    /// Takes over what identities there are now. True if any cached selector picks others than before.
    pub fn set_identities(&mut self, identities: &Arc<BTreeMap<Identity, Arc<Labels>>>) -> bool {
        if Arc::ptr_eq(&self.identities, identities) || self.identities == *identities {
            self.identities = Arc::clone(identities);
            return false;
        }
        let before = std::mem::replace(&mut self.identities, Arc::clone(identities));
        let differs = |a: &BTreeMap<Identity, Arc<Labels>>, b: &BTreeMap<Identity, Arc<Labels>>| {
            let missing = |(id, labels): &(&Identity, &Arc<Labels>)| b.get(id) != Some(*labels);
            let pairs = a.iter().filter(missing);
            pairs.map(|(id, labels)| (*id, Arc::clone(labels))).collect::<Vec<_>>()
        };
        let gone = differs(&before, identities);
        let new = differs(identities, &before);
        let index = &mut self.by_label;
        gone.iter().for_each(|(identity, labels)| unindex(index, *identity, labels));
        new.iter().for_each(|(identity, labels)| enter(index, *identity, labels));
        let mut changed = false;
        for (selector, cached) in self.cached.iter_mut() {
            for (identity, _) in &gone {
                if cached.picks.contains(identity) {
                    Arc::make_mut(&mut cached.picks).remove(identity);
                    changed = true;
                }
            }
            for (identity, _) in new.iter().filter(|(_, labels)| selector.matches(labels)) {
                Arc::make_mut(&mut cached.picks).insert(*identity);
                changed = true;
            }
        }
        changed
    }

    /// One more user of `selector`.
    pub fn acquire(&mut self, selector: &Selector) {
        if let Some(cached) = self.cached.get_mut(selector) {
            cached.users += 1;
            return;
        }
        let picks = Arc::new(self.evaluate(selector));
        self.cached.insert(Arc::new(selector.clone()), Cached { users: 1, picks });
    }

    /// One user less; without any, it is forgotten.
    pub fn release(&mut self, selector: &Selector) {
        if let Some(cached) = self.cached.get_mut(selector) {
            cached.users -= 1;
            if cached.users == 0 {
                self.cached.remove(selector);
            }
        }
    }

    /// What a selector picks; nothing if it was never acquired.
    pub fn picks(&self, selector: &Selector) -> Picks {
        self.cached.get(selector).map(|cached| Arc::clone(&cached.picks)).unwrap_or_default()
    }

    /// Asks only the identities that have the rarest label among those required.
    fn evaluate(&self, selector: &Selector) -> BTreeSet<Identity> {
        let candidates = selector.requirements().filter_map(|r| self.candidates(r));
        let matches = |identity: &Identity| {
            self.identities.get(identity).is_some_and(|labels| selector.matches(labels))
        };
        match candidates.min_by_key(|sets| sets.iter().map(|set| set.len()).sum::<usize>()) {
            Some(sets) => sets.into_iter().flatten().copied().filter(matches).collect(),
            None => self.identities.keys().copied().filter(matches).collect(),
        }
    }

    /// The identities that can meet a requirement; none if it does not ask for a label.
    fn candidates(&self, requirement: &Requirement) -> Option<Vec<&BTreeSet<Identity>>> {
        let values = self.by_label.get(requirement.key().as_str());
        match requirement {
            Requirement::Exists(_) => {
                Some(values.into_iter().flat_map(|v| v.values()).map(|set| &**set).collect())
            }
            Requirement::In(_, wanted) => {
                let of =
                    |value: &String| values.and_then(|values| values.get(value)).map(|set| &**set);
                Some(wanted.iter().filter_map(of).collect())
            }
            Requirement::Absent(_) | Requirement::NotIn(..) => None,
        }
    }
}

type Index = HashMap<String, HashMap<String, Arc<BTreeSet<Identity>>>>;

fn enter(index: &mut Index, identity: Identity, labels: &Labels) {
    for (key, value) in labels.iter() {
        let values = index.entry(key.as_str().to_owned()).or_default();
        Arc::make_mut(values.entry(value.to_owned()).or_default()).insert(identity);
    }
}

fn unindex(index: &mut Index, identity: Identity, labels: &Labels) {
    for (key, value) in labels.iter() {
        let Some(values) = index.get_mut(key.as_str()) else { continue };
        if let Some(set) = values.get_mut(value) {
            let set = Arc::make_mut(set);
            set.remove(&identity);
            if set.is_empty() {
                values.remove(value);
            }
        }
        if values.is_empty() {
            index.remove(key.as_str());
        }
    }
}
