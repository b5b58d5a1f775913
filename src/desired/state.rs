//! All that should be, while it changes: from [`Change`]s to [`Snapshot`]s.
//!
//! Cloning is cheap. Who wants to try something clones, applies, compiles, and keeps the clone or throws it away: so
//! nothing is ever half-applied. Parts that do not change keep their `Arc`s from snapshot to snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::ordmap::DiffItem;

use crate::config::model::{self, Config};
use crate::types::{Family, Identity, Labels, Name, PortRange, Slot};

use super::describe::{self, Openable};
use super::identities::Identities;
use super::ipam::{self, Answers, Leases, Request, Space};
use super::limits::{self, SLOTS};
use super::numbering::Numbering;
use super::snapshot::{Endpoint, Interfaces, Namespaces, Snapshot, Uplink};
use super::{Change, Fault, HostNetwork, UplinkFact, conflicts, digest};

/// Without uplinks and without `mtu`.
const MTU: u32 = 1500;

#[derive(Debug, Clone)]
pub struct Desired {
    config: Arc<Config>,
    host: Arc<model::Host>,
    policies: model::Policies,
    groups: Arc<Vec<Arc<model::Group>>>,
    asserts: Arc<Vec<Arc<model::Assert>>>,
    host_addresses: Arc<Vec<IpAddr>>,
    host_networks: Arc<Vec<HostNetwork>>,
    local_ports: Arc<Vec<PortRange>>,
    uplinks: Arc<Vec<UplinkFact>>,
    namespaces: Namespaces,
    interfaces: Interfaces,
    leases: Arc<Leases>,
    slots: Numbering<[u8; 16]>,
    identities: Identities,
    /// What was made last. None: endpoints must be gone through again.
    made: Option<Made>,
    /// Endpoints of the last snapshot by name, to be shared with the next.
    known: Arc<BTreeMap<Name, Arc<Endpoint>>>,
}

/// What of a snapshot depends on more than the policies.
#[derive(Debug, Clone)]
struct Made {
    uplinks: Arc<Vec<Uplink>>,
    endpoints: Arc<BTreeMap<Slot, Arc<Endpoint>>>,
    identities: Arc<BTreeMap<Identity, Arc<Labels>>>,
    reserved: Arc<Vec<IpAddr>>,
    faults: Arc<Vec<Fault>>,
}

impl Default for Desired {
    fn default() -> Self {
        Desired {
            config: Arc::default(),
            host: Arc::default(),
            policies: model::Policies::default(),
            groups: Arc::default(),
            asserts: Arc::default(),
            host_addresses: Arc::default(),
            host_networks: Arc::default(),
            local_ports: Arc::default(),
            uplinks: Arc::default(),
            namespaces: Namespaces::new(),
            interfaces: Interfaces::new(),
            leases: Arc::default(),
            slots: Numbering::new(1..=SLOTS),
            identities: Identities::new(),
            made: None,
            known: Arc::default(),
        }
    }
}

