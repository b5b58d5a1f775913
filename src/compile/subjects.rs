//! Identities as subjects: which resolved policies pick each, and the table that follows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use crate::desired::Fault;
use crate::desired::numbering::Numbering;
use crate::desired::selectors::Picks;
use crate::desired::snapshot::{Endpoint, Snapshot, Uplink};
use crate::types::{AddressKey, Direction, Identity, Labels, Peer, PolicySlot, Slot};

use super::features::Common;
use super::plan::{Digest, PlannedEndpoint, PlannedUplink, PolicyTable};
use super::resolve::Resolved;
use super::table;

/// Policy slots are `1..=POLICY_SLOTS` (`PORIN_MAX_POLICY_SLOTS`).
pub const POLICY_SLOTS: u32 = 16_383;

#[derive(Debug, Clone)]
pub(super) struct Subjects {
    identities: Arc<BTreeMap<Identity, Arc<Labels>>>,
    known: Arc<BTreeMap<Identity, Subject>>,
    /// Those whose tables are no longer right.
    dirty: BTreeSet<Identity>,
    slots: Arc<Numbering<Identity>>,
    /// Equal tables are one.
    shared: Arc<HashMap<Digest, Weak<PolicyTable>>>,
}

#[derive(Debug, Clone, Default)]
struct Subject {
    /// Sorted by name.
    policies: Arc<Vec<Arc<Resolved>>>,
    /// None until it is built for the first time.
    table: Option<Arc<PolicyTable>>,
}

