//! Where an interface of a container ends on this host: the other end of its veth.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};

use super::endpoint::is_porins;
use super::{Error, Namespace, Netlink, Request, host};
use crate::types::Mac;

/// Why it was not found. `Display` is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Unfound {
    #[error("its network namespace is not known")]
    NoNamespace,
    #[error("it is in the host's own network namespace")]
    IsHost,
    #[error("no interface in its network namespace has the address {0}")]
    NoAddress(IpAddr),
    #[error("its `{0}` has the MAC address of another")]
    OtherMac(String),
    #[error("its `{0}` has no other end on this host, as a veth of a bridge network has")]
    NoEnd(String),
    #[error("its `{0}` is an interface that porin made")]
    IsPorins(String),
    #[error(transparent)]
    Failed(#[from] Error),
}

/// The name of the interface on this host that leads to the one which bears all of `addresses` (at least one) in
/// `namespace`. What is at that path may be another's by now: the addresses and the MAC tell.
pub fn host_end(
    netlink: &Netlink,
    namespace: &Path,
    addresses: &[IpAddr],
    mac: Option<Mac>,
) -> Result<String, Unfound> {
    let namespace = Namespace::open(namespace)?;
    if namespace.is_same(netlink.home()) {
        return Err(Unfound::IsHost);
    }
    let inside = netlink.socket_in(&namespace)?;
    let there = host::addresses_in(&inside)?;
    let bears = |address: &IpAddr| {
        let bearer = there.iter().find(|known| known.address == *address);
        bearer.map(|known| known.ifindex).ok_or(Unfound::NoAddress(*address))
    };
    let mut bearer = None;
    for address in addresses {
        let ifindex = bears(address)?;
        if *bearer.get_or_insert(ifindex) != ifindex {
            return Err(Unfound::NoAddress(*address));
        }
    }
    let link = bearer.map(|ifindex| host::link_by_index(&inside, ifindex)).transpose()?.flatten();
    let Some(link) = link else {
        return Err(Error::new("read its interface", std::io::ErrorKind::NotFound).into());
    };
    if mac.is_some() && link.mac != mac {
        return Err(Unfound::OtherMac(link.name));
    }
    let home = netlink.socket();
    // Numbers of interfaces repeat from namespace to namespace: both ends must say that they are each other's.
    let end = match link.peer {
        0 => None,
        peer => host::link_by_index(&home, peer)?,
    };
    let number = number(netlink, &namespace)?;
    let end = end.filter(|end| {
        end.peer == link.ifindex && end.peer_namespace.is_some() && end.peer_namespace == number
    });
    match end {
        Some(end) if is_porins(&end) => Err(Unfound::IsPorins(link.name)),
        Some(end) => Ok(end.name),
        None => Err(Unfound::NoEnd(link.name)),
    }
}

/// By which number home knows the namespace (rtnetlink(7), RTM_GETNSID); none: nothing leads from there to here.
fn number(netlink: &Netlink, namespace: &Namespace) -> Result<Option<i32>, Error> {
    let mut query = NsidMessage::default();
    query.attributes.push(NsidAttribute::Fd(namespace.as_fd().as_raw_fd() as u32));
    let request = Request::read(format!("number {namespace}"), RouteNetlinkMessage::GetNsId(query));
    let answers = netlink.socket().one(request)?;
    let numbers = answers.iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewNsId(message) => Some(&message.attributes),
        _ => None,
    });
    let id = numbers.flatten().find_map(|attribute| match attribute {
        NsidAttribute::Id(number) => Some(*number),
        _ => None,
    });
    Ok(id.filter(|number| *number >= 0))
}
