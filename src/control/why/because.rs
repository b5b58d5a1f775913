//! Explanations in sentences, without full stops, for people who know their own files.

use std::fmt::Write;

use super::query::Meant;
use crate::compile::view::{Party, Ranked};
use crate::compile::why::{Almost, Decision, Differs, Explanation, Outcome, Source};
use crate::config::model::{Peer, Rule};
use crate::types::icmp::{self, Nature};
use crate::types::{Action, Direction, PortMatch, PortRange, PortSpec, Verdict};

/// Of lists in a sentence, this many are named.
const NAMED: usize = 3;

pub fn decision(decision: &Decision, direction: Direction) -> String {
    let decided = match &decision.by {
        Some(by) => match by.rule() {
            Some(rule) => rule_says(by, rule),
            None => format!(
                "no rule of the {} tier matches, and policy {} makes {direction} default deny",
                by.tier, by.policy.name
            ),
        },
        None if decision.asked => {
            format!("no rule matches, and no policy makes {direction} default deny")
        }
        None => format!("no policy speaks of its {direction}"),
    };
    match &decision.passed {
        Some(passed) => {
            format!("{} passes it on from the {} tier; {decided}", name(passed), passed.tier)
        }
        None => decided,
    }
}

/// Why neither end was asked.
pub fn outcome(explanation: &Explanation, meant: &Meant) -> Option<String> {
    match explanation.outcome {
        Outcome::Judged => None,
        Outcome::NotOurs => {
            Some("neither end is an endpoint: porin does not judge what others send".to_owned())
        }
        Outcome::NoEndpoint => {
            let address = [&meant.from, &meant.to].into_iter().find_map(|party| match party {
                Party::Unassigned(address) => Some(address),
                _ => None,
            })?;
            Some(format!("{address} is in a pool, but no endpoint has it"))
        }
    }
}

pub fn almost(almost: &Almost, meant: &Meant) -> String {
    let Almost { rule: ranked, differs } = almost;
    let name = name(ranked);
    let Some(rule) = ranked.rule() else { return name };
    match differs {
        Differs::Port => {
            let asked = asked(meant);
            format!("{name} is about {}, not {asked}", ports(rule, meant))
        }
        Differs::SourcePort => {
            let ranges = list(&rule.source_ports, PortRange::to_string);
            match meant.source_port {
                Some(port) => format!("{name} is about source ports {ranges}, not {port}"),
                None => format!("{name} is about source ports {ranges} only"),
            }
        }
        Differs::Peer => {
            let other = match ranked.direction {
                Direction::Ingress => &meant.from,
                Direction::Egress => &meant.to,
            };
            format!("{name} is about {}, not {}", peers(rule), party(other))
        }
    }
}

/// `8080/tcp`: what was asked for, by number.
pub fn asked(meant: &Meant) -> String {
    let Meant { protocol, port, .. } = *meant;
    match PortRange::new(port, port) {
        Ok(ports) if port != 0 || protocol.has_types() => PortMatch { protocol, ports }.to_string(),
        _ => PortMatch::whole(protocol).to_string(),
    }
}

fn rule_says(by: &Ranked, rule: &Rule) -> String {
    let does = match by.action {
        Action::Allow => "allows",
        Action::Deny => "denies",
        Action::Reject => "rejects",
        Action::Pass => "passes on",
    };
    let what = match rule.ports.as_slice() {
        [] => "everything".to_owned(),
        ports => list(ports, PortSpec::to_string),
    };
    let way = match by.direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    format!("{} {does} {what} {way} {}", name(by), peers(rule))
}

fn name(ranked: &Ranked) -> String {
    let Ranked { direction, policy, index, .. } = ranked;
    match index {
        Some(index) => format!("{direction} rule {} of policy {}", index + 1, policy.name),
        None => format!("policy {}", policy.name),
    }
}

fn peers(rule: &Rule) -> String {
    match rule.peers.as_slice() {
        [] => "anyone".to_owned(),
        peers => list(peers, peer),
    }
}

fn peer(peer: &Peer) -> String {
    match peer {
        Peer::Selector(selector) if selector.is_everything() => "every endpoint".to_owned(),
        Peer::Selector(selector) => selector.to_string(),
        Peer::Entity(entity) => format!("entity:{entity}"),
        Peer::Group(name) => format!("group:{name}"),
        Peer::Cidr(cidr) if cidr.except.is_empty() => format!("cidr:{}", cidr.network),
        Peer::Cidr(cidr) => {
            format!("cidr:{} except {}", cidr.network, list(&cidr.except, ToString::to_string))
        }
    }
}

/// A rule's, with what names mean at the receiver.
fn ports(rule: &Rule, meant: &Meant) -> String {
    let named = meant.to.member().map(|member| &member.ports);
    list(&rule.ports, |spec| match spec {
        PortSpec::Match(ports) => ports.to_string(),
        PortSpec::Named { .. } => {
            let known = named.and_then(|named| spec.of(named));
            match known {
                Some(ports) => format!("{spec} ({ports} there)"),
                None => format!("{spec} (not there)"),
            }
        }
    })
}

pub fn party(party: &Party) -> String {
    match party {
        Party::Endpoint { member, .. } if member.labels.is_empty() => "no labels".to_owned(),
        Party::Endpoint { member, .. } => member.labels.to_string(),
        Party::Outside { address, .. } | Party::Unassigned(address) => address.to_string(),
        Party::Entity(entity) => format!("entity:{entity}"),
    }
}

fn list<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
    if let [only] = items {
        return text(only);
    }
    let mut named = items.iter().take(NAMED).map(text).collect::<Vec<_>>().join(" or ");
    if items.len() > NAMED {
        let _ = write!(named, " or {} more", items.len() - NAMED);
    }
    named
}

pub fn notes(explanation: &Explanation, meant: &Meant) -> impl Iterator<Item = String> {
    let does = |verdict| match verdict {
        Verdict::Allow => "is allowed",
        Verdict::Deny => "is denied",
        Verdict::Reject => "is rejected",
    };
    let other = explanation.other_family.map(|(family, verdict)| {
        format!("this is for {}; over {family} it {}", explanation.family, does(verdict))
    });
    let address = explanation.unknown_address.then(|| {
        "an address is not known, so a rule with match-endpoints is taken not to match".to_owned()
    });
    let source = explanation.source.and_then(|source| match source {
        Source::Port { port, other: Some(other) } => Some(format!(
            "this is for source port {port}; from others it {}: say which with --source-port",
            does(other)
        )),
        Source::Port { port, other: None } => {
            Some(format!("this is for source port {port}; from all others the verdict is the same"))
        }
        Source::TooMany => None,
    });
    [unjudged(meant).map(str::to_owned), other, address, source].into_iter().flatten()
}

/// What policy says of it is not what becomes of it.
fn unjudged(meant: &Meant) -> Option<&'static str> {
    let [kind, code] = meant.port.to_be_bytes();
    match icmp::nature(meant.protocol, kind, code) {
        Nature::Judged => None,
        Nature::Reply => Some(
            "an echo reply follows the flow of its request, without which it is dropped: no rule is asked about it",
        ),
        Nature::OtherCode => Some("every echo request is judged as one of code 0"),
        Nature::Error => Some(
            "an ICMP error follows the flow of the packet that it tells of: no rule is asked about it",
        ),
        Nature::Link => Some("this message never leaves its link: no rule is asked about it"),
    }
}
