//! Numbers for what tables ask of requests: a flow has room for a number, and the L7 worker knows what it means.
//!
//! One number for equal ones, whoever asks for them. What a number meant stays so for two generations after the last that
//! used it; the worker is told in time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::desired::numbering::Numbering;
use crate::types::RulesetId;
use crate::types::http::Side;

/// Cloning is cheap.
#[derive(Debug, Clone)]
pub(super) struct Rulesets {
    numbers: Numbering<Arc<Side>>,
    table: Arc<BTreeMap<RulesetId, Arc<Side>>>,
    /// There were rules about requests. Connections that began with the worker go on with it, so the programs know of it
    /// from then on.
    ever: bool,
}

impl Rulesets {
    pub fn new() -> Self {
        Rulesets {
            numbers: Numbering::new(1..=RulesetId::LAST),
            table: Arc::default(),
            ever: false,
        }
    }

    /// What an earlier daemon called them: numbers in flows and in the worker mean what they meant.
    pub fn recover(&mut self, known: BTreeMap<RulesetId, Arc<Side>>) {
        self.ever |= !known.is_empty();
        for (number, side) in known {
            self.numbers.recover(Some(side), number.0);
        }
    }

    /// None: there are too many.
    pub fn number(&mut self, side: Side) -> Option<RulesetId> {
        self.numbers.take(&Arc::new(side)).map(RulesetId)
    }

    /// `used`: by all tables there are now.
    pub fn retain(&mut self, used: &BTreeSet<RulesetId>) {
        let held: Vec<_> =
            self.numbers.held().iter().map(|(side, id)| (Arc::clone(side), *id)).collect();
        let (kept, gone): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|(_, id)| used.contains(&RulesetId(*id)));
        gone.into_iter().for_each(|(side, _)| self.numbers.release(side));
        let table: BTreeMap<_, _> =
            kept.into_iter().map(|(side, id)| (RulesetId(id), side)).collect();
        if *self.table != table {
            self.ever |= !table.is_empty();
            self.table = Arc::new(table);
        }
    }

    pub fn committed(&mut self) {
        self.numbers.committed();
    }

    /// Those in use.
    pub fn table(&self) -> &Arc<BTreeMap<RulesetId, Arc<Side>>> {
        &self.table
    }

    /// Whether there is anything to give up.
    pub fn is_empty(&self) -> bool {
        self.numbers.held().is_empty()
    }

    pub fn ever(&self) -> bool {
        self.ever
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::http::SideRule;

    fn side(cookie: u32) -> Side {
        Side { rules: vec![SideRule { cookie, l7: Default::default() }] }
    }

    fn retain(rulesets: &mut Rulesets, used: &[RulesetId]) {
        rulesets.retain(&used.iter().copied().collect());
        rulesets.committed();
    }

    #[test]
    fn a_number_means_one_thing_for_as_long_as_a_flow_may_have_it() {
        let mut rulesets = Rulesets::new();
        let a = rulesets.number(side(1)).unwrap();
        assert_eq!(rulesets.number(side(1)), Some(a));
        let b = rulesets.number(side(2)).unwrap();
        retain(&mut rulesets, &[a, b]);
        assert_eq!(rulesets.table().len(), 2);
        retain(&mut rulesets, &[b]);
        assert_eq!(*rulesets.table().get(&b).unwrap().as_ref(), side(2));
        let c = rulesets.number(side(3)).unwrap();
        assert!(c != a && c != b);
        assert_eq!(rulesets.number(side(1)), Some(a), "what comes back is called as before");
        retain(&mut rulesets, &[]);
        assert!(rulesets.table().is_empty() && rulesets.ever());
    }

    #[test]
    fn what_an_earlier_daemon_called_them_holds() {
        let mut rulesets = Rulesets::new();
        let known = [(RulesetId(7), Arc::new(side(1))), (RulesetId(1), Arc::new(side(2)))];
        rulesets.recover(known.into_iter().collect());
        assert!(rulesets.ever());
        assert_eq!(rulesets.number(side(1)), Some(RulesetId(7)));
        let new = rulesets.number(side(3)).unwrap();
        assert!(new != RulesetId(7) && new != RulesetId(1));
        retain(&mut rulesets, &[RulesetId(7), new]);
        assert_eq!(rulesets.number(side(2)), Some(RulesetId(1)));
    }
}
