//! The one way into [`super::Desired`]: what others found out, as values.
//!
//! A change says what is so now, not what became different: each replaces what was said before of its kind.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::config::model::Config;
use crate::types::{Identity, Labels, Mac, Name, Slot};

use super::ipam::Leases;
use super::snapshot::Namespace;

#[derive(Debug, Clone)]
pub enum Change {
    /// What the operator's files say.
    Config(Arc<Config>),
    /// Addresses of this host, in any order.
    HostAddresses(Vec<IpAddr>),
    /// The configured uplinks that exist.
    Uplinks(Vec<UplinkFact>),
    /// Which namespace each endpoint's path is now, or why there is none that can be used.
    Namespaces(BTreeMap<Name, Result<Namespace, String>>),
    /// Recovered at start.
    Leases(Leases),
    /// Recovered from the kernel: which incarnation has which slot.
    Slots(Vec<([u8; 16], Slot)>),
    /// Recovered from the kernel: identities that packets may still bear, with their labels where known.
    Identities(Vec<(Identity, Option<Labels>)>),
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
