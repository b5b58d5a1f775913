//! Identities as subjects: which resolved policies pick each, and the table that follows.

use std::collections::{BTreeMap, BTreeSet, HashMap as StdHashMap};
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use imbl::{HashMap, OrdMap};

use crate::desired::Fault;
use crate::desired::numbering::Numbering;
use crate::desired::selectors::Picks;
use crate::desired::snapshot::{Endpoint, Snapshot, Uplink};
use crate::types::http::Side;
use crate::types::{AddressKey, Direction, Identity, Labels, Mode, PolicySlot, RulesetId, Slot};

use super::features::{Common, Needs};
use super::plan::{Digest, PlannedEndpoint, PlannedUplink, PolicyTable};
use super::resolve::Resolved;
use super::roles::{Assigned, NamedPorts, Roles};
use super::rulesets::Rulesets;
use super::table::{self, TooLarge};

/// Policy slots are `1..=POLICY_SLOTS` (`PORIN_MAX_POLICY_SLOTS`).
pub const POLICY_SLOTS: u32 = 16_383;

/// What has a policy slot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum TableKey {
    /// Of an identity's endpoints with these named ports. Its number stays when the table changes, so that an edit
    /// costs no endpoint's row.
    Enforced { identity: Identity, ports: NamedPorts },
    /// With what is in shadow mode: by content. One such policy may be about everybody, to whom it mostly means the same,
    /// and there are not twice as many slots as identities. Each side of an endpoint's row has its own.
    Shadow(Digest),
}

/// Cloning is cheap; a run costs what is no longer right, not what there is.
#[derive(Debug, Clone)]
pub(super) struct Subjects {
    identities: Arc<BTreeMap<Identity, Arc<Labels>>>,
    known: OrdMap<Identity, Subject>,
    /// Those whose tables are no longer right.
    dirty: BTreeSet<Identity>,
    slots: Numbering<TableKey>,
    rulesets: Rulesets,
    tables: OrdMap<PolicySlot, Arc<PolicyTable>>,
    /// Shadow tables, with how many there would be if equal ones were not one.
    shadows: OrdMap<Digest, usize>,
    /// Of all subjects.
    tally: Tally,
    /// Equal tables are one.
    shared: HashMap<Digest, Weak<Built>>,
    planned: Planned,
}

#[derive(Debug, Clone, Default)]
struct Subject {
    /// Sorted by name.
    policies: Arc<Vec<Arc<Resolved>>>,
    /// By the named ports of endpoints; empty until they are built for the first time.
    tables: BTreeMap<NamedPorts, Tables>,
    asks: Asks,
}

/// What a subject asks of the programs.
#[derive(Debug, Clone, Copy, Default)]
struct Asks {
    ingress: bool,
    egress: bool,
    reject: bool,
    shadow: bool,
}

/// How many subjects ask for each.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    ingress: usize,
    egress: usize,
    reject: usize,
    shadow: usize,
}

/// The endpoints of the last plan, and what they were made from.
#[derive(Debug, Clone, Default)]
struct Planned {
    from: Option<Basis>,
    slots: Arc<BTreeMap<Identity, Vec<Slot>>>,
    addresses: Arc<BTreeMap<AddressKey, Slot>>,
    /// Some endpoint is adopted.
    adopts: bool,
    endpoints: OrdMap<Slot, PlannedEndpoint>,
    /// Identities whose endpoints may have to be others than there.
    stale: BTreeSet<Identity>,
}

/// Where packets come from and go to, with what is to judge them there.
pub(super) struct Places {
    pub endpoints: OrdMap<Slot, PlannedEndpoint>,
    pub uplinks: BTreeMap<Slot, PlannedUplink>,
    pub addresses: Arc<BTreeMap<AddressKey, Slot>>,
}

#[derive(Debug, Clone)]
struct Basis {
    endpoints: Arc<BTreeMap<Slot, Arc<Endpoint>>>,
    roles: Arc<Assigned>,
    common: Common,
}

#[derive(Debug, Clone)]
struct Tables {
    enforced: Arc<Built>,
    /// None: no policy is in shadow mode, or none that would make a difference.
    shadow: Option<Arc<Built>>,
}

#[derive(Debug)]
struct Built {
    table: Arc<PolicyTable>,
    rejects: bool,
}

impl TableKey {
    fn enforced(identity: Identity, ports: &NamedPorts) -> Self {
        TableKey::Enforced { identity, ports: Arc::clone(ports) }
    }
}

impl Built {
    fn shadow(&self) -> TableKey {
        TableKey::Shadow(self.table.digest)
    }
}

