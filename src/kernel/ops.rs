//! What can be done to the kernel, as data, each with its declared undo.
//!
//! An `Op` names what is to be so, never how: `transaction` runs it, a `Backend` carries it out,
//! [`Mirror::note`] says what the kernel holds afterwards. Nothing here does I/O.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::datapath::{Program, TableKind};
use super::mirror::{Mirror, Row, SocketPrograms, UplinkRow};
use crate::compile::plan::{
    Features, PolicyTable, PrefixTable, PublishedKey, PublishedPort, SourceTable,
};
use crate::desired::snapshot::{Adopted, Endpoint, Uplink};
use crate::types::{AddressKey, Side, Slot};

#[derive(Debug, Clone)]
pub enum Op {
    /// Wait until no packet is under way that began before this op.
    Grace,

    AddHostAddress(IpAddr),
    RemoveHostAddress(IpAddr),
    /// Leaves the host side down: nothing passes before the gates are there.
    CreateInterface(Arc<Endpoint>),
    /// Brings it up, with what may change while it lives: MTU, and the routes' preferred sources.
    ConfigureInterface {
        endpoint: Arc<Endpoint>,
        sources: Sources,
    },
    RemoveInterface(String),
    /// Puts the gates of both directions in place, or replaces their programs where they are.
    AttachGate(Gate),
    DetachGate(String),

    /// Puts programs at the host's own sockets, or in the place of those that are there.
    AttachSockets,
    DetachSockets,

    LoadVariant(Variant),
    DropVariant(Variant),
    /// Puts new, empty tables under these numbers, that no side refers to. Waits for a grace period.
    MakeSpares(TableKind, Vec<u32>),
    /// Fills an empty table, for good.
    FillPolicy(u32, Arc<PolicyTable>),
    FillPrefixes(u32, Arc<PrefixTable>),

    SetEndpoint(Slot, Option<Row>),
    /// Slots by side; nobody's on both sides: the entry goes.
    SetAddress(AddressKey, [Slot; 2]),
    /// What it leads to by side; nowhere on both sides: the entry goes.
    SetPublished(PublishedKey, [Option<PublishedPort>; 2]),
    SetUplink(u32, Option<UplinkRow>),
    /// Index as in `PORIN_PROGRAM_INDEX`.
    SetProgram(u32, Option<Variant>),
    /// Indices as in `PORIN_POLICY_INDEX`, with the numbers of tables; 0: none.
    SetPolicies(Vec<(u32, u32)>),
    SetPrefixes(Side, u32),
    /// Which class each source port is of.
    SetSources(Side, Arc<SourceTable>),
}

/// A program specialised for a set of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Variant {
    pub program: Program,
    pub features: Features,
}

/// Whose gates, on which interface.
#[derive(Debug, Clone)]
pub struct Gate {
    pub owner: GateOwner,
    /// Drop events per second and CPU; 0: none.
    pub event_rate: u32,
}

#[derive(Debug, Clone)]
pub enum GateOwner {
    Endpoint(Arc<Endpoint>),
    Adopted(AdoptedGate),
    Uplink(Uplink),
}

/// All that a gate on another's interface knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptedGate {
    pub slot: Slot,
    pub interface: String,
    pub ifindex: u32,
    pub ipv6: Option<Ipv6Addr>,
    pub ipv4: Option<Ipv4Addr>,
    /// Lets all pass until a generation that knows the endpoint is in force: porin has had nothing there.
    pub open: bool,
}

impl AdoptedGate {
    pub fn of(endpoint: &Endpoint, adopted: Adopted, open: bool) -> Self {
        AdoptedGate {
            slot: endpoint.slot,
            interface: endpoint.host_interface.clone(),
            ifindex: adopted.ifindex,
            ipv6: endpoint.ipv6,
            ipv4: endpoint.ipv4,
            open,
        }
    }

    /// That of the endpoint in force.
    fn in_force(before: &Mirror, interface: &str) -> Option<Self> {
        let (slot, row) = before.adopted(interface)?;
        Some(AdoptedGate {
            slot,
            interface: row.interface.clone(),
            ifindex: row.adopted?.ifindex,
            ipv6: row.ipv6,
            ipv4: row.ipv4,
            open: false,
        })
    }
}

impl Gate {
    pub fn interface(&self) -> &str {
        match &self.owner {
            GateOwner::Endpoint(endpoint) => &endpoint.host_interface,
            GateOwner::Adopted(gate) => &gate.interface,
            GateOwner::Uplink(uplink) => &uplink.interface,
        }
    }

