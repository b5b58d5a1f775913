//! What is in force to the rows that operators see.
//!
//! Pure: the daemon hands over what it has, in any state of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::view::{EndpointState, EndpointView, HitView, IdentityView, PolicyView};
use crate::compile::plan::{RuleRef, RuleTable};
use crate::config::model::{self, Config, Policies, Policy};
use crate::desired::Fault;
use crate::desired::snapshot::{Endpoint, Snapshot};
use crate::observe::counters::Counters;
use crate::types::{Action, Cookie, Direction, Labels, Mode, Name, Tier};

/// Every configured endpoint, in the order of names. Those that `snapshot` does not have are closed,
/// for the reason that `faults` gives.
pub fn endpoints(
    config: &Config,
    snapshot: &Snapshot,
    faults: &[Fault],
    counters: &Counters,
) -> Vec<EndpointView> {
    let attached: BTreeMap<&Name, &Arc<Endpoint>> =
        snapshot.endpoints.values().map(|endpoint| (&endpoint.name, endpoint)).collect();
    let view = |written: &Arc<model::Endpoint>| {
        let endpoint = attached.get(&written.name).map(|endpoint| &***endpoint);
        let of_it = |fault: &&Fault| fault.endpoint.as_ref() == Some(&written.name);
        let fault = faults.iter().find(of_it).filter(|_| endpoint.is_none());
        let counted = counters.endpoints.get(written.name.as_str()).cloned().unwrap_or_default();
        EndpointView {
            name: written.name.to_string(),
            state: match endpoint {
                Some(endpoint) if endpoint.shut => EndpointState::Shut,
                Some(_) => EndpointState::Attached,
                None => EndpointState::Closed,
            },
            fault: fault.map(reason),
            identity: endpoint.map(|endpoint| endpoint.identity),
            labels: Arc::new(written.labels.clone()),
            ipv6: endpoint.and_then(|endpoint| endpoint.ipv6),
            ipv4: endpoint.and_then(|endpoint| endpoint.ipv4),
            namespace: written.namespace().map(|path| path.to_string_lossy().into_owned()),
            interface: written.interface().to_owned(),
            host_interface: endpoint.map(|endpoint| endpoint.host_interface.clone()),
            ports: written.ports.iter().map(|(n, p)| (n.to_string(), p.to_string())).collect(),
            publish: written.publish.iter().map(ToString::to_string).collect(),
            default_deny: endpoint
                .map(|endpoint| default_deny(&snapshot.policies, &endpoint.labels))
                .unwrap_or_default(),
            sent: counted.ingress,
            received: counted.egress,
            drops: counted.drops,
            file: written.origin.file.to_string_lossy().into_owned(),
            line: written.origin.line,
        }
    };
    config.endpoints.iter().map(view).collect()
}

/// Every identity, in the order of numbers.
pub fn identities(snapshot: &Snapshot) -> Vec<IdentityView> {
    let mut names: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for endpoint in snapshot.endpoints.values() {
        names.entry(endpoint.identity).or_default().push(endpoint.name.to_string());
    }
    let view = |(identity, labels): (&_, &Arc<Labels>)| {
        let mut endpoints = names.remove(identity).unwrap_or_default();
        endpoints.sort();
        IdentityView { identity: *identity, labels: labels.clone(), endpoints }
    };
    snapshot.identities.iter().map(view).collect()
}

/// Every policy, in the order of names.
pub fn policies(snapshot: &Snapshot) -> Vec<PolicyView> {
    let view = |policy: &Arc<Policy>| {
        let rules = |direction| policy.rules(direction).map(|rules| rules.len() as u64);
        let subjects =
            snapshot.endpoints.values().filter(|one| policy.subject.matches(&one.labels));
        let mut endpoints: Vec<_> = subjects.map(|endpoint| endpoint.name.to_string()).collect();
        endpoints.sort();
        PolicyView {
            name: policy.name.to_string(),
            subject: policy.subject.to_string(),
            tier: policy.tier,
            priority: (policy.tier != Tier::Normal).then_some(policy.priority),
            mode: policy.mode,
            default_deny: policy.default_deny,
            ingress: rules(Direction::Ingress),
            egress: rules(Direction::Egress),
            endpoints,
            file: policy.origin.file.to_string_lossy().into_owned(),
            line: policy.origin.line,
        }
    };
    snapshot.policies.values().map(view).collect()
}

/// Every rule that can decide, and every pass rule, policy by policy in the order of names. `counted`: decisions
/// by cookie, true for those of shadow policies.
pub fn hits(
    snapshot: &Snapshot,
    rules: &RuleTable,
    counted: &BTreeMap<(Cookie, bool), u64>,
) -> Vec<HitView> {
    let there = |rule: &RuleRef| {
        let policy = snapshot.policies.get(&rule.policy);
        rule.rule.is_some() || policy.is_some_and(|policy| policy.default_deny)
    };
    let mut all: Vec<_> = rules.iter().filter(|(_, rule)| there(rule)).collect();
    // Defaults last, as they are asked.
    all.sort_by_key(|(_, rule)| (&rule.policy, rule.direction, rule.rule.is_none(), rule.rule));
    let view = |(cookie, rule): (&Cookie, &Arc<RuleRef>)| {
        let count = |shadow| counted.get(&(*cookie, shadow)).copied().unwrap_or_default();
        let decides = rule.action != Action::Pass;
        HitView {
            policy: rule.policy.to_string(),
            tier: rule.tier,
            mode: rule.mode,
            direction: rule.direction,
            rule: rule.rule.map(|rule| rule.saturating_add(1)),
            action: rule.action,
            hits: (decides && rule.mode == Mode::Enforce).then(|| count(false)),
            shadow_hits: decides.then(|| count(true)),
            file: rule.origin.file.to_string_lossy().into_owned(),
            line: rule.origin.line,
        }
    };
    all.into_iter().map(view).collect()
}

fn reason(fault: &Fault) -> String {
    match &fault.why {
        Some(why) => format!("{}: {why}", fault.what),
        None => fault.what.clone(),
    }
}

fn default_deny(policies: &Policies, labels: &Labels) -> Vec<Direction> {
    let denies = |direction: &Direction| {
        let about = |policy: &&Arc<Policy>| policy.subject.matches(labels);
        let denies = |policy: &Arc<Policy>| {
            let enforced = policy.mode == Mode::Enforce && policy.default_deny;
            enforced && policy.rules(*direction).is_some()
        };
        policies.values().filter(about).any(denies)
    };
    Direction::BOTH.into_iter().filter(denies).collect()
}
