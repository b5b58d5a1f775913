//! What a rule is, as bytes: what it does and what it matches, and neither where it is written nor in which order its
//! lists are.

use serde::Serialize;

use crate::config::model::{CidrSet, Peer, Rule};
use crate::types::http::L7;
use crate::types::selector::Requirement;
use crate::types::{Action, Entity, Name, PortRange, PortSpec};

#[derive(Serialize)]
struct Content<'a> {
    action: Action,
    peers: Vec<Named<'a>>,
    ports: Vec<&'a PortSpec>,
    source_ports: Vec<&'a PortRange>,
    match_endpoints: bool,
    #[serde(skip_serializing_if = "L7::is_empty")]
    l7: &'a L7,
}

/// A peer with its selector in parts: a label's value may have in it what the written form gives a meaning to.
#[derive(Serialize)]
enum Named<'a> {
    Selector(Vec<(&'static str, &'a str, Vec<&'a str>)>),
    Entity(Entity),
    Cidr(&'a CidrSet),
    Group(&'a Name),
}

/// Equal for equal rules, and for no others.
pub(super) fn content(rule: &Rule) -> Vec<u8> {
    let content = Content {
        action: rule.action,
        peers: sorted(&rule.peers).into_iter().map(named).collect(),
        ports: sorted(&rule.ports),
        source_ports: sorted(&rule.source_ports),
        match_endpoints: rule.match_endpoints,
        l7: &rule.l7,
    };
    // Nothing in it is a map, and memory takes all: it does not fail.
    serde_json::to_vec(&content).unwrap_or_default()
}

fn named(peer: &Peer) -> Named<'_> {
    match peer {
        Peer::Selector(selector) => Named::Selector(selector.requirements().map(parts).collect()),
        Peer::Entity(entity) => Named::Entity(*entity),
        Peer::Cidr(cidr) => Named::Cidr(cidr),
        Peer::Group(name) => Named::Group(name),
    }
}

fn parts(requirement: &Requirement) -> (&'static str, &str, Vec<&str>) {
    let (kind, values) = match requirement {
        Requirement::Exists(_) => ("exists", None),
        Requirement::Absent(_) => ("absent", None),
        Requirement::In(_, values) => ("in", Some(values)),
        Requirement::NotIn(_, values) => ("notin", Some(values)),
    };
    let values = values.into_iter().flatten().map(String::as_str);
    (kind, requirement.key().as_str(), values.collect())
}

fn sorted<T: Ord>(list: &[T]) -> Vec<&T> {
    let mut sorted: Vec<&T> = list.iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    sorted
}
