//! The rules about one label set, as one list: who comes first decides.

use std::sync::Arc;

use crate::compile::precedence;
use crate::config::model::{Policy, Rule};
use crate::types::{Action, Direction, Mode, Origin, Tier};

/// A rule that is about a subject, or what its policy makes of all that no rule of the tier matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranked {
    pub precedence: u32,
    pub tier: Tier,
    pub mode: Mode,
    pub direction: Direction,
    /// A default's is deny.
    pub action: Action,
    pub policy: Arc<Policy>,
    /// Index in its policy and direction; none: the tier's default.
    pub index: Option<u32>,
}

impl Ranked {
    /// None: the tier's default, which matches everything.
    pub fn rule(&self) -> Option<&Rule> {
        self.policy.rules(self.direction)?.get(self.index? as usize)
    }

    /// Where it is written.
    pub fn origin(&self) -> &Origin {
        match self.rule() {
            Some(rule) => &rule.origin,
            None => self.policy.default_origin(self.direction),
        }
    }
}

/// All that is about one label set. Shadow policies are there too: who does not want them skips them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    ingress: Vec<Ranked>,
    egress: Vec<Ranked>,
    /// Some of it is in shadow mode.
    pub shadow: bool,
    /// Some of it tells source ports apart.
    pub sources: bool,
}

impl Subject {
    /// `policies`: those that pick it, sorted by name.
    pub(super) fn new(policies: &[Arc<Policy>]) -> Self {
        Subject {
            ingress: rank(policies, Direction::Ingress),
            egress: rank(policies, Direction::Egress),
            shadow: policies.iter().any(|policy| policy.mode == Mode::Shadow),
            sources: policies.iter().any(|policy| tells_sources_apart(policy)),
        }
    }

    /// In descending precedence; of equal ones, the first to be named comes first.
    pub fn ranked(&self, direction: Direction) -> &[Ranked] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ingress.len() + self.egress.len()
    }
}

fn tells_sources_apart(policy: &Policy) -> bool {
    let rules = Direction::BOTH.into_iter().filter_map(|direction| policy.rules(direction));
    rules.flatten().any(|rule| !rule.source_ports.is_empty())
}

fn rank(policies: &[Arc<Policy>], direction: Direction) -> Vec<Ranked> {
    let mut ranked = Vec::new();
    let mut order = 0;
    let mut defaults: Vec<(Tier, Mode)> = Vec::new();
    for policy in policies {
        let Some(rules) = policy.rules(direction) else { continue };
        let entry = |precedence, action, index| Ranked {
            precedence,
            tier: policy.tier,
            mode: policy.mode,
            direction,
            action,
            policy: Arc::clone(policy),
            index,
        };
        for (index, rule) in (0..).zip(rules) {
            let precedence = precedence::of(
                policy.tier,
                policy.priority.into(),
                rule.action,
                !rule.l7.is_empty(),
                order,
            );
            ranked.push(entry(precedence, rule.action, Some(index)));
            order += 1;
        }
        // The first of its tier is the one that is named: among those enforced, and among all.
        let key = (policy.tier, policy.mode);
        if policy.default_deny && !defaults.contains(&key) {
            defaults.push(key);
            ranked.push(entry(precedence::of_default(policy.tier), Action::Deny, None));
        }
    }
    // Stable: what has the same precedence stays in the order of names and indices.
    ranked.sort_by_key(|entry| std::cmp::Reverse(entry.precedence));
    ranked
}
