//! Rules about requests: what a connection's are judged by.

use std::collections::BTreeSet;

use porin::compile::explain::{Outcome, Packet, judge};
use porin::compile::plan::Plan;
use porin::compile::view::View;
use porin::config::model::{Policy, Rule};
use porin::types::http::{HttpRule, L7};
use porin::types::{Action, Direction, Protocol, RulesetId};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::world::*;

fn requests(peers: &[&str], ports: &[&str], method: &str) -> Rule {
    let http = HttpRule::new(Some(method.parse().unwrap()), None, None, Vec::new()).unwrap();
    Rule { l7: L7 { http: vec![http], tls: None }, ..allow(peers, ports) }
}

fn world(policies: Vec<Policy>) -> World {
    let endpoints = ["api", "db", "web"].map(|name| endpoint(name, &format!("app={name}")));
    World::new(config(host(), endpoints.to_vec(), policies), &["192.0.2.1"])
}

/// What becomes of a connection: the methods that the sender's and the receiver's rules allow; none: any. Outer none: denied.
type Becomes = Option<[Option<BTreeSet<String>>; 2]>;

fn methods(plan: &Plan, ruleset: Option<RulesetId>) -> Option<BTreeSet<String>> {
    let side = &plan.rulesets[&ruleset?];
    let methods = side.rules.iter().flat_map(|rule| &rule.l7.http).map(|http| http.method());
    Some(methods.flatten().map(ToString::to_string).collect())
}

fn becomes(plan: &Plan, from: &str, to: &str, port: u16) -> Becomes {
    let (source, destination) = (address(plan, from, true), address(plan, to, true));
    let packet = Packet { source, destination, protocol: Protocol::TCP, source_port: 9, port };
    let judged = judge(plan, &packet);
    let [egress, ingress] = [judged.egress, judged.ingress]
        .map(|decision| methods(plan, decision.and_then(|one| one.ruleset)));
    (judged.outcome == Outcome::Allowed).then_some([egress, ingress])
}

fn set(methods: &[&str]) -> Option<BTreeSet<String>> {
    Some(methods.iter().map(|method| (*method).to_owned()).collect())
}

#[test]
fn rules_for_the_peer_and_for_any_are_one_set() {
    let rules = vec![
        requests(&[], &["80/tcp"], "GET"),
        requests(&["app=api"], &["1-1023/tcp"], "PUT"),
        requests(&["app=web"], &["80/tcp"], "GET"),
    ];
    let plan = world(vec![policy("a", "app=db", Some(rules), None)]).commit();
    assert_eq!(becomes(&plan, "api", "db", 80), Some([None, set(&["GET", "PUT"])]));
    assert_eq!(becomes(&plan, "api", "db", 81), Some([None, set(&["PUT"])]));
    assert_eq!(becomes(&plan, "web", "db", 80), Some([None, set(&["GET"])]));
    assert_eq!(becomes(&plan, "web", "db", 81), None);
}

#[test]
fn what_allows_everything_makes_them_moot_and_a_denial_beats_both() {
    let rules = vec![
        requests(&["app=api"], &["80-81/tcp"], "GET"),
        allow(&[], &["80/tcp"]),
        deny(&["app=web"], &["tcp"]),
        requests(&["app=web"], &["80/tcp"], "GET"),
    ];
    let plan = world(vec![policy("a", "app=db", Some(rules), None)]).commit();
    assert_eq!(becomes(&plan, "api", "db", 80), Some([None, None]));
    assert_eq!(becomes(&plan, "api", "db", 81), Some([None, set(&["GET"])]));
    assert_eq!(becomes(&plan, "web", "db", 80), None);
}

#[test]
fn both_ends_ask_and_equal_rules_of_several_subjects_are_one_set() {
    let get = || Some(vec![requests(&[], &["80/tcp"], "GET")]);
    let put = Some(vec![requests(&["app=db"], &["80/tcp"], "PUT")]);
    let mut world = world(vec![
        policy("a", "app in (db, web)", get(), None),
        policy("b", "app=api", None, put),
    ]);
    let plan = world.commit();
    assert_eq!(becomes(&plan, "api", "db", 80), Some([set(&["PUT"]), set(&["GET"])]));
    assert_eq!(becomes(&plan, "web", "db", 80), Some([None, set(&["GET"])]));
    assert_eq!(plan.rulesets.len(), 2);
    assert!(plan.endpoints.values().all(|planned| planned.features.judges_requests));
    // What was proxied goes on: the programs still know of it when no rule is about requests any more.
    let endpoints = ["api", "db", "web"].map(|name| endpoint(name, &format!("app={name}")));
    world.configure(config(host(), endpoints.to_vec(), Vec::new()));
    let plan = world.commit();
    assert!(plan.rulesets.is_empty());
    assert!(plan.endpoints.values().all(|planned| planned.features.judges_requests));
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let peers = subsequence(vec!["app=api", "app=db", "app=web"], 0..=2);
    let ports = select(vec!["80/tcp", "80-81/tcp", "1-1023/tcp", "tcp"]);
    let kind = prop_oneof![
        6 => select(vec!["GET", "PUT", "POST"]).prop_map(Some),
        1 => Just(None),
    ];
    let action =
        prop_oneof![8 => Just(Action::Allow), 1 => Just(Action::Deny), 1 => Just(Action::Pass)];
    let rule = (peers, ports, kind, action).prop_map(|(peers, ports, kind, action)| {
        match (kind, action) {
            (Some(method), Action::Allow) => requests(&peers, &[ports], method),
            _ => rule(action, &peers, &[ports]),
        }
    });
    prop::collection::vec(rule, 1..5)
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let subject = select(vec!["", "app=db", "app in (api, db)"]);
    let one = (subject, prop::option::of(rules()), prop::option::of(rules()), any::<bool>());
    prop::collection::vec(one, 1..5).prop_map(|all| {
        let policies =
            all.into_iter().enumerate().map(|(at, (subject, ingress, egress, default))| {
                let policy = policy(&format!("p{at}"), subject, ingress, egress);
                Policy { default_deny: default, ..policy }
            });
        policies.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The tables say what the files say: `why` finds the rules one by one.
    #[test]
    fn tables_say_what_the_rules_say(policies in policies()) {
        let mut world = world(policies);
        let view = View::of_snapshot(&world.snapshot());
        let plan = world.commit();
        for (from, to) in [("api", "db"), ("web", "db"), ("db", "api"), ("db", "web")] {
            for port in [80, 81, 443, 2000] {
                let [sender, receiver] = [from, to].map(|name| view.who(address(&plan, name, true)));
                let told = view.judge(&sender, &receiver, Protocol::TCP, port, Some(9));
                let said = [(told.egress, Direction::Egress), (told.ingress, Direction::Ingress)];
                let said = said.map(|(decision, direction)| {
                    let requests = decision.unwrap().requests;
                    assert!(requests.iter().all(|rule| rule.direction == direction));
                    let rules = requests.iter().filter_map(|ranked| ranked.rule());
                    let http = rules.flat_map(|rule| &rule.l7.http);
                    (!requests.is_empty()).then(|| http.filter_map(|h| h.method()).map(ToString::to_string).collect())
                });
                let said = (told.verdict == porin::types::Verdict::Allow).then_some(said);
                prop_assert_eq!(becomes(&plan, from, to, port), said, "{} {} {}", from, to, port);
            }
        }
    }
}