impl Subject {
    fn asks(&self) -> Asks {
        let enforced = self.policies.iter().filter(|policy| policy.mode == Mode::Enforce);
        let [ingress, egress] = [Direction::Ingress, Direction::Egress]
            .map(|direction| enforced.clone().any(|policy| policy.direction(direction).is_some()));
        let reject = self.tables.values().any(|tables| tables.enforced.rejects);
        let shadow = self.tables.values().any(|tables| tables.shadow.is_some());
        Asks { ingress, egress, reject, shadow }
    }

    fn shadowed(&self) -> bool {
        let speaks =
            |policy: &Resolved| Direction::BOTH.iter().any(|d| policy.direction(*d).is_some());
        self.policies.iter().any(|policy| policy.mode == Mode::Shadow && speaks(policy))
    }
}

impl Tally {
    /// What was asked for is not any more, and what is asked for now is.
    fn exchange(&mut self, old: Asks, new: Asks) {
        let change = |count: &mut usize, old: bool, new: bool| {
            *count = *count + usize::from(new) - usize::from(old);
        };
        change(&mut self.ingress, old.ingress, new.ingress);
        change(&mut self.egress, old.egress, new.egress);
        change(&mut self.reject, old.reject, new.reject);
        change(&mut self.shadow, old.shadow, new.shadow);
    }
}

impl Subjects {
    pub fn new() -> Self {
        Subjects {
            identities: Arc::default(),
            known: OrdMap::new(),
            dirty: BTreeSet::new(),
            slots: Numbering::new(1..=POLICY_SLOTS),
            rulesets: Rulesets::new(),
            tables: OrdMap::new(),
            shadows: OrdMap::new(),
            tally: Tally::default(),
            shared: HashMap::new(),
            planned: Planned::default(),
        }
    }

    pub fn committed(&mut self) {
        self.slots.committed();
        self.rulesets.committed();
    }

    /// A policy that picked some identities now picks others, or says something else to them.
    pub fn replace(
        &mut self,
        old: Option<(&Picks, Option<&Arc<Resolved>>)>,
        new: Option<(&Picks, Option<&Arc<Resolved>>)>,
    ) {
        let known = &mut self.known;
        let pairs = |side: Option<(&Picks, Option<&Arc<Resolved>>)>| {
            side.and_then(|(picks, resolved)| Some((Arc::clone(picks), Arc::clone(resolved?))))
        };
        let (old, new) = (pairs(old), pairs(new));
        if let Some((picks, resolved)) = &old {
            let still = |id: &Identity| {
                new.as_ref()
                    .is_some_and(|(picks, r)| picks.contains(id) && Arc::ptr_eq(r, resolved))
            };
            for identity in picks.iter().filter(|id| !still(id)) {
                let Some(subject) = known.get_mut(identity) else { continue };
                if let Ok(at) = place(&subject.policies, resolved) {
                    Arc::make_mut(&mut subject.policies).remove(at);
                    self.dirty.insert(*identity);
                }
            }
        }
        let Some((picks, resolved)) = &new else { return };
        for identity in picks.iter() {
            let subject = known.entry(*identity).or_default();
            match place(&subject.policies, resolved) {
                Ok(at) if Arc::ptr_eq(&subject.policies[at], resolved) => continue,
                Ok(at) => Arc::make_mut(&mut subject.policies)[at] = Arc::clone(resolved),
                Err(at) => Arc::make_mut(&mut subject.policies).insert(at, Arc::clone(resolved)),
            }
            self.dirty.insert(*identity);
        }
    }

    /// Builds what is no longer right; says how many tables that were. `regrouped`: the named ports of endpoints may be
    /// others than before.
    pub fn update(
        &mut self,
        identities: &Arc<BTreeMap<Identity, Arc<Labels>>>,
        roles: &Roles,
        regrouped: bool,
    ) -> Result<usize, Vec<Fault>> {
        if !Arc::ptr_eq(&self.identities, identities) {
            self.set_identities(identities);
        }
        if regrouped {
            self.regroup(roles);
        }
        let mut faults = Vec::new();
        let mut fresh = Fresh::default();
        for identity in std::mem::take(&mut self.dirty) {
            let Some(old) = self.known.get(&identity) else { continue };
            let mut new = Subject { tables: BTreeMap::new(), ..old.clone() };
            if identities.contains_key(&identity) {
                let ports = named_ports(roles, identity);
                match fresh.tables(&new, ports, &mut self.shared, &mut self.rulesets) {
                    Ok(tables) => new.tables = tables,
                    Err(too_large) => {
                        faults.push(does_not_fit(identities.get(&identity), &too_large));
                    }
                }
                new.asks = new.asks();
            } else {
                new.asks = Asks::default();
            }
            self.tally.exchange(old.asks, new.asks);
            fresh.changed.push((identity, old.tables.clone()));
            self.planned.stale.insert(identity);
            match identities.contains_key(&identity) {
                true => _ = self.known.insert(identity, new),
                false => _ = self.known.remove(&identity),
            }
        }
        if self.shared.len() > 2 * self.known.len() + 16 {
            self.shared.retain(|_, table| table.strong_count() > 0);
        }
        faults.extend(self.number(fresh.changed));
        if !self.rulesets.is_empty() {
            let used = self.tables.values().flat_map(|table| table.rulesets()).collect();
            self.rulesets.retain(&used);
        }
        if faults.is_empty() { Ok(fresh.built) } else { Err(faults) }
    }

