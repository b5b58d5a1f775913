//! Assertions: cases to read, and random ones against trying every label set that could be.

use std::sync::Arc;

use porin::compile::explain::{Outcome, Packet, judge};
use porin::compile::plan::Plan;
use porin::compile::{Memory, compile};
use porin::config::model::{Assert, AssertKind, Endpoint, Policy, Rule};
use porin::desired::Fault;
use porin::types::{Action, PortSpec, Protocol, Tier};

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::world::*;

fn assertion(kind: AssertKind, from: &[&str], to: &[&str], ports: &[&str]) -> Assert {
    let peers = |texts: &[&str]| texts.iter().map(|text| peer(text)).collect();
    let ports = ports.iter().map(|text| PortSpec::Match(text.parse().unwrap())).collect();
    Assert { kind, from: peers(from), to: peers(to), ports, origin: origin(9) }
}

fn check(
    endpoints: Vec<Endpoint>,
    policies: Vec<Policy>,
    assert: Assert,
) -> Result<Plan, Vec<Fault>> {
    let mut config = config(host(), endpoints, policies);
    config.asserts = vec![Arc::new(assert)];
    let mut world = World::new(config, &["192.0.2.1"]);
    let snapshot = world.snapshot();
    compile(&snapshot, &mut world.memory)
}

fn never(from: &str, to: &str, ports: &[&str], policies: Vec<Policy>) -> Option<String> {
    let assert = assertion(AssertKind::Never, &[from], &[to], ports);
    check(vec![endpoint("e", "app=x")], policies, assert).err().map(|faults| faults[0].to_string())
}

#[test]
fn never_holds_if_every_label_set_is_denied() {
    let own = || policy("own", "env=prod", Some(vec![allow(&["env=prod"], &[])]), None);
    assert_eq!(never("env=dev", "env=prod", &[], vec![own()]), None);
    let narrow = || policy("api", "app=api", Some(vec![allow(&["app=web"], &["80/tcp"])]), None);
    assert_eq!(
        never("env=dev", "env=prod", &[], vec![own(), narrow()]).unwrap(),
        "policies.d/test.toml:9:1: the assertion `never` does not hold: an endpoint with `app=web,env=dev` may reach \
         an endpoint with `app=api,env=prod` on 80/tcp: egress: nothing denies it; ingress: allow by `api` \
         (policies.d/test.toml:1:1) (deny it, narrow the rule that allows it, or change the assertion)"
    );
    assert_eq!(never("env=dev", "env=prod", &["22/tcp"], vec![own(), narrow()]), None);
    let mut guard = policy("guard", "env=prod", Some(vec![deny(&["env=dev"], &[])]), None);
    (guard.tier, guard.default_deny) = (Tier::Admin, false);
    assert_eq!(never("env=dev", "env=prod", &[], vec![own(), narrow(), guard]), None);
}

#[test]
fn without_a_policy_nothing_is_denied() {
    let said = never("env=dev", "env=prod", &["22/tcp"], vec![]).unwrap();
    assert!(said.contains("egress: nothing denies it; ingress: nothing denies it"), "{said}");
    // A port that the counterexample may name.
    assert!(said.contains("on 22/tcp"), "{said}");
}

#[test]
fn outside_addresses_are_told_apart_as_rules_do() {
    let rules = vec![allow(&["cidr:203.0.113.0/24!203.0.113.128/25"], &["443/tcp"])];
    let web = || vec![policy("web", "app=web", Some(rules.clone()), None)];
    assert_eq!(never("cidr:203.0.113.128/25", "app=web", &[], web()), None);
    assert_eq!(never("entity:host", "app=web", &[], web()), None);
    let said = never("entity:world", "app=web", &[], web()).unwrap();
    assert!(
        said.contains(
            "an IPv4 address of the world (in 203.0.113.0/24 except 203.0.113.128/25) may reach an endpoint with \
             `app=web` on 443/tcp: ingress: allow by `web`"
        ),
        "{said}"
    );
}

