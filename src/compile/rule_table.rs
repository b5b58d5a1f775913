//! Which rule a cookie names: a sorted map in parts, so that a table that differs from another by a few rules shares
//! nearly all with it, and is made from it without going through all.

use std::collections::BTreeMap;
use std::ops::Index;
use std::sync::Arc;

use crate::types::Cookie;

use super::plan::RuleRef;

/// Parts by the cookie's highest bits; those are a digest's, so parts are of one size.
const PARTS: usize = 1 << PART_BITS;
const PART_BITS: u32 = 9;

type Part = BTreeMap<Cookie, Arc<RuleRef>>;

/// Cookie -> rule. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct RuleTable {
    parts: Arc<[Arc<Part>]>,
}

impl RuleTable {
    pub fn get(&self, cookie: &Cookie) -> Option<&Arc<RuleRef>> {
        self.part(*cookie).get(cookie)
    }

    pub fn contains_key(&self, cookie: &Cookie) -> bool {
        self.get(cookie).is_some()
    }

    /// In the order of cookies.
    pub fn iter(&self) -> impl Iterator<Item = (&Cookie, &Arc<RuleRef>)> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    pub fn keys(&self) -> impl Iterator<Item = &Cookie> {
        self.iter().map(|(cookie, _)| cookie)
    }

    pub fn values(&self) -> impl Iterator<Item = &Arc<RuleRef>> {
        self.iter().map(|(_, rule)| rule)
    }

    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| part.is_empty())
    }

    /// Cookies that `now` has no more. Costs what differs.
    pub fn gone<'a>(&'a self, now: &'a RuleTable) -> impl Iterator<Item = Cookie> + 'a {
        let differ = |(before, now): &(&Arc<Part>, &Arc<Part>)| !Arc::ptr_eq(before, now);
        let parts = self.parts.iter().zip(now.parts.iter()).filter(differ);
        parts.flat_map(|(before, now)| {
            before.keys().filter(|cookie| !now.contains_key(cookie)).copied()
        })
    }

    /// What the cookie named before.
    pub(super) fn insert(&mut self, cookie: Cookie, rule: Arc<RuleRef>) -> Option<Arc<RuleRef>> {
        self.part_mut(cookie).insert(cookie, rule)
    }

    pub(super) fn remove(&mut self, cookie: &Cookie) {
        self.part_mut(*cookie).remove(cookie);
    }

    /// Takes the parts that are equal from `other`, so that what differs is found without going through all.
    pub(super) fn share(&mut self, other: &RuleTable) {
        let equal = |part: (Arc<Part>, &Arc<Part>)| match part.0 == *part.1 {
            true => Arc::clone(part.1),
            false => part.0,
        };
        self.parts = self.parts.iter().cloned().zip(other.parts.iter()).map(equal).collect();
    }

    #[cfg(test)]
    pub(super) fn is_part_shared(&self, cookie: Cookie, other: &RuleTable) -> bool {
        std::ptr::eq(self.part(cookie), other.part(cookie))
    }

    fn part(&self, cookie: Cookie) -> &Part {
        &self.parts[place(cookie)] // there are `PARTS`
    }

    fn part_mut(&mut self, cookie: Cookie) -> &mut Part {
        let parts = Arc::make_mut(&mut self.parts);
        Arc::make_mut(&mut parts[place(cookie)])
    }
}

fn place(cookie: Cookie) -> usize {
    (cookie.0 >> (u32::BITS - PART_BITS)) as usize
}

impl Default for RuleTable {
    fn default() -> Self {
        let empty = Arc::<Part>::default();
        RuleTable { parts: (0..PARTS).map(|_| Arc::clone(&empty)).collect() }
    }
}

impl Index<&Cookie> for RuleTable {
    type Output = Arc<RuleRef>;

    fn index(&self, cookie: &Cookie) -> &Arc<RuleRef> {
        &self.part(*cookie)[cookie]
    }
}

impl FromIterator<(Cookie, Arc<RuleRef>)> for RuleTable {
    fn from_iter<I: IntoIterator<Item = (Cookie, Arc<RuleRef>)>>(rules: I) -> Self {
        let mut table = RuleTable::default();
        for (cookie, rule) in rules {
            table.insert(cookie, rule);
        }
        table
    }
}

impl<const N: usize> From<[(Cookie, Arc<RuleRef>); N]> for RuleTable {
    fn from(rules: [(Cookie, Arc<RuleRef>); N]) -> Self {
        rules.into_iter().collect()
    }
}
