//! What is under the numbers that tables have in the kernel, and which to take next. Pure.
//!
//! To put a table under a number is slow: the kernel waits until no packet can be in the one that was there.
//! So there are always some empty ones, *spares*, that a commit only has to fill. A table that is filled
//! stays as it is; when nothing refers to it any more it is *stale*, and at some time, after a commit, a
//! new spare takes its place.

use std::collections::{BTreeMap, BTreeSet};

use super::datapath::TableKind;
use crate::compile::plan::Digest;

/// The tables of one kind, by number. A number that is not here has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    tables: BTreeMap<u32, Content>,
    /// Those that are known.
    whole: BTreeMap<Digest, u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A spare.
    Empty,
    Whole(Digest),
    /// An earlier daemon's, or one that could not be filled.
    Unknown,
}

/// No number is free: both sides refer to all of them.
#[derive(Debug, thiserror::Error)]
#[error("there are no more than {0} tables of a kind")]
pub struct Exhausted(pub u32);

/// How many spares there should be, and how few may be left before more are made. As many tables may be stale.
const fn spares(kind: TableKind) -> (usize, usize) {
    match kind {
        TableKind::Policy => (64, 32),
        TableKind::Prefix => (4, 2),
    }
}

impl Numbers {
    pub fn note(&mut self, number: u32, content: Content) {
        if let Some(Content::Whole(digest)) = self.tables.insert(number, content)
            && self.whole.get(&digest) == Some(&number)
        {
            self.whole.remove(&digest);
        }
        if let Content::Whole(digest) = content {
            self.whole.insert(digest, number);
        }
    }

    pub fn content(&self, number: u32) -> Option<Content> {
        self.tables.get(&number).copied()
    }

    /// The table that holds just this.
    pub fn holding(&self, digest: &Digest) -> Option<u32> {
        self.whole.get(digest).copied()
    }

    /// `count` numbers to be filled, and those of them that need a new table first. `used`: what either side
    /// refers to, or is about to.
    pub fn take(
        &self,
        kind: TableKind,
        count: usize,
        used: &BTreeSet<u32>,
    ) -> Result<(Vec<u32>, Vec<u32>), Exhausted> {
        let mut taken: Vec<u32> = self.spares().take(count).collect();
        let missing = count - taken.len();
        let anew: Vec<u32> =
            self.stale(used).chain(self.vacant(kind, used)).take(missing).collect();
        if anew.len() < missing {
            return Err(Exhausted(kind.numbers() - 1));
        }
        taken.extend(&anew);
        Ok((taken, anew))
    }

    /// Where to put new spares, if it is time to: once for many commits, as it takes a while.
    pub fn replenish(&self, kind: TableKind, used: &BTreeSet<u32>) -> Vec<u32> {
        let (enough, few) = spares(kind);
        let there = self.spares().count();
        let mut places: Vec<u32> = self.stale(used).collect();
        if there >= few && places.len() <= enough - few {
            return Vec::new();
        }
        let missing = enough.saturating_sub(there + places.len());
        places.extend(self.vacant(kind, used).take(missing));
        places
    }

    fn spares(&self) -> impl Iterator<Item = u32> {
        let empty = self.tables.iter().filter(|(_, content)| **content == Content::Empty);
        empty.map(|(number, _)| *number)
    }

    fn stale(&self, used: &BTreeSet<u32>) -> impl Iterator<Item = u32> {
        let filled = self.tables.iter().filter(|(_, content)| **content != Content::Empty);
        filled.map(|(number, _)| *number).filter(|number| !used.contains(number))
    }

    /// A number may be referred to without a table, if someone took the table of tables away.
    fn vacant(&self, kind: TableKind, used: &BTreeSet<u32>) -> impl Iterator<Item = u32> {
        (1..kind.numbers())
            .filter(|number| !self.tables.contains_key(number) && !used.contains(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: TableKind = TableKind::Prefix;

    #[test]
    fn spares_are_taken_first_then_stale_ones_then_new_ones() {
        let mut numbers = Numbers::default();
        numbers.note(1, Content::Whole([1; 16]));
        numbers.note(2, Content::Unknown);
        numbers.note(3, Content::Empty);
        let used = BTreeSet::from([1]);
        assert_eq!(numbers.take(KIND, 1, &used).unwrap(), (vec![3], vec![]));
        assert_eq!(numbers.take(KIND, 3, &used).unwrap(), (vec![3, 2, 4], vec![2, 4]));
        assert!(numbers.take(KIND, 15, &used).is_err(), "one of fifteen is in use");
        // 4 has no table, but is referred to all the same.
        assert_eq!(numbers.take(KIND, 3, &BTreeSet::from([1, 4])).unwrap().0, [3, 2, 5]);
    }

    #[test]
    fn replenishing_waits_until_few_are_left_or_many_are_stale() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.replenish(KIND, &BTreeSet::new()), [1, 2, 3, 4]);
        (1..=4).for_each(|number| numbers.note(number, Content::Empty));
        assert!(numbers.replenish(KIND, &BTreeSet::new()).is_empty());
        numbers.note(1, Content::Whole([1; 16]));
        numbers.note(2, Content::Whole([2; 16]));
        assert!(numbers.replenish(KIND, &BTreeSet::new()).is_empty());
        numbers.note(3, Content::Unknown);
        assert_eq!(numbers.replenish(KIND, &BTreeSet::from([2])), [1, 3, 5]);
    }

    #[test]
    fn a_table_is_found_by_what_it_holds_now() {
        let mut numbers = Numbers::default();
        numbers.note(1, Content::Whole([1; 16]));
        assert_eq!(numbers.holding(&[1; 16]), Some(1));
        numbers.note(1, Content::Unknown);
        assert_eq!(numbers.holding(&[1; 16]), None);
    }
}
