//! Each rule of the language once, in worlds small enough to judge by reading.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::compile::view::{Bears, Inputs, Kind, Member};
use crate::config::model::{CidrSet, Group, Host, Peer, Policy, Pool};
use crate::types::{Entity, Label, Labels, Origin, PortMatch, PortRange};

const TCP: Protocol = Protocol::TCP;

fn origin(line: u32) -> Origin {
    Origin { file: Arc::from(Path::new("p.toml")), line, column: 1 }
}

fn labels(text: &str) -> Labels {
    let label = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap();
        Label { key: key.parse().unwrap(), value: value.to_owned() }
    };
    text.split(',').filter(|pair| !pair.is_empty()).map(label).collect()
}

/// `app=x`, `entity:host`, `cidr:10.0.0.0/8!10.1.0.0/16`, `group:office`.
fn peer(text: &str) -> Peer {
    match text.split_once(':') {
        Some(("entity", name)) => Peer::Entity(name.parse().unwrap()),
        Some(("group", name)) => Peer::Group(name.parse().unwrap()),
        Some(("cidr", nets)) => {
            let mut nets = nets.split('!').map(|net| net.parse().unwrap());
            Peer::Cidr(CidrSet { network: nets.next().unwrap(), except: nets.collect() })
        }
        _ => Peer::Selector(text.parse().unwrap()),
    }
}

/// `deny app=x entity:host 80/tcp http/tcp`: an action, then peers and ports in any order.
fn rule(text: &str, line: u32) -> Rule {
    let mut words = text.split(' ');
    let mut rule = Rule {
        action: match words.next().unwrap() {
            "allow" => Action::Allow,
            "deny" => Action::Deny,
            "reject" => Action::Reject,
            "pass" => Action::Pass,
            other => panic!("{other}"),
        },
        peers: Vec::new(),
        ports: Vec::new(),
        source_ports: Vec::new(),
        match_endpoints: false,
        l7: Default::default(),
        origin: origin(line),
    };
    for word in words {
        if word == "match-endpoints" {
            rule.match_endpoints = true;
        } else if let Some(source) = word.strip_prefix("source:") {
            let (first, last) = source.split_once('-').unwrap();
            let range = PortRange::new(first.parse().unwrap(), last.parse().unwrap());
            rule.source_ports.push(range.unwrap());
        } else if let Ok(ports) = word.parse::<PortMatch>() {
            rule.ports.push(ports.into());
        } else if let Some((name, "tcp")) = word.split_once('/').filter(|_| !word.contains(':')) {
            let (name, protocol) = (name.parse().unwrap(), TCP);
            rule.ports.push(PortSpec::Named { name, protocol });
        } else {
            rule.peers.push(peer(word));
        }
    }
    rule
}

fn policy(name: &str, subject: &str, tier: Tier, priority: u16) -> Policy {
    Policy {
        name: name.parse().unwrap(),
        subject: subject.parse().unwrap(),
        tier,
        priority,
        default_deny: tier == Tier::Normal,
        mode: Mode::Enforce,
        ingress: None,
        egress: None,
        origin: origin(1),
        ingress_origin: None,
        egress_origin: None,
    }
}

fn ingress(name: &str, subject: &str, rules: &[&str]) -> Policy {
    let rules = (2..).zip(rules).map(|(line, text)| rule(text, line)).collect();
    Policy { ingress: Some(rules), ..policy(name, subject, Tier::Normal, 0) }
}

fn egress(name: &str, subject: &str, rules: &[&str]) -> Policy {
    let Policy { ingress, .. } = ingress(name, subject, rules);
    Policy { egress: ingress, ..policy(name, subject, Tier::Normal, 0) }
}

/// In the admin or baseline tier, where nothing is denied unless a rule says so.
fn tiered(policy: Policy, tier: Tier, priority: u16) -> Policy {
    Policy { tier, priority, default_deny: false, ..policy }
}

fn shadow(policy: Policy) -> Policy {
    Policy { mode: Mode::Shadow, ..policy }
}

