//! Mirror and Plan -> Ops: what is to be done before the commit: everything new, and the inactive side. Pure.
//!
//! What is to be done after it is [`super::clean`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::datapath::{Program, TableKind};
use super::mirror::{EndpointSide, Held, Mirror, Row, SocketPrograms, UplinkRow};
use super::numbers::Exhausted;
use super::ops::{AdoptedGate, Gate, GateOwner, Op, Sources, Variant};
use crate::compile::plan::{Digest, Features, Plan, PlannedEndpoint, PlannedUplink, PolicyTable};
use crate::desired::snapshot::{Adopted, Made};
use crate::types::{Side, Slot};

const INGRESS: u32 = 0;
const EGRESS: u32 = 1;

/// A slot that the generation in force uses for someone else. Allocation forbids it; writing it
/// would give one number two meanings.
#[derive(Debug, thiserror::Error)]
#[error("slot {0} still belongs to another endpoint in the generation in force")]
pub struct SlotInUse(pub Slot);

/// Why a plan can't be put into the kernel at all.
#[derive(Debug, thiserror::Error)]
pub enum Impossible {
    #[error(transparent)]
    Slot(#[from] SlotInUse),
    #[error(transparent)]
    Tables(#[from] Exhausted),
}

/// What must be done before `plan` can be committed.
pub fn prepare(mirror: &Mirror, plan: &Plan) -> Result<Vec<Op>, Impossible> {
    let mut ops = Vec::new();
    // First all that nothing outside of the datapath can notice: it may fail, and an interface that has to
    // give way and is made again in the undo is another one for the flows that were there.
    variants(mirror, plan, &mut ops);
    let policy_tables = policy_tables(mirror, plan, &mut ops)?;
    let prefix_table = prefix_table(mirror, plan, &mut ops)?;
    let attachable = matches!(mirror.sockets, SocketPrograms::Absent | SocketPrograms::Old);
    if attachable && !plan.published.is_empty() {
        // They look at the side in force, so what comes with this generation is not seen before its time.
        ops.push(Op::AttachSockets);
    }
    if !mirror.settled {
        ops.push(Op::Grace);
    }
    addresses(mirror, plan, &mut ops);
    published(mirror, plan, &mut ops);
    programs(mirror, plan, &mut ops);
    policies(mirror, plan, &policy_tables, &mut ops);
    let side = mirror.inactive();
    if mirror.prefixes[side.index()] != prefix_table {
        ops.push(Op::SetPrefixes(side, prefix_table));
    }
    if mirror.sources[side.index()] != Some(plan.sources.digest) {
        ops.push(Op::SetSources(side, plan.sources.clone()));
    }
    for address in &plan.host_sources {
        if !mirror.host_addresses.contains(address) {
            ops.push(Op::AddHostAddress(*address));
        }
    }
    interfaces(mirror, plan, &mut ops);
    endpoints(mirror, plan, &mut ops)?;
    uplinks(mirror, plan, &mut ops);
    // Last, for what runs already is to be interrupted as little as can be.
    for (planned, _) in adopted(plan) {
        let gate = endpoint_gate(mirror, planned);
        if !mirror.has_gate(&gate) {
            ops.push(Op::AttachGate(gate));
        }
    }
    // An uplink's gate meets complete tables.
    for uplink in plan.uplinks.values() {
        let gate = uplink_gate(uplink);
        if !mirror.has_gate(&gate) {
            ops.push(Op::AttachGate(gate));
        }
    }
    Ok(ops)
}

/// The gates of endpoints that `prepare` is going to attach, in its order.
pub fn new_endpoint_gates(mirror: &Mirror, plan: &Plan) -> Vec<Gate> {
    let (old, new): (Vec<_>, Vec<_>) =
        made(plan).map(|(planned, _)| planned).partition(|p| mirror.has_interface(&p.endpoint));
    let gate = |planned| endpoint_gate(mirror, planned);
    let old = old.into_iter().map(gate).filter(|gate| !mirror.has_gate(gate));
    new.into_iter().map(gate).chain(old).collect()
}

fn made(plan: &Plan) -> impl Iterator<Item = (&PlannedEndpoint, &Made)> {
    plan.endpoints.values().filter_map(|planned| Some((planned, planned.endpoint.made()?)))
}

fn adopted(plan: &Plan) -> impl Iterator<Item = (&PlannedEndpoint, Adopted)> {
    plan.endpoints.values().filter_map(|planned| Some((planned, planned.endpoint.adopted()?)))
}

pub(super) fn endpoint_gate(mirror: &Mirror, planned: &PlannedEndpoint) -> Gate {
    let endpoint = &planned.endpoint;
    let owner = match endpoint.adopted() {
        Some(adopted) => {
            let open = !mirror.gates.contains_key(&endpoint.host_interface);
            GateOwner::Adopted(AdoptedGate::of(endpoint, adopted, open))
        }
        None => GateOwner::Endpoint(endpoint.clone()),
    };
    Gate { owner, event_rate: event_rate(&planned.features) }
}

pub(super) fn uplink_gate(planned: &PlannedUplink) -> Gate {
    let owner = GateOwner::Uplink(planned.uplink.clone());
    Gate { owner, event_rate: event_rate(&planned.features) }
}

fn event_rate(features: &Features) -> u32 {
    if features.events { features.event_rate } else { 0 }
}

/// Interfaces and gates of endpoints.
fn interfaces(mirror: &Mirror, plan: &Plan, ops: &mut Vec<Op>) {
    let sources = Sources::of(&plan.host_sources);
    let new: Vec<(&PlannedEndpoint, &Made)> =
        made(plan).filter(|(p, _)| !mirror.has_interface(&p.endpoint)).collect();
    let names: BTreeSet<&str> =
        new.iter().map(|(p, _)| p.endpoint.host_interface.as_str()).collect();
    let places: BTreeSet<_> = new.iter().map(|(_, made)| place(made)).collect();

    // An endpoint's next incarnation needs the name, and perhaps the place, that the last one has.
    for (name, interface) in &mirror.interfaces {
        let old = interface.endpoint.as_ref();
        let stays = old.is_some_and(|old| {
            plan.endpoints.get(&old.slot).is_some_and(|p| mirror.has_interface(&p.endpoint))
        });
        let in_the_way = names.contains(name.as_str())
            || old.and_then(|old| old.made()).is_some_and(|old| places.contains(&place(old)))
                && !stays;
        if !in_the_way {
            continue;
        }
        ops.push(Op::RemoveInterface(name.clone()));
    }
    for (planned, _) in &new {
        let endpoint = planned.endpoint.clone();
        ops.push(Op::CreateInterface(endpoint.clone()));
        ops.push(Op::AttachGate(endpoint_gate(mirror, planned)));
        ops.push(Op::ConfigureInterface { endpoint, sources });
    }
    for (planned, made) in made(plan) {
        let endpoint = &planned.endpoint;
        let Some(interface) = mirror.interfaces.get(&endpoint.host_interface) else { continue };
        if names.contains(endpoint.host_interface.as_str()) {
            continue;
        }
        let gate = endpoint_gate(mirror, planned);
        if !mirror.has_gate(&gate) {
            ops.push(Op::AttachGate(gate));
        }
        let mtu = interface.endpoint.as_ref().and_then(|old| Some(old.made()?.mtu));
        if mtu != Some(made.mtu) || interface.sources != Some(sources) {
            ops.push(Op::ConfigureInterface { endpoint: endpoint.clone(), sources });
        }
    }
}

/// An interface name in a namespace: only one interface can be there.
fn place(made: &Made) -> (u64, u64, &str) {
    let namespace = made.namespace.as_ref().map_or((0, 0), |one| (one.device, one.inode));
    (namespace.0, namespace.1, &made.interface)
}

/// Variants that there is no handle of yet.
fn variants(mirror: &Mirror, plan: &Plan, ops: &mut Vec<Op>) {
    let variants: BTreeSet<Variant> =
        wanted_programs(plan, mirror.inactive()).into_values().collect();
    let new = variants.difference(&mirror.variants);
    ops.extend(new.map(|variant| Op::LoadVariant(*variant)));
}

/// Fills spares with the policy tables that are not there yet. Which number has which table, then.
fn policy_tables(
    mirror: &Mirror,
    plan: &Plan,
    ops: &mut Vec<Op>,
) -> Result<BTreeMap<Digest, u32>, Exhausted> {
    let mut numbers = BTreeMap::new();
    let mut new: BTreeMap<Digest, &Arc<PolicyTable>> = BTreeMap::new();
    for table in plan.policies.values() {
        match mirror.policy_tables.holding(&table.digest) {
            Some(number) => _ = numbers.insert(table.digest, number),
            None => _ = new.insert(table.digest, table),
        }
    }
    if new.is_empty() {
        return Ok(numbers);
    }
    let mut used = mirror.used(TableKind::Policy);
    used.extend(numbers.values());
    let (taken, anew) = mirror.policy_tables.take(TableKind::Policy, new.len(), &used)?;
    if !anew.is_empty() {
        ops.push(Op::MakeSpares(TableKind::Policy, anew));
    }
    for ((digest, table), number) in new.into_iter().zip(taken) {
        ops.push(Op::FillPolicy(number, table.clone()));
        numbers.insert(digest, number);
    }
    Ok(numbers)
}

/// Likewise the prefix table's number.
fn prefix_table(mirror: &Mirror, plan: &Plan, ops: &mut Vec<Op>) -> Result<u32, Exhausted> {
    if let Some(number) = mirror.prefix_tables.holding(&plan.prefixes.digest) {
        return Ok(number);
    }
    let used = mirror.used(TableKind::Prefix);
    let (taken, anew) = mirror.prefix_tables.take(TableKind::Prefix, 1, &used)?;
    if !anew.is_empty() {
        ops.push(Op::MakeSpares(TableKind::Prefix, anew));
    }
    ops.extend(taken.iter().map(|number| Op::FillPrefixes(*number, plan.prefixes.clone())));
    Ok(taken.first().copied().unwrap_or(0)) // one was asked for, and is there
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
        sides[side.index()] = Some(EndpointSide {
            identity: endpoint.identity,
            policy: planned.policy,
            shadow: planned.shadow,
            peers: planned.peers,
        });
        let row = Row {
            ipv6: endpoint.ipv6,
            ipv4: endpoint.ipv4,
            mac: endpoint.made().map(|made| made.mac).unwrap_or_default(),
            interface: endpoint.host_interface.clone(),
            adopted: endpoint.adopted(),
            incarnation: endpoint.incarnation,
            sides,
        };
        let anew = endpoint.made().is_some() && !mirror.has_interface(endpoint);
        if anew || old != Some(&row) {
            ops.push(Op::SetEndpoint(*slot, Some(row)));
        }
    }
    for (slot, row) in mirror.endpoints.iter().filter(|(s, _)| !plan.endpoints.contains_key(*s)) {
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

fn published(mirror: &Mirror, plan: &Plan, ops: &mut Vec<Op>) {
    let side = mirror.inactive().index();
    let keys: BTreeSet<_> = mirror.published.keys().chain(plan.published.keys()).collect();
    let mut more = Vec::new();
    for key in keys {
        let old = mirror.published.get(key).copied().unwrap_or_default();
        let mut sides = old;
        sides[side] = plan.published.get(key).copied();
        if sides != old {
            // The table has room for two sides and not for three: first goes what is on neither.
            let to = if sides == [None, None] { &mut *ops } else { &mut more };
            to.push(Op::SetPublished(*key, sides));
        }
    }
    ops.append(&mut more);
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

fn policies(mirror: &Mirror, plan: &Plan, numbers: &BTreeMap<Digest, u32>, ops: &mut Vec<Op>) {
    let side = mirror.inactive();
    let index = |slot: u32| slot * 2 + side.index() as u32;
    let number = |table: &PolicyTable| numbers.get(&table.digest).copied().unwrap_or(0);
    let wanted: BTreeMap<u32, u32> =
        plan.policies.iter().map(|(slot, table)| (index(slot.0), number(table))).collect();
    let mut batch: Vec<(u32, u32)> = wanted
        .iter()
        .filter(|(index, number)| mirror.policies.get(index) != Some(number))
        .map(|(index, number)| (*index, *number))
        .collect();
    let gone = mirror.policies.keys().filter(|i| on_side(**i, side) && !wanted.contains_key(i));
    batch.extend(gone.map(|index| (*index, 0)));
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
    // A gate without a program is shut.
    for (slot, planned) in plan.endpoints.iter().filter(|(_, p)| !p.endpoint.shut) {
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
