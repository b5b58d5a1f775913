//! Worlds, packets and answers as text: the files that say it, and lines as in `tests/proof/cases/*/expect.txt`.
//!
//! ```text
//! FROM TO PORT/PROTOCOL [source-port N] => egress SAYS, ingress SAYS [| shadow egress SAYS, ingress SAYS]
//! ```
//!
//! FROM and TO: `NAME/6` or `NAME/4`, an endpoint's address of that family; or an address. SAYS: `VERDICT by POLICY[RULE]`,
//! `VERDICT by the default of POLICY`, `VERDICT by nobody`; `-` for who is no endpoint. Instead of both: `no endpoint`,
//! `not ours`.

use std::fmt::Write;
use std::net::IpAddr;

use porin::compile::explain::{Decision, Judgement, Outcome, Packet};
use porin::compile::plan::Plan;
use porin::compile::view::View;
use porin::compile::why;
use porin::config::print;
use porin::types::{Cookie, Protocol, Verdict};

use crate::probes::has_ports;
use crate::reference::{By, Expected, Facts, Says};
use crate::worlds::Draft;

/// All files, each after a line with its name.
pub fn files(draft: &Draft) -> Vec<(&'static str, String)> {
    let Draft { config, host } = draft;
    let endpoints: Vec<String> = config.endpoints.iter().map(|e| print::endpoint(e)).collect();
    let groups = config.groups.iter().map(|group| print::group(group));
    let policies = config.policies.values().map(|policy| print::policy(policy));
    let policies: Vec<String> = groups.chain(policies).collect();
    let host: String = host.iter().fold(String::new(), |mut lines, address| {
        let _ = writeln!(lines, "host {address}");
        lines
    });
    vec![
        ("porin.toml", print::host(&config.host)),
        ("endpoints.d/all.toml", endpoints.join("\n")),
        ("policies.d/all.toml", policies.join("\n")),
        ("expect.txt", host),
    ]
}

/// What a person needs to see of an answer that is not as it should be.
pub fn world(draft: &Draft) -> String {
    let file = |(name, text): &(&str, String)| format!("##### {name}\n{text}\n");
    files(draft).iter().map(file).collect()
}

pub fn packet(facts: &Facts, packet: &Packet) -> String {
    let end = |address: IpAddr| {
        let family = if address.is_ipv6() { 6 } else { 4 };
        let found = facts.endpoints.iter().find(|(_, own)| own.contains(&address));
        found.map_or(address.to_string(), |(name, _)| format!("{name}/{family}"))
    };
    let (from, to) = (end(packet.source), end(packet.destination));
    let protocol = packet.protocol;
    let [kind, code] = packet.port.to_be_bytes();
    let to_port = match protocol.0 {
        1 | 58 => format!("{protocol}/{kind}/{code}"),
        _ if has_ports(protocol) => format!("{}/{protocol}", packet.port),
        number => format!("protocol/{number}"),
    };
    match has_ports(protocol) {
        true => format!("{from} {to} {to_port} source-port {}", packet.source_port),
        false => format!("{from} {to} {to_port}"),
    }
}

/// The other way round. Panics: it is for files that people write.
pub fn parse_packet(facts: &Facts, text: &str) -> Packet {
    let words: Vec<&str> = text.split_whitespace().collect();
    let end = |word: &str| {
        let Some((name, family)) = word.split_once('/') else { return word.parse().unwrap() };
        let named = facts.endpoints.iter().find(|(own, _)| own.as_str() == name);
        let (_, addresses) = named.unwrap_or_else(|| panic!("nobody is named {name}: {text}"));
        let of_family = |a: &&IpAddr| a.is_ipv6() == (family == "6");
        *addresses.iter().find(of_family).unwrap_or_else(|| panic!("none of family: {text}"))
    };
    let (source, destination) = (end(words[0]), end(words[1]));
    let parts: Vec<&str> = words[2].split('/').collect();
    let number = |text: &str| text.parse::<u16>().unwrap();
    let (protocol, port) = match parts[..] {
        ["protocol", protocol] => (Protocol(protocol.parse().unwrap()), 0),
        [protocol, kind, code] => {
            (Protocol::named(protocol).unwrap(), number(kind) << 8 | number(code))
        }
        [port, protocol] => (Protocol::named(protocol).unwrap(), number(port)),
        _ => panic!("{text}"),
    };
    let source_port = match words[3..] {
        [] if has_ports(protocol) => 40000,
        [] => 0,
        ["source-port", port] => number(port),
        _ => panic!("{text}"),
    };
    Packet { source, destination, protocol, source_port, port }
}