fn member(name: &str, text: &str, number: u8) -> Member {
    let v6 = format!("fd00::{number}").parse().unwrap();
    let v4 = std::net::IpAddr::from([10, 0, 0, number]);
    Member {
        name: Some(name.parse().unwrap()),
        labels: Arc::new(labels(text)),
        ports: Arc::default(),
        addresses: [Bears::Is(v6), Bears::Is(v4)],
    }
}

struct World(View);

/// web (10.0.0.2), api (10.0.0.3, which calls 8080 `http`), db (10.0.0.4); pools fd00::/64 and 10.0.0.0/24.
fn world(policies: &[Policy]) -> World {
    world_with(policies, &[])
}

fn world_with(policies: &[Policy], groups: &[Group]) -> World {
    let pool = |name: &str, network: &str| Pool {
        name: name.parse().unwrap(),
        network: network.parse().unwrap(),
        reserved: Vec::new(),
        origin: origin(1),
    };
    let mut api = member("api", "app=api", 3);
    let http = ("http".parse().unwrap(), "8080/tcp".parse().unwrap());
    api.ports = Arc::new([http].into());
    let mut policies: Vec<_> = policies.iter().cloned().map(Arc::new).collect();
    policies.sort_by(|a, b| a.name.cmp(&b.name));
    World(View::new(Inputs {
        publish: Vec::new(),
        adopted: Default::default(),
        host: Arc::new(Host {
            pools: vec![pool("six", "fd00::/64"), pool("four", "10.0.0.0/24")],
            remote_hosts: vec!["192.0.2.0/28".parse().unwrap(), "10.0.0.0/8".parse().unwrap()],
            unmanaged: vec!["192.0.2.0/24".parse().unwrap(), "172.17.0.0/16".parse().unwrap()],
            ..Host::default()
        }),
        host_addresses: vec!["192.0.2.1".parse().unwrap(), "10.0.0.200".parse().unwrap()],
        endpoints: vec![member("web", "app=web", 2), api, member("db", "app=db", 4)],
        policies,
        groups: groups.iter().cloned().map(Arc::new).collect(),
    }))
}

impl World {
    /// An endpoint's name, an address, a label set, or an entity.
    fn party(&self, text: &str) -> Party {
        if let Ok(address) = text.parse() {
            return self.0.who(address);
        }
        if text.contains('=') {
            let member = Arc::new(self.0.hypothetical(labels(text)));
            return Party::Endpoint { member, family: None };
        }
        match self.0.endpoint(&text.parse().unwrap()) {
            Some(member) => Party::Endpoint { member: Arc::clone(member), family: None },
            None => Party::Entity(text.parse::<Entity>().unwrap()),
        }
    }

    fn ask(&self, from: &str, to: &str, port: u16) -> Explanation {
        self.0.judge(&self.party(from), &self.party(to), TCP, port, None)
    }

    /// `allow`, then what decided each end: `policy:line`, `-` for no policy's, nothing for no endpoint.
    fn says(&self, from: &str, to: &str, port: u16) -> String {
        let Explanation { verdict, egress, ingress, .. } = self.ask(from, to, port);
        let by = |decision: &Decision| match &decision.by {
            Some(by) => format!(" {}:{}", by.policy.name, by.origin().line),
            None => " -".to_owned(),
        };
        let ends = [egress, ingress];
        let ends: String = ends.iter().flatten().map(by).collect();
        format!("{verdict}{ends}")
    }
}

#[test]
fn without_policies_all_passes() {
    let world = world(&[]);
    assert_eq!(world.says("web", "api", 80), "allow - -");
    assert_eq!(world.says("web", "203.0.113.1", 80), "allow -");
    assert_eq!(world.says("203.0.113.1", "api", 80), "allow -");
    assert!(!world.ask("web", "api", 80).egress.unwrap().asked);
}

#[test]
fn a_policy_that_speaks_of_a_direction_denies_the_rest_of_it() {
    let world = world(&[ingress("p", "app=api", &["allow app=web 80/tcp"])]);
    assert_eq!(world.says("web", "api", 80), "allow - p:2");
    assert_eq!(world.says("web", "api", 81), "deny - p:1");
    assert_eq!(world.says("db", "api", 80), "deny - p:1");
    assert_eq!(world.says("api", "web", 80), "allow - -", "egress of api is free");
    let denied = world.ask("web", "api", 81).ingress.unwrap().by.unwrap();
    assert_eq!((denied.index, denied.action), (None, Action::Deny));
}

