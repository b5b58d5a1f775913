//! Explanations in sentences, without full stops, for people who know their own files.

use std::collections::HashSet;
use std::fmt::{self, Display, Formatter, Write};

use super::query::Meant;
use crate::compile::view::{Kind, Party, Ranked};
use crate::compile::why::{Almost, Decision, Differs, Explanation, Outcome, Source};
use crate::config::model::{Peer, Rule};
use crate::types::icmp::{self, Nature};
use crate::types::{Action, Direction, Entity, PortMatch, PortRange, PortSpec, Verdict};

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
            format!("{} passes it on from the {} tier; {decided}", Name(passed), passed.tier)
        }
        None => decided,
    }
}

/// What is asked of requests and TLS connections, as rules are written.
pub fn requests(decision: &Decision) -> Vec<String> {
    let mut all = Vec::new();
    for l7 in decision.requests.iter().filter_map(|by| Some(&by.rule()?.l7)) {
        all.extend(l7.http.iter().map(|request| format!("http {request}")));
        all.extend(
            l7.tls.iter().flat_map(|tls| tls.server_names()).map(|name| format!("tls {name}")),
        );
    }
    let mut seen = HashSet::new();
    all.retain(|one| seen.insert(one.clone()));
    all
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

/// What `almost` says besides the rules, the same for all of them.
pub struct Other {
    asked: String,
    from: String,
    to: String,
}

impl Other {
    pub fn new(meant: &Meant) -> Self {
        Other { asked: asked(meant), from: party(&meant.from), to: party(&meant.to) }
    }
}

pub fn almost(almost: &Almost, meant: &Meant, other: &Other) -> String {
    let Almost { rule: ranked, differs } = almost;
    let name = Name(ranked);
    let Some(rule) = ranked.rule() else { return name.to_string() };
    let mut text = String::with_capacity(128);
    // Nothing that is written into a string fails.
    let _ = match differs {
        Differs::Port => {
            write!(text, "{name} is about {}, not {}", ports(rule, meant), other.asked)
        }
        Differs::SourcePort => {
            let ranges = list(&rule.source_ports, |range, f| range.fmt(f));
            match meant.source_port {
                Some(port) => write!(text, "{name} is about source ports {ranges}, not {port}"),
                None => write!(text, "{name} is about source ports {ranges} only"),
            }
        }
        Differs::Peer => {
            let other = match ranked.direction {
                Direction::Ingress => &other.from,
                Direction::Egress => &other.to,
            };
            write!(text, "{name} is about {}, not {other}", peers(rule))
        }
    };
    text
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
    let way = match by.direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let (name, peers) = (Name(by), peers(rule));
    match rule.ports.as_slice() {
        [] => format!("{name} {does} everything {way} {peers}"),
        ports => format!("{name} {does} {} {way} {peers}", list(ports, |spec, f| spec.fmt(f))),
    }
}

/// Written straight into the sentence that it is part of.
struct Said<F>(F);

impl<F: Fn(&mut Formatter<'_>) -> fmt::Result> Display for Said<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

struct Name<'a>(&'a Ranked);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Ranked { direction, policy, index, .. } = self.0;
        match index {
            Some(index) => write!(f, "{direction} rule {} of policy {}", index + 1, policy.name),
            None => write!(f, "policy {}", policy.name),
        }
    }
}

fn peers(rule: &Rule) -> impl Display {
    Said(move |f: &mut Formatter<'_>| match rule.peers.as_slice() {
        [] => f.write_str("anyone"),
        peers => list(peers, peer).fmt(f),
    })
}

fn peer(peer: &Peer, f: &mut Formatter<'_>) -> fmt::Result {
    match peer {
        Peer::Selector(selector) if selector.is_everything() => f.write_str("every endpoint"),
        Peer::Selector(selector) => selector.fmt(f),
        Peer::Entity(entity) => write!(f, "entity:{entity}"),
        Peer::Group(name) => write!(f, "group:{name}"),
        Peer::Cidr(cidr) if cidr.except.is_empty() => write!(f, "cidr:{}", cidr.network),
        Peer::Cidr(cidr) => {
            let except = list(&cidr.except, |network, f| network.fmt(f));
            write!(f, "cidr:{} except {except}", cidr.network)
        }
    }
}

/// A rule's, with what names mean at the receiver.
fn ports(rule: &Rule, meant: &Meant) -> impl Display {
    let named = meant.to.member().map(|member| &member.ports);
    list(&rule.ports, move |spec, f| match spec {
        PortSpec::Match(ports) => ports.fmt(f),
        PortSpec::Named { .. } => match named.and_then(|named| spec.of(named)) {
            Some(ports) => write!(f, "{spec} ({ports} there)"),
            None => write!(f, "{spec} (not there)"),
        },
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

fn list<T>(items: &[T], text: impl Fn(&T, &mut Formatter<'_>) -> fmt::Result) -> impl Display {
    Said(move |f: &mut Formatter<'_>| {
        for (place, item) in items.iter().take(NAMED).enumerate() {
            f.write_str(if place == 0 { "" } else { " or " })?;
            text(item, f)?;
        }
        match items.len().checked_sub(NAMED) {
            Some(more) if more > 0 => write!(f, " or {more} more"),
            _ => Ok(()),
        }
    })
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
    let requests = unproxied(explanation, meant).map(str::to_owned);
    [unjudged(meant).map(str::to_owned), requests, other, address, source].into_iter().flatten()
}

/// Whose requests cannot be judged, and so are dropped.
fn unproxied(explanation: &Explanation, meant: &Meant) -> Option<&'static str> {
    let decisions = [&explanation.egress, &explanation.ingress].into_iter().flatten();
    let judged = decisions.into_iter().any(|decision| !decision.requests.is_empty());
    let host = match &meant.to {
        Party::Outside { kind, .. } => *kind == Kind::Host,
        Party::Entity(entity) => *entity == Entity::Host,
        _ => false,
    };
    (judged && host && explanation.verdict == Verdict::Allow).then_some(
        "requests to programs of the host cannot be judged: such connections are dropped (not-proxied)",
    )
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