    pub fn slot(&self) -> Slot {
        match &self.owner {
            GateOwner::Endpoint(endpoint) => endpoint.slot,
            GateOwner::Adopted(gate) => gate.slot,
            GateOwner::Uplink(uplink) => uplink.slot,
        }
    }
}

/// The host's own addresses that it reaches endpoints from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sources {
    pub ipv6: Option<Ipv6Addr>,
    pub ipv4: Option<Ipv4Addr>,
}

impl Sources {
    /// The first of each family.
    pub fn of(addresses: &[IpAddr]) -> Self {
        let mut sources = Sources::default();
        for address in addresses {
            match address {
                IpAddr::V6(a) => sources.ipv6 = sources.ipv6.or(Some(*a)),
                IpAddr::V4(a) => sources.ipv4 = sources.ipv4.or(Some(*a)),
            }
        }
        sources
    }

    /// The one to reach `address` from.
    pub fn of_family(&self, address: IpAddr) -> Option<IpAddr> {
        match address {
            IpAddr::V4(_) => self.ipv4.map(IpAddr::V4),
            IpAddr::V6(_) => self.ipv6.map(IpAddr::V6),
        }
    }
}

impl Op {
    /// What restores `before` after this op has run on it, in order.
    ///
    /// Which program of an earlier daemon's a side had is not known, so it can't be put back; its undo
    /// empties the place instead. Only the inactive side is ever written, so nobody sees it.
    pub fn undo(&self, before: &Mirror) -> Vec<Op> {
        match self {
            Op::AddHostAddress(address) => {
                let there = before.host_addresses.contains(address);
                only((!there).then_some(Op::RemoveHostAddress(*address)))
            }
            Op::RemoveHostAddress(address) => vec![Op::AddHostAddress(*address)],
            Op::CreateInterface(endpoint) => {
                vec![Op::RemoveInterface(endpoint.host_interface.clone())]
            }
            Op::ConfigureInterface { endpoint, .. } => {
                only(configured(before, &endpoint.host_interface))
            }
            Op::RemoveInterface(name) => made_again(before, name),
            // An endpoint's gate does no harm; its interface must never be up without it.
            Op::AttachGate(Gate { owner: GateOwner::Endpoint(_), .. }) => Vec::new(),
            Op::AttachGate(gate) => match before.gates.get(gate.interface()) {
                None => vec![Op::DetachGate(gate.interface().to_owned())],
                // An endpoint in force that is behind the same interface would stay shut by another's gate.
                Some(there) => only(
                    AdoptedGate::in_force(before, gate.interface())
                        .filter(|old| old.slot != gate.slot())
                        .map(|old| {
                            Op::AttachGate(Gate {
                                owner: GateOwner::Adopted(old),
                                event_rate: there.event_rate.unwrap_or(0),
                            })
                        }),
                ),
            },
            // As good as the old ones.
            Op::AttachSockets => {
                only((before.sockets == SocketPrograms::Absent).then_some(Op::DetachSockets))
            }
            Op::LoadVariant(variant) => {
                only((!before.variants.contains(variant)).then_some(Op::DropVariant(*variant)))
            }
            // Nothing to restore, or only ever done to what nobody uses; the mirror says what is there.
            Op::Grace
            | Op::DetachGate(_)
            | Op::DetachSockets
            | Op::DropVariant(_)
            | Op::MakeSpares(..)
            | Op::FillPolicy(..)
            | Op::FillPrefixes(..)
            | Op::SetSources(..) => Vec::new(),
            Op::SetEndpoint(slot, _) => {
                vec![Op::SetEndpoint(*slot, before.endpoints.get(slot).cloned())]
            }
            Op::SetAddress(key, _) => {
                let slots = before.addresses.get(key).copied().unwrap_or([Slot(0); 2]);
                vec![Op::SetAddress(*key, slots)]
            }
            Op::SetPublished(key, _) => {
                let sides = before.published.get(key).copied().unwrap_or_default();
                vec![Op::SetPublished(*key, sides)]
            }
            Op::SetUplink(ifindex, _) => {
                vec![Op::SetUplink(*ifindex, before.uplinks.get(ifindex).cloned())]
            }
            Op::SetProgram(index, _) => {
                let held = before.programs.get(index).and_then(|held| held.known().copied());
                vec![Op::SetProgram(*index, held)]
            }
            Op::SetPolicies(batch) => {
                let old = |index: &u32| before.policies.get(index).copied().unwrap_or(0);
                let batch = batch.iter().map(|(index, _)| (*index, old(index))).collect();
                vec![Op::SetPolicies(batch)]
            }
            Op::SetPrefixes(side, _) => {
                vec![Op::SetPrefixes(*side, before.prefixes[side.index()])]
            }
        }
    }

