//! What an earlier daemon configured, read in bulk, so that what is right already need not be set again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::message::{self, Link};
use super::{Error, Netlink, Request, host};
use crate::desired::snapshot::Endpoint;
use crate::kernel::ops::Sources;
use crate::types::Mac;

/// Host sides of veths, with their neighbours and routes.
#[derive(Debug, Default)]
pub struct Adopted {
    links: BTreeMap<u32, Link>,
    neighbours: BTreeSet<(u32, IpAddr, Mac)>,
    routes: BTreeMap<IpAddr, Vec<HostRoute>>,
}

/// Of one address, to an interface and with a preferred source.
type HostRoute = (u32, Option<IpAddr>);

impl Adopted {
    pub fn read(netlink: &Netlink) -> Result<Self, Error> {
        let links = host::links(netlink)?.into_iter();
        let mut adopted = Adopted {
            links: links.map(|link| (link.ifindex, link)).collect(),
            ..Adopted::default()
        };
        let socket = netlink.filtering_socket()?;
        let query = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        for answer in socket.one(Request::dump("list neighbours", query))? {
            if let RouteNetlinkMessage::NewNeighbour(message) = answer {
                adopted.neighbours.extend(neighbour(&message));
            }
        }
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessage::default();
            query.header.address_family = family;
            query.header.table = RouteHeader::RT_TABLE_MAIN;
            query.header.protocol = RouteProtocol::Static;
            let request = Request::dump("list routes", RouteNetlinkMessage::GetRoute(query));
            for answer in socket.one(request)? {
                let RouteNetlinkMessage::NewRoute(message) = answer else { continue };
                if let Some((address, route)) = host_route(&message) {
                    adopted.routes.entry(address).or_default().push(route);
                }
            }
        }
        Ok(adopted)
    }

    /// True if [`super::endpoint::configure`] would change nothing. Said once of an interface: who asks
    /// again has reasons to have it configured.
    pub fn is_configured(&mut self, endpoint: &Endpoint, sources: Sources, ifindex: u32) -> bool {
        let Some(link) = self.links.remove(&ifindex) else { return false };
        let Some(made) = endpoint.made() else { return false };
        let mut addresses = super::endpoint::addresses(endpoint);
        link.up
            && (link.mtu == made.mtu || made.namespace.is_none())
            && host::forwards(&link.name)
            && addresses.all(|address| {
                let route = self.routes.get(&address).map(Vec::as_slice);
                self.neighbours.contains(&(ifindex, address, made.mac))
                    && route == Some(&[(ifindex, sources.of_family(address))])
            })
    }
}

fn neighbour(message: &NeighbourMessage) -> Option<(u32, IpAddr, Mac)> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => Some(IpAddr::V4(*a)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => Some(IpAddr::V6(*a)),
        _ => None,
    });
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok().map(Mac),
        _ => None,
    });
    Some((message.header.ifindex, address?, mac?))
}

fn host_route(message: &RouteMessage) -> Option<(IpAddr, HostRoute)> {
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    };
    let (mut destination, mut source, mut ifindex) = (None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Oif(index) => ifindex = *index,
            // Not one of porin's.
            RouteAttribute::Gateway(_) | RouteAttribute::MultiPath(_) => ifindex = 0,
            _ => {}
        }
    }
    let destination = destination?;
    let header = &message.header;
    let whole = header.destination_prefix_length == message::bits(destination);
    let main = header.table == RouteHeader::RT_TABLE_MAIN;
    (whole && main).then_some((destination, (ifindex, source)))
}
