//! Mirror and Plan -> Ops: what is to be done before the commit, and what after it. Pure.
//!
//! Before: everything new, and the inactive side. After: what no generation in force needs any
//! more. The part after is computed anew from the mirror each time, so whatever failed once is
//! tried again by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::datapath::Program;
use super::mirror::{Held, Mirror, Row, UplinkRow};
use super::ops::{Gate, GateOwner, Op, Sources, Variant};
use crate::compile::plan::{Digest, Features, Plan, PlannedEndpoint, PlannedUplink};
use crate::desired::snapshot::Endpoint;
use crate::types::{Side, Slot};

const INGRESS: u32 = 0;
const EGRESS: u32 = 1;

/// A slot that the generation in force uses for someone else. Allocation forbids it; writing it
/// would give one number two meanings.
#[derive(Debug, thiserror::Error)]
#[error("slot {0} still belongs to another endpoint in the generation in force")]
pub struct SlotInUse(pub Slot);

/// What must be done before `plan` can be committed.
pub fn prepare(mirror: &Mirror, plan: &Plan) -> Result<Vec<Op>, SlotInUse> {
    let mut ops = Vec::new();
    for address in &plan.host_sources {
        if !mirror.host_addresses.contains(address) {
            ops.push(Op::AddHostAddress(*address));
        }
    }
    interfaces(mirror, plan, &mut ops);
    objects(mirror, plan, &mut ops);
    if !mirror.settled {
        ops.push(Op::Grace);
    }
    endpoints(mirror, plan, &mut ops)?;
    addresses(mirror, plan, &mut ops);
    uplinks(mirror, plan, &mut ops);
    programs(mirror, plan, &mut ops);
    policies(mirror, plan, &mut ops);
    let side = mirror.inactive();
    if mirror.prefixes[side.index()] != Some(Held::Known(plan.prefixes.digest)) {
        ops.push(Op::SetPrefixes(side, Some(plan.prefixes.digest)));
    }
    // Last: an uplink's gate meets complete tables.
    for uplink in plan.uplinks.values() {
        let gate = uplink_gate(uplink);
        if !mirror.has_gate(&gate) {
            ops.push(Op::AttachGate(gate));
        }
    }
    Ok(ops)
}

/// What remains to be done once `plan` is in force.
pub fn clean(mirror: &Mirror, plan: &Plan) -> Vec<Op> {
    let mut ops = Vec::new();
    if !mirror.settled {
        ops.push(Op::Grace);
    }
    let wanted: BTreeMap<&str, &PlannedEndpoint> = plan
        .endpoints
        .values()
        .map(|planned| (planned.endpoint.host_interface.as_str(), planned))
        .collect();
    let uplinks: BTreeMap<&str, &PlannedUplink> =
        plan.uplinks.values().map(|u| (u.uplink.interface.as_str(), u)).collect();
    for (name, state) in &mirror.gates {
        let endpoint = wanted.get(name.as_str()).map(|planned| endpoint_gate(planned));
        let gate = endpoint.or_else(|| uplinks.get(name.as_str()).map(|u| uplink_gate(u)));
        match gate {
            // It goes with its interface: that must not be up without it.
            None if mirror.interfaces.contains_key(name) => {}
            None => ops.push(Op::DetachGate(name.clone())),
            Some(gate) if state.event_rate != Some(gate.event_rate) => {
                ops.push(Op::AttachGate(gate));
            }
            Some(_) => {}
        }
    }
    for name in mirror.interfaces.keys().filter(|name| !wanted.contains_key(name.as_str())) {
        ops.push(Op::RemoveInterface(name.clone()));
    }
    let ifindexes: BTreeSet<u32> = plan.uplinks.values().map(|u| u.uplink.ifindex).collect();
    for ifindex in mirror.uplinks.keys().filter(|ifindex| !ifindexes.contains(ifindex)) {
        ops.push(Op::SetUplink(*ifindex, None));
    }
    let sources: BTreeSet<&IpAddr> = plan.host_sources.iter().collect();
    for address in mirror.host_addresses.iter().filter(|address| !sources.contains(address)) {
        ops.push(Op::RemoveHostAddress(*address));
    }
    ops.extend(unused(mirror));
    ops
}

fn endpoint_gate(planned: &PlannedEndpoint) -> Gate {
    let owner = GateOwner::Endpoint(planned.endpoint.clone());
    Gate { owner, event_rate: event_rate(&planned.features) }
}

fn uplink_gate(planned: &PlannedUplink) -> Gate {
    let owner = GateOwner::Uplink(planned.uplink.clone());
    Gate { owner, event_rate: event_rate(&planned.features) }
}

