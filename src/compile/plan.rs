//! A generation as data: all that the kernel should hold, sorted, with nothing of how to get there.
//!
//! Values here mirror `bpf/include/porin/abi.h` in meaning, not in layout: `kernel` does the layout.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;
use serde::Serialize;

use crate::desired::Fault;
use crate::desired::snapshot::{Endpoint, Uplink};
use crate::types::{
    Action, AddressKey, Cookie, Direction, Identity, Mode, Name, Origin, Peer, PolicySlot,
    Protocol, RulesetId, Slot, Tier, Verdict, http,
};

#[derive(Debug, Clone)]
pub struct Plan {
    pub endpoints: OrdMap<Slot, PlannedEndpoint>,
    pub uplinks: BTreeMap<Slot, PlannedUplink>,
    pub addresses: Arc<BTreeMap<AddressKey, Slot>>,
    pub published: Arc<PublishedTable>,
    pub prefixes: Arc<PrefixTable>,
    /// Those that are enforced, and those of shadow policies.
    pub policies: OrdMap<PolicySlot, Arc<PolicyTable>>,
    pub sources: Arc<SourceTable>,
    /// What is asked of requests.
    pub rulesets: Arc<BTreeMap<RulesetId, Arc<http::Side>>>,
    /// Peers that are some of an identity's endpoints only, told apart by their named ports or addresses.
    pub roles: Arc<BTreeMap<Peer, Identity>>,
    /// What cookies in these policies mean.
    pub rules: Arc<RuleTable>,
    /// Address classes, for names in events.
    pub classes: Arc<BTreeMap<Peer, Class>>,
    /// Assertions that are proven for the identities in force only.
    pub undecided: Arc<Vec<Fault>>,
    /// Host addresses for routes to endpoints: preferred sources, by family. They go onto `lo`.
    pub host_sources: Vec<IpAddr>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PlannedEndpoint {
    pub endpoint: Arc<Endpoint>,
    pub policy: PolicySlot,
    /// The table that would be in force if shadow policies were enforced; none: it would be the same.
    pub shadow: Option<PolicySlot>,
    /// What others' tables call it, by family ([`Family::BOTH`](crate::types::Family::BOTH)): its identity, or a role.
    pub peers: [Peer; 2],
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
    /// Some rule has source ports.
    pub source_ports: bool,
    /// Some rule rejects.
    pub reject: bool,
    /// Some policy is in shadow mode.
    pub shadow: bool,
    pub masquerade: bool,
    /// Some endpoint of the host has published ports.
    pub publishes: bool,
    /// Some rule is about requests.
    pub judges_requests: bool,
    /// Some endpoint of the host is adopted.
    pub adopts: bool,
    /// The endpoint itself is.
    pub adopted: bool,
    pub accounting: bool,
    pub events: bool,
    pub nat_ports: (u16, u16),
    pub event_rate: u32,
}

/// What is sent to an address and port of the host, and is an endpoint's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishedKey {
    pub address: AddressKey,
    /// TCP or UDP.
    pub protocol: Protocol,
    pub port: u16,
}

/// A port of an endpoint, at its address of the family that the packet is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedPort {
    pub slot: Slot,
    pub port: u16,
}

pub type PublishedTable = BTreeMap<PublishedKey, PublishedPort>;

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
    pub source: SourceClass,
    pub ports: PortPrefix,
}

/// The ports that are in the same rules' `source-ports`. 0 is any, and those that are in none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceClass(pub u8);

impl SourceClass {
    pub const ANY: SourceClass = SourceClass(0);
    /// The last one (`PORIN_SOURCE_CLASSES`).
    pub const LAST: u8 = 127;
}

/// Which class each source port is of. Tables that name classes mean those of the plan that they are in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceTable {
    /// Where each run of ports of one class begins; sorted, from 0 on. Empty: all are of class 0.
    pub runs: Vec<(u16, SourceClass)>,
    pub digest: Digest,
}

impl SourceTable {
    pub fn class(&self, port: u16) -> SourceClass {
        let after = self.runs.partition_point(|(first, _)| *first <= port);
        after.checked_sub(1).map_or(SourceClass::ANY, |at| self.runs[at].1)
    }
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
    /// What is allowed are connections whose requests are judged; none: whatever is in them.
    pub ruleset: Option<RulesetId>,
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
    /// `host`, `remote-host`, `unmanaged`, `world`, `pool`.
    pub kind: &'static str,
    /// The CIDR sets that it is in, as written.
    pub cidrs: Arc<[Arc<str>]>,
}

pub use super::rule_table::RuleTable;

/// What decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleRef {
    pub policy: Name,
    pub tier: Tier,
    pub mode: Mode,
    pub direction: Direction,
    /// Index of the rule in its policy and direction; none: the policy made the direction default deny.
    pub rule: Option<u32>,
    pub action: Action,
    pub origin: Origin,
}