    fn set_identities(&mut self, identities: &Arc<BTreeMap<Identity, Arc<Labels>>>) {
        self.dirty.extend(self.known.keys().filter(|identity| !identities.contains_key(identity)));
        for identity in identities.keys() {
            // To ask for an entry would copy what it is in.
            match self.known.get(identity) {
                Some(subject) if !subject.tables.is_empty() => continue,
                Some(_) => {}
                None => _ = self.known.insert(*identity, Subject::default()),
            }
            self.dirty.insert(*identity);
        }
        self.identities = Arc::clone(identities);
    }

    fn regroup(&mut self, roles: &Roles) {
        for (identity, subject) in &self.known {
            if !subject.tables.keys().eq(named_ports(roles, *identity).iter()) {
                self.dirty.insert(*identity);
            }
        }
    }

    /// Gives slots to the tables that are new, and takes them from those that are gone. `changed`: subjects, with the tables
    /// that they had.
    fn number(&mut self, changed: Vec<(Identity, BTreeMap<NamedPorts, Tables>)>) -> Option<Fault> {
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        let none = BTreeMap::new();
        for (identity, old) in &changed {
            let now = self.known.get(identity).map_or(&none, |subject| &subject.tables);
            let left = old.keys().filter(|ports| !now.contains_key(*ports));
            gone.extend(left.map(|ports| TableKey::enforced(*identity, ports)));
            for (ports, tables) in now {
                let key = TableKey::enforced(*identity, ports);
                new.push((key, Arc::clone(&tables.enforced.table)));
            }
            for built in now.values().filter_map(|tables| tables.shadow.as_ref()) {
                *self.shadows.entry(built.table.digest).or_default() += 1;
                new.push((built.shadow(), Arc::clone(&built.table)));
            }
        }
        for built in
            changed.iter().flat_map(|(_, old)| old.values()).filter_map(|t| t.shadow.as_ref())
        {
            let digest = built.table.digest;
            let left = self.shadows.get_mut(&digest).map_or(0, |users| {
                *users -= 1;
                *users
            });
            if left == 0 {
                self.shadows.remove(&digest);
                gone.push(built.shadow());
            }
        }
        for key in gone {
            if let Some(slot) = self.slot(&key) {
                self.tables.remove(&slot);
            }
            self.slots.release(key);
        }
        let mut without = BTreeSet::new();
        for (key, table) in new {
            match self.slots.take(&key) {
                Some(slot) => _ = self.tables.insert(PolicySlot(slot), table),
                None => _ = without.insert(key),
            }
        }
        let count = self.slots.held().len() + without.len();
        (!without.is_empty()).then(|| no_slots(count, without.len(), self.slots.resting()))
    }

    fn slot(&self, key: &TableKey) -> Option<PolicySlot> {
        self.slots.number(key).map(PolicySlot)
    }

    pub fn rulesets(&self) -> &Arc<BTreeMap<RulesetId, Arc<Side>>> {
        self.rulesets.table()
    }

    /// See [`Rulesets::recover`].
    pub fn recover_rulesets(&mut self, known: BTreeMap<RulesetId, Arc<Side>>) {
        self.rulesets.recover(known);
    }

    pub fn tables(&self) -> OrdMap<PolicySlot, Arc<PolicyTable>> {
        self.tables.clone()
    }

