//! Cookies: 32-bit names of rules, the same on every host and after every restart, and what they mean.
//!
//! A cookie is a digest of policy name, direction and what the rule is (`rule_content`); of a default, of policy name and
//! direction. Where it stands does not matter: a rule before which another is put, or whose file grows, keeps its cookie
//! and so its count, and only what the cookie means changes. In tiers where the order decides it may get other packets than
//! before, and is still the same rule. One whose action or match changes is another, and is counted from nothing.
//! Equal rules of one policy and direction are told apart by which of them they are.
//!
//! Of two cookies that meet by chance, the one that comes first in the order of (policy, direction, index) keeps it and the
//! other takes the next that is free.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::config::model::Policy;
use crate::desired::digest;
use crate::types::{Action, Cookie, Direction, Name, Origin};

use super::plan::{RuleRef, RuleTable};
use super::rule_content::content;

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
        Wanted { name: policy.name.clone(), rules: wanted(policy) }
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
        let (mut old, mut new) = (old.peekable(), new.peekable());
        if old.peek().is_none() && new.peek().is_none() {
            return false;
        }
        let before = self.clone();
        if self.moved.is_empty() && self.exchange(old, new) {
            return false;
        }
        self.rebuild(all);
        Arc::make_mut(&mut self.table).share(&before.table);
        before.moved != self.moved
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

/// `nth`: which of the policy's that are this in this direction.
fn cookie(policy: &Name, direction: Direction, what: &[u8], nth: u32) -> Cookie {
    let (direction, nth) = ([direction as u8], nth.to_be_bytes());
    let parts = [b"rule".as_slice(), policy.as_str().as_bytes(), &direction, what, &nth];
    Cookie(u32::from_be_bytes(digest::head(digest::digest(parts))).max(1))
}

