//! What the numbers of a generation mean: slots, peers and cookies to endpoints, labels and rules.
//!
//! A table is immutable and belongs to one generation. Numbers are given to others only after two
//! further commits, so an event of an earlier generation must be named by that generation's table.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::compile::plan::{Class, Plan, RuleRef, RuleTable};
use crate::desired::snapshot::{Endpoint, Snapshot};
use crate::types::{AddressKey, Cookie, Generation, Identity, Labels, Peer, Slot};

/// The names of one generation.
#[derive(Debug)]
pub struct Names {
    generation: Generation,
    endpoints: Arc<BTreeMap<Slot, Arc<Endpoint>>>,
    addresses: Arc<BTreeMap<AddressKey, Slot>>,
    identities: Arc<BTreeMap<Identity, Arc<Labels>>>,
    roles: Arc<BTreeMap<Peer, Identity>>,
    classes: Arc<BTreeMap<Peer, Class>>,
    rules: Arc<RuleTable>,
    uplinks: BTreeMap<Slot, String>,
}

impl Names {
    pub fn new(generation: Generation, snapshot: &Snapshot, plan: &Plan) -> Self {
        let uplink =
            |uplink: &crate::desired::snapshot::Uplink| (uplink.slot, uplink.interface.clone());
        Names {
            generation,
            endpoints: snapshot.endpoints.clone(),
            addresses: plan.addresses.clone(),
            identities: snapshot.identities.clone(),
            roles: plan.roles.clone(),
            classes: plan.classes.clone(),
            rules: plan.rules.clone(),
            uplinks: snapshot.uplinks.iter().map(uplink).collect(),
        }
    }

    /// Nothing was ever committed: no number has a name.
    pub fn none() -> Self {
        Names {
            generation: Generation::NONE,
            endpoints: Arc::default(),
            addresses: Arc::default(),
            identities: Arc::default(),
            roles: Arc::default(),
            classes: Arc::default(),
            rules: Arc::default(),
            uplinks: BTreeMap::new(),
        }
    }

    pub fn generation(&self) -> Generation {
        self.generation
    }

    pub fn endpoint(&self, slot: Slot) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(&slot)
    }

    pub fn endpoint_of(&self, address: IpAddr) -> Option<&Arc<Endpoint>> {
        self.endpoint(*self.addresses.get(&AddressKey::from(address))?)
    }

    /// The interface of an uplink.
    pub fn uplink(&self, slot: Slot) -> Option<&str> {
        self.uplinks.get(&slot).map(String::as_str)
    }

    /// The labels of a peer that is an identity, or a role of one.
    pub fn labels(&self, peer: Peer) -> Option<&Arc<Labels>> {
        if peer.is_class() {
            return None;
        }
        let identity = self.roles.get(&peer).copied().unwrap_or(Identity(peer.0));
        self.identities.get(&identity)
    }

    /// What a peer that is an address class stands for.
    pub fn class(&self, peer: Peer) -> Option<&Class> {
        self.classes.get(&peer)
    }

    pub fn rules(&self) -> &Arc<RuleTable> {
        &self.rules
    }

    pub fn rule(&self, cookie: Cookie) -> Option<&RuleRef> {
        self.rules.get(&cookie).map(|rule| &**rule)
    }
}

/// The tables of the last few generations.
///
/// The table of a generation goes in *before* its commit, so that its first event finds it; if the
/// commit fails, the next attempt's table of the same number takes its place.
#[derive(Debug)]
pub struct NameBook {
    tables: Mutex<Tables>,
}

#[derive(Debug)]
struct Tables {
    /// Newest last, never empty.
    all: VecDeque<Arc<Names>>,
    in_force: Arc<Names>,
}

impl NameBook {
    /// Numbers live two commits longer than their generation, and the ring buffer is read all the
    /// time: events older than this are no longer to be expected.
    const KEPT: usize = 4;

    /// The table of an attempt.
    pub fn insert(&self, names: Arc<Names>) {
        let all = &mut self.lock().all;
        all.retain(|table| table.generation != names.generation);
        all.push_back(names);
        while all.len() > Self::KEPT {
            all.pop_front();
        }
    }

    /// The attempt has become what is in force.
    pub fn committed(&self, generation: Generation) {
        let mut tables = self.lock();
        let found = tables.all.iter().find(|table| table.generation == generation).cloned();
        if let Some(names) = found {
            tables.in_force = names;
        }
    }

    /// The table of the generation in force; none's before this daemon's first.
    pub fn in_force(&self) -> Arc<Names> {
        self.lock().in_force.clone()
    }

    /// The table of `generation`, or that in force if it is not known (or the packet had none).
    pub fn of(&self, generation: Generation) -> Arc<Names> {
        let tables = self.lock();
        let known = tables.all.iter().find(|table| table.generation == generation);
        known.filter(|_| generation != Generation::NONE).unwrap_or(&tables.in_force).clone()
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // Every change above leaves the tables whole, so a panic elsewhere under the lock is harmless.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for NameBook {
    fn default() -> Self {
        let none = Arc::new(Names::none());
        NameBook {
            tables: Mutex::new(Tables { all: VecDeque::from([none.clone()]), in_force: none }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::fixture;

    #[test]
    fn numbers_have_the_meaning_of_their_generation() {
        let names = fixture::names(41);
        let name = |address: &str| {
            names.endpoint_of(address.parse().unwrap()).map(|endpoint| endpoint.name.to_string())
        };
        assert_eq!(name("fd00::3").as_deref(), Some("api"));
        assert_eq!(name("10.0.0.7").as_deref(), Some("dev/intruder"));
        assert_eq!(name("fd00::9"), None);
        assert_eq!(names.uplink(fixture::UPLINK), Some("ens3"));
        assert_eq!(names.labels(Peer(259)).unwrap().to_string(), "app=api,env=prod");
        assert_eq!(names.labels(fixture::WORLD), None);
        assert_eq!(names.labels(fixture::ROLE), names.labels(Peer(263)));
        assert_eq!(names.labels(Peer(fixture::ROLE.0 + 1)), None);
        assert_eq!(names.class(fixture::WORLD).unwrap().kind, "world");
    }

    #[test]
    fn the_last_generations_are_kept() {
        let book = NameBook::default();
        assert_eq!(book.of(Generation(3)).generation(), Generation::NONE);
        for generation in 1..=9 {
            book.insert(Arc::new(fixture::names(generation)));
            book.committed(Generation(generation));
        }
        for generation in 6..=9 {
            assert_eq!(book.of(Generation(generation)).generation(), Generation(generation));
        }
        // What is not known is named as well as can be.
        for generation in [0, 5, 10] {
            assert_eq!(book.of(Generation(generation)).generation(), Generation(9));
        }
    }

    #[test]
    fn an_attempt_replaces_the_failed_one_before() {
        let book = NameBook::default();
        book.insert(Arc::new(fixture::names(1)));
        book.insert(Arc::new(fixture::names(2)));
        let again = Arc::new(fixture::names(2));
        book.insert(again.clone());
        assert!(Arc::ptr_eq(&book.of(Generation(2)), &again));
        assert_eq!(book.lock().all.len(), 3);
        // What was only tried names nothing but its own.
        assert_eq!(book.in_force().generation(), Generation::NONE);
        book.committed(Generation(1));
        book.insert(Arc::new(fixture::names(2)));
        assert_eq!(book.in_force().generation(), Generation(1));
        assert_eq!(book.of(Generation(7)).generation(), Generation(1));
        book.committed(Generation(2));
        assert_eq!(book.in_force().generation(), Generation(2));
    }
}
