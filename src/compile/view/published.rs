//! Published ports, as who sends to them knows them: an address and port of the host.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::{Bears, Kind, Member, Party, View};
use crate::types::publication::At;
use crate::types::{Entity, Family, Name, Protocol, Publication};

#[derive(Debug, Default)]
pub(super) struct Doors {
    pub publications: Vec<(Publication, Arc<Member>)>,
    /// Endpoints whose own network leads them elsewhere.
    pub adopted: HashSet<Name>,
}

impl View {
    /// The endpoint, and its port, that a port of the host's leads this sender to, if it is published.
    pub fn published(
        &self,
        from: &Party,
        address: IpAddr,
        protocol: Protocol,
        port: u16,
    ) -> Option<(&Arc<Member>, u16)> {
        let address = address.to_canonical();
        if !self.finds_doors(from, address) {
            return None;
        }
        let (publication, member) = self.doors.publications.iter().find(|(one, _)| {
            let ports = one.ports();
            one.protocol() == protocol
                && (ports.first()..=ports.last()).contains(&port)
                && self.has_door(one.at(), address)
        })?;
        let (_, own) = publication.pairs().find(|(of_host, _)| *of_host == port)?;
        Some((member, own))
    }

    /// A loopback address is everybody's own.
    fn finds_doors(&self, from: &Party, address: IpAddr) -> bool {
        match from {
            Party::Outside { address: own, kind } => {
                !address.is_loopback() || own.is_loopback() || *kind == Kind::Host
            }
            Party::Entity(entity) => !address.is_loopback() || *entity == Entity::Host,
            Party::Endpoint { member, .. } => {
                let adopted =
                    member.name.as_ref().is_some_and(|one| self.doors.adopted.contains(one));
                !address.is_loopback() && !adopted
            }
            Party::Unassigned(_) => false,
        }
    }

    fn has_door(&self, at: At, address: IpAddr) -> bool {
        match at {
            At::One(one) => one == address,
            // What is at all of them is at one loopback address of either family.
            _ if address.is_loopback() => at.covers(address) && is_localhost(address),
            _ => at.covers(address) && self.host_addresses.binary_search(&address).is_ok(),
        }
    }
}

/// 127.0.0.1 or ::1.
fn is_localhost(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4 == Ipv4Addr::LOCALHOST,
        IpAddr::V6(v6) => v6.is_loopback(),
    }
}

/// What of `publish` leads to an endpoint with these addresses.
pub(super) fn of_member(
    publish: &[Publication],
    member: &Arc<Member>,
) -> Vec<(Publication, Arc<Member>)> {
    let has = |family: Family| member.address(family) != Bears::None;
    let within = publish.iter().filter_map(|one| one.within(has));
    within.map(|one| (one, Arc::clone(member))).collect()
}
