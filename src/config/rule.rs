//! `[[policy.ingress]]` and `[[policy.egress]]`: one direction's rules, each valid by itself.

use std::collections::HashSet;
use std::ops::Range;

use super::fault::Fault;
use super::keys::{self, Keys};
use super::model::{Peer, Rule};
use super::table::{Item, Table};
use super::{http, peer, value};
use crate::types::icmp::{self, Nature};
use crate::types::{Action, Invalid, Origin, PortMatch, PortRange, PortSpec};

/// Places in a rule, beside the rule of the same index.
#[derive(Debug, Clone)]
pub struct WrittenRule {
    pub header: Range<usize>,
    /// Of each peer.
    pub peers: Vec<Range<usize>>,
    /// Of each port.
    pub ports: Vec<Range<usize>>,
}

#[derive(Default)]
pub struct Rules {
    pub rules: Option<Vec<Rule>>,
    pub written: Vec<WrittenRule>,
    /// Where the policy begins to speak of the direction.
    pub origin: Option<Origin>,
}

/// What is called otherwise in the two directions.
pub struct Words {
    key: &'static str,
    peers: &'static str,
    keys: &'static Keys,
    l7: http::Tables,
}

pub const INGRESS: Words = Words {
    key: "ingress",
    peers: "from",
    keys: &keys::INGRESS,
    l7: http::Tables { http: &keys::INGRESS_HTTP, tls: &keys::INGRESS_TLS },
};
pub const EGRESS: Words = Words {
    key: "egress",
    peers: "to",
    keys: &keys::EGRESS,
    l7: http::Tables { http: &keys::EGRESS_HTTP, tls: &keys::EGRESS_TLS },
};

/// None: there are faults.
pub fn direction(table: &Table, words: &Words) -> Option<Rules> {
    let key = words.key;
    let Some(item) = table.optional(key) else {
        return Some(Rules::default());
    };
    if item.is_table() {
        let what = format!("`{key}` is one table; it must be a list of tables");
        item.fault(what, format!("write [[policy.{key}]], with two brackets"));
        return None;
    }
    let tables = item.tables(words.keys)?;
    let first = tables.first().map_or(&item.span, |table| &table.span);
    let origin = Some(table.sink.origin(first));
    let rules: Vec<_> = tables.iter().map(|table| rule(table, words)).collect();
    let (rules, written) = rules.into_iter().collect::<Option<Vec<_>>>()?.into_iter().unzip();
    Some(Rules { rules: Some(rules), written, origin })
}

fn rule(table: &Table, words: &Words) -> Option<(Rule, WrittenRule)> {
    let key = words.peers;
    // All first, so that every fault of the table is told.
    let except = table.optional("except").map(|item| peer::exceptions(&item)).unwrap_or_default();
    let peers = peer::list(table, key).map(|mut peers| {
        peer::except(table, &mut peers, &except);
        peers
    });
    let ports = ports(table);
    let source_ports = source_ports(table);
    let match_endpoints = match_endpoints(table);
    let l7 = http::read(table, &words.l7);
    let action = match table.optional("action") {
        Some(item) => item.parse_by(action),
        None => Some(Action::Allow),
    };
    let ((peers, peer_spans), (ports, port_spans)) =
        (peers?.into_iter().unzip(), ports?.into_iter().unzip());
    let rule = Rule {
        action: action?,
        peers,
        ports,
        source_ports: source_ports?,
        match_endpoints: match_endpoints?,
        l7: l7?,
        origin: table.sink.origin(&table.span),
    };
    let written = WrittenRule { header: table.span.clone(), peers: peer_spans, ports: port_spans };
    if !rule.l7.is_empty() && !http::fits(table, &rule) {
        return None;
    }
    doubts(table, key, &rule);
    unjudged(table, &rule.ports, &written.ports);
    Some((rule, written))
}

