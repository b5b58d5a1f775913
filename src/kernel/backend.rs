//! Carries ops out on the real kernel.
//!
//! What an op means in system calls is here and nowhere else; order and undo are `transaction`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::thread::{MembarrierCommand, membarrier};

use super::ahead::Ahead;
use super::datapath::{self, LoadedProgram, Maps, TableKind};
use super::layout;
use super::links::{Links, Mechanisms, Place};
use super::mirror::Row;
use super::netlink::adopted::Adopted;
use super::netlink::{self, Netlink};
use super::ops::{Gate, GateOwner, Op, Variant};
use super::paths::Layout;
use super::sockets::{self, Sockets, Without};
use super::transaction::{Backend, Reason};
use crate::types::{Generation, Slot};

/// Handles of what porin holds in the kernel. All of it but these outlives the daemon.
pub struct Host {
    pub netlink: Netlink,
    pub maps: Arc<Maps>,
    pub links: Links,
    pub mechanisms: Mechanisms,
    pub layout: Layout,
    /// Or why there are no programs at the host's own sockets.
    pub sockets: Result<Sockets, Without>,
    /// Of this daemon's gate programs.
    pub gate_digest: String,
    /// The event rate of all gates, as the mark on bpffs has it.
    pub gate_mark: Option<u32>,
    pub coarse_clock: bool,
    /// Porin's interfaces, with ifindex and, where known, whose they are.
    pub interfaces: BTreeMap<String, (u32, Option<[u8; 16]>)>,
    /// ifindex of others' interfaces that have gates, by the names that these had when they got them.
    pub gated: BTreeMap<String, u32>,
    pub ahead: Ahead,
    /// How an earlier daemon's interfaces were found, for the first plan only.
    pub adopted: Adopted,
    /// Interfaces of the plan that is being applied: they never give way to another.
    pub planned: BTreeSet<String>,
    pub variants: BTreeMap<Variant, LoadedProgram>,
    /// Whose counters are those of a slot: the incarnation of an endpoint, or the name of an uplink.
    pub counted: BTreeMap<Slot, Vec<u8>>,
}

