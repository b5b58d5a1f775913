//! What is allowed but hardly meant. Only what is certain from the files alone, and cheap to tell.

use std::collections::HashMap;

use ipnet::IpNet;

use super::check::{In, ipv4, ipv6};
use super::endpoint::WrittenEndpoint;
use super::fault::{Fault, Faults};
use super::model::{AddressWish, Host, Peer, Rule};
use super::policy::WrittenPolicy;
use crate::types::selector::Requirement;
use crate::types::{Action, Direction, Entity, Labels, Selector};

pub fn all(
    host: &Host,
    endpoints: &[In<WrittenEndpoint>],
    policies: &[In<WrittenPolicy>],
    faults: &mut Faults,
) {
    addressless(host, endpoints, faults);
    let mut picks = Picks::new(host, endpoints);
    for &policy in policies {
        let (source, written) = policy;
        if let Some((what, hint)) = picks.nobody(&written.policy.subject) {
            let what = format!("the subject of `{}` {what}", written.policy.name);
            faults.push(Fault::warning(source.place(&written.subject), what).hint(hint));
        }
        for direction in Direction::BOTH {
            for (rule, places) in written.rules(direction) {
                for (peer, span) in rule.peers.iter().zip(&places.peers) {
                    let told = match peer {
                        // Of `world` alone, `peer` has told already.
                        Peer::Selector(selector)
                            if selector.to_string().parse::<Entity>().is_ok() =>
                        {
                            None
                        }
                        Peer::Selector(selector) => picks
                            .nobody(selector)
                            .map(|(what, hint)| (format!("`{selector}` {what}"), hint)),
                        Peer::Cidr(set) => inside_pool(host, &set.network),
                        Peer::Entity(_) | Peer::Group(_) => None,
                    };
                    if let Some((what, hint)) = told {
                        faults.push(Fault::warning(source.place(span), what).hint(hint));
                    }
                }
            }
            moot(policy, direction, faults);
        }
    }
}

fn addressless(host: &Host, endpoints: &[In<WrittenEndpoint>], faults: &mut Faults) {
    let has_pool =
        |v6: bool| host.pools.iter().any(|pool| matches!(pool.network, IpNet::V6(_)) == v6);
    let (pool6, pool4) = (has_pool(true), has_pool(false));
    for (source, written) in endpoints {
        let none = |wish, pool: bool| match wish {
            AddressWish::Auto => !pool,
            AddressWish::None => true,
            AddressWish::Fixed(_) => false,
        };
        if none(ipv6(written).0, pool6) && none(ipv4(written).0, pool4) {
            let what = format!(
                "the endpoint `{}` gets no address: no pool has one for it",
                written.endpoint.name
            );
            let fault = Fault::warning(source.place(&written.name), what);
            faults.push(fault.hint("add a [[pool]] to porin.toml"));
        }
    }
}

fn inside_pool(host: &Host, network: &IpNet) -> Option<(String, String)> {
    let pool = host.pools.iter().find(|pool| pool.network.contains(network))?;
    Some((
        format!("cidr:{network} is inside the pool {}, so it matches nobody", pool.network),
        "addresses never stand for endpoints; write a selector over their labels".to_owned(),
    ))
}

/// Allow rules that a deny rule of the same policy covers wholly.
fn moot((source, written): In<WrittenPolicy>, direction: Direction, faults: &mut Faults) {
    /// Every pair is compared.
    const MOST: usize = 200;
    let rules: Vec<_> = written.rules(direction).take(MOST).collect();
    let denies = || rules.iter().filter(|(rule, _)| rule.action == Action::Deny);
    for (rule, places) in rules.iter().filter(|(rule, _)| rule.action == Action::Allow) {
        if let Some((_, deny)) = denies().find(|(deny, _)| covers(deny, rule)) {
            let fault = Fault::warning(
                source.place(&places.header),
                "this rule allows only what another rule of the policy denies",
            );
            let fault = fault.hint("deny beats allow, in whatever order they stand");
            faults.push(fault.related(source.place(&deny.header), "the rule that denies it"));
        }
    }
}

fn covers(deny: &Rule, allow: &Rule) -> bool {
    let ports = deny.ports.is_empty()
        || !allow.ports.is_empty() && allow.ports.iter().all(|port| deny.ports.contains(port));
    let peers = deny.peers.is_empty()
        || !allow.peers.is_empty() && allow.peers.iter().all(|peer| deny.peers.contains(peer));
    ports && peers
}

/// Whom selectors pick, without trying every endpoint for each.
struct Picks<'a> {
    host: &'a Host,
    /// What identities are made of.
    labels: Vec<Labels>,
    /// Indices into `labels`.
    bearers: HashMap<(String, String), Vec<usize>>,
    known: HashMap<Selector, bool>,
}

impl<'a> Picks<'a> {
    fn new(host: &'a Host, endpoints: &[In<WrittenEndpoint>]) -> Self {
        let labels = |(_, written): &In<WrittenEndpoint>| {
            written.endpoint.labels.filtered(|key| host.labels.wants(key))
        };
        let mut labels: Vec<Labels> = endpoints.iter().map(labels).collect();
        labels.sort();
        labels.dedup();
        let mut bearers: HashMap<_, Vec<usize>> = HashMap::new();
        for (i, labels) in labels.iter().enumerate() {
            for (key, value) in labels.iter() {
                bearers.entry((key.to_string(), value.to_owned())).or_default().push(i);
            }
        }
        Picks { host, labels, bearers, known: HashMap::new() }
    }

    /// Why `selector` picks no endpoint, and what to do; none if it picks any.
    fn nobody(&mut self, selector: &Selector) -> Option<(String, String)> {
        let mut positive = selector.requirements().filter(|requirement| {
            matches!(requirement, Requirement::Exists(_) | Requirement::In(..))
        });
        if let Some(ignored) =
            positive.find(|requirement| !self.host.labels.wants(requirement.key()))
        {
            let key = ignored.key();
            return Some((
                format!("picks nobody: [labels] leaves the label `{key}` out"),
                format!("include `{key}` in [labels] of porin.toml"),
            ));
        }
        let picks = match self.known.get(selector) {
            Some(picks) => *picks,
            None => {
                let picks = self.any(selector);
                self.known.insert(selector.clone(), picks);
                picks
            }
        };
        let hint = "see `porinctl endpoints` for the labels that there are";
        (!picks).then(|| ("picks no endpoint".to_owned(), hint.to_owned()))
    }

    fn any(&self, selector: &Selector) -> bool {
        let bearers = |requirement: &Requirement| match requirement {
            Requirement::In(key, values) if values.len() == 1 => {
                let value = values.first().cloned().unwrap_or_default();
                Some(self.bearers.get(&(key.to_string(), value)).map_or(&[][..], Vec::as_slice))
            }
            _ => None,
        };
        match selector.requirements().filter_map(bearers).min_by_key(|bearers| bearers.len()) {
            Some(few) => few.iter().any(|i| selector.matches(&self.labels[*i])),
            None => self.labels.iter().any(|labels| selector.matches(labels)),
        }
    }
}
