//! Assertions: proven before a plan may be committed.
//!
//! What is proven is about label sets, addresses, protocols and ports, not about endpoints: it holds for endpoints that are
//! yet to come as well. Two things are not known of those. Which ports have names is taken from the endpoints that there
//! are: label sets that nobody has are taken to call their ports as the others do. Their addresses may be any of a
//! pool's, for rules that match endpoints by address. Where there are too many cases to look at, the proof is for the
//! identities in force only, and that is said.

mod domain;
mod ends;
mod entries;
mod listed;
mod region;
mod search;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::model::{self, Assert, AssertKind, Group};
use crate::desired::Fault;
use crate::desired::snapshot::Snapshot;
use crate::types::{Direction, Entity, Name, PortMatch, PortRange, PortSpec};

use super::classes::{self, Ground, Kind};
use super::resolve::rules_of;
use super::sets::{AddressSets, SetName};
use super::sources::Sources;
use domain::{Domain, Tri};
use ends::End;
use entries::{Entry, Meanings, Outside, Party};
use listed::Listed;
use region::Region;
use search::{BUDGET, Found, Search, Undecided};
use walk::Cause;

/// Pairs of identities in force times entries, for what could not be decided otherwise.
const BUDGET_IN_FORCE: usize = 10 * BUDGET;
/// To find a counterexample among the identities in force, which people understand best.
const BUDGET_EXAMPLE: usize = BUDGET / 8;

/// What came of the last check, so that what did not change need not be proven again.
#[derive(Debug, Clone, Default)]
pub(super) struct Assertions {
    held: Option<Held>,
    /// Proven for the identities in force only.
    undecided: Arc<Vec<Fault>>,
}

#[derive(Debug, Clone)]
struct Held {
    snapshot: Snapshot,
    by_endpoints: bool,
}

impl Assertions {
    /// Those that are proven for the identities in force only.
    pub fn undecided(&self) -> &Arc<Vec<Fault>> {
        &self.undecided
    }

    /// An error says all that do not hold. `ground`: what addresses are, whatever sets it has.
    pub fn check(
        &mut self,
        snapshot: &Snapshot,
        groups: &BTreeMap<Name, Arc<Group>>,
        ground: &Ground,
    ) -> Result<(), Vec<Fault>> {
        if snapshot.asserts.is_empty() {
            *self = Assertions::default();
            return Ok(());
        }
        if self.held.as_ref().is_some_and(|held| held.still(snapshot)) {
            return Ok(());
        }
        self.held = None;
        let proof = Proof::new(snapshot, groups, ground)?;
        let mut faults = Vec::new();
        let mut undecided = Vec::new();
        for assert in &*snapshot.asserts {
            match proof.check(assert) {
                Ok(None) => {}
                Ok(Some(fault)) => faults.push(fault),
                Err(Undecided) => match proof.check_in_force(assert, BUDGET_IN_FORCE) {
                    Ok(None) => undecided.push(in_force_only(assert)),
                    Ok(Some(fault)) => faults.push(fault),
                    Err(Undecided) => faults.push(undecidable(assert)),
                },
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let by_endpoints = !undecided.is_empty() || proof.names_ports();
        self.held = Some(Held { snapshot: snapshot.clone(), by_endpoints });
        self.undecided = Arc::new(undecided);
        Ok(())
    }
}

impl Held {
    fn still(&self, now: &Snapshot) -> bool {
        let before = &self.snapshot;
        let endpoints = Arc::ptr_eq(&before.endpoints, &now.endpoints);
        Arc::ptr_eq(&before.host, &now.host)
            && before.host_addresses == now.host_addresses
            && before.policies.ptr_eq(&now.policies)
            && Arc::ptr_eq(&before.groups, &now.groups)
            && Arc::ptr_eq(&before.asserts, &now.asserts)
            && (endpoints || !self.by_endpoints)
    }
}

/// All that assertions are proven from.
struct Proof<'a> {
    snapshot: &'a Snapshot,
    meanings: Meanings<'a>,
    outside: Vec<Outside>,
    /// One source port of each kind that rules tell apart.
    sources: Vec<Option<u16>>,
}

impl<'a> Proof<'a> {
    fn new(
        snapshot: &'a Snapshot,
        groups: &'a BTreeMap<Name, Arc<Group>>,
        ground: &Ground,
    ) -> Result<Self, Vec<Fault>> {
        let rules = || snapshot.policies.values().flat_map(|policy| rules_of(policy));
        let asserted =
            || snapshot.asserts.iter().flat_map(|assert| assert.from.iter().chain(&assert.to));
        let peers = rules().flat_map(|rule| &rule.peers).chain(asserted());
        let ground = Ground { sets: Arc::new(AddressSets::of(peers, groups)), ..ground.clone() };
        let kinds = classes::distinct(&ground).map_err(|fault| vec![*fault])?;
        let outside = kinds.into_iter().map(|(kind, sets)| Outside { kind, sets });
        let inside = rules().filter(|rule| rule.match_endpoints).flat_map(|rule| &rule.peers);
        let inside = AddressSets::of(inside, groups).meeting(&ground.pools);
        let mut named: BTreeMap<_, Region> = BTreeMap::new();
        let mut bearers = BTreeSet::new();
        for endpoint in snapshot.endpoints.values() {
            bearers.insert((Arc::clone(&endpoint.labels), endpoint.ports.clone()));
            for (name, ports) in &endpoint.ports {
                let known = named.entry((name.clone(), ports.protocol)).or_default();
                *known = known.or(&Region::of(&[*ports]));
            }
        }
        let meanings = Meanings {
            filter: &snapshot.host.labels,
            groups,
            pools: snapshot.pools().collect(),
            inside,
            bearers: bearers.into_iter().collect(),
            named,
        };
        let sources = sources(rules())?;
        let outside = outside.filter(|outside| outside.kind != Kind::Pool).collect();
        Ok(Proof { snapshot, meanings, outside, sources })
    }