#[test]
fn the_first_by_name_is_named_for_the_default() {
    let silent = egress("a", "app=api", &["allow app=web"]);
    let open = Policy { default_deny: false, ..ingress("b", "app=api", &["allow app=db"]) };
    let [c, d] = ["c", "d"].map(|name| ingress(name, "app=api", &[]));
    assert_eq!(world(&[d, c, open.clone(), silent]).says("web", "api", 80), "deny - c:1");
    assert_eq!(world(&[open]).says("web", "api", 80), "allow - -", "default = \"allow\"");
}

#[test]
fn both_ends_must_agree_and_the_senders_is_asked_first() {
    let (out, into) = (
        egress("out", "app=web", &["reject 80/tcp", "allow 81/tcp"]),
        ingress("into", "app=api", &[]),
    );
    let world = world(&[out, into]);
    assert_eq!(world.says("web", "api", 80), "reject out:2 into:1");
    assert_eq!(world.says("web", "api", 81), "deny out:3 into:1");
}

#[test]
fn deny_beats_reject_beats_pass_beats_allow_within_a_priority() {
    let all = ["allow 1-9/tcp", "pass 1-8/tcp", "reject 1-7/tcp", "deny 1-6/tcp"];
    let world = world(&[ingress("p", "app=api", &all)]);
    for (port, says) in
        [(6, "deny - p:5"), (7, "reject - p:4"), (8, "allow - -"), (9, "allow - p:2")]
    {
        assert_eq!(world.says("web", "api", port), says);
    }
}

#[test]
fn of_rules_that_say_the_same_the_first_is_named() {
    let [b, a] = ["b", "a"].map(|name| ingress(name, "app=api", &["allow 80/tcp", "allow"]));
    assert_eq!(world(&[b, a]).says("web", "api", 80), "allow - a:2");
}

#[test]
fn tiers_are_asked_in_turn_and_pass_skips_the_rest_of_one() {
    let policies = [
        tiered(ingress("a1", "", &["allow 1/tcp", "pass 2/tcp", "deny 3/tcp"]), Tier::Admin, 1),
        tiered(ingress("a2", "", &["deny 1/tcp", "deny 2/tcp", "allow 3/tcp"]), Tier::Admin, 2),
        ingress("n", "app=api", &["allow 2/tcp", "allow 3/tcp", "pass 5/tcp"]),
        tiered(ingress("z", "", &["deny 2/tcp", "deny 5/tcp", "deny 6/tcp"]), Tier::Baseline, 0),
    ];
    let world = world(&policies);
    assert_eq!(world.says("web", "api", 1), "allow - a1:2", "the lower priority number is first");
    assert_eq!(world.says("web", "api", 2), "allow - n:2", "passed by a1, past a2");
    assert_eq!(world.says("web", "api", 3), "deny - a1:4");
    assert_eq!(world.says("web", "api", 4), "deny - n:1", "the normal tier's default");
    assert_eq!(world.says("web", "api", 5), "deny - z:3", "passed to the baseline");
    assert_eq!(world.says("web", "api", 6), "deny - n:1", "the baseline is not asked");
    assert_eq!(world.says("api", "db", 6), "deny - z:4", "nothing of the normal tier is about db");
    assert_eq!(world.says("api", "db", 7), "allow - -");
    let passed = world.ask("web", "api", 2).ingress.unwrap().passed.unwrap();
    assert_eq!(passed.policy.name.as_str(), "a1");
}

#[test]
fn a_default_denies_at_the_end_of_its_tier_unless_passed() {
    let admin = tiered(ingress("a", "app=api", &["pass 1/tcp"]), Tier::Admin, 9);
    let admin = Policy { default_deny: true, ..admin };
    let normal = ingress("n", "app=api", &["allow"]);
    let world = world(&[admin, normal]);
    assert_eq!(world.says("web", "api", 1), "allow - n:2");
    assert_eq!(world.says("web", "api", 2), "deny - a:1");
}

