//! Rules and policies that never decide, as others always do before them.
//!
//! The order in which rules decide is `compile::precedence`; here is only enough of it to tell what is certain.

use std::collections::HashMap;

use super::check::In;
use super::covers;
use super::fault::{Fault, Faults, Place};
use super::model::{Policy, Rule};
use super::policy::WrittenPolicy;
use crate::types::selector::Requirement;
use crate::types::{Action, Direction, LabelKey, Mode, Name, Selector, Tier};

/// Comparisons that are made at most: of what would take more, some is not told.
const MOST: usize = 500_000;
/// Of which for two rules.
const MOST_AT_ONCE: usize = 10_000;
/// Policies with rules that pass: with more of them, nothing is certain of lower tiers.
const MOST_PASSES: usize = 100;

pub fn all(policies: &[In<WrittenPolicy>], faults: &mut Faults) {
    let mut budget = MOST;
    for direction in Direction::BOTH {
        let others = Others::new(policies, direction);
        for (source, written) in policies {
            if written.policy.rules(direction).is_none() {
                continue;
            }
            let mut judge = Judge { direction, others: &others, written, budget: &mut budget };
            if let Some(told) = judge.whole() {
                faults.push(told.fault(source.place(&written.name)));
                continue;
            }
            if *judge.budget == 0 {
                return;
            }
            for (at, (rule, places)) in written.rules(direction).enumerate() {
                if let Some(told) = judge.rule(at, rule) {
                    faults.push(told.fault(source.place(&places.header)));
                }
            }
        }
    }
}

struct Told {
    what: String,
    hint: &'static str,
    related: (Place, &'static str),
}

impl Told {
    fn fault(self, place: Place) -> Fault {
        Fault::warning(place, self.what).hint(self.hint).related(self.related.0, self.related.1)
    }
}

/// The policies that speak of a direction and may come before another, findable by what their subjects ask for.
struct Others<'a> {
    direction: Direction,
    found: HashMap<Option<Wanted<'a>>, Vec<In<'a, WrittenPolicy>>>,
    /// The policies with rules that pass.
    passes: Vec<&'a Policy>,
}

/// Of a subject's first requirement: the label's key, and its value if it is one. None: it picks everyone.
type Wanted<'a> = (&'a LabelKey, Option<&'a str>);

fn wanted(requirement: &Requirement) -> Wanted<'_> {
    let value = match requirement {
        Requirement::In(_, values) if values.len() == 1 => values.first().map(String::as_str),
        _ => None,
    };
    (requirement.key(), value)
}