    fn names_ports(&self) -> bool {
        let named = |port: &PortSpec| matches!(port, PortSpec::Named { .. });
        let rules = self.snapshot.policies.values().flat_map(|policy| rules_of(policy));
        let asserted = self.snapshot.asserts.iter().flat_map(|assert| &assert.ports);
        rules.flat_map(|rule| &rule.ports).chain(asserted).any(named)
    }

    /// For all label sets that could be; one that there is makes the better counterexample.
    fn check(&self, assert: &Assert) -> Result<Option<Fault>, Undecided> {
        if let Ok(Some(fault)) = self.check_in_force(assert, BUDGET_EXAMPLE) {
            return Ok(Some(fault));
        }
        let (from, to) = (self.parties(&assert.from), self.parties(&assert.to));
        self.search_all(assert, BUDGET, &from, &to)
    }

    /// For the endpoints that there are.
    fn check_in_force(&self, assert: &Assert, budget: usize) -> Result<Option<Fault>, Undecided> {
        let parties = |peers: &[model::Peer]| {
            let is = |party: &Party| self.meanings.any(peers, false, party) == Tri::Yes;
            let outside = self.outside.iter().map(Party::Outside);
            self.in_force().chain(outside).filter(is).collect::<Vec<_>>()
        };
        self.search_all(assert, budget, &parties(&assert.from), &parties(&assert.to))
    }

    /// One of each kind: by labels, and by named ports if these play a part.
    fn in_force(&self) -> Box<dyn Iterator<Item = Party<'_>> + '_> {
        let filter = self.meanings.filter;
        if self.names_ports() {
            let endpoint =
                |(labels, ports)| Party::Endpoint(Domain::endpoint(filter, labels, ports));
            return Box::new(self.meanings.bearers.iter().map(|(l, p)| (&**l, p)).map(endpoint));
        }
        let identities = self.snapshot.identities.values();
        Box::new(identities.map(move |labels| Party::Endpoint(Domain::only(filter, labels))))
    }

