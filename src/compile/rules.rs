//! Cookies: 32-bit names of rules, the same on every host and after every restart, and what they mean.
//!
//! A cookie is a digest of policy name, direction and index. Of two that meet, the one that comes first in the order of
//! (policy, direction, index) keeps it and the other takes the next that is free. Lines do not matter: moving a rule in its
//! file changes only what its cookie means.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::model::Policy;
use crate::desired::digest;
use crate::types::{Action, Cookie, Direction, Name};

use super::plan::{RuleRef, RuleTable};

/// Index of a rule in its policy and direction; none: the default.
type Index = Option<u32>;

/// The rules of one policy by direction and index, with the cookies that they have unless somebody else does.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    name: Name,
    rules: Vec<(Cookie, Arc<RuleRef>)>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Cookies {
    table: Arc<RuleTable>,
    /// Those that did not get what they wanted.
    moved: Arc<BTreeMap<(Name, Direction, Index), Cookie>>,
}

impl Wanted {
    pub fn new(policy: &Policy) -> Self {
        Wanted { name: policy.name.clone(), rules: wanted(policy, hash) }
    }
}

impl Cookies {
    pub fn table(&self) -> &Arc<RuleTable> {
        &self.table
    }

    pub fn cookie(&self, wanted: &Wanted, direction: Direction, rule: Index) -> Cookie {
        if !self.moved.is_empty() {
            let key = (wanted.name.clone(), direction, rule);
            if let Some(cookie) = self.moved.get(&key) {
                return *cookie;
            }
        }
        let found = wanted
            .rules
            .binary_search_by_key(&(direction, rule), |(_, known)| (known.direction, known.rule));
        found.map_or(Cookie::NONE, |at| wanted.rules[at].0)
    }

    /// Takes `old` out and `new` in. `all`: what is there then, by name. True if others' cookies changed.
    pub fn update<'a>(
        &mut self,
        old: impl Iterator<Item = &'a Wanted>,
        new: impl Iterator<Item = &'a Wanted>,
        all: impl Iterator<Item = &'a Wanted>,
    ) -> bool {
        if self.moved.is_empty() && self.exchange(old, new) {
            return false;
        }
        let before = Arc::clone(&self.moved);
        self.rebuild(all);
        before != self.moved
    }

    /// False if two cookies met: the table is of no use then.
    fn exchange<'a>(
        &mut self,
        old: impl Iterator<Item = &'a Wanted>,
        new: impl Iterator<Item = &'a Wanted>,
    ) -> bool {
        let table = Arc::make_mut(&mut self.table);
        for (cookie, _) in old.flat_map(|wanted| &wanted.rules) {
            table.remove(cookie);
        }
        new.flat_map(|wanted| &wanted.rules)
            .all(|(cookie, rule)| table.insert(*cookie, Arc::clone(rule)).is_none())
    }

    fn rebuild<'a>(&mut self, all: impl Iterator<Item = &'a Wanted>) {
        let mut table = RuleTable::default();
        let mut moved = BTreeMap::new();
        for wanted in all {
            for (cookie, rule) in &wanted.rules {
                let mut free = *cookie;
                while free == Cookie::NONE || table.contains_key(&free) {
                    free = Cookie(free.0.wrapping_add(1));
                }
                if free != *cookie {
                    moved.insert((wanted.name.clone(), rule.direction, rule.rule), free);
                }
                table.insert(free, Arc::clone(rule));
            }
        }
        self.table = Arc::new(table);
        self.moved = Arc::new(moved);
    }
}

fn hash(policy: &Name, direction: Direction, rule: Index) -> u32 {
    let direction = [direction as u8];
    let index = rule.map_or(0, |rule| u64::from(rule) + 1).to_be_bytes();
    let parts = [b"rule".as_slice(), policy.as_str().as_bytes(), &direction, &index];
    u32::from_be_bytes(digest::head(digest::digest(parts)))
}

fn wanted(
    policy: &Policy,
    hash: impl Fn(&Name, Direction, Index) -> u32,
) -> Vec<(Cookie, Arc<RuleRef>)> {
    let mut all = Vec::new();
    for direction in Direction::BOTH {
        let Some(rules) = policy.rules(direction) else { continue };
        let default = (None, Action::Deny, policy.default_origin(direction));
        let default = policy.default_deny.then_some(default);
        let rules = (0..).zip(rules).map(|(index, rule)| (Some(index), rule.action, &rule.origin));
        for (rule, action, origin) in default.into_iter().chain(rules) {
            let cookie = Cookie(hash(&policy.name, direction, rule).max(1));
            let (tier, mode, origin) = (policy.tier, policy.mode, origin.clone());
            let policy = policy.name.clone();
            let named = RuleRef { policy, tier, mode, direction, rule, action, origin };
            all.push((cookie, Arc::new(named)));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Mode, Origin, Tier};
    use std::path::Path;

    fn policy(name: &str, hashes: &[u32]) -> Wanted {
        let origin = Origin { file: Arc::from(Path::new("p.toml")), line: 1, column: 1 };
        let rule = |(index, hash): (u32, &u32)| {
            let rule = RuleRef {
                policy: name.parse().unwrap(),
                tier: Tier::Normal,
                mode: Mode::Enforce,
                direction: Direction::Egress,
                rule: Some(index),
                action: Action::Allow,
                origin: origin.clone(),
            };
            (Cookie(*hash), Arc::new(rule))
        };
        Wanted { name: name.parse().unwrap(), rules: (0..).zip(hashes).map(rule).collect() }
    }

    fn cookies(cookies: &Cookies, policy: &Wanted) -> Vec<u32> {
        let cookie = |i| cookies.cookie(policy, Direction::Egress, Some(i)).0;
        (0..policy.rules.len() as u32).map(cookie).collect()
    }

    #[test]
    fn those_that_meet_are_settled_alike_whatever_came_first() {
        let (a, b) = (policy("a", &[7, u32::MAX]), policy("b", &[7, 8, u32::MAX]));
        let mut one = Cookies::default();
        assert!(!one.update([].into_iter(), [&b].into_iter(), [&b].into_iter()));
        assert_eq!(cookies(&one, &b), [7, 8, u32::MAX]);
        assert!(one.update([].into_iter(), [&a].into_iter(), [&a, &b].into_iter()));
        let mut other = Cookies::default();
        other.update([].into_iter(), [&a, &b].into_iter(), [&a, &b].into_iter());
        for both in [&one, &other] {
            assert_eq!(cookies(both, &a), [7, u32::MAX]);
            assert_eq!(cookies(both, &b), [8, 9, 1], "never 0");
            assert_eq!(both.table().len(), 5);
        }
        assert!(one.update([&a].into_iter(), [].into_iter(), [&b].into_iter()));
        assert_eq!(cookies(&one, &b), [7, 8, u32::MAX]);
    }
}
