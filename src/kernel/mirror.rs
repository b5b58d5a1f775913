//! What each side of the kernel holds, as far as the daemon knows: one truth for diffs and undos.
//!
//! Read once when the daemon starts; from then on every op that succeeded is noted here. It must
//! never say more than was read or done. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::datapath::TableKind;
use super::numbers::{Content, Numbers};
use super::ops::{Gate, Op, Sources, Variant};
use crate::compile::plan::{Digest, PublishedKey, PublishedPort};
use crate::desired::snapshot::{Adopted, Endpoint};
use crate::types::{AddressKey, Generation, Identity, Mac, Peer, PolicySlot, Side, Slot};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mirror {
    pub generation: Generation,
    /// A grace period has passed since the last commit: no packet is on the inactive side.
    pub settled: bool,

    /// The host side interfaces that are porin's, by name.
    pub interfaces: BTreeMap<String, Interface>,
    /// By interface, of endpoints and uplinks alike; only where both directions have one. Whose an earlier
    /// daemon's is on an adopted interface, nothing tells: nobody's.
    pub gates: BTreeMap<String, GateState>,
    /// Those on `lo` that porin put there.
    pub host_addresses: BTreeSet<IpAddr>,

    /// At the host's own sockets.
    pub sockets: SocketPrograms,

    /// What the daemon holds a handle of.
    pub variants: BTreeSet<Variant>,

    pub endpoints: BTreeMap<Slot, Row>,
    pub addresses: BTreeMap<AddressKey, [Slot; 2]>,
    pub published: BTreeMap<PublishedKey, [Option<PublishedPort>; 2]>,
    pub uplinks: BTreeMap<u32, UplinkRow>,
    pub programs: BTreeMap<u32, Held<Variant>>,
    /// The numbers of tables, by `PORIN_POLICY_INDEX`.
    pub policies: BTreeMap<u32, u32>,
    /// By side; 0: none.
    pub prefixes: [u32; 2],
    /// The classes of source ports that a side has. None: an earlier daemon's, or half written.
    pub sources: [Option<Digest>; 2],
    pub policy_tables: Numbers,
    pub prefix_tables: Numbers,
}

/// The programs that lead the host's own sockets to published ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SocketPrograms {
    /// Here they cannot be, or are not wanted.
    #[default]
    Without,
    Absent,
    /// Some or all, perhaps with an earlier daemon's code.
    Old,
    Attached,
}

/// What a place in a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held<T> {
    /// Something of an earlier daemon's. It works as ever, but can't be compared.
    Unknown,
    Known(T),
}

impl<T> Held<T> {
    pub fn known(&self) -> Option<&T> {
        match self {
            Held::Unknown => None,
            Held::Known(value) => Some(value),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// None: left behind unfinished, nobody's.
    pub incarnation: Option<[u8; 16]>,
    /// None: made by an earlier daemon and not configured by this one yet.
    pub endpoint: Option<Arc<Endpoint>>,
    /// None: likewise, or it is not up yet.
    pub sources: Option<Sources>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateState {
    pub slot: Slot,
    /// That its programs were loaded with. None: an earlier daemon's, with another rate or code.
    pub event_rate: Option<u32>,
}

/// `endpoints[slot]`, with the interface by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub ipv6: Option<Ipv6Addr>,
    pub ipv4: Option<Ipv4Addr>,
    pub mac: Mac,
    /// Host side; empty if it has vanished.
    pub interface: String,
    /// None: the interface is porin's own.
    pub adopted: Option<Adopted>,
    pub incarnation: [u8; 16],
    pub sides: [Option<EndpointSide>; 2],
}

/// What an endpoint is on one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointSide {
    pub identity: Identity,
    pub policy: PolicySlot,
    /// With shadow policies; none: the same.
    pub shadow: Option<PolicySlot>,
    /// What others' policies call it, by family.
    pub peers: [Peer; 2],
}

/// `uplinks[ifindex]`, with the interface by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkRow {
    pub interface: String,
    pub mac: Mac,
    pub slot: Slot,
    pub masquerade4: Option<Ipv4Addr>,
}

impl Row {
    /// Whether the endpoint is an adopted one, and this its interface.
    pub fn is_behind(&self, interface: &str, ifindex: u32) -> bool {
        self.interface == interface && self.adopted.is_some_and(|a| a.ifindex == ifindex)
    }
}