    /// After [`Subjects::update`]. `sources`: some rule looks at source ports. `publishes`: some endpoint has published ports.
    pub fn places(
        &mut self,
        snapshot: &Snapshot,
        roles: &Roles,
        sources: bool,
        publishes: bool,
    ) -> Places {
        let stale = std::mem::take(&mut self.planned.stale);
        let (endpoints, assigned) = (&snapshot.endpoints, roles.assigned());
        let from = self.planned.from.as_ref();
        let same_endpoints = from.is_some_and(|from| Arc::ptr_eq(&from.endpoints, endpoints));
        if !same_endpoints {
            self.planned.addresses = Arc::new(addresses(endpoints));
            self.planned.adopts = endpoints.values().any(|endpoint| endpoint.adopted().is_some());
            let mut slots: BTreeMap<Identity, Vec<Slot>> = BTreeMap::new();
            for (slot, endpoint) in &**endpoints {
                slots.entry(endpoint.identity).or_default().push(*slot);
            }
            self.planned.slots = Arc::new(slots);
        }
        let common = self.common(snapshot, sources, publishes);
        let still = |from: &Basis| Arc::ptr_eq(&from.roles, assigned) && from.common == common;
        let plan = |endpoint| self.endpoint(endpoint, roles, &common);
        let mut planned = self.planned.endpoints.clone();
        if same_endpoints && from.is_some_and(still) {
            let slots = stale.iter().filter_map(|identity| self.planned.slots.get(identity));
            let stale = slots.flatten().filter_map(|slot| endpoints.get(slot));
            planned.extend(stale.filter_map(plan));
        } else {
            planned = endpoints.values().filter_map(plan).collect();
        }
        let uplink = |uplink: &Uplink| {
            let features = common.uplink();
            (uplink.slot, PlannedUplink { uplink: uplink.clone(), features })
        };
        let uplinks = snapshot.uplinks.iter().map(uplink).collect();
        let (endpoints, roles) = (Arc::clone(endpoints), Arc::clone(assigned));
        self.planned.from = Some(Basis { endpoints, roles, common });
        self.planned.endpoints = planned.clone();
        Places { endpoints: planned, uplinks, addresses: Arc::clone(&self.planned.addresses) }
    }

    fn endpoint(
        &self,
        endpoint: &Arc<Endpoint>,
        roles: &Roles,
        common: &Common,
    ) -> Option<(Slot, PlannedEndpoint)> {
        let (ports, peers) = roles.endpoint(endpoint);
        let policy = self.slot(&TableKey::enforced(endpoint.identity, &ports));
        // There is one: `update` has tables of all identities of the snapshot, with all named ports that `roles` says their
        // endpoints have; and if one of those tables got no slot, there is a fault and no plan.
        debug_assert!(policy.is_some(), "{} has no table", endpoint.name);
        let policy = policy?;
        let subject = self.known.get(&endpoint.identity);
        let shadow = subject
            .and_then(|subject| subject.tables.get(&ports)?.shadow.as_ref())
            .and_then(|built| self.slot(&built.shadow()));
        let features = common.endpoint(endpoint, subject.is_some_and(|s| s.asks.egress));
        let endpoint = Arc::clone(endpoint);
        Some((endpoint.slot, PlannedEndpoint { endpoint, policy, shadow, peers, features }))
    }

    fn common(&self, snapshot: &Snapshot, source_ports: bool, publishes: bool) -> Common {
        let needs = Needs {
            ingress: self.tally.ingress > 0,
            egress: self.tally.egress > 0,
            source_ports,
            reject: self.tally.reject > 0,
            shadow: self.tally.shadow > 0,
            publishes,
            judges_requests: self.rulesets.ever(),
            adopts: self.planned.adopts,
        };
        Common::new(snapshot, needs)
    }
}

/// What one run builds.
#[derive(Default)]
struct Fresh {
    /// Identities that the same policies pick have the same table.
    by_policies: StdHashMap<(Vec<*const Resolved>, NamedPorts), Tables>,
    built: usize,
    /// Subjects, with the tables that they had.
    changed: Vec<(Identity, BTreeMap<NamedPorts, Tables>)>,
}

impl Fresh {
    fn tables(
        &mut self,
        subject: &Subject,
        kinds: BTreeSet<NamedPorts>,
        shared: &mut HashMap<Digest, Weak<Built>>,
        rulesets: &mut Rulesets,
    ) -> Result<BTreeMap<NamedPorts, Tables>, TooLarge> {
        let pointers: Vec<_> = subject.policies.iter().map(Arc::as_ptr).collect();
        let mut all = BTreeMap::new();
        for ports in kinds {
            let key = (pointers.clone(), Arc::clone(&ports));
            let tables = match self.by_policies.get(&key) {
                Some(tables) => tables.clone(),
                None => {
                    let tables = build(subject, &ports, shared, rulesets)?;
                    self.by_policies.insert(key, tables.clone());
                    self.built += 1;
                    tables
                }
            };
            all.insert(ports, tables);
        }
        Ok(all)
    }
}

