//! What the kernel says of what the operator named: uplinks, namespaces, the host's addresses.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ipnet::IpNet;

use super::endpoint::is_porins;
use super::host::HostAddress;
use super::{Error, Namespace, Netlink, host};
use crate::desired::snapshot::Adopted;
use crate::types::Mac;

/// An interface to the outside, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkFacts {
    pub ifindex: u32,
    pub mac: Mac,
    pub mtu: u32,
    /// First global address.
    pub address4: Option<Ipv4Addr>,
}

/// A network namespace that an endpoint may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceFacts {
    pub device: u64,
    pub inode: u64,
}

/// Why something that was named can't be used. `Display` is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("there is no interface `{0}`")]
    NoInterface(String),
    #[error("`{0}` has no Ethernet address: only Ethernet-like interfaces can be uplinks")]
    NotEthernet(String),
    #[error("`{0}` has no Ethernet frames: only veths, taps and the like can be adopted")]
    NotLike(String),
    #[error("`{0}` is a {1}, which leads to more than one endpoint: name one of its ports")]
    Shared(String, String),
    #[error("`{0}` is an endpoint's interface")]
    IsEndpoint(String),
    #[error("`{0}` is the host's own network namespace: porin would cut the host off")]
    IsHost(String),
    #[error(transparent)]
    Failed(#[from] Error),
}

pub fn uplink(netlink: &Netlink, name: &str) -> Result<UplinkFacts, Unusable> {
    let Some(link) = host::link_by_name(&netlink.socket(), name)? else {
        return Err(Unusable::NoInterface(name.to_owned()));
    };
    if is_porins(&link) {
        return Err(Unusable::IsEndpoint(name.to_owned()));
    }
    let mac = link.mac.filter(|mac| *mac != Mac([0; 6]));
    let mac = mac.ok_or_else(|| Unusable::NotEthernet(name.to_owned()))?;
    let addresses = host::addresses(netlink)?;
    let mut own = addresses.iter().filter(|a| a.ifindex == link.ifindex && a.global);
    let address4 = own.find_map(|a| match a.address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    Ok(UplinkFacts { ifindex: link.ifindex, mac, mtu: link.mtu, address4 })
}

/// An interface that an adopted endpoint is behind.
pub fn adopted(netlink: &Netlink, name: &str) -> Result<Adopted, Unusable> {
    let Some(link) = host::link_by_name(&netlink.socket(), name)? else {
        return Err(Unusable::NoInterface(name.to_owned()));
    };
    if is_porins(&link) {
        return Err(Unusable::IsEndpoint(name.to_owned()));
    }
    if !link.ethernet {
        return Err(Unusable::NotLike(name.to_owned()));
    }
    if ["bridge", "bond", "team"].contains(&link.kind.as_str()) {
        return Err(Unusable::Shared(name.to_owned(), link.kind));
    }
    let via = if link.master == 0 { link.ifindex } else { link.master };
    Ok(Adopted { ifindex: link.ifindex, via })
}

/// All addresses that mean this host, sorted. Endpoints' are in other namespaces and not among them.
pub fn host_addresses(netlink: &Netlink) -> Result<Vec<IpAddr>, Error> {
    let mut all: Vec<IpAddr> = host::addresses(netlink)?.iter().map(|a| a.address).collect();
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// The networks that are reached over interfaces that are not porin's, those that are `wanted`: the interface's
/// name and the prefix. Sorted. Single addresses on `lo` are no network: nobody else is reached there.
pub fn host_networks(
    netlink: &Netlink,
    wanted: impl Fn(&IpNet) -> bool,
) -> Result<Vec<(String, IpNet)>, Error> {
    let mut found = Vec::new();
    for HostAddress { network, ifindex, .. } in host::addresses(netlink)? {
        let single = network.prefix_len() == network.max_prefix_len();
        if !wanted(&network) || ifindex == host::LOOPBACK && single {
            continue;
        }
        let link = host::link_by_index(&netlink.socket(), ifindex)?;
        found.extend(link.filter(|link| !is_porins(link)).map(|link| (link.name, network)));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Whether the namespace that was seen at `path` is still the one there: one system call instead of many.
pub fn namespace_is(path: &Path, seen: NamespaceFacts) -> bool {
    let there = std::fs::metadata(path);
    there.is_ok_and(|there| (there.dev(), there.ino()) == (seen.device, seen.inode))
}

pub fn namespace(netlink: &Netlink, path: &Path) -> Result<NamespaceFacts, Unusable> {
    let namespace = Namespace::open(path)?;
    if namespace.is_same(netlink.home()) {
        return Err(Unusable::IsHost(path.display().to_string()));
    }
    Ok(NamespaceFacts { device: namespace.device, inode: namespace.inode })
}
