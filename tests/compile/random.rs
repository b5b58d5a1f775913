//! Random worlds, changed at random, judged by their plans and by the reference: the verdict and the rule that is named must agree.

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use porin::compile::explain::{Decision, Outcome, Packet, judge};
use porin::compile::plan::Plan;
use porin::config::model::{Endpoint, Host, LabelFilter, Policy, Rule};
use porin::types::{Action, Cookie, Protocol, Verdict};

use crate::reference::{self, Expected, Says};
use crate::world::{self, World};

const PEERS: [&str; 24] = [
    "",
    "app=a",
    "app=b,env=p",
    "app in (a,c)",
    "!env",
    "env!=p",
    "uid=1",
    "app notin (a,b)",
    "entity:host",
    "entity:world",
    "entity:all",
    "cidr:0.0.0.0/0",
    "cidr:::/0",
    "cidr:0.0.0.0/0!203.0.113.0/24",
    "cidr:203.0.113.0/24",
    "cidr:203.0.113.0/24!203.0.113.128/25!203.0.113.7/32",
    "cidr:203.0.113.128/25",
    "cidr:203.0.113.7/32",
    "cidr:10.0.0.0/8",
    "cidr:10.1.0.0/24",
    "cidr:2001:db8::/32",
    "cidr:2001:db8:1::/48",
    "cidr:2001:db8::/32!2001:db8:1::/48",
    "cidr:fd00::/8",
];

const PORTS: [&str; 15] = [
    "tcp",
    "udp",
    "80/tcp",
    "80/udp",
    "443/tcp",
    "1-79/tcp",
    "80-443/tcp",
    "8000-8100/tcp",
    "1-65535/udp",
    "1024-65535/tcp",
    "53/udp",
    "icmp",
    "icmpv6",
    "icmp/echo-request",
    "icmpv6/echo-request",
];

const OUTSIDE: [&str; 18] = [
    "203.0.113.7",
    "203.0.113.8",
    "203.0.113.127",
    "203.0.113.128",
    "203.0.114.0",
    "10.2.3.4",
    "10.1.0.0",
    "10.1.0.1",
    "10.1.255.255",
    "10.1.0.200",
    "192.0.2.1",
    "192.0.2.9",
    "2001:db8::1",
    "2001:db8:1::1",
    "2001:db9::",
    "fd00:1::1",
    "fd00:1::ffff:1",
    "fd00:2::1",
];

const HOST: [&str; 3] = ["192.0.2.1", "2001:db8:1::1", "10.1.0.200"];

fn rules() -> impl Strategy<Value = Option<Vec<Rule>>> {
    let rule = (
        prop_oneof![3 => Just(Action::Allow), 2 => Just(Action::Deny)],
        subsequence(PEERS.to_vec(), 0..=3),
        prop_oneof![2 => subsequence(PORTS.to_vec(), 0..=3), 1 => Just(Vec::new())],
    );
    let rule = rule.prop_map(|(action, peers, ports)| world::rule(action, &peers, &ports));
    proptest::option::weighted(0.7, proptest::collection::vec(rule, 0..4))
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let names = subsequence(vec!["p1", "p2", "p3", "p4", "p5", "p6"], 0..=6);
    let subject = select(vec!["", "app=a", "app=b", "env=p", "!env", "app in (b,c)", "uid=1"]);
    let body = proptest::collection::vec((subject, rules(), rules()), 6);
    (names, body).prop_map(|(names, bodies)| {
        let policy =
            |(name, (subject, ingress, egress))| world::policy(name, subject, ingress, egress);
        names.into_iter().zip(bodies).map(policy).collect()
    })
}

fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let labels = select(vec!["app=a", "app=a,env=p", "app=b,env=p", "app=c,uid=1", "env=d", ""]);
    let names = subsequence(vec!["e1", "e2", "e3", "e4", "e5"], 1..=5);
    (names, proptest::collection::vec(labels, 5)).prop_map(|(names, labels)| {
        names.into_iter().zip(labels).map(|(name, l)| world::endpoint(name, l)).collect()
    })
}

