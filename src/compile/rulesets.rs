//! Numbers for what tables ask of requests: a flow has room for a number, and the L7 worker knows what it means.
//!
//! One number for equal ones, whoever asks for them. What a number meant stays so for two generations after the last that
//! used it; the worker is told in time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::desired::numbering::Numbering;
use crate::types::RulesetId;
use crate::types::http::{HeaderMatch, HeaderValue, HttpRule, L7, PathPattern, Side};

/// Cloning is cheap.
#[derive(Debug, Clone)]
pub(super) struct Rulesets {
    numbers: Numbering<Arc<Side>>,
    table: Arc<BTreeMap<RulesetId, Arc<Side>>>,
    /// Of all sides that have numbers: see [`WEIGHT`].
    weight: usize,
    /// There were rules about requests. Connections that began with the worker go on with it, so the programs know of it
    /// from then on.
    ever: bool,
}

impl Rulesets {
    pub fn new() -> Self {
        Rulesets {
            numbers: Numbering::new(1..=RulesetId::LAST),
            table: Arc::default(),
            weight: 0,
            ever: false,
        }
    }

    /// What an earlier daemon called them: numbers in flows and in the worker mean what they meant.
    pub fn recover(&mut self, known: BTreeMap<RulesetId, Arc<Side>>) {
        self.ever |= !known.is_empty();
        for (number, side) in known {
            let weight = weight(&side);
            if self.numbers.recover(Some(side), number.0) {
                self.weight += weight;
            }
        }
    }

    /// None: there are too many, or too much in them.
    pub fn number(&mut self, side: Side) -> Option<RulesetId> {
        let side = Arc::new(side);
        if let Some(number) = self.numbers.number(&side) {
            return Some(RulesetId(number));
        }
        let weight = self.weight + weight(&side);
        if weight > WEIGHT {
            return None;
        }
        let number = self.numbers.take(&side)?;
        self.weight = weight;
        Some(RulesetId(number))
    }

    /// `used`: by all tables there are now.
    pub fn retain(&mut self, used: &BTreeSet<RulesetId>) {
        let held: Vec<_> =
            self.numbers.held().iter().map(|(side, id)| (Arc::clone(side), *id)).collect();
        let (kept, gone): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|(_, id)| used.contains(&RulesetId(*id)));
        gone.into_iter().for_each(|(side, _)| self.numbers.release(side));
        self.weight = kept.iter().map(|(side, _)| weight(side)).sum();
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

/// What the worker takes in memory is bounded by this: requests and names that are allowed, in all sets together; those
/// with regular expressions count a hundred times, as they take up to 256 KiB each.
pub(super) const WEIGHT: usize = 1_000_000;

fn weight(side: &Side) -> usize {
    let request = |request: &HttpRule| {
        let in_path = matches!(request.path(), Some(PathPattern::Regex(_)));
        let in_header = |header: &&HeaderMatch| matches!(header.value, Some(HeaderValue::Regex(_)));
        let regular = usize::from(in_path) + request.headers().iter().filter(in_header).count();
        1 + request.headers().len() + 100 * regular
    };
    let of = |l7: &L7| {
        let names = l7.tls.as_ref().map_or(0, |tls| tls.server_names().len());
        names + l7.http.iter().map(request).sum::<usize>()
    };
    side.rules.iter().map(|rule| 1 + of(&rule.l7)).sum()
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
    fn what_the_worker_must_hold_is_bounded() {
        let path = |n: u32| format!("regex:/{n}").parse().unwrap();
        let http = |n| HttpRule::new(None, Some(path(n)), None, Vec::new()).unwrap();
        let many = |first: u32| {
            let l7 = L7 { http: (first..first + 1000).map(http).collect(), tls: None };
            Side { rules: vec![SideRule { cookie: first, l7 }] }
        };
        let mut rulesets = Rulesets::new();
        let held: Vec<_> = (0..10).map(|n| rulesets.number(many(n * 1000))).collect();
        assert!(held[..9].iter().all(Option::is_some));
        assert_eq!(held[9], None);
        assert_eq!(rulesets.number(many(0)), held[0], "what is there is there");
        retain(&mut rulesets, &[held[0].unwrap()]);
        assert!(rulesets.number(many(9000)).is_some());
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