impl Subject {
    fn restricted(&self, direction: Direction) -> bool {
        self.policies.iter().any(|policy| policy.direction(direction).is_some())
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

    pub fn recover(&mut self, slots: impl IntoIterator<Item = PolicySlot>) {
        let numbers = Arc::make_mut(&mut self.slots);
        for slot in slots {
            numbers.recover(None, slot.0);
        }
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

    /// Builds what is no longer right; says how many tables that were.
    pub fn update(
        &mut self,
        identities: &Arc<BTreeMap<Identity, Arc<Labels>>>,
    ) -> Result<usize, Vec<Fault>> {
        let mut faults = Vec::new();
        if !Arc::ptr_eq(&self.identities, identities) {
            faults.extend(self.set_identities(identities));
        }
        if self.dirty.is_empty() && faults.is_empty() {
            return Ok(0);
        }
        let known = Arc::make_mut(&mut self.known);
        let shared = Arc::make_mut(&mut self.shared);
        // Identities that the same policies pick have the same table.
        let mut by_policies: HashMap<Vec<*const Resolved>, Arc<PolicyTable>> = HashMap::new();
        for identity in std::mem::take(&mut self.dirty) {
            let Some(subject) = known.get_mut(&identity) else { continue };
            let pointers: Vec<_> = subject.policies.iter().map(Arc::as_ptr).collect();
            if let Some(table) = by_policies.get(&pointers) {
                subject.table = Some(Arc::clone(table));
                continue;
            }
            match table::build(&subject.policies) {
                Ok(table) => {
                    let table = share(shared, table);
                    by_policies.insert(pointers, Arc::clone(&table));
                    subject.table = Some(table);
                }
                Err(too_large) => {
                    let labels = identities.get(&identity).map(|l| l.to_string());
                    let what = format!(
                        "the policy table of the endpoints with labels `{}` does not fit",
                        labels.unwrap_or_default()
                    );
                    let hint = "write fewer policies for them, wider port ranges, or fewer CIDRs";
                    faults.push(Fault::whole(what).why(too_large.to_string()).hint(hint));
                }
            }
        }
        if shared.len() > 2 * known.len() + 16 {
            shared.retain(|_, table| table.strong_count() > 0);
        }
        if faults.is_empty() { Ok(by_policies.len()) } else { Err(faults) }
    }

    fn set_identities(
        &mut self,
        identities: &Arc<BTreeMap<Identity, Arc<Labels>>>,
    ) -> Option<Fault> {
        let known = Arc::make_mut(&mut self.known);
        known.retain(|identity, _| identities.contains_key(identity));
        for identity in identities.keys() {
            if known.entry(*identity).or_default().table.is_none() {
                self.dirty.insert(*identity);
            }
        }
        self.identities = Arc::clone(identities);
        let slots = Arc::make_mut(&mut self.slots);
        let without = slots.assign(identities.keys().copied()).len();
        (without > 0).then(|| no_slots(identities.len(), without, slots.resting()))
    }

    pub fn tables(&self) -> BTreeMap<PolicySlot, Arc<PolicyTable>> {
        let table = |(identity, subject): (&Identity, &Subject)| {
            Some((PolicySlot(self.slots.number(identity)?), Arc::clone(subject.table.as_ref()?)))
        };
        self.known.iter().filter_map(table).collect()
    }

    pub fn endpoints(&self, snapshot: &Snapshot) -> BTreeMap<Slot, PlannedEndpoint> {
        let common = self.common(snapshot);
        let planned = |(slot, endpoint): (&Slot, &Arc<Endpoint>)| {
            let policy = PolicySlot(self.slots.number(&endpoint.identity)?);
            let subject = self.known.get(&endpoint.identity);
            let restricted = subject.is_some_and(|subject| subject.restricted(Direction::Egress));
            let features = common.endpoint(endpoint, restricted);
            let peers = [Peer::from(endpoint.identity); 2];
            let endpoint = Arc::clone(endpoint);
            Some((*slot, PlannedEndpoint { endpoint, policy, shadow: None, peers, features }))
        };
        snapshot.endpoints.iter().filter_map(planned).collect()
    }

    pub fn uplinks(&self, snapshot: &Snapshot) -> BTreeMap<Slot, PlannedUplink> {
        let common = self.common(snapshot);
        let planned = |uplink: &Uplink| {
            let features = common.uplink();
            (uplink.slot, PlannedUplink { uplink: uplink.clone(), features })
        };
        snapshot.uplinks.iter().map(planned).collect()
    }

    fn common(&self, snapshot: &Snapshot) -> Common {
        let any = |direction| self.known.values().any(|subject| subject.restricted(direction));
        Common::new(snapshot, any(Direction::Ingress), any(Direction::Egress))
    }
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

fn share(shared: &mut HashMap<Digest, Weak<PolicyTable>>, table: PolicyTable) -> Arc<PolicyTable> {
    if let Some(known) = shared.get(&table.digest).and_then(Weak::upgrade) {
        return known;
    }
    let table = Arc::new(table);
    shared.insert(table.digest, Arc::downgrade(&table));
    table
}

/// Numbers that this very change frees rest, so a change of everything at once may need twice as many as there are.
fn no_slots(identities: usize, without: usize, resting: usize) -> Fault {
    let what = format!(
        "{without} of {identities} identities find no policy slot: there are {POLICY_SLOTS}"
    );
    if resting == 0 {
        return Fault::whole(what).hint("exclude labels that make identities, in [labels]");
    }
    Fault::whole(what)
        .why(format!("{resting} slots of identities that go are free after two further commits"))
        .hint("change the labels of fewer endpoints at a time")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identities(numbers: std::ops::Range<u32>) -> Arc<BTreeMap<Identity, Arc<Labels>>> {
        let labels = Arc::new(Labels::default());
        Arc::new(numbers.map(|number| (Identity(number), Arc::clone(&labels))).collect())
    }

    #[test]
    fn too_many_identities_at_once_are_refused_and_fewer_are_not() {
        let mut subjects = Subjects::new();
        assert_eq!(subjects.update(&identities(300..9300)), Ok(1));
        subjects.committed();
        let faults = subjects.clone().update(&identities(10_300..19_300)).unwrap_err();
        assert_eq!(
            faults[0].to_string(),
            "1617 of 9000 identities find no policy slot: there are 16383: 9000 slots of identities \
             that go are free after two further commits (change the labels of fewer endpoints at a time)"
        );
        for step in 1..=9 {
            assert!(subjects.update(&identities(300 + step * 1000..9300 + step * 1000)).is_ok());
            subjects.committed();
        }
        let faults = subjects.update(&identities(30_000..50_000)).unwrap_err();
        assert!(faults[0].what.contains("identities find no policy slot"), "{}", faults[0]);
    }
}
