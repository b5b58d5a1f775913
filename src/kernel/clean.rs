//! Mirror and Plan -> Ops: what is to be done after the commit: away with what no generation in force needs
//! any more, and new spares. Pure.
//!
//! It is computed anew from the mirror each time, so whatever failed once is tried again by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::datapath::TableKind;
use super::diff::{endpoint_gate, uplink_gate};
use super::mirror::{Held, Mirror, SocketPrograms};
use super::ops::Op;
use crate::compile::plan::{Plan, PlannedEndpoint, PlannedUplink};

/// What remains to be done once `plan` is in force. Without one, nothing is known to be superfluous but
/// what no side refers to.
pub fn clean(mirror: &Mirror, plan: Option<&Plan>) -> Vec<Op> {
    let mut ops = Vec::new();
    if !mirror.settled {
        ops.push(Op::Grace);
    }
    if let Some(plan) = plan {
        surplus(mirror, plan, &mut ops);
    }
    let used: BTreeSet<_> = mirror.programs.values().filter_map(Held::known).collect();
    let unused = mirror.variants.iter().filter(|variant| !used.contains(variant));
    ops.extend(unused.map(|variant| Op::DropVariant(*variant)));
    for (kind, tables) in
        [(TableKind::Policy, &mirror.policy_tables), (TableKind::Prefix, &mirror.prefix_tables)]
    {
        let places = tables.replenish(kind, &mirror.used(kind));
        if !places.is_empty() {
            ops.push(Op::MakeSpares(kind, places));
        }
    }
    ops
}

/// Interfaces, gates, programs at sockets, uplinks and addresses that `plan` has no need of, or wants otherwise.
fn surplus(mirror: &Mirror, plan: &Plan, ops: &mut Vec<Op>) {
    let wanted: BTreeMap<&str, &PlannedEndpoint> = plan
        .endpoints
        .values()
        .map(|planned| (planned.endpoint.host_interface.as_str(), planned))
        .collect();
    let uplinks: BTreeMap<&str, &PlannedUplink> =
        plan.uplinks.values().map(|u| (u.uplink.interface.as_str(), u)).collect();
    for (name, state) in &mirror.gates {
        let endpoint = wanted.get(name.as_str()).map(|planned| endpoint_gate(mirror, planned));
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
    let there = matches!(mirror.sockets, SocketPrograms::Old | SocketPrograms::Attached);
    if there && plan.published.is_empty() {
        ops.push(Op::DetachSockets);
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
}
