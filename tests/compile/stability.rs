//! What a change costs, and what it leaves alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;

use porin::compile::plan::{Plan, PolicyTable};
use porin::config::model::{self, Config, Endpoint, Policy};
use porin::types::{Name, PolicySlot};

use crate::world::*;

fn many(count: usize) -> Config {
    let label = |i: usize| format!("app=a{},env=e{}", i % 300, i % 2);
    let endpoints = (0..count).map(|i| endpoint(&format!("e{i}"), &label(i))).collect();
    let policies = (0..count).map(|i| {
        let subject = format!("app=a{},env=e{}", i % 300, i % 2);
        let peer = format!("app in (a{},a{})", (i + 1) % 300, (i + 7) % 300);
        let ingress = vec![
            allow(&[&peer], &["80/tcp", "8000-8100/tcp"]),
            allow(&["cidr:203.0.113.0/24"], &["443/tcp"]),
        ];
        policy(&format!("p{i}"), &subject, Some(ingress), None)
    });
    let policies = policies.collect();
    config(host(), endpoints, policies)
}

fn edit(config: &mut Config, name: &str, edit: impl FnOnce(&mut Policy)) {
    let policy = config.policies.get_mut(&name.parse::<Name>().unwrap()).unwrap();
    let mut edited = (**policy).clone();
    edit(&mut edited);
    *policy = Arc::new(edited);
}

fn changed(
    a: &OrdMap<PolicySlot, Arc<PolicyTable>>,
    b: &OrdMap<PolicySlot, Arc<PolicyTable>>,
) -> usize {
    assert_eq!(a.len(), b.len());
    b.iter().filter(|(slot, table)| !Arc::ptr_eq(&a[*slot], table)).count()
}

/// As a reload does it: every value is read anew.
fn reread(config: &Config) -> Config {
    let endpoints = config.endpoints.iter().map(|e| (**e).clone()).collect();
    let policies = config.policies.values().map(|p| (**p).clone()).collect();
    crate::world::config(config.host.clone(), endpoints, policies)
}

#[test]
fn one_policy_of_a_thousand_costs_the_tables_that_it_touches() {
    let mut config = many(1000);
    let mut world = World::new(config.clone(), &[]);
    let before = world.commit();
    assert_eq!(world.memory.stats().policies_resolved, 1000);
    assert_eq!(world.memory.stats().tables_built, 300);
    edit(&mut config, "p5", |policy| {
        policy.ingress.as_mut().unwrap()[0] = allow(&["app=a9"], &["81/tcp"]);
    });
    world.configure(reread(&config));
    let after = world.commit();
    let stats = world.memory.stats();
    assert_eq!(
        (stats.policies_resolved, stats.tables_built, stats.classes_made),
        (1, 1, false),
        "p5 picks one identity"
    );
    assert_eq!(changed(&before.policies, &after.policies), 1);
    assert!(Arc::ptr_eq(&before.prefixes, &after.prefixes));
    world.configure(reread(&config));
    world.commit();
    let stats = world.memory.stats();
    assert_eq!((stats.policies_resolved, stats.tables_built), (0, 0));
}

#[test]
fn a_new_identity_costs_the_tables_that_name_it() {
    let mut config = many(300);
    let mut world = World::new(config.clone(), &[]);
    let before = world.commit();
    config.endpoints.push(Arc::new(endpoint("new", "app=a8,env=x")));
    config.endpoints.sort_by(|a, b| a.name.cmp(&b.name));
    world.configure(config);
    let after = world.commit();
    // Its own, and those of p1 and p7, which pick app=a8 as a peer.
    assert_eq!(world.memory.stats().tables_built, 3);
    let stayed = after.policies.into_iter().filter(|(slot, _)| before.policies.contains_key(slot));
    assert_eq!(changed(&before.policies, &stayed.collect()), 2);
}

#[test]
fn moved_lines_change_no_table_but_what_cookies_mean() {
    let mut config = many(50);
    let mut world = World::new(config.clone(), &[]);
    let before = world.commit();
    edit(&mut config, "p7", |policy| {
        policy.origin = origin(70);
        policy.ingress_origin = Some(origin(71));
        policy.ingress.as_mut().unwrap()[1].origin = origin(75);
    });
    world.configure(reread(&config));
    let after = world.commit();
    assert_eq!(changed(&before.policies, &after.policies), 0);
    assert_eq!(world.memory.stats().tables_built, 0);
    let lines = |plan: &Plan| {
        let of = plan.rules.values().filter(|rule| rule.policy.as_str() == "p7");
        let mut lines: Vec<_> = of.map(|rule| (rule.rule, rule.origin.line)).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(&before), [(None, 1), (Some(0), 1), (Some(1), 1)]);
    assert_eq!(lines(&after), [(None, 71), (Some(0), 1), (Some(1), 75)]);
    assert!(before.rules.keys().eq(after.rules.keys()));
}

