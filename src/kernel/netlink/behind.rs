//! Where an interface of a container ends on this host: the other end of its veth.

use std::net::IpAddr;
use std::path::Path;

use super::endpoint::is_porins;
use super::message::Link;
use super::{Error, Namespace, Netlink, host, veth};
use crate::types::Mac;

/// Why it was not found. `Display` is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Unfound {
    #[error("its network namespace is not known")]
    NoNamespace,
    #[error("it is in the host's own network namespace")]
    IsHost,
    #[error("no interface in its network namespace has the address{at}", at = .0.map_or_else(String::new, |a| format!(" {a}")))]
    NoAddress(Option<IpAddr>),
    #[error("its `{0}` has the MAC address of another")]
    OtherMac(String),
    #[error("its `{0}` has no other end on this host, as a veth of a bridge network has")]
    NoEnd(String),
    #[error("its `{0}` is an interface that porin made")]
    IsPorins(String),
    #[error(transparent)]
    Failed(#[from] Error),
}

/// An interface that is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub namespace: &'a Path,
    /// The namespace is the container's, and this interface all that it has. Otherwise it may be another's by now.
    pub certain: bool,
    /// At least one.
    pub addresses: &'a [IpAddr],
    pub mac: Option<Mac>,
}

/// The name of the interface on this host that leads to the one that bears one of the addresses. A container may have
/// taken them off to be left alone: if its namespace is certain and only one interface there ends on this host, it is that.
pub fn host_end(netlink: &Netlink, wanted: Wanted<'_>) -> Result<String, Unfound> {
    let namespace = Namespace::open(wanted.namespace)?;
    if namespace.is_same(netlink.home()) {
        return Err(Unfound::IsHost);
    }
    let inside = netlink.socket_in(&namespace)?;
    let links = host::links_in(&inside)?;
    let borne = host::addresses_in(&inside)?;
    let end = |link: &Link| veth::host_end(netlink, &namespace, link);
    let bears = |link: &&Link| {
        borne.iter().any(|a| a.ifindex == link.ifindex && wanted.addresses.contains(&a.address))
    };
    let link = match links.iter().find(bears) {
        Some(link) if wanted.certain || wanted.mac.is_none() || wanted.mac == link.mac => link,
        Some(link) => return Err(Unfound::OtherMac(link.name.clone())),
        None => {
            let mut ending = Vec::new();
            for link in links.iter().filter(|_| wanted.certain) {
                ending.extend(end(link)?.map(|_| link));
            }
            match ending[..] {
                [only] => only,
                _ => return Err(Unfound::NoAddress(wanted.addresses.first().copied())),
            }
        }
    };
    match end(link)? {
        Some(end) if is_porins(&end) => Err(Unfound::IsPorins(link.name.clone())),
        Some(end) => Ok(end.name),
        None => Err(Unfound::NoEnd(link.name.clone())),
    }
}