fn host() -> impl Strategy<Value = Host> {
    let exclude = select(vec![vec![], vec!["uid".to_owned()], vec!["e*".to_owned()]]);
    exclude.prop_map(|exclude| Host {
        labels: LabelFilter { include: Vec::new(), exclude },
        ..world::host()
    })
}

fn packets() -> impl Strategy<Value = Vec<(usize, usize, Protocol, u16)>> {
    let protocol = select(vec![
        (Protocol::TCP, vec![0, 1, 79, 80, 81, 443, 444, 1023, 1024, 8000, 8050, 8101, 65535]),
        (Protocol::UDP, vec![0, 53, 80, 65535]),
        (Protocol::ICMP, vec![0x0800, 0x0801, 0x0000]),
        (Protocol::ICMPV6, vec![0x8000, 0x8100]),
        (Protocol(47), vec![0]),
    ]);
    let protocol = protocol.prop_flat_map(|(protocol, ports)| (Just(protocol), select(ports)));
    let packet = (0..64usize, 0..64usize, protocol);
    let packet = packet.prop_map(|(from, to, (protocol, port))| (from, to, protocol, port));
    proptest::collection::vec(packet, 60)
}

fn says(plan: &Plan, decision: Option<Decision>) -> Option<Says> {
    let Decision { verdict, cookie, .. } = decision?;
    let named = (cookie != Cookie::NONE).then(|| &plan.rules[&cookie]);
    let decided = named.map(|rule| {
        assert_eq!(rule.action.to_string(), verdict.to_string());
        (rule.policy.clone(), rule.rule)
    });
    Some((verdict == Verdict::Allow, decided))
}

fn candidates(plan: &Plan, ipv6: bool) -> Vec<IpAddr> {
    let endpoints = plan.addresses.keys().map(|key| IpAddr::from(*key));
    let outside = OUTSIDE.iter().map(|text| text.parse().unwrap());
    // Endpoints three times: most packets should have one.
    let all = endpoints.clone().chain(endpoints.clone()).chain(endpoints).chain(outside);
    all.filter(|address| address.is_ipv6() == ipv6).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn plans_judge_as_the_reference_does(
        steps in proptest::collection::vec((host(), endpoints(), policies(), packets()), 1..4),
    ) {
        let mut world = World::new(world::config(world::host(), vec![], vec![]), &HOST);
        for (host, endpoints, policies, packets) in steps {
            let config = world::config(host, endpoints, policies);
            world.configure(config.clone());
            let snapshot = world.snapshot();
            let plan = world.commit();
            for (index, (from, to, protocol, port)) in packets.into_iter().enumerate() {
                let addresses = candidates(&plan, index % 2 == 0);
                let source = addresses[from % addresses.len()];
                let destination = addresses[to % addresses.len()];
                let packet = Packet { source, destination, protocol, source_port: 0, port };
                let judged = judge(&plan, &packet);
                let got = match judged.outcome {
                    Outcome::NoEndpoint => Expected::NoEndpoint,
                    Outcome::NotOurs => Expected::NotOurs,
                    Outcome::Fault => return Err(TestCaseError::fail(format!("{judged:?}"))),
                    Outcome::Allowed | Outcome::Denied(_) | Outcome::Rejected(_) => Expected::Judged {
                        egress: says(&plan, judged.egress),
                        ingress: says(&plan, judged.ingress),
                    },
                };
                prop_assert_eq!(got, reference::judge(&config, &snapshot, &packet), "{:?}", packet);
                let passes = [judged.egress, judged.ingress]
                    .into_iter()
                    .flatten()
                    .all(|decision| decision.verdict == Verdict::Allow);
                if !matches!(judged.outcome, Outcome::NoEndpoint | Outcome::NotOurs) {
                    prop_assert_eq!(judged.outcome == Outcome::Allowed, passes);
                }
            }
        }
    }
}
