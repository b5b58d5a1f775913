//! From files to rows, through the real loader and the real model.

use std::collections::BTreeMap;
use std::fs;

use porin::compile::{Memory, compile};
use porin::config::Loader;
use porin::control::rows;
use porin::control::view::EndpointState;
use porin::desired::snapshot::Namespace;
use porin::desired::{Change, Desired};
use porin::observe::counters::{Counters, Row, Traffic};
use porin::types::Direction;

#[test]
fn rows_say_what_is_in_force_and_what_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("porin.toml", "[[pool]]\nname = \"p\"\nnetwork = \"fd00:1::/64\"\n");
    let endpoint = |name: &str, app: &str| {
        format!(
            "[[endpoint]]\nname = \"{name}\"\nlabels = {{ app = \"{app}\" }}\n\
             namespace = \"/run/netns/{name}\"\nports = {{ http = \"80/tcp\" }}\n"
        )
    };
    let all = endpoint("api-2", "api") + &endpoint("api-1", "api") + &endpoint("web", "web");
    write("endpoints.d/a.toml", &all);
    let policy = "[[policy]]\nname = \"p\"\nsubject = \"app=api\"\negress = []\n\
                  [[policy.ingress]]\nfrom = [\"app=web\"]\n";
    write("policies.d/a.toml", policy);
    let loaded = Loader::new(vec![dir.path().to_owned()]).load();
    let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.report));

    let mut desired = Desired::default();
    desired.apply(Change::Config(config.clone()));
    let namespace = |name: &str, inode| {
        let path = format!("/run/netns/{name}").into();
        (name.parse().unwrap(), Ok(Namespace { path, device: 4, inode }))
    };
    let missing = ("web".parse().unwrap(), Err("no such file".to_owned()));
    let found = [namespace("api-1", 1), namespace("api-2", 2), missing];
    desired.apply(Change::Namespaces(found.into_iter().collect()));
    let (snapshot, faults) = desired.snapshot().unwrap();
    let row = Row { ingress: Traffic { packets: 3, bytes: 180 }, ..Row::default() };
    let counters =
        Counters { endpoints: BTreeMap::from([("api-1".into(), row)]), ..Counters::default() };

    let endpoints = rows::endpoints(&config, &snapshot, &faults, &counters);
    let names: Vec<_> = endpoints.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["api-1", "api-2", "web"]);
    let [api, _, web] = endpoints.try_into().unwrap();
    assert_eq!((api.state, api.fault), (EndpointState::Attached, None));
    assert_eq!(api.default_deny, [Direction::Ingress, Direction::Egress]);
    assert_eq!((api.sent.packets, api.received.packets), (3, 0));
    assert_eq!(api.ports["http"], "80/tcp");
    assert!(api.ipv6.is_some() && api.ipv4.is_none() && api.host_interface.is_some());
    assert_eq!((web.state, web.identity, web.ipv6), (EndpointState::Closed, None, None));
    assert!(web.fault.unwrap().contains("no such file"));
    assert!(web.file.ends_with("endpoints.d/a.toml") && web.line > 1);

    let identities = rows::identities(&snapshot);
    assert_eq!(identities.len(), 1);
    assert_eq!(identities[0].endpoints, ["api-1", "api-2"]);
    assert_eq!(identities[0].labels, super::fixture::labels("app=api"));

    let policies = rows::policies(&snapshot);
    assert_eq!(policies.len(), 1);
    assert_eq!((policies[0].ingress, policies[0].egress), (Some(1), Some(0)));
    assert_eq!(policies[0].endpoints, ["api-1", "api-2"]);
    assert_eq!(policies[0].subject, "app=api");
}

#[test]
fn every_rule_is_listed_with_its_hits() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("policies.d")).unwrap();
    let policies = "[[policy]]\nname = \"open\"\nsubject = \"a\"\ndefault = \"allow\"\n\
                    [[policy.ingress]]\naction = \"pass\"\n\
                    [[policy]]\nname = \"trial\"\nsubject = \"a\"\nmode = \"shadow\"\negress = []\n\
                    [[policy]]\nname = \"shut\"\nsubject = \"a\"\n\
                    [[policy.ingress]]\nfrom = [\"b\"]\n[[policy.ingress]]\nfrom = [\"c\"]\n";
    fs::write(dir.path().join("policies.d/a.toml"), policies).unwrap();
    let loaded = Loader::new(vec![dir.path().to_owned()]).load();
    let mut desired = Desired::default();
    desired.apply(Change::Config(loaded.config.unwrap_or_else(|| panic!("{}", loaded.report))));
    let (snapshot, _) = desired.snapshot().unwrap();
    let rules = compile(&snapshot, &mut Memory::default()).unwrap().rules;
    let cookie = |line| {
        let found = rules.iter().find(|(_, rule)| rule.origin.line == line && rule.rule.is_some());
        *found.unwrap().0
    };
    let counted = BTreeMap::from([((cookie(15), false), 5), ((cookie(15), true), 2)]);
    let hits = rows::hits(&snapshot, &rules, &counted);
    let rows: Vec<_> = hits
        .iter()
        .map(|row| (row.policy.as_str(), row.rule, row.line, row.hits, row.shadow_hits))
        .collect();
    let expected = [
        ("open", Some(1), 5, None, None),
        ("shut", Some(1), 15, Some(5), Some(2)),
        ("shut", Some(2), 17, Some(0), Some(0)),
        ("shut", None, 15, Some(0), Some(0)),
        ("trial", None, 11, None, Some(0)),
    ];
    assert_eq!(rows, expected);
}
