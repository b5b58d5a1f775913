//! `policies.d/*.toml`: one file's policies, each valid by itself.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::fault::Fault;
use super::keys::{self, Keys};
use super::model::{Peer, Policy, Rule};
use super::peer;
use super::table::{Item, Table};
use super::value;
use crate::types::{Action, Direction, Invalid, Mode, Name, Origin, PortSpec, Selector, Tier};

#[derive(Debug, Clone)]
pub struct WrittenPolicy {
    pub policy: Arc<Policy>,
    pub name: Range<usize>,
    pub subject: Range<usize>,
    pub ingress: Vec<WrittenRule>,
    pub egress: Vec<WrittenRule>,
}

/// Places in a rule, beside the rule of the same index.
#[derive(Debug, Clone)]
pub struct WrittenRule {
    pub header: Range<usize>,
    /// Of each peer.
    pub peers: Vec<Range<usize>>,
}

impl WrittenPolicy {
    pub fn rules(&self, direction: Direction) -> impl Iterator<Item = (&Rule, &WrittenRule)> {
        let written = match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        };
        self.policy.rules(direction).unwrap_or_default().iter().zip(written)
    }
}

pub fn read(root: &Table) -> Vec<WrittenPolicy> {
    root.tables("policy", &keys::POLICY).iter().filter_map(policy).collect()
}

fn policy(table: &Table) -> Option<WrittenPolicy> {
    // All first, so that every fault of the table is told.
    let name = table.required("name");
    let name = name.and_then(|item| Some((item.parse::<Name>()?, item.span)));
    let subject = table.required("subject");
    let subject = subject.and_then(|item| Some((item.parse::<Selector>()?, item.span)));
    let ingress = direction(table, "ingress", "from", &keys::INGRESS);
    let egress = direction(table, "egress", "to", &keys::EGRESS);
    let ((name, name_span), (subject, subject_span)) = (name?, subject?);
    let (ingress, egress) = (ingress?, egress?);
    if ingress.rules.is_none() && egress.rules.is_none() {
        let what =
            format!("the policy `{name}` says nothing of ingress or egress, so it does nothing");
        let fault = Fault::warning(table.sink.place(&name_span), what);
        table.sink.push(fault.hint("add [[policy.ingress]], or ingress = [] to deny everything"));
    }
    Some(WrittenPolicy {
        policy: Arc::new(Policy {
            name,
            subject,
            tier: Tier::Normal,
            priority: 0,
            default_deny: true,
            mode: Mode::Enforce,
            ingress: ingress.rules,
            egress: egress.rules,
            origin: table.sink.origin(&table.span),
            ingress_origin: ingress.origin,
            egress_origin: egress.origin,
        }),
        name: name_span,
        subject: subject_span,
        ingress: ingress.written,
        egress: egress.written,
    })
}

#[derive(Default)]
struct Rules {
    rules: Option<Vec<Rule>>,
    written: Vec<WrittenRule>,
    /// Where the direction became default deny.
    origin: Option<Origin>,
}

/// None: there are faults.
fn direction(
    table: &Table,
    key: &'static str,
    peers: &'static str,
    keys: &'static Keys,
) -> Option<Rules> {
    let Some(item) = table.optional(key) else {
        return Some(Rules::default());
    };
    if item.is_table() {
        let what = format!("`{key}` is one table; it must be a list of tables");
        item.fault(what, format!("write [[policy.{key}]], with two brackets"));
        return None;
    }
    let tables = item.tables(keys)?;
    let first = tables.first().map_or(&item.span, |table| &table.span);
    let origin = Some(table.sink.origin(first));
    let rules: Vec<_> = tables.iter().map(|table| rule(table, peers)).collect();
    let (rules, written) = rules.into_iter().collect::<Option<Vec<_>>>()?.into_iter().unzip();
    Some(Rules { rules: Some(rules), written, origin })
}

fn rule(table: &Table, key: &'static str) -> Option<(Rule, WrittenRule)> {
    let items = match table.optional(key) {
        Some(item) => items(&item, "peer"),
        None => Some(Vec::new()),
    };
    let peers = items.and_then(|items| peers(table, &items));
    let ports = ports(table);
    let action = match table.optional("action") {
        Some(item) => item.parse_by(action),
        None => Some(Action::Allow),
    };
    let (peers, ports, action) = (peers?, ports?, action?);
    if peers.is_empty() && ports.is_empty() && action == Action::Allow {
        let what = "this rule allows everything: it names neither peers nor ports";
        let fault = Fault::warning(table.sink.place(&table.span), what);
        table.sink.push(fault.hint(format!("if that is meant, write {key} = \"entity:all\"")));
    }
    let (peers, spans) = peers.into_iter().unzip();
    let origin = table.sink.origin(&table.span);
    let written = WrittenRule { header: table.span.clone(), peers: spans };
    let (source_ports, match_endpoints) = (Vec::new(), false);
    Some((Rule { action, peers, ports, source_ports, match_endpoints, origin }, written))
}

/// The values of a list that restricts: an empty one would restrict to nothing, and looks like everything.
fn items<'a>(item: &Item<'a>, of: &str) -> Option<Vec<Item<'a>>> {
    let items = item.list()?;
    if items.is_empty() {
        let hint =
            format!("to mean every {of}, leave `{}` out; to allow nobody, drop the rule", item.key);
        item.fault(format!("`{}` is empty", item.key), hint);
        return None;
    }
    Some(items)
}

fn peers(table: &Table, items: &[Item]) -> Option<Vec<(Peer, Range<usize>)>> {
    let parsed: Vec<_> =
        items.iter().map(|item| Some((peer::read(item)?, item.span.clone()))).collect();
    let except = match table.optional("except") {
        Some(item) => peer::exceptions(&item),
        None => Vec::new(),
    };
    let mut peers = parsed.into_iter().collect::<Option<Vec<_>>>()?;
    // Said twice is said once.
    let mut seen = HashSet::with_capacity(peers.len());
    peers.retain(|(peer, _)| seen.insert(peer.clone()));
    peer::except(table, &mut peers, &except);
    Some(peers)
}

fn ports(table: &Table) -> Option<Vec<PortSpec>> {
    let Some(item) = table.optional("ports") else {
        return Some(Vec::new());
    };
    let ports = items(&item, "port")?;
    let ports: Vec<_> =
        ports.iter().map(|item| item.parse_by(value::port_match).map(PortSpec::from)).collect();
    ports.into_iter().collect()
}

fn action(text: &str) -> Result<Action, Invalid> {
    match text {
        "allow" => Ok(Action::Allow),
        "deny" => Ok(Action::Deny),
        "reject" | "pass" => {
            Err(Invalid::new(format!("the action `{text}` is not supported by this version"))
                .hint("write allow or deny"))
        }
        _ => Err(Invalid::new(format!("unknown action `{text}`")).hint("write allow or deny")),
    }
}
