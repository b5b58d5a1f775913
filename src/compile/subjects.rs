//! Identities as subjects: which resolved policies pick each, and the table that follows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use crate::desired::Fault;
use crate::desired::numbering::Numbering;
use crate::desired::selectors::Picks;
use crate::desired::snapshot::{Endpoint, Snapshot, Uplink};
use crate::types::{AddressKey, Direction, Identity, Labels, Mode, PolicySlot, Slot};

use super::features::{Common, Needs};
use super::plan::{Digest, PlannedEndpoint, PlannedUplink, PolicyTable};
use super::resolve::Resolved;
use super::roles::{NamedPorts, Roles};
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

#[derive(Debug, Clone)]
pub(super) struct Subjects {
    identities: Arc<BTreeMap<Identity, Arc<Labels>>>,
    known: Arc<BTreeMap<Identity, Subject>>,
    /// Those whose tables are no longer right.
    dirty: BTreeSet<Identity>,
    slots: Arc<Numbering<TableKey>>,
    /// Equal tables are one.
    shared: Arc<HashMap<Digest, Weak<Built>>>,
}

#[derive(Debug, Clone, Default)]
struct Subject {
    /// Sorted by name.
    policies: Arc<Vec<Arc<Resolved>>>,
    /// By the named ports of endpoints; empty until they are built for the first time.
    tables: BTreeMap<NamedPorts, Tables>,
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
    fn restricted(&self, direction: Direction) -> bool {
        let enforced = self.policies.iter().filter(|policy| policy.mode == Mode::Enforce);
        enforced.filter_map(|policy| policy.direction(direction)).next().is_some()
    }

    fn shadowed(&self) -> bool {
        let speaks =
            |policy: &Resolved| Direction::BOTH.iter().any(|d| policy.direction(*d).is_some());
        self.policies.iter().any(|policy| policy.mode == Mode::Shadow && speaks(policy))
    }
}

impl Subjects {
    pub fn new() -> Self {
        Subjects {
            identities: Arc::default(),
            known: Arc::default(),
            dirty: BTreeSet::new(),
            slots: Arc::new(Numbering::new(1..=POLICY_SLOTS)),
            shared: Arc::default(),
        }
    }

    pub fn committed(&mut self) {
        Arc::make_mut(&mut self.slots).committed();
    }

    /// A policy that picked some identities now picks others, or says something else to them.
    pub fn replace(
        &mut self,
        old: Option<(&Picks, Option<&Arc<Resolved>>)>,
        new: Option<(&Picks, Option<&Arc<Resolved>>)>,
    ) {
        let known = Arc::make_mut(&mut self.known);
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
        if self.dirty.is_empty() {
            return Ok(0);
        }
        let mut faults = Vec::new();
        let known = Arc::make_mut(&mut self.known);
        let shared = Arc::make_mut(&mut self.shared);
        // Identities that the same policies pick have the same table.
        let mut by_policies: HashMap<(Vec<*const Resolved>, NamedPorts), Tables> = HashMap::new();
        for identity in std::mem::take(&mut self.dirty) {
            let Some(subject) = known.get_mut(&identity) else { continue };
            let pointers: Vec<_> = subject.policies.iter().map(Arc::as_ptr).collect();
            subject.tables.clear();
            for ports in named_ports(roles, identity) {
                let key = (pointers.clone(), Arc::clone(&ports));
                if let Some(tables) = by_policies.get(&key) {
                    subject.tables.insert(ports, tables.clone());
                    continue;
                }
                match build(subject, &ports, shared) {
                    Ok(tables) => {
                        by_policies.insert(key, tables.clone());
                        subject.tables.insert(ports, tables);
                    }
                    Err(too_large) => {
                        faults.push(does_not_fit(identities.get(&identity), &too_large))
                    }
                }
            }
        }
        if shared.len() > 2 * known.len() + 16 {
            shared.retain(|_, table| table.strong_count() > 0);
        }
        faults.extend(self.number());
        if faults.is_empty() { Ok(by_policies.len()) } else { Err(faults) }
    }

