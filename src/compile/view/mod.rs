//! The policies as they are written, arranged for questions: who is who, and which rules are about whom, best first.
//!
//! It knows of no numbers, tables or generations: what it says of a packet is what the datapath must say of it.
//! [`why`](super::why) judges by it.

mod index;
mod party;
mod peers;
mod published;
mod ranges;
mod rank;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use crate::config::model::{self, AddressWish, Config, Group, Host, Policy};
use crate::desired::ipam::host_sources;
use crate::desired::snapshot::{Endpoint, Snapshot};
use crate::types::{Family, LabelKey, Labels, Name, PortMatch, Publication};

pub use party::{Bears, Kind, Member, Party};
pub use peers::Fit;
pub use rank::{Ranked, Subject};

use index::Index;
use published::Doors;
use ranges::Ranges;

#[derive(Debug)]
pub struct View {
    host: Arc<Host>,
    policies: Vec<Arc<Policy>>,
    index: Index,
    groups: HashMap<Name, GroupSet>,
    endpoints: HashMap<Name, Arc<Member>>,
    addresses: HashMap<IpAddr, Arc<Member>>,
    /// What all endpoints of a label set call alike.
    ports: HashMap<Arc<Labels>, Arc<Ports>>,
    host_addresses: Vec<IpAddr>,
    doors: Doors,
    pools: Ranges,
    remote_hosts: Ranges,
    unmanaged: Ranges,
    match_endpoints: bool,
    /// By family.
    unknown_addresses: [bool; 2],
    /// What was asked before, of the endpoints that there are, bounded by [`View::CACHED`].
    subjects: RwLock<Subjects>,
    /// Of those that there may be: anybody can ask about any number, so they have less room, and none of that above.
    strangers: RwLock<Subjects>,
}

type Ports = BTreeMap<Name, PortMatch>;

#[derive(Debug)]
struct GroupSet {
    written: Arc<Group>,
    networks: Ranges,
}

#[derive(Debug, Default)]
struct Subjects {
    by_labels: HashMap<Arc<Labels>, Arc<Subject>>,
    /// Of label sets, with the rules in all of their lists.
    size: usize,
}

/// What a view is made of.
pub struct Inputs {
    pub host: Arc<Host>,
    /// Without those that porin gives it itself.
    pub host_addresses: Vec<IpAddr>,
    pub endpoints: Vec<Member>,
    /// By endpoint.
    pub publish: Vec<(Name, Vec<Publication>)>,
    /// Endpoints whose network is another's.
    pub adopted: HashSet<Name>,
    /// Sorted by name.
    pub policies: Vec<Arc<Policy>>,
    pub groups: Vec<Arc<Group>>,
}

impl View {
    /// Rules and label sets in the cache at most; labels count by as many bytes as a rule takes there.
    const CACHED: usize = 1 << 18;
    /// Likewise of endpoints that there may be.
    const CACHED_STRANGERS: usize = 1 << 15;

    /// Of what is in force.
    pub fn of_snapshot(snapshot: &Snapshot) -> Self {
        let endpoints = || snapshot.endpoints.values().filter(|endpoint| !endpoint.shut);
        let publish = endpoints().filter(|endpoint| !endpoint.publish.is_empty());
        let adopted = endpoints().filter(|endpoint| endpoint.adopted().is_some());
        View::new(Inputs {
            publish: publish.map(|one| (one.name.clone(), one.publish.clone())).collect(),
            adopted: adopted.map(|one| one.name.clone()).collect(),
            host: Arc::clone(&snapshot.host),
            host_addresses: snapshot.host_addresses.to_vec(),
            endpoints: endpoints().map(|endpoint| of_endpoint(endpoint)).collect(),
            policies: snapshot.policies.values().cloned().collect(),
            groups: snapshot.groups.to_vec(),
        })
    }