#[test]
fn entities_are_disjoint_and_none_is_an_endpoint() {
    let names = ["host", "remote-host", "unmanaged", "world", "world-ipv4", "world-ipv6"];
    for (who, is) in [
        ("192.0.2.1", "host"),
        ("10.0.0.200", "host"),
        ("10.0.0.1", "host"),
        ("192.0.2.2", "remote-host"),
        ("10.9.0.1", "remote-host"),
        ("192.0.2.99", "unmanaged"),
        ("172.17.0.2", "unmanaged"),
        ("203.0.113.1", "world world-ipv4"),
        ("2001:db8::1", "world world-ipv6"),
        ("web", ""),
        ("10.0.0.2", ""),
        ("app=new", ""),
    ] {
        for name in names {
            let rule = format!("allow entity:{name}");
            let world = world(&[ingress("p", "app=api", &[&rule])]);
            let allowed = world.ask(who, "api", 80).verdict == Verdict::Allow;
            assert_eq!(allowed, is.split(' ').any(|one| one == name), "{who} {name}");
        }
        let all = world(&[ingress("p", "app=api", &["allow entity:all"])]);
        assert_eq!(all.ask(who, "api", 80).verdict, Verdict::Allow, "{who}");
        let cluster = world(&[ingress("p", "app=api", &["allow entity:cluster"])]);
        let outside = is.starts_with("world");
        assert_eq!(cluster.ask(who, "api", 80).verdict == Verdict::Deny, outside, "{who}");
    }
}

#[test]
fn an_address_of_a_pool_that_nobody_has_is_dropped_unjudged() {
    let world = world(&[]);
    for (from, to) in [("web", "10.0.0.77"), ("fd00::77", "api"), ("203.0.113.1", "fd00::77")] {
        let explanation = world.ask(from, to, 80);
        assert_eq!(
            (explanation.verdict, explanation.outcome),
            (Verdict::Deny, Outcome::NoEndpoint)
        );
        assert_eq!((explanation.egress, explanation.ingress), (None, None));
    }
    let outside = world.ask("203.0.113.1", "192.0.2.1", 80);
    assert_eq!((outside.verdict, outside.outcome), (Verdict::Allow, Outcome::NotOurs));
}

#[test]
fn networks_mean_addresses_outside_unless_the_rule_says_otherwise() {
    let rule = "allow cidr:10.0.0.0/8!10.0.0.2/32 cidr:fd00::3/128";
    let plain = world(&[egress("p", "", &[rule])]);
    assert_eq!(plain.says("web", "10.9.0.1", 80), "allow p:2");
    assert_eq!(plain.says("web", "10.0.0.200", 80), "allow p:2", "the host's own address");
    assert_eq!(plain.says("web", "203.0.113.1", 80), "deny p:1");
    assert_eq!(plain.says("web", "api", 80), "deny p:1 -");
    let matching = world(&[egress("p", "", &[&format!("{rule} match-endpoints")])]);
    assert_eq!(matching.says("web", "10.0.0.3", 80), "allow p:2 -");
    assert_eq!(matching.says("api", "10.0.0.2", 80), "deny p:1 -", "except");
    assert_eq!(matching.says("web", "fd00::3", 80), "allow p:2 -");
    assert_eq!(matching.says("web", "fd00::4", 80), "deny p:1 -", "of the packet's family");
}

#[test]
fn where_families_differ_the_one_that_does_not_pass_is_told() {
    let world = world(&[egress("p", "app=web", &["allow cidr:10.0.0.0/24 match-endpoints"])]);
    let both = world.ask("web", "db", 80);
    assert_eq!((both.verdict, both.family), (Verdict::Deny, Family::Ipv6));
    assert_eq!(both.other_family, Some((Family::Ipv4, Verdict::Allow)));
    let one = world.ask("web", "10.0.0.4", 80);
    assert_eq!((one.verdict, one.other_family), (Verdict::Allow, None));
    // Every address of the pool is in the network: it need not be known.
    let new = world.ask("web", "app=new", 80);
    assert_eq!(new.other_family, Some((Family::Ipv4, Verdict::Allow)));
}

