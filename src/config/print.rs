//! Printing back: checked values as the TOML that reads back to the same values, places apart.
//!
//! Defaults are written out, comments are not kept. Holds for whatever [`super::Loader`] returned, and
//! for values built otherwise if each rule's exceptions are in every one of its networks that has them inside.

use std::collections::BTreeSet;
use std::fmt::{Display, Write};
use std::time::Duration;

use ipnet::IpNet;

use super::model::{
    AddressWish, Assert, AssertKind, Boot, CidrSet, Endpoint, Group, Host, Peer, Policy, Rule,
};
use super::peer;
use crate::types::http::HttpRule;
use crate::types::selector::Requirement;
use crate::types::{Selector, Tier};

/// As `porin.toml`.
pub fn host(host: &Host) -> String {
    let mut out = Lines::default();
    out.pair(
        "boot",
        quoted(match host.boot {
            Boot::Open => "open",
            Boot::Closed => "closed",
        }),
    );
    if let Some(mtu) = host.mtu {
        out.pair("mtu", mtu);
    }
    out.pair("uplinks", list(host.uplinks.iter().map(|uplink| &uplink.interface)));
    out.pair("remote-hosts", list(&host.remote_hosts));
    out.pair("unmanaged", list(&host.unmanaged));
    for pool in &host.pools {
        out.header("[[pool]]");
        out.pair("name", quoted(&pool.name));
        out.pair("network", quoted(pool.network));
        out.pair("reserved", list(&pool.reserved));
    }
    out.header("[labels]");
    out.pair("include", list(&host.labels.include));
    out.pair("exclude", list(&host.labels.exclude));
    out.header("[masquerade]");
    let ports = host.masquerade.ports;
    out.pair("enabled", host.masquerade.enabled);
    out.pair("ports", quoted(format_args!("{}-{}", ports.first(), ports.last())));
    out.header("[conntrack]");
    out.pair("entries", host.conntrack.entries);
    out.pair("accounting", host.conntrack.accounting);
    out.header("[flows]");
    out.pair("enabled", host.flows.enabled);
    out.pair("rate", host.flows.rate);
    out.header("[reload]");
    out.pair("quiet", duration(host.reload.quiet));
    out.pair("at-most", duration(host.reload.at_most));
    out.header("[docker]");
    out.pair("driver", host.docker.driver);
    out.pair("networks", list(&host.docker.networks));
    out.pair("socket", quoted(host.docker.socket.display()));
    out.pair("adopt", list(&host.docker.adopt));
    out.0
}

/// As one `[[endpoint]]`.
pub fn endpoint(endpoint: &Endpoint) -> String {
    let mut out = Lines::default();
    out.header("[[endpoint]]");
    out.pair("name", quoted(&endpoint.name));
    if let Some(machine) = endpoint.machine() {
        out.pair("machine", quoted(machine));
    } else if let Some(namespace) = endpoint.namespace() {
        out.pair("namespace", quoted(namespace.display()));
    }
    let key = if endpoint.handed_over().is_some() { "hand-over" } else { "interface" };
    out.pair(key, quoted(endpoint.interface()));
    if let Some(mac) = endpoint.mac {
        out.pair("mac", quoted(mac));
    }
    let labels = endpoint.labels.iter();
    out.pair("labels", table(labels.map(|(key, value)| (quoted(key), quoted(value)))));
    out.pair("ipv6", wish(endpoint.ipv6));
    out.pair("ipv4", wish(endpoint.ipv4));
    let ports = endpoint.ports.iter();
    out.pair("ports", table(ports.map(|(name, port)| (quoted(name), quoted(port)))));
    if !endpoint.publish.is_empty() {
        out.pair("publish", list(&endpoint.publish));
    }
    if endpoint.shut {
        out.pair("shut", true);
    }
    out.0
}

/// As one `[[policy]]`.
pub fn policy(policy: &Policy) -> String {
    let mut out = Lines::default();
    out.header("[[policy]]");
    out.pair("name", quoted(&policy.name));
    out.pair("subject", selector(&policy.subject));
    out.pair("tier", quoted(policy.tier));
    if policy.tier != Tier::Normal {
        out.pair("priority", policy.priority);
    }
    out.pair("default", quoted(if policy.default_deny { "deny" } else { "allow" }));
    out.pair("mode", quoted(policy.mode));
    let directions = [("ingress", "from", &policy.ingress), ("egress", "to", &policy.egress)];
    // A table's own keys come before its sub-tables.
    for (direction, _, rules) in directions {
        if rules.as_ref().is_some_and(Vec::is_empty) {
            out.pair(direction, "[]");
        }
    }
    for (direction, peers, rules) in directions {
        for each in rules.iter().flatten() {
            out.header(&format!("[[policy.{direction}]]"));
            rule(&mut out, peers, each);
        }
    }
    out.0
}

/// As one `[[group]]`.
pub fn group(group: &Group) -> String {
    let mut out = Lines::default();
    out.header("[[group]]");
    out.pair("name", quoted(&group.name));
    let selectors = group.selectors.iter().map(peer_selector);
    let entities = group.entities.iter().map(|entity| quoted(format_args!("entity:{entity}")));
    let networks = group.networks.iter().map(cidr);
    out.pair("members", array(selectors.chain(entities).chain(networks)));
    if !group.except.is_empty() {
        out.pair("except", array(group.except.iter().map(cidr)));
    }
    out.0
}