impl Backend for Host {
    fn run(&mut self, op: &Op) -> Result<(), Reason> {
        match op {
            Op::Grace => self.grace(),
            Op::AddHostAddress(address) => self.layout.add_address(&self.netlink, *address),
            Op::RemoveHostAddress(address) => self.layout.remove_address(&self.netlink, *address),
            Op::CreateInterface(endpoint) => {
                let planned = &self.planned;
                let keep = |name: &str| planned.contains(name);
                let ifindex =
                    netlink::endpoint::create(&self.netlink, endpoint, &keep).map_err(reason)?;
                let state = (ifindex, Some(endpoint.incarnation));
                self.interfaces.insert(endpoint.host_interface.clone(), state);
                Ok(())
            }
            Op::ConfigureInterface { endpoint, sources } => {
                let ifindex = self.ifindex(&endpoint.host_interface)?;
                if self.adopted.is_configured(endpoint, *sources, ifindex) {
                    return Ok(());
                }
                netlink::endpoint::configure(&self.netlink, endpoint, *sources, ifindex)
                    .map_err(reason)
            }
            Op::RemoveInterface(name) => {
                // Its links die with it, and not before; their names would stay.
                netlink::endpoint::remove(&self.netlink, name).map_err(reason)?;
                self.links.detach(&self.netlink, name).map_err(reason)?;
                self.interfaces.remove(name);
                Ok(())
            }
            Op::AttachGate(gate) => self.attach(gate),
            Op::DetachGate(name) => self.detach(name),
            Op::AttachSockets => {
                let sockets = self.sockets.as_ref().map_err(reason)?;
                sockets.attach(&self.maps, &self.layout.sockets()).map_err(reason)
            }
            Op::DetachSockets => sockets::detach(&self.layout.sockets()).map_err(reason),
            Op::LoadVariant(variant) => {
                let features = layout::features(&variant.features, self.coarse_clock);
                let program = datapath::load_variant(&self.maps, variant.program, &features);
                self.variants.insert(*variant, program.map_err(reason)?);
                Ok(())
            }
            Op::DropVariant(variant) => {
                self.variants.remove(variant);
                Ok(())
            }
            Op::MakeSpares(kind, numbers) => self.maps.make_tables(*kind, numbers).map_err(reason),
            Op::FillPolicy(number, table) => {
                self.maps.fill_policy_table(*number, &layout::policy(table)).map_err(reason)
            }
            Op::FillPrefixes(number, table) => {
                self.maps.fill_prefix_table(*number, &layout::prefixes(table)).map_err(reason)
            }
            Op::SetEndpoint(slot, row) => {
                if let Some(row) = row {
                    self.count(*slot, &row.incarnation)?;
                }
                self.set_endpoint(*slot, row.as_ref())
            }
            Op::SetAddress(key, slots) if *slots == [Slot(0); 2] => {
                self.maps.delete_address(key.0).map_err(reason)
            }
            Op::SetAddress(key, slots) => {
                self.maps.set_address(key.0, slots.map(|slot| slot.0)).map_err(reason)
            }
            Op::SetPublished(key, [None, None]) => {
                self.maps.delete_published(&layout::published_key(key)).map_err(reason)
            }
            Op::SetPublished(key, sides) => {
                let (key, sides) = (layout::published_key(key), layout::published(sides));
                self.maps.set_published(&key, &sides).map_err(reason)
            }
            Op::SetUplink(ifindex, Some(row)) => {
                self.count(row.slot, row.interface.as_bytes())?;
                self.maps.set_uplink(*ifindex, &layout::uplink(row)).map_err(reason)
            }
            Op::SetUplink(ifindex, None) => self.maps.delete_uplink(*ifindex).map_err(reason),
            Op::SetProgram(index, Some(variant)) => {
                let program = self.variants.get(variant).ok_or_else(|| lost("variant"))?;
                self.maps.set_program(*index, program.fd.as_fd()).map_err(reason)
            }
            Op::SetProgram(index, None) => self.maps.clear_program(*index).map_err(reason),
            Op::SetPolicies(batch) => self.maps.set_policies(batch).map_err(reason),
            Op::SetPrefixes(side, number) => {
                self.maps.set_prefixes(side.index() as u32, *number).map_err(reason)
            }
            Op::SetSources(side, table) => {
                self.maps.set_sources(&layout::sources(table, *side)).map_err(reason)
            }
        }
    }

    fn commit(&mut self, generation: Generation) {
        self.maps.commit(generation.0);
    }
}

impl Host {
    /// Notes on bpffs what all gates are alike in, or that they differ.
    pub fn mark_gates(&mut self, rate: Option<u32>) -> Result<(), Reason> {
        self.layout.mark_gates(rate.map(|rate| (self.gate_digest.as_str(), rate)))?;
        self.gate_mark = rate;
        Ok(())
    }

    /// Counters begin anew with each who has a slot; until then they are those of the last one.
    fn count(&mut self, slot: Slot, whose: &[u8]) -> Result<(), Reason> {
        if self.counted.get(&slot).is_some_and(|counted| counted == whose) {
            return Ok(());
        }
        self.maps.clear_counters(slot.0).map_err(reason)?;
        self.counted.insert(slot, whose.to_owned());
        Ok(())
    }

    fn grace(&self) -> Result<(), Reason> {
        match membarrier(MembarrierCommand::Global) {
            Ok(()) => Ok(()),
            // A kernel without it, or with CPUs that it may not wait for (`nohz_full=`). Whoever puts a table
            // into a table of tables waits for all who may be in the one of before. Number 0 is nobody's,
            // and an empty table says as much as none.
            Err(Errno::NOSYS | Errno::INVAL) => {
                self.maps.make_tables(TableKind::Prefix, &[0]).map_err(reason)
            }
            Err(errno) => Err(reason(errno)),
        }
    }