impl<'a> Others<'a> {
    fn new(policies: &[In<'a, WrittenPolicy>], direction: Direction) -> Self {
        let mut others = Others { direction, found: HashMap::new(), passes: Vec::new() };
        let speaks = |written: &WrittenPolicy| written.policy.rules(direction).is_some();
        let has_baseline = policies
            .iter()
            .any(|(_, written)| written.policy.tier == Tier::Baseline && speaks(written));
        let about_requests =
            |written: &WrittenPolicy| written.rules(direction).any(|(rule, _)| !rule.l7.is_empty());
        let has_requests = policies.iter().any(|(_, written)| about_requests(written));
        for &(source, written) in policies {
            let policy = &written.policy;
            let Some(rules) = policy.rules(direction) else { continue };
            if rules.iter().any(|rule| rule.action == Action::Pass) {
                others.passes.push(policy);
            }
            // Most policies: they come before no other.
            let plain = policy.tier == Tier::Normal
                && !has_baseline
                && !has_requests
                && rules.iter().all(|rule| rule.action == Action::Allow);
            if !plain {
                let first = policy.subject.requirements().next().map(wanted);
                others.found.entry(first).or_default().push((source, written));
            }
        }
        for policies in others.found.values_mut() {
            policies.sort_by_key(|(_, written)| order(&written.policy));
        }
        others
    }

    /// Whether some rule that passes `subject` may come before `rule` of `policy`, or its default, so that lower
    /// tiers are asked.
    fn passed_by(&self, subject: &Selector, policy: &Policy, rule: Option<&Rule>) -> bool {
        let before = |passes: &Policy| match rule {
            Some(rule) if passes.tier == Tier::Normal => rank(rule) <= PASS,
            Some(rule) if passes.name == policy.name => {
                let rules = policy.rules(self.direction).unwrap_or_default();
                let before = rules.iter().take_while(|each| !std::ptr::eq(*each, rule));
                before.into_iter().any(|each| each.action == Action::Pass)
            }
            Some(_) => order(passes) < order(policy),
            // A default comes after all rules.
            None => true,
        };
        self.passes.len() > MOST_PASSES
            || self.passes.iter().any(|passes| {
                let same_tier = passes.tier == policy.tier;
                same_tier && before(passes) && !passes.subject.is_apart(subject)
            })
    }

    /// Those that are asked no later than `policy` and may be about its subject.
    fn above(&self, policy: &'a Policy) -> impl Iterator<Item = In<'a, WrittenPolicy>> {
        let keys = policy.subject.requirements().map(wanted);
        let keys = keys.flat_map(|(key, value)| {
            let one = value.map(|value| Some((key, Some(value))));
            [one, Some(Some((key, None)))].into_iter().flatten()
        });
        let found = keys.chain([None]).filter_map(|key| self.found.get(&key));
        let last = order(policy);
        let asked = move |each: &&In<'a, WrittenPolicy>| order(&each.1.policy) <= last;
        found.flat_map(move |found| found.iter().take_while(asked)).copied()
    }
}

/// Whether whoever `policy` is about, `other` is about as well, and in force.
fn is_over(other: &Policy, policy: &Policy) -> bool {
    let in_force = other.mode == Mode::Enforce || policy.mode == Mode::Shadow;
    in_force && other.subject.covers(&policy.subject)
}

/// Policies in the order in which they are asked; those of the normal tier are asked at once.
fn order(policy: &Policy) -> (std::cmp::Reverse<Tier>, u16, Option<&Name>) {
    let name = (policy.tier != Tier::Normal).then_some(&policy.name);
    (std::cmp::Reverse(policy.tier), policy.priority, name)
}

/// Of what the normal tier is asked at once, the higher one decides. To allow a connection is to allow its requests.
fn rank(rule: &Rule) -> u8 {
    match rule.action {
        Action::Allow => u8::from(rule.l7.is_empty()),
        Action::Pass => PASS,
        Action::Reject => 3,
        Action::Deny => 4,
    }
}

const PASS: u8 = 2;

/// One policy's direction, held against the others.
struct Judge<'a, 'b> {
    direction: Direction,
    others: &'b Others<'a>,
    written: &'a WrittenPolicy,
    budget: &'b mut usize,
}

impl<'a> Judge<'a, '_> {
    /// Whether anything of the policy decides.
    fn whole(&mut self) -> Option<Told> {
        let policy: &'a Policy = &self.written.policy;
        for (source, other) in self.others.above(policy) {
            if !self.pay(1) {
                return None;
            }
            if order(&other.policy) == order(policy) || !is_over(&other.policy, policy) {
                continue;
            }
            let what = |of: &str| {
                let (name, direction, tier) = (&policy.name, self.direction, other.policy.tier);
                format!(
                    "the policy `{name}` never decides {direction}: {of} `{}` of the tier {tier} does",
                    other.policy.name
                )
            };
            if self.denies_the_rest(&other.policy) {
                let hint =
                    "where a tier denies by default, lower ones get only what its rules pass";
                let related = (source.place(&other.name), "the policy that denies by default");
                return Some(Told { what: what("the default of"), hint, related });
            }
            for (rule, places) in other.rules(self.direction) {
                if covers::is_everything(rule) && self.comes_first(&other.policy, rule) {
                    let hint = hint(&other.policy, policy);
                    let related = (source.place(&places.header), "the rule that decides");
                    return Some(Told { what: what("a rule of"), hint, related });
                }
            }
        }
        None
    }

    fn rule(&mut self, at: usize, rule: &Rule) -> Option<Told> {
        let policy: &'a Policy = &self.written.policy;
        for (source, other) in self.others.above(policy) {
            if !self.pay(1) {
                return None;
            }
            if !is_over(&other.policy, policy) {
                continue;
            }
            let at_once = order(&other.policy) == order(policy);
            for (other_at, (before, places)) in other.rules(self.direction).enumerate() {
                let first = match policy.tier {
                    _ if !at_once => self.comes_first(&other.policy, before),
                    Tier::Normal => rank(before) > rank(rule),
                    Tier::Admin | Tier::Baseline => other_at < at,
                };
                let cost = covers::cost(before, rule);
                if !self.pay(if first { cost.min(MOST_AT_ONCE) } else { 1 }) {
                    return None;
                }
                if !first || cost > MOST_AT_ONCE || !covers::rule(before, rule) {
                    continue;
                }
                let what = match other.policy.name == policy.name {
                    true => "another rule of the policy".to_owned(),
                    false => format!(
                        "a rule of the policy `{}` of the tier {}",
                        other.policy.name, other.policy.tier
                    ),
                };
                let what = match before.action == Action::Allow && !rule.l7.is_empty() {
                    true => format!(
                        "this rule judges no request: {what} allows all that it matches, whatever is in it"
                    ),
                    false => {
                        format!("this rule never decides: {what} does for all that it matches")
                    }
                };
                let related = (source.place(&places.header), "the rule that decides");
                let hint = match at_once && before.action == Action::Allow {
                    true if policy.tier == Tier::Normal => REQUESTS,
                    _ => hint(&other.policy, policy),
                };
                return Some(Told { what, hint, related });
            }
        }
        None
    }

    /// Whether `rule` of an earlier tier or priority is surely asked before this policy, and decides.
    fn comes_first(&self, other: &Policy, rule: &Rule) -> bool {
        // Within a tier, what passes by `rule` passes by this policy as well.
        other.tier == self.written.policy.tier
            || rule.action != Action::Pass && !self.passed_by(other, Some(rule))
    }

    fn passed_by(&self, other: &Policy, rule: Option<&Rule>) -> bool {
        self.others.passed_by(&self.written.policy.subject, other, rule)
    }

    fn denies_the_rest(&self, other: &Policy) -> bool {
        other.default_deny && other.tier != self.written.policy.tier && !self.passed_by(other, None)
    }

    fn pay(&mut self, cost: usize) -> bool {
        let paid = self.budget.checked_sub(cost);
        *self.budget = paid.unwrap_or(0);
        paid.is_some()
    }
}

const REQUESTS: &str = "narrow the rule that allows the connection, or give it `http` as well";

fn hint(first: &Policy, then: &Policy) -> &'static str {
    match (first.tier == then.tier, then.tier) {
        (false, _) => "tiers are asked in the order admin, normal, baseline",
        (true, Tier::Normal) => {
            "deny beats reject, reject pass, and pass allow, in whatever order they stand"
        }
        (true, _) if first.name == then.name => "rules are asked in the order in which they stand",
        (true, _) => "lower priorities are asked first; of equal ones, by the policies' names",
    }
}
