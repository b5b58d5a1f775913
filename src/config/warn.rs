//! What is allowed but hardly meant. Only what is certain from the files alone, and cheap to tell.

use std::collections::HashMap;
use std::ops::Range;

use ipnet::IpNet;

use super::assertion::WrittenAssert;
use super::check::{In, ipv4, ipv6};
use super::endpoint::WrittenEndpoint;
use super::fault::{Fault, Faults};
use super::group::WrittenGroup;
use super::model::{AddressWish, Host, Peer};
use super::moot;
use super::picks::{Picks, Receivers};
use super::policy::WrittenPolicy;
use super::source::Source;
use crate::types::selector::Requirement;
use crate::types::{Direction, Entity, Name, PortSpec, Selector};

/// All that there is.
pub struct Whole<'a> {
    pub host: &'a Host,
    pub endpoints: &'a [In<'a, WrittenEndpoint>],
    pub policies: &'a [In<'a, WrittenPolicy>],
    pub groups: &'a [In<'a, WrittenGroup>],
    pub asserts: &'a [In<'a, WrittenAssert>],
}

pub fn all(whole: &Whole, faults: &mut Faults) {
    addressless(whole.host, whole.endpoints, faults);
    let picks = Picks::new(whole.host, whole.endpoints);
    let mut pools: Vec<IpNet> = whole.host.pools.iter().map(|pool| pool.network).collect();
    pools.sort();
    let mut doubts = Doubts { picks, pools, groups: HashMap::new(), faults };
    for (source, written) in whole.policies {
        doubts.policy(source, written);
    }
    for (source, written) in whole.asserts {
        doubts.assert(source, written);
    }
    for (source, written) in whole.groups {
        doubts.group(source, written);
    }
    moot::all(whole.policies, faults);
}

/// A bare word that is an entity's name.
fn is_like_entity(selector: &Selector) -> bool {
    let mut requirements = selector.requirements();
    let bare = matches!(requirements.next(), Some(Requirement::Exists(_)));
    bare && requirements.next().is_none() && selector.to_string().parse::<Entity>().is_ok()
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

struct Doubts<'a> {
    picks: Picks<'a>,
    /// Sorted; disjoint.
    pools: Vec<IpNet>,
    /// Those in use, with whether any rule matches endpoints by them.
    groups: HashMap<&'a Name, bool>,
    faults: &'a mut Faults,
}

impl<'a> Doubts<'a> {
    fn warn(&mut self, source: &Source, span: &Range<usize>, told: Option<(String, String)>) {
        if let Some((what, hint)) = told {
            self.faults.warn(|| Fault::warning(source.place(span), what).hint(hint));
        }
    }

    fn policy(&mut self, source: &Source, written: &'a WrittenPolicy) {
        let policy = &written.policy;
        let nobody = self.picks.nobody(&policy.subject);
        let nobody =
            nobody.map(|(what, hint)| (format!("the subject of `{}` {what}", policy.name), hint));
        self.warn(source, &written.subject, nobody);
        for direction in Direction::BOTH {
            for (rule, places) in written.rules(direction) {
                self.peers(source, &rule.peers, &places.peers, Some(rule.match_endpoints));
                let receivers = match direction {
                    Direction::Ingress => Receivers::Subject(&policy.subject),
                    Direction::Egress => Receivers::Peers(&rule.peers),
                };
                self.ports(source, &rule.ports, &places.ports, &receivers);
            }
        }
    }

    fn assert(&mut self, source: &Source, written: &'a WrittenAssert) {
        let assert = &written.assert;
        self.peers(source, &assert.from, &written.from, None);
        self.peers(source, &assert.to, &written.to, None);
        self.ports(source, &assert.ports, &written.ports, &Receivers::Peers(&assert.to));
    }

    /// After all that could use it.
    fn group(&mut self, source: &Source, written: &WrittenGroup) {
        let group = &written.group;
        for (selector, span) in group.selectors.iter().zip(&written.selectors) {
            let nobody = self.picks.nobody(selector);
            let nobody = nobody.map(|(what, hint)| (format!("`{selector}` {what}"), hint));
            self.warn(source, span, nobody);
        }
        let used = self.groups.get(&group.name).copied();
        let unused = || {
            (format!("nothing uses the group `{}`", group.name), "use it, or remove it".to_owned())
        };
        self.warn(source, &written.name, used.is_none().then(unused));
        if used == Some(false) {
            for (network, span) in group.networks.iter().zip(&written.networks) {
                let told = self.inside_pool(network, ", or match-endpoints = true in rules");
                self.warn(source, span, told);
            }
        }
        let empty =
            (group.selectors.is_empty() && group.entities.is_empty()) && group.networks.is_empty();
        let told = (
            format!("the group `{}` has no members", group.name),
            "rules that name nobody else match nobody".to_owned(),
        );
        self.warn(source, &written.name, empty.then_some(told));
    }

    /// `match_endpoints`: of a rule; asserts never do.
    fn peers(
        &mut self,
        source: &Source,
        peers: &'a [Peer],
        spans: &[Range<usize>],
        match_endpoints: Option<bool>,
    ) {
        for (peer, span) in peers.iter().zip(spans) {
            let told = match peer {
                // Of `world` alone, `peer` has told already.
                Peer::Selector(selector) if is_like_entity(selector) => None,
                Peer::Selector(selector) => self
                    .picks
                    .nobody(selector)
                    .map(|(what, hint)| (format!("`{selector}` {what}"), hint)),
                Peer::Cidr(set) => match match_endpoints {
                    Some(true) => None,
                    Some(false) => {
                        self.inside_pool(&set.network, ", or match-endpoints = true in the rule")
                    }
                    None => self.inside_pool(&set.network, ""),
                },
                Peer::Entity(_) => None,
                Peer::Group(name) => {
                    *self.groups.entry(name).or_default() |= match_endpoints == Some(true);
                    None
                }
            };
            self.warn(source, span, told);
        }
    }

    fn ports(
        &mut self,
        source: &Source,
        ports: &[PortSpec],
        spans: &[Range<usize>],
        receivers: &Receivers,
    ) {
        // Several are of one place if it names several protocols.
        let mut at = 0;
        for span in spans.chunk_by(|a, b| a == b) {
            let specs = &ports[at..at + span.len()];
            at += span.len();
            let told = self.picks.nowhere(specs, receivers);
            self.warn(source, &span[0], told);
        }
    }

    /// `hint` comes after the remedy that there always is.
    fn inside_pool(&self, network: &IpNet, hint: &str) -> Option<(String, String)> {
        // What contains it sorts before it, and right before as pools are disjoint.
        let after = self.pools.partition_point(|pool| pool <= network);
        let pool = self.pools.get(after.checked_sub(1)?)?;
        let told = || {
            (
                format!(
                    "cidr:{network} is inside the pool {pool}, so it matches no endpoint (only the host's own \
                     address, if that is in it)"
                ),
                format!("write a selector over endpoints' labels{hint}"),
            )
        };
        pool.contains(network).then(told)
    }
}