impl Mirror {
    /// What is so once `op` has succeeded.
    pub fn note(&mut self, op: &Op) {
        match op {
            Op::Grace => self.settled = true,
            Op::AddHostAddress(address) => {
                self.host_addresses.insert(*address);
            }
            Op::RemoveHostAddress(address) => {
                self.host_addresses.remove(address);
            }
            Op::CreateInterface(endpoint) => {
                self.note_vanished(&endpoint.host_interface);
                self.note_interface(endpoint, None);
            }
            Op::ConfigureInterface { endpoint, sources } => {
                self.note_interface(endpoint, Some(*sources));
            }
            Op::RemoveInterface(name) => self.note_vanished(name),
            Op::AttachGate(gate) => {
                let state = GateState { slot: gate.slot(), event_rate: Some(gate.event_rate) };
                self.gates.insert(gate.interface().to_owned(), state);
            }
            Op::DetachGate(name) => {
                self.gates.remove(name);
            }
            Op::AttachSockets => self.sockets = SocketPrograms::Attached,
            Op::DetachSockets => self.sockets = SocketPrograms::Absent,
            Op::LoadVariant(variant) => {
                self.variants.insert(*variant);
            }
            Op::DropVariant(variant) => {
                self.variants.remove(variant);
            }
            Op::MakeSpares(kind, numbers) => {
                let tables = self.tables(*kind);
                numbers.iter().for_each(|number| tables.note(*number, Content::Empty));
            }
            Op::FillPolicy(number, table) => {
                self.policy_tables.note(*number, Content::Whole(table.digest));
            }
            Op::FillPrefixes(number, table) => {
                self.prefix_tables.note(*number, Content::Whole(table.digest));
            }
            Op::SetEndpoint(slot, row) => put(&mut self.endpoints, *slot, row.clone()),
            Op::SetAddress(key, slots) => {
                let value = (*slots != [Slot(0); 2]).then_some(*slots);
                put(&mut self.addresses, *key, value);
            }
            Op::SetPublished(key, sides) => {
                put(&mut self.published, *key, (*sides != [None; 2]).then_some(*sides));
            }
            Op::SetUplink(ifindex, row) => put(&mut self.uplinks, *ifindex, row.clone()),
            Op::SetProgram(index, variant) => {
                put(&mut self.programs, *index, variant.map(Held::Known));
            }
            Op::SetPolicies(batch) => {
                for (index, number) in batch {
                    put(&mut self.policies, *index, (*number != 0).then_some(*number));
                }
            }
            Op::SetPrefixes(side, number) => self.prefixes[side.index()] = *number,
            Op::SetSources(side, table) => self.sources[side.index()] = Some(table.digest),
        }
    }

    /// What can't be said any more once `op` is tried, whatever becomes of it: tables may be left half done.
    pub fn note_begun(&mut self, op: &Op) {
        match op {
            Op::MakeSpares(kind, numbers) => {
                let tables = self.tables(*kind);
                numbers.iter().for_each(|number| tables.note(*number, Content::Unknown));
            }
            Op::FillPolicy(number, _) => self.policy_tables.note(*number, Content::Unknown),
            Op::FillPrefixes(number, _) => self.prefix_tables.note(*number, Content::Unknown),
            Op::SetSources(side, _) => self.sources[side.index()] = None,
            // Some of them may be there.
            Op::AttachSockets | Op::DetachSockets => self.sockets = SocketPrograms::Old,
            _ => {}
        }
    }

    fn tables(&mut self, kind: TableKind) -> &mut Numbers {
        match kind {
            TableKind::Policy => &mut self.policy_tables,
            TableKind::Prefix => &mut self.prefix_tables,
        }
    }

    /// The numbers of tables that either side refers to.
    pub fn used(&self, kind: TableKind) -> BTreeSet<u32> {
        match kind {
            TableKind::Policy => self.policies.values().copied().collect(),
            TableKind::Prefix => self.prefixes.into_iter().filter(|number| *number != 0).collect(),
        }
    }

    fn note_interface(&mut self, endpoint: &Arc<Endpoint>, sources: Option<Sources>) {
        let interface = Interface {
            incarnation: Some(endpoint.incarnation),
            endpoint: Some(endpoint.clone()),
            sources,
        };
        self.interfaces.insert(endpoint.host_interface.clone(), interface);
    }

    /// A commit makes the other side the inactive one, and packets may still be on it.
    pub fn note_commit(&mut self, generation: Generation) {
        self.generation = generation;
        self.settled = false;
    }

    /// An interface is gone, perhaps with its namespace and unasked. Slots that had it have an ifindex that
    /// means nothing any more.
    pub fn note_vanished(&mut self, name: &str) {
        self.interfaces.remove(name);
        self.gates.remove(name);
        for row in self.endpoints.values_mut().filter(|row| row.interface == name) {
            row.interface.clear();
        }
    }

    /// Someone took away what was set on an interface while it lived, or the gates on it.
    pub fn note_unconfigured(&mut self, name: &str) {
        if let Some(interface) = self.interfaces.get_mut(name) {
            interface.sources = None;
        }
    }

    pub fn note_ungated(&mut self, name: &str) {
        self.gates.remove(name);
    }

    pub fn inactive(&self) -> Side {
        self.generation.side().other()
    }

    /// Whether the interface of this endpoint is in place, so that it need not be touched.
    pub fn has_interface(&self, endpoint: &Endpoint) -> bool {
        self.interfaces
            .get(&endpoint.host_interface)
            .is_some_and(|interface| interface.incarnation == Some(endpoint.incarnation))
    }

    /// Which endpoint of the generation in force is behind an interface that is another's.
    pub fn adopted(&self, interface: &str) -> Option<(Slot, &Row)> {
        let side = self.generation.side().index();
        let there = |row: &Row| row.adopted.is_some() && row.interface == interface;
        let mut rows = self.endpoints.iter().filter(|(_, row)| there(row));
        rows.find(|(_, row)| row.sides[side].is_some()).map(|(slot, row)| (*slot, row))
    }

    pub fn has_gate(&self, gate: &Gate) -> bool {
        self.gates.get(gate.interface()).is_some_and(|state| state.slot == gate.slot())
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}
