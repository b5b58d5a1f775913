//! A generation as data: all that the kernel should hold, sorted, with nothing of how to get there.
//!
//! Values here mirror `bpf/include/porin/abi.h` in meaning, not in layout: `kernel` does the layout.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use crate::desired::snapshot::{Endpoint, Uplink};
use crate::types::{
    AddressKey, Cookie, Direction, Name, Origin, Peer, PolicySlot, Protocol, Slot, Verdict,
};

#[derive(Debug, Clone)]
pub struct Plan {
    pub endpoints: BTreeMap<Slot, PlannedEndpoint>,
    pub uplinks: BTreeMap<Slot, PlannedUplink>,
    pub addresses: BTreeMap<AddressKey, Slot>,
    pub prefixes: Arc<PrefixTable>,
    pub policies: BTreeMap<PolicySlot, Arc<PolicyTable>>,
    /// What cookies in these policies mean.
    pub rules: Arc<RuleTable>,
    /// Address classes, for names in events.
    pub classes: Arc<BTreeMap<Peer, Class>>,
    /// Host addresses for routes to endpoints: preferred sources, by family. They go onto `lo`.
    pub host_sources: Vec<IpAddr>,
}

#[derive(Debug, Clone)]
pub struct PlannedEndpoint {
    pub endpoint: Arc<Endpoint>,
    pub policy: PolicySlot,
    pub features: Features,
}

#[derive(Debug, Clone)]
pub struct PlannedUplink {
    pub uplink: Uplink,
    pub features: Features,
}

/// What a variant is specialised for (`struct porin_features`). `coarse_clock` is the kernel's to add.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Features {
    pub ipv4: bool,
    pub ipv6: bool,
    pub egress_policy: bool,
    pub ingress_policy: bool,
    pub masquerade: bool,
    pub accounting: bool,
    pub events: bool,
    pub nat_ports: (u16, u16),
    pub event_rate: u32,
}

/// Content of one policy map. Content-addressed: equal tables are one kernel map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyTable {
    /// Sorted by key, unique.
    pub entries: Vec<(PolicyKey, PolicyValue)>,
    pub digest: Digest,
}

pub type Digest = [u8; 16];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    pub peer: Peer,
    pub direction: Direction,
    pub ports: PortPrefix,
}

/// A longest-prefix-match key over protocol and port. Wider ones sort first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortPrefix {
    /// Any protocol.
    Any,
    /// One protocol; ports that share the first `bits` (0 to 16) bits with `port`, whose other bits are zero.
    Protocol { protocol: Protocol, bits: u8, port: u16 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyValue {
    pub precedence: u32,
    pub verdict: Verdict,
    pub cookie: Cookie,
}

/// Content of one prefix map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixTable {
    pub entries: BTreeMap<IpNet, PrefixValue>,
    pub digest: Digest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixValue {
    pub peer: Peer,
    pub host: bool,
    pub pool: bool,
}

/// What an address class is, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Class {
    /// `host`, `world`, `pool`.
    pub kind: &'static str,
    /// The CIDR sets that it is in, as written.
    pub cidrs: Arc<[Arc<str>]>,
}

/// Cookie -> rule.
pub type RuleTable = BTreeMap<Cookie, Arc<RuleRef>>;

/// What decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleRef {
    pub policy: Name,
    pub direction: Direction,
    /// Index of the rule in its policy and direction; none: the policy made the direction default deny.
    pub rule: Option<u32>,
    pub verdict: Verdict,
    pub origin: Origin,
}