#[test]
fn always_needs_every_label_set_and_port() {
    let assert = || assertion(AssertKind::Always, &["app=mon"], &[""], &["9090/tcp", "9091/tcp"]);
    let endpoints = || vec![endpoint("e", "app=x")];
    let rules = vec![allow(&["app=mon"], &["9090-9100/tcp"])];
    let scrape = || policy("scrape", "", Some(rules.clone()), None);
    assert!(check(endpoints(), vec![scrape()], assert()).is_ok());
    let quiet = policy("quiet", "app=mon,env=dev", None, Some(vec![allow(&[], &["9090/tcp"])]));
    let faults = check(endpoints(), vec![scrape(), quiet], assert()).unwrap_err();
    assert_eq!(
        faults[0].to_string(),
        "policies.d/test.toml:9:1: the assertion `always` does not hold: an endpoint with `app=mon,env=dev` may not reach \
         an endpoint without labels on 9091/tcp: egress: default deny by `quiet` (policies.d/test.toml:1:1) \
         (allow it, narrow the rule that denies it, or change the assertion)"
    );
}

#[test]
fn a_source_port_is_part_of_the_counterexample() {
    let mut rule = allow(&["app=a"], &["53/udp"]);
    rule.source_ports = vec![porin::types::PortRange::new(53, 53).unwrap()];
    let policies = vec![policy("dns", "app=b", Some(vec![rule]), None)];
    let said = never("app=a", "app=b", &[], policies).unwrap();
    assert!(said.contains("on 53/udp from port 53: "), "{said}");
}

#[test]
fn what_holds_is_not_proven_again_for_a_new_endpoint() {
    let own = policy("own", "env=prod", Some(vec![allow(&["env=prod"], &[])]), None);
    let mut config = config(host(), vec![endpoint("e", "env=dev")], vec![own]);
    config.asserts = vec![Arc::new(assertion(AssertKind::Never, &["env=dev"], &["env=prod"], &[]))];
    let mut world = World::new(config.clone(), &[]);
    world.commit();
    config.endpoints.push(Arc::new(endpoint("f", "env=prod")));
    world.configure(config.clone());
    assert!(world.commit().undecided.is_empty());
    config.policies.clear();
    world.configure(config);
    let snapshot = world.snapshot();
    assert_eq!(compile(&snapshot, &mut world.memory).unwrap_err().len(), 1);
}

/// Thousands of policies could matter; what certainly comes before them settles it.
#[test]
fn many_policies_are_settled_by_what_comes_before_them() {
    let rules = |i: usize| vec![allow(&[&format!("app=a{}", i + 1)], &["80/tcp"])];
    let mut policies: Vec<Policy> = (0..3000)
        .map(|i| policy(&format!("p{i}"), &format!("app=a{i}"), Some(rules(i)), None))
        .collect();
    policies.push(policy("all", "", Some(vec![]), None));
    let mut guard =
        policy("guard", "env=prod", Some(vec![deny(&["env!=prod"], &["80/tcp"])]), None);
    (guard.tier, guard.default_deny) = (Tier::Admin, false);
    policies.push(guard);
    let assert = assertion(AssertKind::Never, &["env=dev"], &["env=prod"], &[]);
    let plan = check(vec![endpoint("e", "app=a1,env=dev")], policies, assert).unwrap();
    assert!(plan.undecided.is_empty());
}

const SUBJECTS: [&str; 8] =
    ["", "app=a", "app=b", "env=p", "!env", "app in (a,b),env", "app!=a", "env notin (p),app=a"];
const PEERS: [&str; 9] = [
    "",
    "app=a",
    "app=b",
    "env=p",
    "!app",
    "env!=p",
    "entity:world",
    "entity:host",
    "entity:cluster",
];
const PORTS: [&str; 4] = ["80/tcp", "80-90/tcp", "tcp", "53/udp"];

