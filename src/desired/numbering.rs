//! Small numbers for things, such that no packet ever meets a number that means two things.
//!
//! A number that a generation stops using rests until two further generations have been committed: by then
//! neither side of the datapath's tables, nor a packet in flight, knows its old meaning. A thing that comes back while its
//! number rests gets it back. Numbers that nothing ever had are given out first.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use imbl::{OrdMap, OrdSet, Vector};

/// Rested numbers are kept back, in favour of unused ones, up to this many: their list must not grow for ever.
const KEPT_BACK: usize = 65_536;

/// Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Numbering<K: Ord + Clone> {
    range: RangeInclusive<u32>,
    held: OrdMap<K, u32>,
    /// (commit after which it may be given out, number) -> what it meant.
    resting: OrdMap<(u64, u32), Option<K>>,
    /// What rests, by what it meant.
    former: OrdMap<K, (u64, u32)>,
    /// May be given out; the one that rested longest in front.
    rested: Vector<u32>,
    /// Below it, nothing is unused. Wider than the numbers, so that it can pass the last.
    unused: u64,
    /// Recovered numbers at or above `unused`.
    recovered: OrdSet<u32>,
    commits: u64,
}

impl<K: Ord + Clone> Numbering<K> {
    pub fn new(range: RangeInclusive<u32>) -> Self {
        Numbering {
            unused: u64::from(*range.start()),
            range,
            held: OrdMap::new(),
            resting: OrdMap::new(),
            former: OrdMap::new(),
            rested: Vector::new(),
            recovered: OrdSet::new(),
            commits: 0,
        }
    }

    pub fn number<Q: Ord + ?Sized>(&self, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
    {
        self.held.get(key).copied()
    }

    /// What has a number now.
    pub fn held(&self) -> &OrdMap<K, u32> {
        &self.held
    }

    /// How many numbers wait for further commits.
    pub fn resting(&self) -> usize {
        self.resting.len()
    }

    /// Makes `wanted` what the coming generation uses. New ones get numbers in the order given; those
    /// for which there is none are returned.
    pub fn assign(&mut self, wanted: impl IntoIterator<Item = K>) -> Vec<K> {
        let wanted: Vec<K> = wanted.into_iter().collect();
        let kept: BTreeSet<&K> = wanted.iter().collect();
        let gone: Vec<K> = self.held.keys().filter(|key| !kept.contains(key)).cloned().collect();
        gone.into_iter().for_each(|key| self.release(key));
        wanted.into_iter().filter(|key| self.take(key).is_none()).collect()
    }

    /// The coming generation uses `key`: its number. None: there is none left for it.
    pub fn take(&mut self, key: &K) -> Option<u32> {
        if let Some(number) = self.held.get(key) {
            return Some(*number);
        }
        let number = self.take_back(key).or_else(|| self.fresh())?;
        self.held.insert(key.clone(), number);
        Some(number)
    }

    /// The coming generation does not use `key`. What goes is to be released before what comes is taken.
    pub fn release(&mut self, key: K) {
        if let Some(number) = self.held.remove(&key) {
            self.rest(Some(key), number);
        }
    }

    /// Takes over what an earlier run gave out; a number whose meaning is unknown only rests.
    /// False if the number is out of range or taken.
    pub fn recover(&mut self, key: Option<K>, number: u32) -> bool {
        if !self.range.contains(&number)
            || u64::from(number) < self.unused
            || self.recovered.insert(number).is_some()
        {
            return false;
        }
        match key {
            Some(key) if !self.held.contains_key(&key) => {
                self.held.insert(key, number);
                true
            }
            Some(_) => {
                self.rest(None, number);
                false
            }
            None => {
                self.rest(None, number);
                true
            }
        }
    }

    /// The generation that the last [`assign`](Self::assign) was for is in force.
    pub fn committed(&mut self) {
        self.commits += 1;
        while let Some((place, _)) = self.resting.get_min() {
            let (after, number) = *place;
            if after > self.commits {
                break;
            }
            if let Some(Some(key)) = self.resting.remove(&(after, number)) {
                self.former.remove(&key);
            }
            self.rested.push_back(number);
        }
    }

    fn rest(&mut self, key: Option<K>, number: u32) {
        // The next commit is the one that stops using it; then two further ones.
        let place = (self.commits + 3, number);
        if let Some(key) = &key {
            self.former.insert(key.clone(), place);
        }
        self.resting.insert(place, key);
    }

    fn take_back(&mut self, key: &K) -> Option<u32> {
        let place = self.former.remove(key)?;
        self.resting.remove(&place);
        Some(place.1)
    }

    fn fresh(&mut self) -> Option<u32> {
        if self.rested.len() > KEPT_BACK {
            return self.rested.pop_front();
        }
        while let Ok(number) = u32::try_from(self.unused) {
            if number > *self.range.end() {
                break;
            }
            self.unused += 1;
            if self.recovered.remove(&number).is_none() {
                return Some(number);
            }
        }
        self.rested.pop_front()
    }
}