fn event_rate(features: &Features) -> u32 {
    if features.events { features.event_rate } else { 0 }
}

/// Handles of objects that no side refers to.
fn unused(mirror: &Mirror) -> Vec<Op> {
    let variants: BTreeSet<_> = mirror.programs.values().filter_map(Held::known).collect();
    let policies: BTreeSet<_> = mirror.policies.values().filter_map(Held::known).collect();
    let prefixes: BTreeSet<_> =
        mirror.prefixes.iter().flatten().filter_map(|held| held.known()).collect();
    let variants =
        mirror.variants.iter().filter(|v| !variants.contains(v)).map(|v| Op::DropVariant(*v));
    let policies =
        mirror.policy_tables.iter().filter(|d| !policies.contains(d)).map(|d| Op::DropPolicy(*d));
    let prefixes =
        mirror.prefix_tables.iter().filter(|d| !prefixes.contains(d)).map(|d| Op::DropPrefixes(*d));
    variants.chain(policies).chain(prefixes).collect()
}

/// Interfaces and gates of endpoints.
fn interfaces(mirror: &Mirror, plan: &Plan, ops: &mut Vec<Op>) {
    let sources = Sources::of(&plan.host_sources);
    let new: Vec<&PlannedEndpoint> =
        plan.endpoints.values().filter(|p| !mirror.has_interface(&p.endpoint)).collect();
    let names: BTreeSet<&str> = new.iter().map(|p| p.endpoint.host_interface.as_str()).collect();
    let places: BTreeSet<_> = new.iter().map(|planned| place(&planned.endpoint)).collect();

    // An endpoint's next incarnation needs the name, and perhaps the place, that the last one has.
    for (name, interface) in &mirror.interfaces {
        let old = interface.endpoint.as_ref();
        let stays = old.is_some_and(|old| {
            plan.endpoints.get(&old.slot).is_some_and(|p| mirror.has_interface(&p.endpoint))
        });
        let in_the_way = names.contains(name.as_str())
            || old.is_some_and(|old| places.contains(&place(old)) && !stays);
        if !in_the_way {
            continue;
        }
        ops.push(Op::RemoveInterface(name.clone()));
    }
    for planned in &new {
        let endpoint = planned.endpoint.clone();
        ops.push(Op::CreateInterface(endpoint.clone()));
        ops.push(Op::AttachGate(endpoint_gate(planned)));
        ops.push(Op::ConfigureInterface { endpoint, sources });
    }
    for planned in plan.endpoints.values() {
        let endpoint = &planned.endpoint;
        let Some(interface) = mirror.interfaces.get(&endpoint.host_interface) else { continue };
        if names.contains(endpoint.host_interface.as_str()) {
            continue;
        }
        let gate = endpoint_gate(planned);
        if !mirror.has_gate(&gate) {
            ops.push(Op::AttachGate(gate));
        }
        let mtu = interface.endpoint.as_ref().map(|old| old.mtu);
        if mtu != Some(endpoint.mtu) || interface.sources != Some(sources) {
            ops.push(Op::ConfigureInterface { endpoint: endpoint.clone(), sources });
        }
    }
}

/// An interface name in a namespace: only one interface can be there.
fn place(endpoint: &Endpoint) -> (u64, u64, &str) {
    (endpoint.namespace.device, endpoint.namespace.inode, &endpoint.interface)
}

/// Variants and tables that there is no handle of yet.
fn objects(mirror: &Mirror, plan: &Plan, ops: &mut Vec<Op>) {
    let variants: BTreeSet<Variant> =
        wanted_programs(plan, mirror.inactive()).into_values().collect();
    let new = variants.difference(&mirror.variants);
    ops.extend(new.map(|variant| Op::LoadVariant(*variant)));

    let mut seen: BTreeSet<Digest> = BTreeSet::new();
    for table in plan.policies.values() {
        if !mirror.policy_tables.contains(&table.digest) && seen.insert(table.digest) {
            ops.push(Op::MakePolicy(table.clone()));
        }
    }
    if !mirror.prefix_tables.contains(&plan.prefixes.digest) {
        ops.push(Op::MakePrefixes(plan.prefixes.clone()));
    }
}