    fn set_identities(&mut self, identities: &Arc<BTreeMap<Identity, Arc<Labels>>>) {
        let known = Arc::make_mut(&mut self.known);
        known.retain(|identity, _| identities.contains_key(identity));
        for identity in identities.keys() {
            if known.entry(*identity).or_default().tables.is_empty() {
                self.dirty.insert(*identity);
            }
        }
        self.identities = Arc::clone(identities);
    }

    fn regroup(&mut self, roles: &Roles) {
        for (identity, subject) in &*self.known {
            if !subject.tables.keys().eq(named_ports(roles, *identity).iter()) {
                self.dirty.insert(*identity);
            }
        }
    }

    fn number(&mut self) -> Option<Fault> {
        let (mut wanted, mut shadows) = (Vec::new(), BTreeSet::new());
        for (identity, subject) in &*self.known {
            for (ports, tables) in &subject.tables {
                wanted.push(TableKey::enforced(*identity, ports));
                shadows.extend(tables.shadow.as_ref().map(|built| built.table.digest));
            }
        }
        wanted.extend(shadows.into_iter().map(TableKey::Shadow));
        let count = wanted.len();
        let slots = Arc::make_mut(&mut self.slots);
        let without = slots.assign(wanted).len();
        (without > 0).then(|| no_slots(count, without, slots.resting()))
    }

    fn slot(&self, key: &TableKey) -> Option<PolicySlot> {
        self.slots.number(key).map(PolicySlot)
    }

    pub fn tables(&self) -> BTreeMap<PolicySlot, Arc<PolicyTable>> {
        let mut all = BTreeMap::new();
        for (identity, subject) in &*self.known {
            for (ports, tables) in &subject.tables {
                let enforced = (TableKey::enforced(*identity, ports), &tables.enforced);
                let shadow = tables.shadow.as_ref().map(|built| (built.shadow(), built));
                for (key, built) in [Some(enforced), shadow].into_iter().flatten() {
                    let Some(slot) = self.slot(&key) else { continue };
                    all.entry(slot).or_insert_with(|| Arc::clone(&built.table));
                }
            }
        }
        all
    }

    pub fn endpoints(
        &self,
        snapshot: &Snapshot,
        roles: &Roles,
        sources: bool,
    ) -> BTreeMap<Slot, PlannedEndpoint> {
        let common = self.common(snapshot, sources);
        let planned = |(slot, endpoint): (&Slot, &Arc<Endpoint>)| {
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
            let restricted = subject.is_some_and(|subject| subject.restricted(Direction::Egress));
            let features = common.endpoint(endpoint, restricted);
            let endpoint = Arc::clone(endpoint);
            Some((*slot, PlannedEndpoint { endpoint, policy, shadow, peers, features }))
        };
        snapshot.endpoints.iter().filter_map(planned).collect()
    }

    pub fn uplinks(&self, snapshot: &Snapshot, sources: bool) -> BTreeMap<Slot, PlannedUplink> {
        let common = self.common(snapshot, sources);
        let planned = |uplink: &Uplink| {
            let features = common.uplink();
            (uplink.slot, PlannedUplink { uplink: uplink.clone(), features })
        };
        snapshot.uplinks.iter().map(planned).collect()
    }

    fn common(&self, snapshot: &Snapshot, source_ports: bool) -> Common {
        let any = |direction| self.known.values().any(|subject| subject.restricted(direction));
        let tables = || self.known.values().flat_map(|subject| subject.tables.values());
        let needs = Needs {
            ingress: any(Direction::Ingress),
            egress: any(Direction::Egress),
            source_ports,
            reject: tables().any(|tables| tables.enforced.rejects),
            shadow: tables().any(|tables| tables.shadow.is_some()),
        };
        Common::new(snapshot, needs)
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
) -> Result<Tables, TooLarge> {
    let mut one = |shadow| Ok(share(shared, table::build(&subject.policies, ports, shadow)?));
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

pub(super) fn addresses(snapshot: &Snapshot) -> BTreeMap<AddressKey, Slot> {
    let of = |(slot, endpoint): (&Slot, &Arc<Endpoint>)| {
        let addresses = [endpoint.ipv6.map(IpAddr::V6), endpoint.ipv4.map(IpAddr::V4)];
        addresses.into_iter().flatten().map(|a| (AddressKey::from(a), *slot)).collect::<Vec<_>>()
    };
    snapshot.endpoints.iter().flat_map(of).collect()
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