#[test]
fn a_group_is_one_set() {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let group = Group {
        name: "office".parse().unwrap(),
        selectors: vec!["app=web".parse().unwrap()],
        entities: vec![Entity::Host],
        networks: nets(&["198.51.100.0/24", "203.0.113.0/24"]),
        except: nets(&["203.0.113.128/25"]),
        origin: origin(1),
    };
    let world = world_with(&[ingress("p", "app=api", &["allow group:office"])], &[group]);
    for (from, allowed) in [
        ("web", true),
        ("db", false),
        ("192.0.2.1", true),
        ("198.51.100.200", true),
        ("203.0.113.1", true),
        ("203.0.113.200", false),
        ("203.0.114.1", false),
    ] {
        assert_eq!(world.ask(from, "api", 80).verdict == Verdict::Allow, allowed, "{from}");
    }
}

#[test]
fn a_named_port_is_the_receivers() {
    let [to, out] =
        [ingress("into", "", &["allow http/tcp"]), egress("out", "", &["allow http/tcp"])];
    let world = world(&[to, out]);
    assert_eq!(world.says("web", "api", 8080), "allow out:2 into:2");
    assert_eq!(world.says("web", "api", 80), "deny out:1 into:1");
    assert_eq!(world.says("api", "web", 8080), "deny out:1 into:1", "web has no such port");
    assert_eq!(world.says("web", "203.0.113.1", 8080), "deny out:1");
}

#[test]
fn source_ports_are_the_senders() {
    let world = world(&[ingress("p", "app=api", &["allow 53/udp 53/tcp source:1024-65535"])]);
    let ask = |protocol, source| {
        let (from, to) = (world.party("web"), world.party("api"));
        world.0.judge(&from, &to, protocol, 53, source)
    };
    assert_eq!(ask(TCP, Some(1024)).verdict, Verdict::Allow);
    assert_eq!(ask(Protocol::UDP, Some(1023)).verdict, Verdict::Deny);
    let unsaid = ask(TCP, None);
    let others = Source::Port { port: 1, other: Some(Verdict::Allow) };
    assert_eq!((unsaid.verdict, unsaid.source), (Verdict::Deny, Some(others)));
    assert_eq!(unsaid.almost[0].differs, Differs::SourcePort);
}