pub fn answer(expected: &Expected) -> String {
    let one = |says: &Option<Says>| match says {
        None => "-".to_owned(),
        Some(Says { verdict, by: By::Nobody }) => format!("{verdict} by nobody"),
        Some(Says { verdict, by: By::Default(policy) }) => {
            format!("{verdict} by the default of {policy}")
        }
        Some(Says { verdict, by: By::Rule(policy, rule) }) => {
            format!("{verdict} by {policy}[{rule}]")
        }
    };
    match expected {
        Expected::NoEndpoint => "no endpoint".to_owned(),
        Expected::NotOurs => "not ours".to_owned(),
        Expected::Judged { egress, ingress } => {
            format!("egress {}, ingress {}", one(egress), one(ingress))
        }
    }
}

/// Whom a cookie names. Panics if nobody, or if what is named is not that verdict's.
pub fn said(plan: &Plan, verdict: Verdict, cookie: Cookie) -> Says {
    if cookie == Cookie::NONE {
        return Says { verdict, by: By::Nobody };
    }
    let rule = plan.rules.get(&cookie).unwrap_or_else(|| panic!("cookie {cookie} is nobody's"));
    assert_eq!(rule.action.to_string(), verdict.to_string(), "{rule:?}");
    let by = match rule.rule {
        Some(index) => By::Rule(rule.policy.clone(), index),
        None => By::Default(rule.policy.clone()),
    };
    Says { verdict, by }
}

/// What the plan says, in the reference's words.
pub fn of_plan(plan: &Plan, judged: &Judgement) -> Expected {
    let says = |decision: Option<Decision>| {
        decision.map(|Decision { verdict, cookie, .. }| said(plan, verdict, cookie))
    };
    match judged.outcome {
        Outcome::NoEndpoint => Expected::NoEndpoint,
        Outcome::NotOurs => Expected::NotOurs,
        Outcome::Fault => panic!("{judged:?}"),
        Outcome::Allowed | Outcome::Denied(_) | Outcome::Rejected(_) => {
            Expected::Judged { egress: says(judged.egress), ingress: says(judged.ingress) }
        }
    }
}

/// What `porinctl why` would say; of shadow policies, if they make any verdict another.
pub fn of_view(view: &View, packet: &Packet) -> (Expected, Option<Expected>) {
    let (from, to) = (view.who(packet.source), view.who(packet.destination));
    let source_port = has_ports(packet.protocol).then_some(packet.source_port);
    let said = view.judge(&from, &to, packet.protocol, packet.port, source_port);
    let one = |decision: Option<why::Decision>| {
        decision.map(|why::Decision { verdict, by, .. }| Says {
            verdict,
            by: match by {
                None => By::Nobody,
                Some(ranked) => match ranked.index {
                    None => By::Default(ranked.policy.name.clone()),
                    Some(index) => By::Rule(ranked.policy.name.clone(), index),
                },
            },
        })
    };
    let both = |egress, ingress| Expected::Judged { egress: one(egress), ingress: one(ingress) };
    let shadow = said.shadow.map(|shadow| both(shadow.egress, shadow.ingress));
    match said.outcome {
        why::Outcome::NoEndpoint => (Expected::NoEndpoint, shadow),
        why::Outcome::NotOurs => (Expected::NotOurs, shadow),
        why::Outcome::Judged => (both(said.egress, said.ingress), shadow),
    }
}

/// Whether it is said of two answers that they are no different.
pub fn same_verdicts(a: &Expected, b: &Expected) -> bool {
    let verdicts = |expected: &Expected| match expected {
        Expected::Judged { egress, ingress } => {
            [egress, ingress].map(|says| says.as_ref().map(|says| says.verdict))
        }
        Expected::NoEndpoint | Expected::NotOurs => [None; 2],
    };
    verdicts(a) == verdicts(b)
}
