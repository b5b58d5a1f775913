//! What is said never to decide never does: the warnings against a plain evaluator, over every packet of a small world.

use std::cmp::Reverse;
use std::fs;

use porin::config::Loader;
use porin::config::model::{Config, Peer, Policy, Rule};
use porin::types::{Action, Entity, Label, Labels, Mode, PortSpec, Protocol, Tier};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Other {
    Endpoint(Labels),
    Host,
    Outside(std::net::IpAddr),
}

#[derive(Debug)]
struct Packet {
    subject: Labels,
    peer: Other,
    protocol: Protocol,
    source: u16,
    port: u16,
}

fn label_sets() -> Vec<Labels> {
    let label =
        |key: &str, value: &str| Label { key: key.parse().unwrap(), value: value.to_owned() };
    let mut sets = Vec::new();
    for a in ["x", "y"] {
        sets.push([label("a", a)].into_iter().collect());
        sets.push([label("a", a), label("b", "z")].into_iter().collect());
    }
    sets.push([label("b", "z")].into_iter().collect());
    sets.push(Labels::default());
    sets
}

fn packets() -> Vec<Packet> {
    let mut peers: Vec<_> = label_sets().into_iter().map(Other::Endpoint).collect();
    peers.push(Other::Host);
    for address in ["192.0.2.1", "192.0.2.130", "10.0.0.1", "fd00::1"] {
        peers.push(Other::Outside(address.parse().unwrap()));
    }
    let mut packets = Vec::new();
    for subject in label_sets() {
        for peer in &peers {
            for (protocol, source, port) in [
                (Protocol::TCP, 5, 80),
                (Protocol::TCP, 2000, 85),
                (Protocol::UDP, 2000, 80),
                (Protocol::ICMP, 0, 0x0800),
            ] {
                let (subject, peer) = (subject.clone(), peer.clone());
                packets.push(Packet { subject, peer, protocol, source, port });
            }
        }
    }
    packets
}

fn picks(peer: &Peer, other: &Other) -> bool {
    match (peer, other) {
        (Peer::Selector(selector), Other::Endpoint(labels)) => selector.matches(labels),
        (Peer::Entity(entity), other) => match entity {
            Entity::All => true,
            Entity::Cluster => !matches!(other, Other::Outside(_)),
            Entity::Host => matches!(other, Other::Host),
            Entity::World => matches!(other, Other::Outside(_)),
            Entity::WorldIpv4 => matches!(other, Other::Outside(address) if address.is_ipv4()),
            _ => false,
        },
        (Peer::Cidr(set), Other::Outside(address)) => {
            set.network.contains(address) && !set.except.iter().any(|net| net.contains(address))
        }
        _ => false,
    }
}

fn matches(rule: &Rule, packet: &Packet) -> bool {
    let port = |spec: &PortSpec| match spec {
        PortSpec::Match(ports) => ports.matches(packet.protocol, packet.port),
        PortSpec::Named { .. } => false,
    };
    let source = || {
        packet.protocol.has_ports()
            && rule.source_ports.iter().any(|ports| ports.contains(packet.source))
    };
    (rule.peers.is_empty() || rule.peers.iter().any(|peer| picks(peer, &packet.peer)))
        && (rule.ports.is_empty() || rule.ports.iter().any(port))
        && (rule.source_ports.is_empty() || source())
}

/// Which policies, and which rules by line, say what becomes of the packet.
fn deciders<'c>(config: &'c Config, packet: &Packet, shadow: bool) -> Vec<(&'c Policy, u32)> {
    let mut all = Vec::new();
    for tier in Tier::ALL {
        let of_tier = config.policies.values().map(|policy| &**policy).filter(|policy| {
            policy.tier == tier
                && (shadow || policy.mode == Mode::Enforce)
                && policy.ingress.is_some()
                && policy.subject.matches(&packet.subject)
        });
        let of_tier: Vec<&Policy> = of_tier.collect();
        // The normal tier is asked at once, the others rule by rule.
        let rank = |policy: &'c Policy, rule: &Rule| {
            let strength = [Action::Allow, Action::Pass, Action::Reject, Action::Deny]
                .iter()
                .position(|a| *a == rule.action);
            match tier {
                Tier::Normal => (0, Reverse(strength), None),
                _ => (policy.priority, Reverse(None), Some((&policy.name, rule.origin.line))),
            }
        };
        let rules = of_tier
            .iter()
            .flat_map(|policy| policy.ingress.iter().flatten().map(move |rule| (*policy, rule)));
        let hits: Vec<_> = rules.filter(|(_, rule)| matches(rule, packet)).collect();
        let best = hits.iter().map(|(policy, rule)| rank(policy, rule)).min();
        let top = hits.iter().filter(|(policy, rule)| Some(rank(policy, rule)) == best);
        all.extend(top.clone().map(|(policy, rule)| (*policy, rule.origin.line)));
        if top.clone().any(|(_, rule)| rule.action != Action::Pass) {
            return all;
        }
        if best.is_none() {
            let denying = of_tier.iter().filter(|policy| policy.default_deny);
            let before = all.len();
            all.extend(denying.map(|policy| (*policy, 0)));
            if all.len() > before {
                return all;
            }
        }
    }
    all
}

