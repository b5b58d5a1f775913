//! Counters of rules that are no more.
//!
//! A cookie is its rule's for as long as the rule does and matches what it does, wherever in its policy it stands and over
//! restarts too, so its counter goes on with it. What no plan in force has any more makes room: once no packet can be judged by it, and before the number may
//! be another's.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::datapath::{Maps, Result, abi};
use crate::compile::plan::RuleTable;
use crate::types::Cookie;

/// So many tables are remembered; if forgetting fails for longer, all counters are looked at.
const REMEMBERED: usize = 16;

/// What there may be counters of.
#[derive(Debug, Default)]
pub struct Counted {
    /// The rules of each plan that was in force since counters were last forgotten, the one in force last.
    tables: Vec<Arc<RuleTable>>,
    /// Whether there are no others: not so of what an earlier daemon left.
    all: bool,
}

impl Counted {
    /// A plan with these rules is in force.
    pub fn in_force(&mut self, rules: &Arc<RuleTable>) {
        if self.tables.last().is_some_and(|last| Arc::ptr_eq(last, rules)) {
            return;
        }
        if self.tables.len() == REMEMBERED {
            self.tables.clear();
            self.all = false;
        }
        self.tables.push(Arc::clone(rules));
    }

    /// Deletes the counters of what is not in force. No packet may be judged by what was before any more.
    pub fn forget(&mut self, maps: &Maps) -> Result<()> {
        let counted = || Ok(maps.hits()?.into_iter().map(|(key, _)| Cookie(key.cookie)).collect());
        for cookie in self.gone(counted)? {
            for shadow in [0, 1] {
                maps.delete_hits(&abi::HitKey { cookie: cookie.0, shadow })?;
            }
        }
        if let Some(now) = self.tables.pop() {
            *self = Counted { tables: vec![now], all: true };
        }
        Ok(())
    }

    /// `counted`: what there are counters of; asked only if nothing else says it. Costs what differs.
    fn gone(&self, counted: impl FnOnce() -> Result<BTreeSet<Cookie>>) -> Result<BTreeSet<Cookie>> {
        let Some((now, before)) = self.tables.split_last() else { return Ok(BTreeSet::new()) };
        if self.all {
            return Ok(before.iter().flat_map(|before| before.gone(now)).collect());
        }
        let counted = counted()?.into_iter();
        Ok(counted.filter(|cookie| !now.contains_key(cookie)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::compile::plan::RuleRef;
    use crate::types::{Action, Direction, Mode, Origin, Tier};

    fn table(cookies: &[u32]) -> Arc<RuleTable> {
        let rule = Arc::new(RuleRef {
            policy: "p".parse().unwrap(),
            tier: Tier::Normal,
            mode: Mode::Enforce,
            direction: Direction::Egress,
            rule: Some(0),
            action: Action::Allow,
            origin: Origin { file: Arc::from(Path::new("p.toml")), line: 1, column: 1 },
        });
        let rules = cookies.iter().map(|cookie| (Cookie(*cookie), Arc::clone(&rule)));
        Arc::new(rules.collect())
    }

    fn gone(counted: &Counted) -> Vec<u32> {
        let unasked = || panic!("what there was is known");
        counted.gone(unasked).unwrap().into_iter().map(|cookie| cookie.0).collect()
    }

    #[test]
    fn rules_that_were_there_only_in_between_are_forgotten_too() {
        let mut counted = Counted { tables: vec![table(&[1, 2])], all: true };
        counted.in_force(&table(&[1, 3]));
        assert_eq!(gone(&counted), [2]);
        // The one before could not be settled.
        let last = table(&[1, 4, u32::MAX]);
        counted.in_force(&last);
        counted.in_force(&last);
        assert_eq!(gone(&counted), [2, 3]);
        // What comes back stays.
        counted.in_force(&table(&[1, 2]));
        assert_eq!(gone(&counted), [3, 4, u32::MAX]);
    }

    #[test]
    fn what_is_not_known_is_looked_at() {
        let there = || Ok([1, 2, 9].map(Cookie).into());
        let mut counted = Counted::default();
        assert_eq!(counted.gone(there).unwrap(), BTreeSet::new(), "nothing is in force");
        counted.in_force(&table(&[1, 2]));
        assert_eq!(counted.gone(there).unwrap(), BTreeSet::from([Cookie(9)]));
        let mut counted = Counted { tables: vec![table(&[9])], all: true };
        for cookie in 10..10 + REMEMBERED as u32 {
            counted.in_force(&table(&[1, cookie]));
            assert!(counted.tables.len() <= REMEMBERED);
        }
        assert_eq!(counted.gone(there).unwrap(), BTreeSet::from([Cookie(2), Cookie(9)]));
    }
}