/// As one `[[assert]]`.
pub fn assertion(assert: &Assert) -> String {
    let mut out = Lines::default();
    out.header("[[assert]]");
    out.header(match assert.kind {
        AssertKind::Never => "[assert.never]",
        AssertKind::Always => "[assert.always]",
    });
    for (key, peers) in [("from", &assert.from), ("to", &assert.to)] {
        if !peers.is_empty() {
            out.pair(key, array(peers.iter().map(one_peer)));
        }
    }
    if !assert.ports.is_empty() {
        out.pair("ports", list(&assert.ports));
    }
    out.0
}

fn rule(out: &mut Lines, key: &str, rule: &Rule) {
    if !rule.peers.is_empty() {
        out.pair(key, array(rule.peers.iter().map(one_peer)));
    }
    let except = |peer| match peer {
        &Peer::Cidr(CidrSet { ref except, .. }) => except.as_slice(),
        Peer::Selector(_) | Peer::Entity(_) | Peer::Group(_) => &[],
    };
    let except: BTreeSet<_> = rule.peers.iter().flat_map(except).collect();
    if !except.is_empty() {
        out.pair("except", array(except.into_iter().map(cidr)));
    }
    if !rule.ports.is_empty() {
        out.pair("ports", list(&rule.ports));
    }
    if !rule.source_ports.is_empty() {
        out.pair("source-ports", list(&rule.source_ports));
    }
    if rule.match_endpoints {
        out.pair("match-endpoints", true);
    }
    if !rule.l7.http.is_empty() {
        out.pair("http", array(rule.l7.http.iter().map(request)));
    }
    if let Some(tls) = &rule.l7.tls {
        out.pair("tls", table([("server-names".to_owned(), list(tls.server_names()))].into_iter()));
    }
    out.pair("action", quoted(rule.action));
}

fn request(rule: &HttpRule) -> String {
    let mut pairs = Vec::new();
    pairs.extend(rule.method().map(|method| ("method".to_owned(), quoted(method))));
    pairs.extend(rule.path().map(|path| ("path".to_owned(), quoted(path))));
    pairs.extend(rule.host().map(|host| ("host".to_owned(), quoted(host))));
    if !rule.headers().is_empty() {
        let value = |value: &Option<_>| value.as_ref().map_or("true".to_owned(), quoted);
        let headers = rule.headers().iter();
        let headers = headers.map(|header| (quoted(&header.name), value(&header.value)));
        pairs.push(("header".to_owned(), table(headers)));
    }
    table(pairs.into_iter())
}

fn one_peer(peer: &Peer) -> String {
    match peer {
        Peer::Selector(selector) => peer_selector(selector),
        Peer::Entity(entity) => quoted(format_args!("entity:{entity}")),
        Peer::Cidr(set) => cidr(&set.network),
        Peer::Group(name) => quoted(format_args!("group:{name}")),
    }
}

fn cidr(network: &IpNet) -> String {
    quoted(format_args!("cidr:{network}"))
}

/// As text if that says it, else as a table.
fn selector(selector: &Selector) -> String {
    match as_table(selector) {
        Some(table) if !selector.is_written() => table,
        _ => quoted(selector),
    }
}

/// As a peer: text that would be taken for another kind of peer is avoided.
fn peer_selector(each: &Selector) -> String {
    let text = each.to_string();
    if peer::is_selector(&text) {
        return selector(each);
    }
    if let Some(table) = as_table(each) {
        return table;
    }
    let requirements: Vec<_> = each.requirements().map(ToString::to_string).collect();
    let begins = |at: usize| [&requirements[at..], &requirements[..at]].concat().join(",");
    let orders = (0..requirements.len()).map(begins);
    quoted(orders.into_iter().find(|text| peer::is_selector(text)).unwrap_or(text))
}

/// None: tables cannot say it.
fn as_table(selector: &Selector) -> Option<String> {
    let mut keys = BTreeSet::new();
    let mut pairs = Vec::new();
    for requirement in selector.requirements() {
        let value = match requirement {
            Requirement::Exists(_) => "true".to_owned(),
            Requirement::Absent(_) => "false".to_owned(),
            Requirement::In(_, values) => list(values),
            Requirement::NotIn(..) => return None,
        };
        if !keys.insert(requirement.key()) {
            return None;
        }
        pairs.push((quoted(requirement.key()), value));
    }
    Some(table(pairs.into_iter()))
}

fn wish(wish: AddressWish) -> String {
    match wish {
        AddressWish::Auto => quoted("auto"),
        AddressWish::None => quoted("none"),
        AddressWish::Fixed(address) => quoted(address),
    }
}

fn duration(duration: Duration) -> String {
    quoted(format_args!("{}ms", duration.as_millis()))
}

/// As a basic string (TOML 1.0): what it cannot hold is escaped.
fn quoted(text: impl Display) -> String {
    let mut out = String::from('"');
    for c in text.to_string().chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn list(items: impl IntoIterator<Item = impl Display>) -> String {
    array(items.into_iter().map(quoted))
}

fn array(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    format!("[{}]", items.join(", "))
}

fn table(pairs: impl Iterator<Item = (String, String)>) -> String {
    let pairs: Vec<String> = pairs.map(|(key, value)| format!("{key} = {value}")).collect();
    match pairs.is_empty() {
        true => "{}".to_owned(),
        false => format!("{{ {} }}", pairs.join(", ")),
    }
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn header(&mut self, header: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(header);
        self.0.push('\n');
    }

    fn pair(&mut self, key: &str, value: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{key} = {value}");
    }
}