impl Desired {
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Config(config) => return self.configure(config),
            Change::HostAddresses(mut addresses) => {
                addresses.sort_unstable();
                addresses.dedup();
                if *self.host_addresses == addresses {
                    return;
                }
                self.host_addresses = Arc::new(addresses);
            }
            Change::HostNetworks(networks) => {
                if *self.host_networks == networks {
                    return;
                }
                self.host_networks = Arc::new(networks);
            }
            Change::LocalPorts(ports) => {
                if *self.local_ports == ports {
                    return;
                }
                self.local_ports = Arc::new(ports);
            }
            Change::Uplinks(mut uplinks) => {
                uplinks.sort_unstable_by(|a, b| a.interface.cmp(&b.interface));
                uplinks.dedup_by(|a, b| a.interface == b.interface);
                if *self.uplinks == uplinks {
                    return;
                }
                self.uplinks = Arc::new(uplinks);
            }
            Change::Namespaces(namespaces) => {
                if self.namespaces == namespaces {
                    return;
                }
                self.namespaces = namespaces;
            }
            Change::Interfaces(interfaces) => {
                if self.interfaces == interfaces {
                    return;
                }
                self.interfaces = interfaces;
            }
            Change::Leases(leases) => self.leases = Arc::new(leases),
            Change::Slots(slots) => {
                let numbering = &mut self.slots;
                for (incarnation, slot) in slots {
                    numbering.recover(Some(incarnation), slot.0);
                }
            }
            Change::Identities(recovered) => {
                let identities = &mut self.identities;
                for (identity, labels) in recovered {
                    identities.recover(identity, labels);
                }
            }
        }
        self.made = None;
    }

    /// What should be now, and which endpoints stay closed and why. An error refuses the whole.
    pub fn snapshot(&mut self) -> Result<(Snapshot, Vec<Fault>), Vec<Fault>> {
        let made = match &self.made {
            Some(made) => made.clone(),
            None => self.make()?,
        };
        self.made = Some(made.clone());
        let snapshot = Snapshot {
            host: Arc::clone(&self.host),
            host_addresses: Arc::clone(&self.host_addresses),
            uplinks: made.uplinks,
            endpoints: made.endpoints,
            identities: made.identities,
            reserved: made.reserved,
            policies: self.policies.clone(),
            groups: Arc::clone(&self.groups),
            asserts: Arc::clone(&self.asserts),
        };
        Ok((snapshot, made.faults.to_vec()))
    }

    /// The last snapshot is in force.
    pub fn committed(&mut self) {
        self.slots.committed();
        self.identities.committed();
        // Endpoints that wait for a number may get one now.
        if self.made.as_ref().is_some_and(|made| made.faults.iter().any(|fault| fault.passing)) {
            self.made = None;
        }
    }

    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Keeps what is equal, so that pointers tell what changed.
    fn configure(&mut self, config: Arc<Config>) {
        let same_host = self.config.host == config.host;
        if !same_host {
            self.host = Arc::new(config.host.clone());
        }
        if !same_host || !same(&self.config.endpoints, &config.endpoints) {
            self.made = None;
        }
        // Held against the configuration before, with which this one shares most of what it has.
        let before = std::mem::replace(&mut self.config, config);
        for change in before.policies.diff(&self.config.policies) {
            match change {
                DiffItem::Add(name, new) | DiffItem::Update { new: (name, new), .. } => {
                    self.policies.insert(name.clone(), Arc::clone(new));
                }
                DiffItem::Remove(name, _) => _ = self.policies.remove(name),
            }
        }
        if !same(&self.config.groups, &self.groups) {
            self.groups = Arc::new(self.config.groups.clone());
        }
        if !same(&self.config.asserts, &self.asserts) {
            self.asserts = Arc::new(self.config.asserts.clone());
        }
    }

    fn make(&mut self) -> Result<Made, Vec<Fault>> {
        let config = Arc::clone(&self.config);
        conflicts::check(&config.host, &self.host_networks, &self.local_ports)?;
        let mut endpoints: Vec<Arc<model::Endpoint>> = config.endpoints.clone();
        endpoints.sort_by(|a, b| a.name.cmp(&b.name));
        let answers = self.addresses(&endpoints);
        let pools = !config.host.pools.is_empty();
        let known = describe::Facts {
            namespaces: &self.namespaces,
            interfaces: &self.interfaces,
            answers: &answers,
            pools,
            host_addresses: &self.host_addresses,
        };
        let (open, mut faults) = describe::openable(&endpoints, &known);
        let facts = limits::configured(&config.host.uplinks, &self.uplinks, &mut faults);
        limits::check(open.len(), facts.len())?;
        let uplinks: Vec<_> = facts
            .iter()
            .map(|fact| (*fact, digest::uplink_incarnation(&fact.interface, fact.ifindex)))
            .collect();
        let smallest = facts.iter().map(|fact| fact.mtu).min();
        let mtu = config.host.mtu.map(u32::from).or(smallest).unwrap_or(MTU);
        let slots = &mut self.slots;
        let incarnations = open.iter().map(|endpoint| endpoint.incarnation);
        slots.assign(uplinks.iter().map(|(_, incarnation)| *incarnation).chain(incarnations));
        let slots = self.slots.clone();
        let slot = |incarnation: &[u8; 16]| slots.number(incarnation).map(Slot);
        let uplinks: Vec<Uplink> = uplinks
            .into_iter()
            .filter_map(|(fact, incarnation)| Some(describe::uplink(fact, slot(&incarnation)?)))
            .collect();
        let (open, waiting): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|endpoint| slot(&endpoint.incarnation).is_some());
        for endpoint in waiting {
            let why =
                format!("{} of {SLOTS} slots rest until two further commits", slots.resting());
            faults.push(describe::closed(endpoint.config, "has no slot").why(why).passing());
        }
        let adopted = endpoints.iter().filter(|endpoint| endpoint.is_adopted());
        let mut reserved: Vec<_> = adopted.flat_map(|e| e.fixed_addresses()).collect();
        reserved.sort_unstable();
        let (endpoints, identities) = self.endpoints(&open, slot, mtu)?;
        Ok(Made {
            uplinks: Arc::new(uplinks),
            endpoints: Arc::new(endpoints),
            identities,
            reserved: Arc::new(reserved),
            faults: Arc::new(faults),
        })
    }

    fn addresses<'a>(&mut self, endpoints: &'a [Arc<model::Endpoint>]) -> [Answers; 2] {
        let leases = Arc::make_mut(&mut self.leases);
        Family::BOTH.map(|family| {
            let spaces: Vec<Space> = self
                .host
                .pools
                .iter()
                .map(|pool| Space::new(pool, &self.host_addresses))
                .filter(|space| space.family == family)
                .collect();
            let request = |endpoint: &'a Arc<model::Endpoint>| Request {
                name: &endpoint.name,
                wish: describe::wish(endpoint, family),
                open: endpoint.handed_over().is_some()
                    || matches!(self.namespaces.get(&endpoint.name), Some(Ok(_))),
            };
            let ours = endpoints.iter().filter(|endpoint| !endpoint.is_adopted());
            let requests: Vec<Request> = ours.map(request).collect();
            ipam::assign(leases, family, &spaces, &requests)
        })
    }

    #[allow(clippy::type_complexity)]
    fn endpoints(
        &mut self,
        open: &[Openable],
        slot: impl Fn(&[u8; 16]) -> Option<Slot>,
        mtu: u32,
    ) -> Result<(BTreeMap<Slot, Arc<Endpoint>>, Arc<BTreeMap<Identity, Arc<Labels>>>), Vec<Fault>>
    {
        let filter = &self.host.labels;
        let labels: Vec<Arc<Labels>> = open
            .iter()
            .map(|endpoint| Arc::new(endpoint.config.labels.filtered(|key| filter.wants(key))))
            .collect();
        let mut seen = BTreeSet::new();
        let distinct = labels.iter().filter(|labels| seen.insert(Arc::clone(labels))).cloned();
        let distinct: Vec<Arc<Labels>> = distinct.collect();
        let without = self.identities.assign(distinct);
        if without > 0 {
            let what = format!("there are no numbers left for {without} identities");
            return Err(vec![Fault::whole(what)]);
        }
        let mut by_slot = BTreeMap::new();
        let mut by_name = BTreeMap::new();
        for (openable, labels) in open.iter().zip(&labels) {
            let (Some(slot), Some((identity, labels))) =
                (slot(&openable.incarnation), self.identities.identity(labels))
            else {
                continue;
            };
            let endpoint = describe::endpoint(openable, slot, identity, labels, mtu);
            let endpoint = match self.known.get(&endpoint.name) {
                Some(known) if **known == endpoint => Arc::clone(known),
                _ => Arc::new(endpoint),
            };
            by_name.insert(endpoint.name.clone(), Arc::clone(&endpoint));
            by_slot.insert(slot, endpoint);
        }
        self.known = Arc::new(by_name);
        Ok((by_slot, Arc::new(self.identities.all())))
    }
}

/// Equal, told by the pointers wherever they are the same.
fn same<T: PartialEq>(a: &[Arc<T>], b: &[Arc<T>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b) || a == b)
}