fn endpoints(mirror: &Mirror, plan: &Plan, ops: &mut Vec<Op>) -> Result<(), SlotInUse> {
    let side = mirror.inactive();
    for (slot, planned) in &plan.endpoints {
        let endpoint = &planned.endpoint;
        let old = mirror.endpoints.get(slot);
        let mut sides = [None; 2];
        if let Some(old) = old {
            if old.incarnation == endpoint.incarnation {
                sides = old.sides;
            } else if old.sides[side.other().index()].is_some() {
                return Err(SlotInUse(*slot));
            }
        }
        sides[side.index()] = Some((endpoint.identity, planned.policy));
        let row = Row {
            ipv6: endpoint.ipv6,
            ipv4: endpoint.ipv4,
            mac: endpoint.mac,
            interface: endpoint.host_interface.clone(),
            incarnation: endpoint.incarnation,
            sides,
        };
        let anew = !mirror.has_interface(endpoint);
        if anew || old != Some(&row) {
            ops.push(Op::SetEndpoint(*slot, Some(row)));
        }
    }
    for (slot, row) in mirror.endpoints.iter().filter(|(s, _)| !plan.endpoints.contains_key(s)) {
        let mut row = row.clone();
        row.sides[side.index()] = None;
        let empty = row.sides == [None; 2];
        if empty || mirror.endpoints.get(slot) != Some(&row) {
            ops.push(Op::SetEndpoint(*slot, (!empty).then_some(row)));
        }
    }
    Ok(())
}

fn addresses(mirror: &Mirror, plan: &Plan, ops: &mut Vec<Op>) {
    let side = mirror.inactive().index();
    let keys: BTreeSet<_> = mirror.addresses.keys().chain(plan.addresses.keys()).collect();
    for key in keys {
        let old = mirror.addresses.get(key).copied().unwrap_or([Slot(0); 2]);
        let mut slots = old;
        slots[side] = plan.addresses.get(key).copied().unwrap_or(Slot(0));
        if slots != old {
            ops.push(Op::SetAddress(*key, slots));
        }
    }
}

/// New and changed ones. What an uplink is, is a fact and no policy: it has no sides.
fn uplinks(mirror: &Mirror, plan: &Plan, ops: &mut Vec<Op>) {
    for planned in plan.uplinks.values() {
        let uplink = &planned.uplink;
        let row = UplinkRow {
            interface: uplink.interface.clone(),
            mac: uplink.mac,
            slot: uplink.slot,
            masquerade4: uplink.address4.filter(|_| planned.features.masquerade),
        };
        if mirror.uplinks.get(&uplink.ifindex) != Some(&row) {
            ops.push(Op::SetUplink(uplink.ifindex, Some(row)));
        }
    }
}

fn programs(mirror: &Mirror, plan: &Plan, ops: &mut Vec<Op>) {
    let side = mirror.inactive();
    let wanted = wanted_programs(plan, side);
    for (index, variant) in &wanted {
        if mirror.programs.get(index) != Some(&Held::Known(*variant)) {
            ops.push(Op::SetProgram(*index, Some(*variant)));
        }
    }
    for index in mirror.programs.keys() {
        if on_side(*index, side) && !wanted.contains_key(index) {
            ops.push(Op::SetProgram(*index, None));
        }
    }
}

fn policies(mirror: &Mirror, plan: &Plan, ops: &mut Vec<Op>) {
    let side = mirror.inactive();
    let index = |slot: u32| slot * 2 + side.index() as u32;
    let wanted: BTreeMap<u32, Digest> =
        plan.policies.iter().map(|(slot, table)| (index(slot.0), table.digest)).collect();
    let mut batch: Vec<(u32, Option<Digest>)> = wanted
        .iter()
        .filter(|(index, digest)| mirror.policies.get(index) != Some(&Held::Known(**digest)))
        .map(|(index, digest)| (*index, Some(*digest)))
        .collect();
    let gone = mirror.policies.keys().filter(|i| on_side(**i, side) && !wanted.contains_key(i));
    batch.extend(gone.map(|index| (*index, None)));
    if !batch.is_empty() {
        ops.push(Op::SetPolicies(batch));
    }
}

/// The low bit of every index of a two-sided array is its side.
fn on_side(index: u32, side: Side) -> bool {
    index & 1 == side.index() as u32
}

/// Which program is to be where on a side.
pub fn wanted_programs(plan: &Plan, side: Side) -> BTreeMap<u32, Variant> {
    let index = |slot: Slot, hook: u32| slot.0 * 4 + hook * 2 + side.index() as u32;
    let mut wanted = BTreeMap::new();
    for (slot, planned) in &plan.endpoints {
        let variant = |program| Variant { program, features: planned.features };
        wanted.insert(index(*slot, INGRESS), variant(Program::FromEndpoint));
        wanted.insert(index(*slot, EGRESS), variant(Program::ToEndpoint));
    }
    for (slot, planned) in &plan.uplinks {
        let variant = |program| Variant { program, features: planned.features };
        wanted.insert(index(*slot, INGRESS), variant(Program::FromUplink));
        wanted.insert(index(*slot, EGRESS), variant(Program::ToUplink));
    }
    wanted
}
