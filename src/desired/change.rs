//! The one way into [`super::Desired`]: what others found out, as values.
//!
//! A change says what is so now, not what became different: each replaces what was said before of its kind.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::model::Config;
use crate::types::{Identity, Labels, Mac, PortRange, Slot};

use super::ipam::Leases;
use super::snapshot::{Interfaces, Namespaces};

#[derive(Debug, Clone)]
pub enum Change {
    /// What the operator's files say.
    Config(Arc<Config>),
    /// Addresses of this host, in any order.
    HostAddresses(Vec<IpAddr>),
    /// Networks that the host reaches over interfaces that are not porin's. Those that meet no pool may be left out.
    HostNetworks(Vec<HostNetwork>),
    /// What the kernel takes ports from for the host's own sockets.
    LocalPorts(Vec<PortRange>),
    /// The configured uplinks that exist.
    Uplinks(Vec<UplinkFact>),
    /// Which namespace each endpoint's path is now, or why there is none that can be used.
    Namespaces(Namespaces),
    /// Which interface each adopted endpoint's is now, or why there is none that can be used.
    Interfaces(Interfaces),
    /// Recovered at start.
    Leases(Leases),
    /// Recovered from the kernel: which incarnation has which slot.
    Slots(Vec<([u8; 16], Slot)>),
    /// Recovered from the kernel: identities that packets may still bear, with their labels where known.
    Identities(Vec<(Identity, Option<Labels>)>),
}

/// A prefix of the host's, and the interface that it is reached over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNetwork {
    pub interface: String,
    pub network: IpNet,
}

/// What netlink says of an uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkFact {
    pub interface: String,
    pub ifindex: u32,
    pub mac: Mac,
    pub mtu: u32,
    /// First global address.
    pub address4: Option<Ipv4Addr>,
}