    /// Begins to load endpoints' gates, which will be attached in this order.
    pub fn load_ahead(&mut self, gates: &[Gate]) {
        let constants = gates.iter().filter_map(|gate| match &gate.owner {
            GateOwner::Endpoint(endpoint) => Some(layout::gate(endpoint, gate.event_rate)),
            GateOwner::Adopted(_) | GateOwner::Uplink(_) => None,
        });
        self.ahead = Ahead::start(&self.maps, constants.collect());
    }

    /// Takes the gates off an interface, also if it has another name by now. Its name may be another's by now, whose gates stay.
    pub fn detach(&mut self, name: &str) -> Result<(), Reason> {
        let others = self.gated.iter().filter(|(other, _)| *other != name);
        let others: BTreeSet<u32> = others.map(|(_, ifindex)| *ifindex).collect();
        if let Some(ifindex) = self.gated.get(name) {
            let found = netlink::host::link_by_index(&self.netlink.socket(), *ifindex);
            let renamed = found.map_err(reason)?.filter(|link| link.name != name);
            if let Some(link) = renamed.filter(|link| !others.contains(&link.ifindex)) {
                self.links.detach(&self.netlink, &link.name).map_err(reason)?;
            }
        }
        let bears = netlink::host::link_by_name(&self.netlink.socket(), name).map_err(reason)?;
        if bears.is_none_or(|link| !others.contains(&link.ifindex)) {
            self.links.detach(&self.netlink, name).map_err(reason)?;
        }
        self.gated.remove(name);
        Ok(())
    }

    fn attach(&mut self, gate: &Gate) -> Result<(), Reason> {
        if self.gate_mark.is_some_and(|rate| rate != gate.event_rate) {
            self.mark_gates(None)?;
        }
        let interface = gate.interface();
        let (ifindex, mechanism, pair) = match &gate.owner {
            GateOwner::Endpoint(endpoint) => {
                let constants = layout::gate(endpoint, gate.event_rate);
                let pair = self.ahead.take(&self.maps, &constants);
                (self.ifindex(interface)?, self.mechanisms.endpoints, pair)
            }
            GateOwner::Adopted(adopted) => {
                let constants = layout::adopted_gate(adopted, gate.event_rate);
                let pair = datapath::load_adopted_gate(&self.maps, &constants);
                self.gated.insert(interface.to_owned(), adopted.ifindex);
                (adopted.ifindex, self.mechanisms.endpoints, pair)
            }
            GateOwner::Uplink(uplink) => {
                let pair = datapath::load_uplink_gate(&self.maps, uplink.slot.0);
                (uplink.ifindex, self.mechanisms.uplinks, pair)
            }
        };
        let pair = pair.map_err(reason)?;
        let place = Place { interface, ifindex, mechanism };
        let programs = [pair.ingress.as_fd(), pair.egress.as_fd()];
        self.links.attach(&self.netlink, place, programs).map_err(reason)
    }

    fn set_endpoint(&self, slot: Slot, row: Option<&Row>) -> Result<(), Reason> {
        let Some(row) = row else {
            return self.maps.clear_endpoint(slot.0).map_err(reason);
        };
        // Names pass on to the next incarnation; an old row must not get the new one's ifindex.
        let own = self
            .interfaces
            .get(&row.interface)
            .filter(|(_, incarnation)| *incarnation == Some(row.incarnation));
        let ifindex = match row.adopted {
            Some(adopted) if !row.interface.is_empty() => adopted.ifindex,
            Some(_) => 0,
            None => own.map_or(0, |(ifindex, _)| *ifindex),
        };
        self.maps.set_endpoint(slot.0, &layout::endpoint(row, ifindex)).map_err(reason)
    }

    fn ifindex(&self, name: &str) -> Result<u32, Reason> {
        let found = self.interfaces.get(name).map(|(ifindex, _)| *ifindex);
        found.ok_or_else(|| Reason(format!("interface {name} is gone")))
    }
}

fn reason(error: impl Display) -> Reason {
    Reason(error.to_string())
}

/// The mirror said that it is there: a fault in this program.
fn lost(what: &str) -> Reason {
    Reason(format!("no handle of this {what}"))
}
