//! `[[policy]]`: one policy, valid by itself.

use std::ops::Range;
use std::sync::Arc;

use super::fault::Fault;
use super::http;
use super::model::{Policy, Rule};
use super::rule::{self, WrittenRule};
use super::selector;
use super::table::Table;
use crate::types::{Direction, Invalid, Mode, Name, Tier};

#[derive(Debug, Clone)]
pub struct WrittenPolicy {
    pub policy: Arc<Policy>,
    pub name: Range<usize>,
    pub subject: Range<usize>,
    pub ingress: Vec<WrittenRule>,
    pub egress: Vec<WrittenRule>,
}

impl WrittenPolicy {
    pub fn rules(&self, direction: Direction) -> impl Iterator<Item = (&Rule, &WrittenRule)> {
        let written = match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        };
        self.policy.rules(direction).unwrap_or_default().iter().zip(written)
    }
}

pub fn read(table: &Table) -> Option<WrittenPolicy> {
    // All first, so that every fault of the table is told.
    let name = table.required("name");
    let name = name.and_then(|item| Some((item.parse::<Name>()?, item.span)));
    let subject = table.required("subject");
    let subject = subject.and_then(|item| Some((selector::read(&item)?, item.span)));
    let rank = rank(table);
    let mode = optional(table, "mode", &MODES, Mode::Enforce);
    let ingress = rule::direction(table, &rule::INGRESS);
    let egress = rule::direction(table, &rule::EGRESS);
    let ((name, name_span), (subject, subject_span)) = (name?, subject?);
    let (Rank { tier, priority, default_deny }, mode) = (rank?, mode?);
    let (ingress, egress) = (ingress?, egress?);
    let right = [&ingress, &egress].map(|one| {
        let spans = one.written.iter().map(|written| &written.header);
        http::of_tier(table, tier, mode, one.rules.iter().flatten().zip(spans))
    });
    if right.contains(&false) {
        return None;
    }
    let idle = |rules: &Option<Vec<Rule>>| match rules {
        Some(rules) => rules.is_empty() && !default_deny,
        None => true,
    };
    if idle(&ingress.rules) && idle(&egress.rules) {
        let what = match ingress.rules.is_none() && egress.rules.is_none() {
            true => "says nothing of ingress or egress, so it does nothing",
            false => "has no rules and denies nothing by default, so it does nothing",
        };
        let what = format!("the policy `{name}` {what}");
        let fault = Fault::warning(table.sink.place(&name_span), what);
        let hint = match default_deny {
            true => "add [[policy.ingress]], or ingress = [] to deny everything",
            false => "add rules, or default = \"deny\"",
        };
        table.sink.push(fault.hint(hint));
    }
    Some(WrittenPolicy {
        policy: Arc::new(Policy {
            name,
            subject,
            tier,
            priority,
            default_deny,
            mode,
            ingress: ingress.rules,
            egress: egress.rules,
            origin: table.sink.origin(&table.span),
            ingress_origin: ingress.origin,
            egress_origin: egress.origin,
        }),
        name: name_span,
        subject: subject_span,
        ingress: ingress.written,
        egress: egress.written,
    })
}

struct Rank {
    tier: Tier,
    priority: u16,
    default_deny: bool,
}

const TIERS: [(&str, Tier); 3] =
    [("admin", Tier::Admin), ("normal", Tier::Normal), ("baseline", Tier::Baseline)];
const MODES: [(&str, Mode); 2] = [("enforce", Mode::Enforce), ("shadow", Mode::Shadow)];
const DEFAULTS: [(&str, bool); 2] = [("allow", false), ("deny", true)];

fn rank(table: &Table) -> Option<Rank> {
    let tier = optional(table, "tier", &TIERS, Tier::Normal);
    let priority = table.optional("priority");
    let value = priority.as_ref().map(|item| item.integer(0..=u32::from(Policy::PRIORITIES)));
    // Only a normal policy's rules allow parts of what would be denied else, as in Kubernetes.
    let default = optional(table, "default", &DEFAULTS, tier == Some(Tier::Normal));
    let (tier, default_deny) = (tier?, default?);
    let priority = match (tier, priority, value) {
        (Tier::Normal, None, _) => 0,
        (Tier::Normal, Some(item), _) => {
            let what = "`priority` has no meaning in the normal tier, whose policies have no order";
            item.fault(what, "remove it, or write tier = \"admin\" or tier = \"baseline\"");
            return None;
        }
        // At most PRIORITIES.
        (_, _, Some(value)) => value? as u16,
        (_, _, None) => {
            let what = format!("`priority` is missing in a policy of the tier {tier}");
            let fault = Fault::error(table.sink.place(&table.span), what);
            table
                .sink
                .push(fault.hint("add, for example, priority = 100; lower ones are asked first"));
            return None;
        }
    };
    Some(Rank { tier, priority, default_deny })
}

/// One of some words.
fn optional<T: Copy>(
    table: &Table,
    key: &'static str,
    words: &[(&'static str, T)],
    default: T,
) -> Option<T> {
    let Some(item) = table.optional(key) else { return Some(default) };
    item.parse_by(|text| match words.iter().find(|(word, _)| *word == text) {
        Some((_, value)) => Ok(*value),
        None => {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            Err(Invalid::new(format!("unknown {key} `{text}`"))
                .hint(format!("write one of: {}", words.join(", "))))
        }
    })
}