/// One table each.
fn named_ports(roles: &Roles, identity: Identity) -> BTreeSet<NamedPorts> {
    match roles.subjects(identity) {
        Some(ports) => ports.clone(),
        None => BTreeSet::from([NamedPorts::default()]),
    }
}

fn build(
    subject: &Subject,
    ports: &NamedPorts,
    shared: &mut HashMap<Digest, Weak<Built>>,
    rulesets: &mut Rulesets,
) -> Result<Tables, TooLarge> {
    let mut one = |shadow| {
        let table = table::build(&subject.policies, ports, shadow, rulesets)?;
        Ok(share(shared, table))
    };
    let enforced = one(false)?;
    let shadow = if subject.shadowed() { Some(one(true)?) } else { None };
    let shadow = shadow.filter(|shadow| shadow.table.digest != enforced.table.digest);
    Ok(Tables { enforced, shadow })
}

fn does_not_fit(labels: Option<&Arc<Labels>>, too_large: &TooLarge) -> Fault {
    let labels = labels.map(|labels| labels.to_string()).unwrap_or_default();
    let what = format!("the policy table of the endpoints with labels `{labels}` does not fit");
    let hint = "write fewer policies for them, wider port ranges, or fewer CIDRs";
    Fault::whole(what).why(too_large.to_string()).hint(hint)
}

/// Of those that are not shut: the others' are nobody's.
fn addresses(endpoints: &BTreeMap<Slot, Arc<Endpoint>>) -> BTreeMap<AddressKey, Slot> {
    let of = |(slot, endpoint): (&Slot, &Arc<Endpoint>)| {
        let addresses = [endpoint.ipv6.map(IpAddr::V6), endpoint.ipv4.map(IpAddr::V4)];
        addresses.into_iter().flatten().map(|a| (AddressKey::from(a), *slot)).collect::<Vec<_>>()
    };
    endpoints.iter().filter(|(_, endpoint)| !endpoint.shut).flat_map(of).collect()
}

fn place(policies: &[Arc<Resolved>], policy: &Resolved) -> Result<usize, usize> {
    policies.binary_search_by(|other| other.policy.cmp(&policy.policy))
}

fn share(shared: &mut HashMap<Digest, Weak<Built>>, table: PolicyTable) -> Arc<Built> {
    if let Some(known) = shared.get(&table.digest).and_then(Weak::upgrade) {
        return known;
    }
    let (digest, rejects) = (table.digest, table.rejects());
    let built = Arc::new(Built { table: Arc::new(table), rejects });
    shared.insert(digest, Arc::downgrade(&built));
    built
}

/// Numbers that this very change frees rest, so a change of everything at once may need twice as many as there are.
fn no_slots(tables: usize, without: usize, resting: usize) -> Fault {
    let what = format!(
        "{without} of {tables} policy tables find no policy slot: there are {POLICY_SLOTS}"
    );
    if resting == 0 {
        return Fault::whole(what).hint("exclude labels that make identities, in [labels]");
    }
    Fault::whole(what)
        .why(format!("{resting} slots of tables that go are free after two further commits"))
        .hint("change the labels of fewer endpoints at a time")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identities(numbers: std::ops::Range<u32>) -> Arc<BTreeMap<Identity, Arc<Labels>>> {
        let labels = Arc::new(Labels::default());
        Arc::new(numbers.map(|number| (Identity(number), Arc::clone(&labels))).collect())
    }

    fn update(subjects: &mut Subjects, numbers: std::ops::Range<u32>) -> Result<usize, Vec<Fault>> {
        subjects.update(&identities(numbers), &Roles::new(), false)
    }

    #[test]
    fn too_many_identities_at_once_are_refused_and_fewer_are_not() {
        let mut subjects = Subjects::new();
        assert_eq!(update(&mut subjects, 300..9300), Ok(1));
        subjects.committed();
        let faults = update(&mut subjects.clone(), 10_300..19_300).unwrap_err();
        assert_eq!(
            faults[0].to_string(),
            "1617 of 9000 policy tables find no policy slot: there are 16383: 9000 slots of tables \
             that go are free after two further commits (change the labels of fewer endpoints at a time)"
        );
        for step in 1..=9 {
            assert!(update(&mut subjects, 300 + step * 1000..9300 + step * 1000).is_ok());
            subjects.committed();
        }
        let faults = update(&mut subjects, 30_000..50_000).unwrap_err();
        assert!(faults[0].what.contains("policy tables find no policy slot"), "{}", faults[0]);
    }
}
