//! Whether a rule's peers include a party.

use std::net::IpAddr;

use ipnet::IpNet;

use super::ranges::{self, Ranges};
use super::{Bears, Kind, Party, View};
use crate::config::model::{CidrSet, Peer, Rule};
use crate::types::{Entity, Family, Labels};

/// Whether something matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    No,
    /// It depends on what was not said: an address, a source port.
    Unknown,
    Yes,
}

impl From<bool> for Fit {
    fn from(fits: bool) -> Self {
        if fits { Fit::Yes } else { Fit::No }
    }
}

impl View {
    /// `family`: of the packet.
    pub fn peer_matches(&self, rule: &Rule, party: &Party, family: Family) -> Fit {
        if rule.peers.is_empty() {
            return Fit::Yes;
        }
        let mut best = Fit::No;
        for peer in &rule.peers {
            best = best.max(self.one_matches(peer, rule.match_endpoints, party, family));
            if best == Fit::Yes {
                break;
            }
        }
        best
    }

    fn one_matches(&self, peer: &Peer, endpoints: bool, party: &Party, family: Family) -> Fit {
        match peer {
            Peer::Selector(selector) => picks(party, |labels| selector.matches(labels)).into(),
            Peer::Entity(entity) => entity_matches(*entity, party, family).into(),
            Peer::Cidr(cidr) => self.networks_match(cidr, endpoints, party, family),
            Peer::Group(name) => {
                let Some(group) = self.groups.get(name) else { return Fit::No };
                let written = &group.written;
                let by_label = picks(party, |labels| {
                    written.selectors.iter().any(|selector| selector.matches(labels))
                });
                let entity = |entity: &Entity| entity_matches(*entity, party, family);
                if by_label || written.entities.iter().any(entity) {
                    return Fit::Yes;
                }
                self.networks_match(&group.networks, endpoints, party, family)
            }
        }
    }

    fn networks_match(
        &self,
        networks: &impl Networks,
        endpoints: bool,
        party: &Party,
        family: Family,
    ) -> Fit {
        match party {
            Party::Outside { address, .. } => networks.has(*address).into(),
            Party::Endpoint { member, .. } if endpoints => match member.address(family) {
                Bears::Is(address) => networks.has(address).into(),
                Bears::Unknown if self.everywhere_in_pools(networks, family) => Fit::Yes,
                Bears::Unknown => Fit::Unknown,
                Bears::None => Fit::No,
            },
            Party::Endpoint { .. } | Party::Unassigned(_) => Fit::No,
            // `cluster` and `all` have endpoints in them, which networks do not match.
            Party::Entity(Entity::Cluster | Entity::All) => Fit::No,
            Party::Entity(_) => networks.is_whole(family).into(),
        }
    }

    /// Wherever in the pools an endpoint's address is, it is in the set.
    fn everywhere_in_pools(&self, networks: &impl Networks, family: Family) -> bool {
        let mut pools =
            self.host.pools.iter().map(|pool| pool.network).filter(|pool| of(pool) == family);
        networks.is_whole(family)
            || pools.clone().next().is_some() && pools.all(|p| networks.covers(&p))
    }
}

fn of(network: &IpNet) -> Family {
    Family::of(network.network())
}

fn picks(party: &Party, picks: impl FnOnce(&Labels) -> bool) -> bool {
    party.member().is_some_and(|member| picks(&member.labels))
}

fn entity_matches(entity: Entity, party: &Party, family: Family) -> bool {
    if entity == Entity::All {
        return true;
    }
    let kind = match party {
        Party::Endpoint { .. } => return entity == Entity::Cluster,
        Party::Unassigned(_) => return false,
        Party::Outside { kind, .. } => *kind,
        Party::Entity(Entity::Cluster) => return entity == Entity::Cluster,
        Party::Entity(Entity::All) => return false,
        Party::Entity(Entity::Host) => Kind::Host,
        Party::Entity(Entity::RemoteHost) => Kind::RemoteHost,
        Party::Entity(Entity::Unmanaged) => Kind::Unmanaged,
        Party::Entity(Entity::World | Entity::WorldIpv4 | Entity::WorldIpv6) => Kind::World,
    };
    match entity {
        Entity::All => true,
        Entity::Cluster => kind != Kind::World,
        Entity::Host => kind == Kind::Host,
        Entity::RemoteHost => kind == Kind::RemoteHost,
        Entity::Unmanaged => kind == Kind::Unmanaged,
        Entity::World => kind == Kind::World,
        Entity::WorldIpv4 => kind == Kind::World && family == Family::Ipv4,
        Entity::WorldIpv6 => kind == Kind::World && family == Family::Ipv6,
    }
}

/// A set of addresses: a rule's own, or a group's.
trait Networks {
    fn has(&self, address: IpAddr) -> bool;
    fn covers(&self, network: &IpNet) -> bool;
    fn is_whole(&self, family: Family) -> bool;
}

impl Networks for CidrSet {
    fn has(&self, address: IpAddr) -> bool {
        self.network.contains(&address) && !self.except.iter().any(|net| net.contains(&address))
    }

    fn covers(&self, network: &IpNet) -> bool {
        let apart = |hole: &IpNet| !hole.contains(network) && !network.contains(hole);
        self.network.contains(network) && self.except.iter().all(apart)
    }

    fn is_whole(&self, family: Family) -> bool {
        self.network == ranges::whole(family) && self.except.is_empty()
    }
}

impl Networks for Ranges {
    fn has(&self, address: IpAddr) -> bool {
        self.contains(address)
    }

    fn covers(&self, network: &IpNet) -> bool {
        self.contains_all(network)
    }

    fn is_whole(&self, family: Family) -> bool {
        Ranges::is_whole(self, family)
    }
}