#[test]
fn without_a_source_port_that_is_told_which_is_allowed_least() {
    let source = |rules: &[&str]| {
        let world = world(&[ingress("p", "app=api", rules)]);
        let Explanation { verdict, source, .. } = world.ask("web", "api", 80);
        (verdict, source)
    };
    let port = |port, other| Some(Source::Port { port, other });
    let (allow, deny, reject) = (Verdict::Allow, Verdict::Deny, Verdict::Reject);
    let denied = source(&["deny source:53-53", "allow"]);
    assert_eq!(denied, (deny, port(53, Some(allow))));
    let allowed = source(&["allow source:1-1023", "allow source:1024-65535"]);
    assert_eq!(allowed, (allow, port(1024, None)), "what most ports get");
    let neither = source(&["reject source:2000-3000"]);
    assert_eq!(neither, (deny, port(1, Some(reject))));
    let everything = source(&["allow source:1-65535"]);
    assert_eq!(everything, (allow, port(1, None)));
    let others = ["deny app=db source:1-9", "deny 81/tcp source:1-9", "allow"];
    assert_eq!(source(&others), (allow, None), "no such rule could match");
    let passed = source(&["pass source:7-7", "allow"]);
    assert_eq!(passed, (allow, port(1, None)));
    let many: Vec<String> = (1..=300).map(|n| format!("deny source:{n}-{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(source(&many).1, Some(Source::TooMany));
}

#[test]
fn source_ports_are_told_apart_by_both_ends_and_by_shadow_policies() {
    let out = egress("out", "app=web", &["deny source:5-5", "allow"]);
    let into = ingress("into", "app=api", &["deny source:7-8", "allow"]);
    let both = world(&[out.clone(), into]).ask("web", "api", 80);
    assert_eq!(both.source, Some(Source::Port { port: 7, other: Some(Verdict::Allow) }));
    let tried = shadow(ingress("tried", "app=api", &["deny source:9-9"]));
    let tried = Policy { default_deny: false, ..tried };
    let only = world(&[tried]).ask("web", "api", 80);
    assert_eq!(
        (only.verdict, only.source),
        (Verdict::Allow, Some(Source::Port { port: 9, other: None }))
    );
    assert_eq!(only.shadow.unwrap().verdict, Verdict::Deny);
}

#[test]
fn entities_at_large_are_those_that_only_whole_networks_are_about() {
    let rules = ["deny cidr:203.0.113.0/24", "allow cidr:0.0.0.0/0", "deny cidr:::/0!fd00::/8"];
    let world = world(&[ingress("p", "app=api", &rules)]);
    assert_eq!(world.says("world-ipv4", "api", 80), "allow p:3");
    assert_eq!(world.says("world-ipv6", "api", 80), "deny p:1");
    let either = world.ask("world", "api", 80);
    assert_eq!(either.other_family, Some((Family::Ipv4, Verdict::Allow)));
    assert_eq!(world.ask("cluster", "api", 80).verdict, Verdict::Deny);
}

#[test]
fn shadow_policies_never_decide_but_are_told_of() {
    let enforced = ingress("n", "app=api", &["allow app=web"]);
    let tried = shadow(ingress("m", "app=api", &["deny 80/tcp"]));
    let world = world(&[enforced, tried]);
    assert_eq!(world.says("web", "api", 80), "allow - n:2");
    let shadow = world.ask("web", "api", 80).shadow.unwrap();
    assert_eq!(shadow.verdict, Verdict::Deny);
    assert_eq!(shadow.ingress.unwrap().by.unwrap().policy.name.as_str(), "m");
    assert_eq!(world.ask("web", "api", 81).shadow, None);
    assert_eq!(
        world.says("db", "api", 80),
        "deny - n:1",
        "not m, which comes first but is not in force"
    );
}

#[test]
fn almost_names_what_one_change_would_have_made_allow() {
    let rules =
        ["allow app=web 80/tcp", "allow app=db 81/tcp", "allow app=db 80/tcp", "deny app=ci"];
    let world = world(&[ingress("p", "app=api", &rules)]);
    let almost = |from, port| -> Vec<(u32, Differs)> {
        let almost = world.ask(from, "api", port).almost;
        almost.iter().map(|one| (one.rule.origin().line, one.differs)).collect()
    };
    assert_eq!(almost("web", 81), [(2, Differs::Port), (3, Differs::Peer)]);
    assert_eq!(almost("web", 80), []);
    assert_eq!(almost("app=ci", 80), [], "a deny is above them all");
    let many = vec!["allow app=db"; 9];
    let world = self::world(&[ingress("p", "app=api", &many)]);
    assert_eq!(world.ask("web", "api", 80).almost.len(), ALMOST);
}

#[test]
fn a_policy_about_others_changes_nothing() {
    let world = world(&[
        ingress("p", "app=web,env notin (dev)", &[]),
        ingress("q", "app in (db,x),!old", &[]),
    ]);
    assert_eq!(world.says("web", "api", 80), "allow - -");
    assert_eq!(world.says("api", "web", 80), "deny - p:1");
    assert_eq!(world.says("api", "app=web,env=dev", 80), "allow - -");
    assert_eq!(world.says("api", "app=x", 80), "deny - q:1");
    assert_eq!(world.says("api", "app=x,old=1", 80), "allow - -");
    assert!(matches!(world.party("192.0.2.99"), Party::Outside { kind: Kind::Unmanaged, .. }));
}

/// Whoever may ask, may ask about anything.
#[test]
fn what_is_remembered_is_bounded() {
    let rules = vec!["allow"; 10_000];
    let world = world(&[ingress("p", "", &rules)]);
    for number in 0..60 {
        world.ask("web", &format!("app=x{number}"), 80);
        let [known, strangers] = world.0.cached();
        assert_eq!(known, 1, "web stays");
        assert!((1..=3).contains(&strangers));
    }
    let long = "x".repeat(4096);
    let world = self::world(&[ingress("p", "", &["allow"])]);
    for number in 0..2000 {
        world.ask("web", &format!("app=x{number},a={long}"), 80);
    }
    let [_, strangers] = world.0.cached();
    assert!(strangers < 700, "what labels take is counted: {strangers}");
}