fn rules() -> impl Strategy<Value = Option<Vec<Rule>>> {
    let action =
        select(vec![Action::Allow, Action::Allow, Action::Deny, Action::Reject, Action::Pass]);
    let rule = (action, subsequence(PEERS.to_vec(), 0..=2), subsequence(PORTS.to_vec(), 0..=2));
    let rule = rule.prop_map(|(action, peers, ports)| crate::world::rule(action, &peers, &ports));
    proptest::option::weighted(0.6, proptest::collection::vec(rule, 0..3))
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let tier = select(vec![Tier::Admin, Tier::Normal, Tier::Normal, Tier::Baseline]);
    let one = (select(SUBJECTS.to_vec()), tier, 0..3u16, any::<bool>(), rules(), rules());
    proptest::collection::vec(one, 0..5).prop_map(|all| {
        let policy = |(i, (subject, tier, priority, deny, ingress, egress))| {
            let mut policy = policy(&format!("p{i}"), subject, ingress, egress);
            policy.tier = tier;
            policy.priority = if tier == Tier::Normal { 0 } else { priority };
            policy.default_deny = deny;
            policy
        };
        (0..).zip(all).map(policy).collect()
    })
}

/// Every label set that the selectors above can tell apart.
fn all_endpoints() -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for app in ["", "app=a", "app=b", "app=other"] {
        for env in ["", "env=p", "env=other"] {
            let labels: Vec<_> = [app, env].into_iter().filter(|text| !text.is_empty()).collect();
            endpoints.push(endpoint(&format!("e{}", endpoints.len()), &labels.join(",")));
        }
    }
    endpoints
}

fn all_flows(policies: &[Policy], assert: &Assert) -> Vec<bool> {
    let mut world = World::new(config(host(), all_endpoints(), policies.to_vec()), &["192.0.2.1"]);
    let plan = world.commit();
    let selected = |peers: &[porin::config::model::Peer], address: std::net::IpAddr| {
        let endpoint =
            plan.endpoints.values().find(|e| e.endpoint.ipv4.map(Into::into) == Some(address));
        peers.iter().any(|peer| match peer {
            porin::config::model::Peer::Selector(selector) => {
                endpoint.is_some_and(|e| selector.matches(&e.endpoint.labels))
            }
            _ => endpoint.is_none(),
        })
    };
    let mut addresses: Vec<std::net::IpAddr> =
        plan.endpoints.values().map(|e| e.endpoint.ipv4.unwrap().into()).collect();
    addresses.push("198.51.100.1".parse().unwrap());
    let mut flows = Vec::new();
    for source in addresses.iter().filter(|a| selected(&assert.from, **a)) {
        for destination in addresses.iter().filter(|a| selected(&assert.to, **a)) {
            for (protocol, port) in
                [(6, 79), (6, 80), (6, 85), (6, 90), (6, 91), (17, 53), (17, 54), (47, 0)]
            {
                let protocol = Protocol(protocol);
                let asked = assert.ports.iter().any(|ports| {
                    ports.of(&Default::default()).is_some_and(|ports| ports.matches(protocol, port))
                });
                if !asked && !assert.ports.is_empty() {
                    continue;
                }
                let (source, destination) = (*source, *destination);
                let packet = Packet { source, destination, protocol, source_port: 7, port };
                match judge(&plan, &packet).outcome {
                    Outcome::NotOurs => {}
                    outcome => flows.push(outcome == Outcome::Allowed),
                }
            }
        }
    }
    flows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn assertions_hold_exactly_if_every_flow_agrees(
        policies in policies(),
        never: bool,
        from in select(vec!["", "app=a", "env=p", "app!=a", "entity:world"]),
        to in select(vec!["", "app=b", "env!=p", "!app"]),
        ports in subsequence(PORTS.to_vec(), 0..=2),
    ) {
        let kind = if never { AssertKind::Never } else { AssertKind::Always };
        let assert = assertion(kind, &[from], &[to], &ports);
        let expected = all_flows(&policies, &assert).into_iter().all(|passes| passes != never);
        let got = check(vec![endpoint("e", "app=x")], policies, assert);
        prop_assert_eq!(got.is_ok(), expected, "{:?}", got.err());
        let _ = Memory::default();
    }
}
