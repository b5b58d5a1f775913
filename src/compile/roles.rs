//! Roles: endpoints of one identity that rules tell apart all the same, by their named ports or by their addresses.
//!
//! An identity is its labels, and as long as rules speak of nothing else it is what tables call its endpoints. A rule
//! with a named port, or one that matches endpoints by address, makes some of them different from others: those get
//! numbers of their own, as peers; and, where named ports differ, tables of their own, as subjects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::desired::Fault;
use crate::desired::numbering::Numbering;
use crate::desired::snapshot::{Endpoint, Snapshot};
use crate::types::{Identity, Name, Peer, PortMatch, Slot};

use super::role_index::RoleIndex;
use super::sets::{AddressSets, SetNames, locate};

/// Named ports of an endpoint, those alone that rules speak of.
pub type NamedPorts = Arc<BTreeMap<Name, PortMatch>>;

/// What tells an identity's endpoints apart, if rules look at more than labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Interest {
    /// Port names in rules.
    pub ports: BTreeSet<Name>,
    /// Sets in rules that match endpoints.
    pub sets: Arc<AddressSets>,
}

impl Interest {
    fn is_nothing(&self) -> bool {
        self.ports.is_empty() && self.sets.cidrs.is_empty() && self.sets.groups.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct RoleKey {
    identity: Identity,
    ports: NamedPorts,
    sets: SetNames,
}

/// A peer, as rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Role {
    pub peer: Peer,
    pub ports: NamedPorts,
    /// The sets that its address is in.
    pub sets: SetNames,
}

/// Endpoints' named ports, and what others' tables call them, by family.
pub(super) type Assigned = BTreeMap<Slot, (NamedPorts, [Peer; 2])>;

#[derive(Debug, Clone)]
pub(super) struct Roles {
    numbers: Numbering<RoleKey>,
    interest: Interest,
    seen: Option<Arc<BTreeMap<Slot, Arc<Endpoint>>>>,
    /// Only if there is any interest.
    of: Arc<BTreeMap<Identity, Vec<Role>>>,
    index: Arc<RoleIndex>,
    subjects: Arc<BTreeMap<Identity, BTreeSet<NamedPorts>>>,
    endpoints: Arc<Assigned>,
    table: Arc<BTreeMap<Peer, Identity>>,
}

impl Roles {
    pub fn new() -> Self {
        Roles {
            numbers: Numbering::new(Peer::ROLE..=Peer::CLASS - 1),
            interest: Interest::default(),
            seen: None,
            of: Arc::default(),
            index: Arc::default(),
            subjects: Arc::default(),
            endpoints: Arc::default(),
            table: Arc::default(),
        }
    }

    pub fn interest(&self) -> &Interest {
        &self.interest
    }

    pub fn committed(&mut self) {
        self.numbers.committed();
    }

    /// What each role is a part of.
    pub fn table(&self) -> &Arc<BTreeMap<Peer, Identity>> {
        &self.table
    }

    /// The peers that an identity's endpoints are.
    pub fn of(&self, identity: Identity) -> impl Iterator<Item = &Role> {
        self.of.get(&identity).map(Vec::as_slice).unwrap_or_default().iter()
    }

    /// Whether identities are all that there is to tell endpoints apart.
    pub fn is_plain(&self) -> bool {
        self.of.is_empty()
    }

    pub fn index(&self) -> &RoleIndex {
        &self.index
    }

    /// The sets of named ports that an identity's endpoints have; one table each. None: just the empty one.
    pub fn subjects(&self, identity: Identity) -> Option<&BTreeSet<NamedPorts>> {
        self.subjects.get(&identity)
    }

    /// Of all endpoints, if rules look at more than labels. What did not change is the same `Arc`.
    pub fn assigned(&self) -> &Arc<Assigned> {
        &self.endpoints
    }

    /// An endpoint's named ports, and what others' tables call it, by family.
    pub fn endpoint(&self, endpoint: &Endpoint) -> (NamedPorts, [Peer; 2]) {
        match self.endpoints.get(&endpoint.slot) {
            Some(known) => known.clone(),
            None => (NamedPorts::default(), [Peer::from(endpoint.identity); 2]),
        }
    }