/// What is hardly meant, as far as the rule alone tells.
fn doubts(table: &Table, key: &str, rule: &Rule) {
    let warn = |span: Option<Range<usize>>, what: &str, hint: String| {
        let place = table.sink.place(&span.unwrap_or_else(|| table.span.clone()));
        table.sink.push(Fault::warning(place, what).hint(hint));
    };
    let unrestricted =
        rule.peers.is_empty() && rule.ports.is_empty() && rule.source_ports.is_empty();
    if unrestricted && rule.action == Action::Allow {
        let what = "this rule allows everything: it names neither peers nor ports";
        warn(None, what, format!("if that is meant, write {key} = \"entity:all\""));
    }
    let networks = |peer: &Peer| matches!(peer, Peer::Cidr(_) | Peer::Group(_));
    if rule.match_endpoints && !rule.peers.iter().any(networks) {
        let what = "`match-endpoints` is about networks, and the rule names none";
        warn(table.key_span("match-endpoints"), what, "leave it out".to_owned());
    }
    let portless =
        |ports: &PortSpec| matches!(ports, PortSpec::Match(ports) if !ports.protocol.has_ports());
    if !rule.source_ports.is_empty() && rule.ports.iter().any(portless) {
        let all = rule.ports.iter().all(portless);
        let what = match all {
            true => "this rule matches nothing: none of its protocols has ports",
            false => "some protocols of this rule have no ports, so nothing of theirs matches",
        };
        let hint = "`source-ports` matches tcp, udp, sctp, udplite and dccp only";
        warn(table.key_span("source-ports"), what, hint.to_owned());
    }
}

/// Messages that no rule is ever asked about.
pub fn unjudged(table: &Table, ports: &[PortSpec], spans: &[Range<usize>]) {
    for (spec, span) in ports.iter().zip(spans) {
        let PortSpec::Match(PortMatch { protocol, ports }) = spec else { continue };
        let ([kind, code], [last, _]) = (ports.first().to_be_bytes(), ports.last().to_be_bytes());
        if !protocol.has_types() || kind != last {
            continue;
        }
        let (what, hint) = match icmp::nature(*protocol, kind, code) {
            Nature::Judged => continue,
            Nature::Error => (
                format!(
                    "`{spec}` tells of a packet and follows that packet's flow: no rule is asked"
                ),
                "leave it out; it passes if the flow may",
            ),
            Nature::Reply => (
                format!("`{spec}` follows the flow of its request: no rule is asked"),
                "leave it out; it passes if the echo-request did",
            ),
            Nature::OtherCode => (
                format!(
                    "`{spec}` is never asked for: every echo-request is judged as one of code 0"
                ),
                "write echo-request",
            ),
            Nature::Link => (
                format!("`{spec}` never leaves its link: no rule is asked"),
                "leave it out; neighbours and routers are porin's to answer for",
            ),
        };
        table.sink.push(Fault::warning(table.sink.place(span), what).hint(hint));
    }
}

/// Each once, with its place.
pub fn ports(table: &Table) -> Option<Vec<(PortSpec, Range<usize>)>> {
    let Some(item) = table.optional("ports") else {
        return Some(Vec::new());
    };
    let items = peer::not_empty(&item, item.list()?, "port")?;
    let lists: Vec<_> = items.iter().map(|item| item.parse_by(PortSpec::parse_list)).collect();
    let mut all = Vec::with_capacity(lists.len());
    for (list, item) in lists.into_iter().zip(&items) {
        all.extend(list?.into_iter().map(|spec| (spec, item.span.clone())));
    }
    let mut seen = HashSet::with_capacity(all.len());
    all.retain(|(spec, _)| seen.insert(spec.clone()));
    Some(all)
}

fn source_ports(table: &Table) -> Option<Vec<PortRange>> {
    let Some(item) = table.optional("source-ports") else {
        return Some(Vec::new());
    };
    let items = peer::not_empty(&item, item.list()?, "port")?;
    let ranges: Vec<_> =
        items.iter().map(|item: &Item| item.parse_by(value::source_ports)).collect();
    ranges.into_iter().collect::<Option<_>>().map(PortRange::merged)
}

fn match_endpoints(table: &Table) -> Option<bool> {
    table.optional("match-endpoints").map_or(Some(false), |item| item.boolean())
}

fn action(text: &str) -> Result<Action, Invalid> {
    match text {
        "allow" => Ok(Action::Allow),
        "deny" => Ok(Action::Deny),
        "reject" => Ok(Action::Reject),
        "pass" => Ok(Action::Pass),
        _ => Err(Invalid::new(format!("unknown action `{text}`"))
            .hint("write allow, deny, reject or pass")),
    }
}