fn wanted(policy: &Policy) -> Vec<(Cookie, Arc<RuleRef>)> {
    let mut all = Vec::new();
    for direction in Direction::BOTH {
        let Some(rules) = policy.rules(direction) else { continue };
        let mut equal: HashMap<Vec<u8>, u32> = HashMap::new();
        let mut add = |rule, action, origin: &Origin, what: Vec<u8>| {
            let nth = equal.get(&what).copied().unwrap_or_default();
            let cookie = cookie(&policy.name, direction, &what, nth);
            equal.insert(what, nth + 1);
            let (tier, mode, origin) = (policy.tier, policy.mode, origin.clone());
            let policy = policy.name.clone();
            let named = RuleRef { policy, tier, mode, direction, rule, action, origin };
            all.push((cookie, Arc::new(named)));
        };
        if policy.default_deny {
            let origin = policy.default_origin(direction);
            add(None, Action::Deny, origin, b"default".to_vec());
        }
        for (index, rule) in (0..).zip(rules) {
            add(Some(index), rule.action, &rule.origin, content(rule));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{Peer, Rule};
    use crate::types::selector::Requirement;
    use crate::types::{Mode, PortRange, Tier};
    use std::path::Path;

    fn origin(line: u32) -> Origin {
        Origin { file: Arc::from(Path::new("p.toml")), line, column: 1 }
    }

    fn policy(name: &str, hashes: &[u32]) -> Wanted {
        let origin = origin(1);
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
    fn rule(peers: &[&str], ports: &[&str]) -> Rule {
        let ports = ports.iter().map(|text| text.parse::<crate::types::PortMatch>().unwrap());
        Rule {
            action: Action::Allow,
            peers: peers.iter().map(|p| Peer::Selector(p.parse().unwrap())).collect(),
            ports: ports.map(Into::into).collect(),
            source_ports: Vec::new(),
            match_endpoints: false,
            l7: Default::default(),
            origin: origin(1),
        }
    }

    /// The cookies of a policy's default, and of its rules.
    fn of(name: &str, direction: Direction, rules: Vec<Rule>) -> Vec<u32> {
        let (ingress, egress) = match direction {
            Direction::Ingress => (Some(rules), None),
            Direction::Egress => (None, Some(rules)),
        };
        let policy = Policy {
            name: name.parse().unwrap(),
            subject: "".parse().unwrap(),
            tier: Tier::Normal,
            priority: 0,
            default_deny: true,
            mode: Mode::Enforce,
            ingress,
            egress,
            origin: origin(1),
            ingress_origin: None,
            egress_origin: None,
        };
        wanted(&policy).into_iter().map(|(cookie, _)| cookie.0).collect()
    }

    /// Where cookies meet the whole table is made anew; what is as before is shared all the same.
    #[test]
    fn what_an_edit_leaves_alone_is_shared() {
        let far = 1 << 31;
        let (a, b) = (policy("a", &[7, far]), policy("b", &[7, far]));
        let mut cookies = Cookies::default();
        cookies.update([].into_iter(), [&a, &b].into_iter(), [&a, &b].into_iter());
        let before = Arc::clone(cookies.table());
        assert!(!cookies.update([].into_iter(), [].into_iter(), [&a, &b].into_iter()));
        assert!(Arc::ptr_eq(&before, cookies.table()), "nothing to do");
        let edited = policy("b", &[7]);
        cookies.update([&b].into_iter(), [&edited].into_iter(), [&a, &edited].into_iter());
        let gone: Vec<u32> = before.gone(cookies.table()).map(|cookie| cookie.0).collect();
        assert_eq!(gone, [far + 1]);
        assert!(cookies.table().is_part_shared(Cookie(7), &before));
        assert!(!cookies.table().is_part_shared(Cookie(far), &before));
    }

    #[test]
    fn a_cookie_is_what_the_rule_is_and_not_where_it_stands() {
        let (web, ssh) = (|| rule(&["app=a", "app=b"], &["80/tcp"]), || rule(&[], &["22/tcp"]));
        let rules = |rules| of("p", Direction::Ingress, rules);
        let before = rules(vec![web(), ssh()]);
        let [default, of_web, of_ssh] = before[..] else { panic!("{before:?}") };
        assert_eq!(rules(vec![ssh(), web()]), [default, of_ssh, of_web]);
        let new = rules(vec![rule(&["app=c"], &[]), web(), ssh()]);
        assert_eq!((new[0], &new[2..]), (default, &[of_web, of_ssh][..]));
        let turned = Rule { origin: origin(9), ..rule(&["app=b", "app=a"], &["80/tcp"]) };
        assert_eq!(rules(vec![turned, ssh()]), before);
        // Whatever it does or matches otherwise makes it another.
        let mut others = vec![
            Rule { action: Action::Deny, ..web() },
            Rule { match_endpoints: true, ..web() },
            Rule { source_ports: vec![PortRange::ALL], ..web() },
            rule(&["app=a"], &["80/tcp"]),
            rule(&["app=a", "app=b"], &["81/tcp"]),
        ];
        others.push(web());
        let mut all = rules(others);
        all.extend(of("q", Direction::Ingress, vec![web()]));
        all.extend(of("p", Direction::Egress, vec![web()]));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn equal_rules_of_a_policy_are_told_apart() {
        let web = || rule(&["app=a"], &["80/tcp"]);
        let one = of("p", Direction::Egress, vec![web()]);
        let three = of("p", Direction::Egress, vec![web(), rule(&[], &[]), web()]);
        assert_eq!(three[..2], one[..], "the first of them stays what it was");
        assert_ne!(three[1], three[3]);
    }

    /// A value with a comma in it is not two values.
    #[test]
    fn what_is_written_alike_is_not_alike() {
        let picks = |values: &[&str]| {
            let values = values.iter().map(|v| (*v).to_owned()).collect();
            let selector = [Requirement::In("app".parse().unwrap(), values)].into_iter().collect();
            let rule = Rule { peers: vec![Peer::Selector(selector)], ..rule(&[], &[]) };
            of("p", Direction::Egress, vec![rule])
        };
        assert_ne!(picks(&["a", "b"]), picks(&["a,b"]));
    }
}
