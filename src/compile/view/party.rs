//! Either end of a flow that is asked about: an endpoint, real or not; an address; or an entity at large.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::types::{Entity, Family, Labels, Name, PortMatch};

/// Everything that policy knows of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// None: there is no such endpoint, but there may be one.
    pub name: Option<Name>,
    /// Security-relevant ones.
    pub labels: Arc<Labels>,
    /// Its named ports.
    pub ports: Arc<BTreeMap<Name, PortMatch>>,
    /// By family ([`Family::BOTH`]).
    pub addresses: [Bears; 2],
}

/// Which address of a family an endpoint has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bears {
    /// It sends and receives nothing of that family.
    None,
    /// Some address of the pools'.
    Unknown,
    Is(IpAddr),
}

impl Member {
    pub fn address(&self, family: Family) -> Bears {
        self.addresses[family as usize]
    }
}

/// What an address that is no endpoint's is. Disjoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Host,
    RemoteHost,
    Unmanaged,
    World,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Host => "host",
            Kind::RemoteHost => "remote-host",
            Kind::Unmanaged => "unmanaged",
            Kind::World => "world",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Party {
    Endpoint {
        member: Arc<Member>,
        /// It was asked for by an address of this family.
        family: Option<Family>,
    },
    /// An address that is no endpoint's.
    Outside { address: IpAddr, kind: Kind },
    /// In a pool, but nobody's.
    Unassigned(IpAddr),
    /// One of the entity that no rule about a part of it is about. `cluster` and `all` are no endpoint here.
    Entity(Entity),
}

impl Party {
    pub fn member(&self) -> Option<&Arc<Member>> {
        match self {
            Party::Endpoint { member, .. } => Some(member),
            _ => None,
        }
    }

    /// The only family that its packets can be of, whoever is at the other end.
    pub fn family(&self) -> Option<Family> {
        match self {
            Party::Endpoint { family, .. } => *family,
            Party::Outside { address, .. } | Party::Unassigned(address) => {
                Some(Family::of(*address))
            }
            Party::Entity(Entity::WorldIpv4) => Some(Family::Ipv4),
            Party::Entity(Entity::WorldIpv6) => Some(Family::Ipv6),
            Party::Entity(_) => None,
        }
    }

    /// Whether it can have packets of `family`, as far as is known.
    pub(in crate::compile) fn may_have(&self, family: Family) -> bool {
        let has = self.member().is_none_or(|member| member.address(family) != Bears::None);
        has && self.family().is_none_or(|only| only == family)
    }
}