    /// Of files alone: every endpoint in them is there; automatic addresses and the host's are not known.
    pub fn of_config(config: &Config) -> Self {
        let member = |endpoint: &Arc<model::Endpoint>| of_written(endpoint, &config.host);
        let endpoints = || config.endpoints.iter().filter(|one| !one.shut);
        let publish = endpoints().filter(|endpoint| !endpoint.publish.is_empty());
        let adopted = endpoints().filter(|endpoint| endpoint.is_adopted());
        View::new(Inputs {
            host: Arc::new(config.host.clone()),
            host_addresses: Vec::new(),
            endpoints: endpoints().map(member).collect(),
            publish: publish.map(|one| (one.name.clone(), one.publish.clone())).collect(),
            adopted: adopted.map(|one| one.name.clone()).collect(),
            policies: config.policies.values().cloned().collect(),
            groups: config.groups.clone(),
        })
    }

    pub fn new(inputs: Inputs) -> Self {
        let Inputs { host, mut host_addresses, endpoints, publish, adopted, policies, groups } =
            inputs;
        let pools: Vec<_> = host.pools.iter().map(|pool| pool.network).collect();
        host_addresses.extend(host_sources(&host.pools));
        host_addresses.sort_unstable();
        let endpoints: Vec<_> = endpoints.into_iter().map(Arc::new).collect();
        let by_name = |member: &Arc<Member>| Some((member.name.clone()?, Arc::clone(member)));
        let by_address = |member: &Arc<Member>| {
            let addresses = member.addresses.map(|address| match address {
                Bears::Is(address) => Some((address, Arc::clone(member))),
                Bears::None | Bears::Unknown => None,
            });
            addresses.into_iter().flatten()
        };
        let group = |written: Arc<Group>| {
            let networks = Ranges::new(&written.networks, &written.except);
            (written.name.clone(), GroupSet { written, networks })
        };
        let special = |policy: &Arc<Policy>| {
            let mut rules = [&policy.ingress, &policy.egress].into_iter().flatten().flatten();
            rules.any(|rule| rule.match_endpoints)
        };
        let match_endpoints = policies.iter().any(special);
        let named: HashMap<Name, Arc<Member>> = endpoints.iter().filter_map(by_name).collect();
        let opens = |(name, publish): &(Name, Vec<Publication>)| {
            named.get(name).map(|member| published::of_member(publish, member))
        };
        let publications = publish.iter().filter_map(opens).flatten().collect();
        let unknown = |family| endpoints.iter().any(|one| one.address(family) == Bears::Unknown);
        View {
            unknown_addresses: Family::BOTH.map(unknown),
            pools: Ranges::new(&pools, &[]),
            remote_hosts: Ranges::new(&host.remote_hosts, &[]),
            unmanaged: Ranges::new(&host.unmanaged, &[]),
            index: Index::new(&policies),
            groups: groups.into_iter().map(group).collect(),
            addresses: endpoints.iter().flat_map(by_address).collect(),
            ports: common_ports(&endpoints),
            endpoints: named,
            doors: Doors { publications, adopted },
            match_endpoints,
            subjects: RwLock::default(),
            strangers: RwLock::default(),
            host,
            host_addresses,
            policies,
        }
    }