fn policies() -> impl Strategy<Value = String> {
    let subject =
        prop::sample::select(vec!["", "a", "a=x", "a in (x,y)", "a=x,b", "a!=y", "!a", "b=z"]);
    let head = prop::sample::select(vec![
        "",
        "default = \"allow\"\n",
        "mode = \"shadow\"\n",
        "tier = \"admin\"\npriority = 1\n",
        "tier = \"admin\"\npriority = 2\ndefault = \"deny\"\n",
        "tier = \"baseline\"\npriority = 1\n",
        "tier = \"baseline\"\npriority = 1\ndefault = \"deny\"\n",
    ]);
    let peers = prop::sample::select(vec![
        "",
        "from = \"entity:all\", ",
        "from = \"entity:cluster\", ",
        "from = \"entity:world\", ",
        "from = [\"entity:world-ipv4\", \"entity:host\"], ",
        "from = \"a\", ",
        "from = [\"a=x\", \"a=y,b\"], ",
        "from = \"a notin (x)\", ",
        "from = \"cidr:192.0.2.0/24\", ",
        "from = \"cidr:192.0.2.0/24\", except = \"cidr:192.0.2.128/25\", ",
        "from = \"cidr:192.0.2.0/25\", ",
    ]);
    let ports = prop::sample::select(vec![
        "",
        "ports = \"tcp\", ",
        "ports = [\"80-90/tcp\", \"icmp\"], ",
        "ports = \"80/tcp+udp\", ",
        "ports = \"icmp/8\", ",
        "source-ports = \"1-10\", ",
        "ports = \"tcp\", source-ports = [\"5\", \"2000-3000\"], ",
    ]);
    let action = prop::sample::select(vec!["allow", "allow", "deny", "reject", "pass"]);
    let rules = prop::collection::vec((peers, ports, action), 0..3);
    prop::collection::vec((subject, head, rules), 1..5).prop_map(|policies| {
        let mut text = String::new();
        for (i, (subject, head, rules)) in policies.into_iter().enumerate() {
            text.push_str(&format!(
                "[[policy]]\nname = \"p{i}\"\nsubject = \"{subject}\"\n{head}ingress = [\n"
            ));
            for (peers, ports, action) in rules {
                text.push_str(&format!("{{ {peers}{ports}action = \"{action}\" }},\n"));
            }
            text.push_str("]\n");
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_never_decides_never_does(text in policies()) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("policies.d")).unwrap();
        fs::write(root.path().join("policies.d/p.toml"), &text).unwrap();
        let loaded = Loader::new(vec![root.path().to_owned()]).load();
        let config = loaded.config.clone().expect("valid");
        let told = loaded.report.faults.iter().filter(|fault| fault.what.contains("never decides"));
        let lines: Vec<u32> = told.map(|fault| fault.place.position.as_ref().unwrap().line).collect();
        for packet in packets() {
            for shadow in [false, true] {
                for (policy, line) in deciders(&config, &packet, shadow) {
                    // An enforced policy's warning is about what is enforced.
                    if shadow && policy.mode == Mode::Enforce {
                        continue;
                    }
                    let name = policy.origin.line + 1;
                    let wrong = lines.contains(&line) || lines.contains(&name);
                    prop_assert!(!wrong, "{text}\n{}\n{packet:?} {} {line}", loaded.report, policy.name);
                }
            }
        }
    }
}