    /// The assertion's numbered ports at all of `to`, its named ones at the endpoints that have them.
    fn search_all(
        &self,
        assert: &Assert,
        budget: usize,
        from: &[Party<'_>],
        to: &[Party<'_>],
    ) -> Result<Option<Fault>, Undecided> {
        let mut left = budget;
        let region = self.meanings.region(&assert.ports);
        if !region.is_empty()
            && let Some(fault) = self.search(assert, &mut left, from, to, &region)?
        {
            return Ok(Some(fault));
        }
        let named = |port: &PortSpec| matches!(port, PortSpec::Named { .. });
        let named: Vec<&PortSpec> = assert.ports.iter().filter(|port| named(port)).collect();
        if named.is_empty() {
            return Ok(None);
        }
        for (labels, ports) in &self.meanings.bearers {
            let region: Vec<PortMatch> = named.iter().filter_map(|port| port.of(ports)).collect();
            let endpoint = Party::Endpoint(Domain::endpoint(self.meanings.filter, labels, ports));
            if region.is_empty() || self.meanings.any(&assert.to, false, &endpoint) != Tri::Yes {
                continue;
            }
            let found = self.search(assert, &mut left, from, &[endpoint], &Region::of(&region))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn search(
        &self,
        assert: &Assert,
        budget: &mut usize,
        from: &[Party<'_>],
        to: &[Party<'_>],
        region: &Region,
    ) -> Result<Option<Fault>, Undecided> {
        let policies = &self.snapshot.policies;
        for source in &self.sources {
            let entries =
                |direction| self.meanings.entries(policies, direction, *source, assert.kind);
            let (egress, ingress) = (entries(Direction::Egress), entries(Direction::Ingress));
            let made = egress.len() + ingress.len() + from.len() + to.len();
            let left = budget.checked_sub(made).ok_or(Undecided)?;
            let meanings = &self.meanings;
            let (out, into) = (Listed::new(meanings, &egress), Listed::new(meanings, &ingress));
            let mut search = Search { meanings, egress: &out, ingress: &into, budget: left };
            let from = search.roots(from, Direction::Egress)?;
            let to = search.roots(to, Direction::Ingress)?;
            let endpoints = to.partition_point(|root| root.party.domain().is_some());
            for from in &from {
                let to = if from.party.domain().is_some() { &to } else { &to[..endpoints] };
                for to in to {
                    let found = match assert.kind {
                        AssertKind::Never => search.passing(from, to, region)?,
                        AssertKind::Always => search.stopped(from, to, region)?,
                    };
                    if let Some(found) = found {
                        let fault = broken(assert, &found, &egress, &ingress, *source);
                        return Ok(Some(self.with_hint(fault, assert, &found)));
                    }
                }
            }
            *budget = search.budget;
        }
        Ok(None)
    }

    fn with_hint(&self, fault: Fault, assert: &Assert, found: &Found) -> Fault {
        let hint = match assert.kind {
            AssertKind::Never => "deny it, narrow the rule that allows it, or change the assertion",
            AssertKind::Always => {
                "allow it, narrow the rule that denies it, or change the assertion"
            }
        };
        let there = |end: &End| match end {
            End::Labels(labels) => {
                self.snapshot.identities.values().any(|known| **known == *labels)
            }
            End::Outside(_) => true,
        };
        match there(&found.from) && there(&found.to) {
            true => fault.hint(hint),
            false => fault.hint(format!("{hint}; no endpoint has such labels now, but one may")),
        }
    }

    /// Whom an assertion is about.
    fn parties<'b>(&'b self, peers: &[model::Peer]) -> Vec<Party<'b>> {
        let all = Domain::all(self.meanings.filter);
        let mut domains = Vec::new();
        let everyone = |entity: &Entity| matches!(entity, Entity::All | Entity::Cluster);
        for peer in peers {
            match peer {
                model::Peer::Selector(selector) => domains.extend(all.with(selector)),
                model::Peer::Entity(entity) if everyone(entity) => domains.push(all.clone()),
                model::Peer::Group(name) => {
                    let Some(group) = self.meanings.groups.get(name) else { continue };
                    domains.extend(group.selectors.iter().filter_map(|s| all.with(s)));
                    if group.entities.iter().any(everyone) {
                        domains.push(all.clone());
                    }
                }
                model::Peer::Entity(_) | model::Peer::Cidr(_) => {}
            }
        }
        if peers.is_empty() {
            domains.push(all);
        }
        let outside = self.outside.iter().map(Party::Outside);
        let outside = outside.filter(|party| self.meanings.any(peers, false, party) == Tri::Yes);
        domains.into_iter().map(Party::Endpoint).chain(outside).collect()
    }
}

/// A source port for each way in which rules tell source ports apart; none if no rule does.
fn sources<'a>(
    rules: impl Iterator<Item = &'a model::Rule>,
) -> Result<Vec<Option<u16>>, Vec<Fault>> {
    let lists: BTreeSet<_> =
        rules.map(|rule| &rule.source_ports).filter(|l| !l.is_empty()).collect();
    if lists.is_empty() {
        return Ok(vec![None]);
    }
    let mut sources = Sources::default();
    sources.update(lists.into_iter().cloned().collect())?;
    let runs = &sources.table().runs;
    let mut seen = BTreeSet::new();
    let mut ports = Vec::new();
    for (at, (first, class)) in runs.iter().enumerate() {
        // Nobody sends from port 0.
        let port = (*first).max(1);
        let there = runs.get(at + 1).is_none_or(|(next, _)| *next > port);
        if there && seen.insert(*class) {
            ports.push(Some(port));
        }
    }
    Ok(ports)
}

fn broken(
    assert: &Assert,
    found: &Found,
    egress: &[Entry],
    ingress: &[Entry],
    source: Option<u16>,
) -> Fault {
    let end = |end: &End| match end {
        End::Labels(labels) if labels.is_empty() => "an endpoint without labels".to_owned(),
        End::Labels(labels) => format!("an endpoint with `{labels}`"),
        End::Outside(what) => what.clone(),
    };
    let port = found.region.example().map(|(protocol, port)| {
        let ports = PortRange::new(port, port).unwrap_or(PortRange::ALL);
        PortMatch { protocol, ports }.to_string()
    });
    let (from, to, port) = (end(&found.from), end(&found.to), port.unwrap_or_default());
    let (kind, may) = match assert.kind {
        AssertKind::Never => ("never", "may reach"),
        AssertKind::Always => ("always", "may not reach"),
    };
    let mut what = format!("the assertion `{kind}` does not hold: {from} {may} {to} on {port}");
    let example = found.region.example();
    if let Some(source) = source.filter(|_| example.is_some_and(|(p, _)| p.has_ports())) {
        what.push_str(&format!(" from port {source}"));
    }
    let says = |direction: Direction, cause: Option<Cause>, entries: &[Entry]| {
        let said = match cause? {
            Cause::Default => "nothing denies it".to_owned(),
            Cause::Entry(at) => {
                let Entry { policy, rule, action, .. } = entries.get(at)?;
                let (kind, origin) = match rule {
                    Some(rule) if rule.action != *action => {
                        ("only some requests are allowed".to_owned(), &rule.origin)
                    }
                    Some(rule) => (action.to_string(), &rule.origin),
                    None => ("default deny".to_owned(), policy.default_origin(direction)),
                };
                format!("{kind} by `{}` ({origin})", policy.name)
            }
        };
        Some(format!("{direction}: {said}"))
    };
    let why = [
        says(Direction::Egress, found.egress, egress),
        says(Direction::Ingress, found.ingress, ingress),
    ];
    let why: Vec<String> = why.into_iter().flatten().collect();
    Fault::whole(what).why(why.join("; ")).origin(&assert.origin)
}

fn in_force_only(assert: &Assert) -> Fault {
    let what = "there are too many label sets that could be to prove this assertion for all of them: it is proven for \
                those in force only";
    Fault::whole(what).origin(&assert.origin)
}

fn undecidable(assert: &Assert) -> Fault {
    let what = "this assertion is too much work to prove, even for the identities in force";
    Fault::whole(what).hint("narrow its `from` and `to`").origin(&assert.origin)
}

impl Outside {
    /// For people.
    fn written(&self) -> String {
        let kind = match self.kind {
            Kind::Host => "the host",
            Kind::RemoteHost => "a remote host",
            Kind::Unmanaged => "an unmanaged address",
            Kind::WorldIpv4 => "an IPv4 address of the world",
            Kind::WorldIpv6 => "an IPv6 address of the world",
            Kind::Pool => "an address of a pool",
        };
        let sets: Vec<String> = self.sets.iter().take(3).map(|set| set.written()).collect();
        let more = if self.sets.len() > 3 { ", ..." } else { "" };
        match sets.as_slice() {
            [] => kind.to_owned(),
            sets => format!("{kind} (in {}{more})", sets.join(", ")),
        }
    }
}

impl AddressSets {
    /// Those that have an address in one of these networks.
    fn meeting(&self, pools: &BTreeSet<IpNet>) -> Vec<SetName> {
        let meets = |network: &IpNet| {
            pools.iter().any(|pool| pool.contains(network) || network.contains(pool))
        };
        let cidrs =
            self.cidrs.iter().filter(|cidr| meets(&cidr.network)).cloned().map(SetName::Cidr);
        let groups = self.groups.iter().filter(|(_, group)| group.networks.iter().any(meets));
        cidrs.chain(groups.map(|(name, _)| SetName::Group(name.clone()))).collect()
    }
}
