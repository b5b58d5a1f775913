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
         (policies.d/test.toml:1:1) (deny it, narrow the rule that allows it, or change the assertion; no endpoint has such labels now, but one may)"
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
         (allow it, narrow the rule that denies it, or change the assertion; no endpoint has such labels now, but one may)"
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

fn with_ports(mut endpoint: Endpoint, name: &str, port: &str) -> Endpoint {
    endpoint.ports.insert(name.parse().unwrap(), port.parse().unwrap());
    endpoint
}

fn named(name: &str) -> PortSpec {
    PortSpec::Named { name: name.parse().unwrap(), protocol: Protocol::TCP }
}

#[test]
fn ports_have_the_names_that_endpoints_give_them() {
    let db = |port| with_ports(endpoint("db", "app=db"), "pg", port);
    let rules = |action| {
        let mut rule = rule(action, &["app=a"], &[]);
        rule.ports = vec![named("pg")];
        vec![rule]
    };
    let ask = |endpoints, action, assert| {
        let mut policy = policy("db", "app=db", Some(rules(action)), None);
        policy.default_deny = action == Action::Allow;
        check(endpoints, vec![policy], assert)
    };
    let always = || assertion(AssertKind::Always, &["app=a"], &["app=db"], &["5432/tcp"]);
    let never = || assertion(AssertKind::Never, &["app=a"], &["app=db"], &["5432/tcp"]);
    assert!(ask(vec![db("5432/tcp")], Action::Allow, always()).is_ok());
    assert!(ask(vec![db("5433/tcp")], Action::Allow, always()).is_err());
    assert!(ask(vec![db("5432/tcp")], Action::Deny, never()).is_ok());
    // One that does not call its port so is not denied.
    let other = || endpoint("other", "app=db,env=dev");
    assert!(ask(vec![db("5432/tcp"), other()], Action::Deny, never()).is_err());
    assert!(ask(vec![db("5432/tcp"), other()], Action::Allow, always()).is_err());
}

#[test]
fn networks_with_every_pool_match_every_endpoint() {
    let everyone = ["cidr:10.0.0.0/8", "cidr:fd00::/8"];
    let policy = |peers: &[&str]| {
        let mut rule = deny(peers, &["22/tcp"]);
        rule.match_endpoints = true;
        let mut policy = policy("ssh", "app=a", Some(vec![rule]), None);
        policy.default_deny = false;
        policy
    };
    let ask = |peers: &[&str]| {
        let assert = assertion(AssertKind::Never, &["app"], &["app=a"], &["22/tcp"]);
        check(vec![endpoint("e", "app=b")], vec![policy(peers)], assert).is_ok()
    };
    assert!(ask(&everyone));
    assert!(!ask(&everyone[..1]), "over IPv6 it may");
    assert!(!ask(&["cidr:10.0.0.0/8!10.1.9.0/24", "cidr:fd00::/8"]));
}

#[test]
fn every_source_port_is_every_source_port() {
    let always = || assertion(AssertKind::Always, &["app=a"], &["app=b"], &["5432/tcp"]);
    let ask = |first| {
        let mut rule = allow(&["app=a"], &["5432/tcp"]);
        rule.source_ports = vec![porin::types::PortRange::new(first, 65535).unwrap()];
        let policies = vec![policy("db", "app=b", Some(vec![rule]), None)];
        check(vec![endpoint("e", "app=b")], policies, always())
    };
    assert!(ask(1).is_ok());
    let said = ask(1024).unwrap_err()[0].to_string();
    assert!(said.contains("on 5432/tcp from port 1: "), "{said}");
}

/// Each policy with a network of its own: as many classes as policies, and each class matters to one.
#[test]
fn networks_of_thousands_of_policies_are_decided() {
    let many = |extra: Vec<Policy>| {
        let network = |i: usize| format!("cidr:198.18.{}.{}/32", i / 256, i % 256);
        let rules = |i| vec![allow(&[&network(i)], &["443/tcp"])];
        let policies = (0..2500usize)
            .map(|i| policy(&format!("p{i}"), &format!("app=a{}", i % 400), Some(rules(i)), None));
        let endpoints =
            (0..400).map(|i| endpoint(&format!("e{i}"), &format!("app=a{i},env=prod"))).collect();
        let assert = assertion(AssertKind::Never, &["entity:world"], &["env=prod"], &["22/tcp"]);
        check(endpoints, policies.chain(extra).collect(), assert)
    };
    let said = many(vec![]).unwrap_err()[0].to_string();
    assert!(said.contains("may reach an endpoint with `env=prod` on 22/tcp"), "{said}");
    let prod = policy("prod", "env=prod", Some(vec![allow(&["env=prod"], &[])]), None);
    assert!(many(vec![prod]).unwrap().undecided.is_empty());
    // Without `from` and `to` it is about everyone, and two addresses outside are nobody's business.
    let rules = vec![allow(&[], &["443/tcp"])];
    let all = policy("all", "", Some(rules.clone()), Some(rules));
    let networks: Vec<String> =
        (0..4000).map(|i| format!("cidr:198.18.{}.{}/32", i / 256, i % 256)).collect();
    let networks: Vec<&str> = networks.iter().map(String::as_str).collect();
    let named = policy("named", "app=x", Some(vec![allow(&networks, &["443/tcp"])]), None);
    let assert = assertion(AssertKind::Never, &[], &[], &["23/tcp"]);
    assert!(check(vec![endpoint("e", "app=x")], vec![all, named], assert).is_ok());
}

#[test]
fn a_name_is_each_receivers_own_port() {
    let endpoints = || {
        let one = with_ports(endpoint("one", "app=api"), "http", "8080/tcp");
        let two = with_ports(endpoint("two", "app=api"), "http", "9090/tcp");
        vec![one, two, endpoint("front", "app=front")]
    };
    let ask = |kind, ports: Vec<PortSpec>| {
        let mut rule = allow(&["app=front"], &[]);
        rule.ports = vec![named("http")];
        let mut assert = assertion(kind, &["app=front"], &["app=api"], &[]);
        assert.ports = ports;
        let policies = vec![policy("api", "app=api", Some(vec![rule]), None)];
        check(endpoints(), policies, assert)
    };
    let number = |text: &str| vec![PortSpec::Match(text.parse().unwrap())];
    assert!(ask(AssertKind::Always, vec![named("http")]).is_ok());
    assert!(ask(AssertKind::Never, vec![named("http")]).is_err());
    assert!(ask(AssertKind::Always, number("8080/tcp")).is_err(), "not at the other");
    assert!(ask(AssertKind::Never, number("9090/tcp")).is_err());
    assert!(ask(AssertKind::Never, number("7070/tcp")).is_ok());
}