    pub fn endpoint(&self, name: &Name) -> Option<&Arc<Member>> {
        self.endpoints.get(name)
    }

    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.endpoints.values()
    }

    /// An endpoint of these labels that there may be, with an address of the pools' and the named ports that all those
    /// have that there are.
    pub fn hypothetical(&self, labels: Labels) -> Member {
        let labels = Arc::new(labels.filtered(|key| self.host.labels.wants(key)));
        let ports = self.ports.get(&labels).cloned().unwrap_or_default();
        let addresses = Family::BOTH.map(|family| automatic(&self.host, family));
        Member { name: None, labels, ports, addresses }
    }

    /// Who an address is: an endpoint, else the host, else of a pool, else what `porin.toml` says of it.
    pub fn who(&self, address: IpAddr) -> Party {
        let address = address.to_canonical();
        if let Some(member) = self.addresses.get(&address) {
            let family = Some(Family::of(address));
            return Party::Endpoint { member: Arc::clone(member), family };
        }
        let kind = if self.host_addresses.binary_search(&address).is_ok() {
            Kind::Host
        } else if self.pools.contains(address) {
            return Party::Unassigned(address);
        } else if self.remote_hosts.contains(address) {
            Kind::RemoteHost
        } else if self.unmanaged.contains(address) {
            Kind::Unmanaged
        } else {
            Kind::World
        };
        Party::Outside { address, kind }
    }

    /// Whether a label is part of what policy sees.
    pub fn wants(&self, key: &LabelKey) -> bool {
        self.host.labels.wants(key)
    }

    /// Whether some endpoint has an address of the family that is not known.
    pub fn has_unknown_addresses(&self, family: Family) -> bool {
        self.unknown_addresses[family as usize]
    }

    /// Whether some rule tells endpoints apart by their addresses.
    pub fn has_match_endpoints(&self) -> bool {
        self.match_endpoints
    }

    /// Of endpoints that there are, and that there may be.
    #[cfg(test)]
    pub(super) fn cached(&self) -> [usize; 2] {
        let caches = [(&self.subjects, Self::CACHED), (&self.strangers, Self::CACHED_STRANGERS)];
        caches.map(|(cache, most)| {
            let cached = cache.read().unwrap();
            assert!(cached.size <= most);
            cached.by_labels.len()
        })
    }

    /// The rules that are about an endpoint.
    pub fn subject(&self, member: &Member) -> Arc<Subject> {
        let (cache, most) = match member.name {
            Some(_) => (&self.subjects, Self::CACHED),
            None => (&self.strangers, Self::CACHED_STRANGERS),
        };
        let labels = &member.labels;
        // A panic elsewhere leaves the cache whole: what is in it is never changed.
        let cached = cache.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(subject) = cached.by_labels.get(labels) {
            return Arc::clone(subject);
        }
        drop(cached);
        let subject = Arc::new(Subject::new(&self.index.picking(labels, &self.policies)));
        let bytes: usize = labels.iter().map(|(key, value)| key.as_str().len() + value.len()).sum();
        let size = 1 + subject.len() + bytes / size_of::<Ranked>();
        if size > most {
            return subject;
        }
        let mut cached = cache.write().unwrap_or_else(PoisonError::into_inner);
        if cached.size + size > most {
            *cached = Subjects::default();
        }
        cached.size += size;
        cached.by_labels.insert(Arc::clone(labels), Arc::clone(&subject));
        subject
    }
}

fn automatic(host: &Host, family: Family) -> Bears {
    let of_family = |pool: &model::Pool| Family::of(pool.network.network()) == family;
    if host.pools.iter().any(of_family) { Bears::Unknown } else { Bears::None }
}

fn common_ports(endpoints: &[Arc<Member>]) -> HashMap<Arc<Labels>, Arc<Ports>> {
    let mut common: HashMap<Arc<Labels>, Arc<Ports>> = HashMap::new();
    for endpoint in endpoints {
        let ports = common
            .entry(Arc::clone(&endpoint.labels))
            .or_insert_with(|| Arc::clone(&endpoint.ports));
        if *ports != endpoint.ports {
            Arc::make_mut(ports).retain(|name, port| endpoint.ports.get(name) == Some(port));
        }
    }
    common
}

fn of_endpoint(endpoint: &Endpoint) -> Member {
    let bears = |address: Option<IpAddr>| address.map_or(Bears::None, Bears::Is);
    Member {
        name: Some(endpoint.name.clone()),
        labels: Arc::clone(&endpoint.labels),
        ports: Arc::new(endpoint.ports.clone()),
        addresses: [bears(endpoint.ipv6.map(IpAddr::V6)), bears(endpoint.ipv4.map(IpAddr::V4))],
    }
}

fn of_written(endpoint: &model::Endpoint, host: &Host) -> Member {
    let bears = |family, wish| match wish {
        AddressWish::Fixed(address) => Bears::Is(address),
        AddressWish::None => Bears::None,
        AddressWish::Auto => automatic(host, family),
    };
    Member {
        name: Some(endpoint.name.clone()),
        labels: Arc::new(endpoint.labels.filtered(|key| host.labels.wants(key))),
        ports: Arc::new(endpoint.ports.clone()),
        addresses: [bears(Family::Ipv6, endpoint.ipv6), bears(Family::Ipv4, endpoint.ipv4)],
    }
}