    /// The endpoint that a failure of this op is the fault of.
    pub fn endpoint(&self) -> Option<Slot> {
        match self {
            Op::CreateInterface(endpoint) | Op::ConfigureInterface { endpoint, .. } => {
                Some(endpoint.slot)
            }
            Op::AttachGate(Gate { owner: GateOwner::Endpoint(endpoint), .. }) => {
                Some(endpoint.slot)
            }
            Op::AttachGate(Gate { owner: GateOwner::Adopted(gate), .. }) => Some(gate.slot),
            _ => None,
        }
    }
}

fn only(op: Option<Op>) -> Vec<Op> {
    op.into_iter().collect()
}

/// Configures an interface as this daemon did last, if it did.
fn configured(before: &Mirror, name: &str) -> Option<Op> {
    let interface = before.interfaces.get(name)?;
    let endpoint = interface.endpoint.clone()?;
    Some(Op::ConfigureInterface { endpoint, sources: interface.sources? })
}

/// Makes an interface again as it was, if that is known: its gate before it goes up, and then
/// its new ifindex in the slots that it had.
fn made_again(before: &Mirror, name: &str) -> Vec<Op> {
    let Some(endpoint) = before.interfaces.get(name).and_then(|i| i.endpoint.clone()) else {
        return Vec::new();
    };
    let event_rate = before.gates.get(name).and_then(|gate| gate.event_rate).unwrap_or(0);
    let gate = Gate { owner: GateOwner::Endpoint(endpoint.clone()), event_rate };
    let mut ops = vec![Op::CreateInterface(endpoint), Op::AttachGate(gate)];
    ops.extend(configured(before, name));
    let rows = before.endpoints.iter().filter(|(_, row)| row.interface == name);
    ops.extend(rows.map(|(slot, row)| Op::SetEndpoint(*slot, Some(row.clone()))));
    ops
}

/// What is being done, for error messages: "cannot ...".
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Grace => f.write_str("wait for an RCU grace period"),
            Op::AddHostAddress(address) => write!(f, "add host address {address} to lo"),
            Op::RemoveHostAddress(address) => write!(f, "remove host address {address} from lo"),
            Op::CreateInterface(endpoint) => {
                write!(f, "create interface {} of endpoint", endpoint.host_interface)?;
                write!(f, " {}", endpoint.name)?;
                match endpoint.made().and_then(|made| made.namespace.as_ref()) {
                    Some(namespace) => write!(f, " in {}", namespace.path.display()),
                    None => Ok(()),
                }
            }
            Op::ConfigureInterface { endpoint, .. } => {
                write!(f, "configure interface {}", endpoint.host_interface)?;
                write!(f, " of endpoint {}", endpoint.name)
            }
            Op::RemoveInterface(name) => write!(f, "remove interface {name}"),
            Op::AttachGate(gate) => write!(f, "attach the gates of {}", gate.interface()),
            Op::DetachGate(name) => write!(f, "detach the gates of {name}"),
            Op::AttachSockets => f.write_str(
                "attach programs to the host's own sockets, for published ports (`porind --cgroup none` does without)",
            ),
            Op::DetachSockets => f.write_str("detach the programs at the host's own sockets"),
            Op::LoadVariant(variant) => write!(f, "load variant {:?}", variant.program),
            Op::DropVariant(variant) => write!(f, "drop variant {:?}", variant.program),
            Op::MakeSpares(kind, numbers) => {
                write!(f, "make {} new tables of kind {kind:?}", numbers.len())
            }
            Op::FillPolicy(_, table) => {
                write!(f, "fill a policy table with {} entries", table.entries.len())
            }
            Op::FillPrefixes(_, table) => {
                write!(f, "fill a prefix table with {} entries", table.entries.len())
            }
            Op::SetEndpoint(slot, _) => write!(f, "write endpoint slot {slot}"),
            Op::SetAddress(key, _) => write!(f, "write address {key}"),
            Op::SetPublished(key, _) => {
                write!(f, "write published port {}/{} of {}", key.port, key.protocol, key.address)
            }
            Op::SetUplink(ifindex, _) => write!(f, "write uplink with ifindex {ifindex}"),
            Op::SetProgram(index, _) => write!(f, "write program index {index}"),
            Op::SetPolicies(batch) => write!(f, "write {} policies", batch.len()),
            Op::SetPrefixes(side, _) => write!(f, "write the prefixes of side {}", side.index()),
            Op::SetSources(side, _) => {
                write!(f, "write the classes of source ports of side {}", side.index())
            }
        }
    }
}