#[test]
fn rules_that_move_keep_their_cookies() {
    let mut config = many(50);
    let mut world = World::new(config.clone(), &[]);
    let before = world.commit();
    edit(&mut config, "p7", |policy| {
        let rules = policy.ingress.as_mut().unwrap();
        rules.swap(0, 1);
        rules.insert(0, deny(&["app=a9"], &["81/tcp"]));
    });
    world.configure(reread(&config));
    let after = world.commit();
    let of = |plan: &Plan| {
        let of = plan.rules.iter().filter(|(_, rule)| rule.policy.as_str() == "p7");
        of.map(|(cookie, rule)| (rule.rule, *cookie)).collect::<BTreeMap<_, _>>()
    };
    let (before, after) = (of(&before), of(&after));
    let moved = [(None, None), (Some(0), Some(2)), (Some(1), Some(1))];
    for (from, to) in moved {
        assert_eq!(before[&from], after[&to]);
    }
    assert!(!before.values().any(|cookie| *cookie == after[&Some(0)]));
    assert_eq!((before.len(), after.len()), (3, 4));
}

#[test]
fn a_cidr_of_one_policy_changes_no_other_policys_table() {
    let endpoints = || vec![endpoint("a", "app=a"), endpoint("b", "app=b")];
    let a = || {
        let rules = vec![allow(&["cidr:198.51.100.0/24"], &[]), deny(&["entity:host"], &[])];
        policy("a", "app=a", None, Some(rules))
    };
    let mut world = World::new(config(host(), endpoints(), vec![a()]), &["192.0.2.1"]);
    let before = world.commit();
    let b = policy("b", "app=b", None, Some(vec![allow(&["cidr:203.0.113.0/24"], &[])]));
    world.configure(config(host(), endpoints(), vec![a(), b]));
    let after = world.commit();
    assert_ne!(before.prefixes.digest, after.prefixes.digest);
    assert_eq!(changed(&before.policies, &after.policies), 1);
}

#[test]
fn equal_tables_are_one_and_each_identity_has_its_slot() {
    let endpoints = ["a", "b", "c"].map(|n| endpoint(n, &format!("app={n}"))).to_vec();
    let policies = vec![policy("p", "app in (a,b)", Some(vec![allow(&["app=c"], &[])]), None)];
    let plan = World::new(config(host(), endpoints, policies), &[]).commit();
    let tables: Vec<_> = plan.policies.values().collect();
    assert_eq!(tables.len(), 3);
    assert!(Arc::ptr_eq(tables[0], tables[1]));
    assert!(!Arc::ptr_eq(tables[0], tables[2]));
}

#[test]
fn the_order_of_things_does_not_matter() {
    let straight = many(40);
    let (mut endpoints, mut policies): (Vec<Endpoint>, Vec<Policy>) = (
        straight.endpoints.iter().map(|e| (**e).clone()).collect(),
        straight.policies.values().map(|p| (**p).clone()).collect(),
    );
    endpoints.reverse();
    policies.reverse();
    let turned = Config {
        groups: Vec::new(),
        asserts: Vec::new(),
        host: straight.host.clone(),
        endpoints: endpoints.into_iter().map(Arc::new).collect(),
        policies: model::by_name(policies.into_iter().map(Arc::new)),
    };
    let hosts = ["192.0.2.1", "2001:db8::1"];
    let one = World::new(straight, &hosts).commit();
    let other = World::new(turned, &[hosts[1], hosts[0]]).commit();
    assert_eq!(format!("{one:#?}"), format!("{other:#?}"));
}

#[test]
fn what_goes_and_comes_back_is_as_before() {
    let config = many(60);
    let mut world = World::new(config.clone(), &[]);
    let before = world.commit();
    let mut less = config.clone();
    less.policies = less.policies.into_iter().take(10).collect();
    less.endpoints.truncate(30);
    world.configure(less);
    world.commit();
    world.configure(config);
    let after = world.commit();
    assert_eq!(format!("{before:#?}"), format!("{after:#?}"));
}