    /// True if rules may mean other peers, or subjects need other tables, than before.
    pub fn update(&mut self, snapshot: &Snapshot, interest: Interest) -> Result<bool, Vec<Fault>> {
        let same_endpoints =
            self.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &snapshot.endpoints));
        if self.interest == interest && (same_endpoints || interest.is_nothing()) {
            return Ok(false);
        }
        self.seen = Some(Arc::clone(&snapshot.endpoints));
        self.interest = interest;
        if self.interest.is_nothing() {
            self.numbers.assign([]);
            let had = !self.of.is_empty();
            (self.of, self.subjects) = (Arc::default(), Arc::default());
            self.index = Arc::default();
            (self.endpoints, self.table) = (Arc::default(), Arc::default());
            return Ok(had);
        }
        self.tell_apart(snapshot)
    }

    fn tell_apart(&mut self, snapshot: &Snapshot) -> Result<bool, Vec<Fault>> {
        let addresses =
            |endpoint: &Endpoint| [endpoint.ipv6.map(IpAddr::V6), endpoint.ipv4.map(IpAddr::V4)];
        let all: Vec<IpAddr> =
            snapshot.endpoints.values().flat_map(|e| addresses(e)).flatten().collect();
        let places = locate(&self.interest.sets, &all);
        let nowhere = SetNames::default();
        let mut kinds: BTreeSet<NamedPorts> = BTreeSet::new();
        let mut keys: BTreeMap<Slot, [RoleKey; 2]> = BTreeMap::new();
        for (slot, endpoint) in &*snapshot.endpoints {
            let spoken_of = |(name, _): &(&Name, &PortMatch)| self.interest.ports.contains(name);
            let ports = endpoint.ports.iter().filter(spoken_of);
            let ports: NamedPorts = Arc::new(ports.map(|(n, p)| (n.clone(), *p)).collect());
            let ports = match kinds.get(&ports) {
                Some(known) => Arc::clone(known),
                None => {
                    kinds.insert(Arc::clone(&ports));
                    ports
                }
            };
            let key = |address: Option<IpAddr>| {
                let sets = address.and_then(|address| places.get(&address)).unwrap_or(&nowhere);
                let (ports, sets) = (Arc::clone(&ports), Arc::clone(sets));
                RoleKey { identity: endpoint.identity, ports, sets }
            };
            keys.insert(*slot, addresses(endpoint).map(key));
        }
        let plain = |key: &RoleKey| key.ports.is_empty() && key.sets.is_empty();
        let numbers = &mut self.numbers;
        let wanted: BTreeSet<&RoleKey> = keys.values().flatten().filter(|k| !plain(k)).collect();
        let without = numbers.assign(wanted.into_iter().cloned()).len();
        if without > 0 {
            let what = format!(
                "there are no numbers left for {without} kinds of endpoints that rules tell apart by address or port name"
            );
            return Err(vec![Fault::whole(what)]);
        }
        let peer = |key: &RoleKey| match numbers.number(key) {
            Some(number) => Peer(number),
            None => Peer::from(key.identity),
        };
        let mut of: BTreeMap<Identity, BTreeMap<Peer, Role>> = BTreeMap::new();
        let mut subjects: BTreeMap<Identity, BTreeSet<NamedPorts>> = BTreeMap::new();
        let mut endpoints = BTreeMap::new();
        let mut table = BTreeMap::new();
        for (slot, [ipv6, ipv4]) in &keys {
            for key in [ipv6, ipv4] {
                let (peer, ports, sets) =
                    (peer(key), Arc::clone(&key.ports), Arc::clone(&key.sets));
                if !plain(key) {
                    table.insert(peer, key.identity);
                }
                of.entry(key.identity).or_default().insert(peer, Role { peer, ports, sets });
            }
            subjects.entry(ipv6.identity).or_default().insert(Arc::clone(&ipv6.ports));
            endpoints.insert(*slot, (Arc::clone(&ipv6.ports), [peer(ipv6), peer(ipv4)]));
        }
        let of: BTreeMap<_, Vec<Role>> = of
            .into_iter()
            .map(|(identity, roles)| (identity, roles.into_values().collect()))
            .collect();
        let changed = *self.of != of || *self.subjects != subjects;
        if *self.of != of {
            self.index = Arc::new(RoleIndex::of(of.values().flatten()));
        }
        self.of = Arc::new(of);
        self.subjects = Arc::new(subjects);
        self.endpoints = Arc::new(endpoints);
        self.table = Arc::new(table);
        Ok(changed)
    }
}
