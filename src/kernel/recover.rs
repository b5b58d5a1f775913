//! What an earlier daemon left in the kernel, read into a `Mirror`.
//!
//! Everything that can be read is believed as read; what can't (which program stands in a place, what is
//! in a table) is `Unknown`, and will be written anew, on the inactive side first.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

use sha2::{Digest as _, Sha256};

use super::datapath::{self, Maps, TableKind, abi};
use super::layout;
use super::links::{Links, Mechanisms, Place};
use super::mirror::{GateState, Held, Interface, Mirror, Row};
use super::netlink::{Netlink, endpoint, host};
use super::numbers::Content;
use super::paths::Layout;
use super::{Error, sys};
use crate::types::{AddressKey, Generation, Slot};

const LOOPBACK: u32 = 1;

/// The mirror, and porin's interfaces with ifindex and incarnation.
pub type Recovery = (Mirror, BTreeMap<String, (u32, Option<[u8; 16]>)>);

pub fn read(
    netlink: &Netlink,
    maps: &Maps,
    links: &Links,
    mechanisms: Mechanisms,
    layout: &Layout,
    event_rate: Option<u32>,
) -> Result<Recovery, Error> {
    let mut mirror = Mirror { generation: Generation(maps.generation()), ..Mirror::default() };
    let all: BTreeMap<u32, _> =
        host::links(netlink)?.into_iter().map(|link| (link.ifindex, link)).collect();
    let name_of = |ifindex: u32| all.get(&ifindex).map(|link| link.name.clone());

    for (slot, row) in maps.endpoints()? {
        let adopted = row.adopted != 0;
        let own = all.get(&row.ifindex).filter(|link| adopted || endpoint::is_porins(link));
        let interface = own.map(|link| link.name.clone()).unwrap_or_default();
        mirror.endpoints.insert(Slot(slot), layout::row(&row, interface));
    }
    let mut interfaces = BTreeMap::new();
    for link in all.values().filter(|link| endpoint::is_porins(link)) {
        let row = mirror.endpoints.values().find(|row| row.interface == link.name);
        let incarnation = row.map(|row| row.incarnation);
        interfaces.insert(link.name.clone(), (link.ifindex, incarnation));
        let interface = Interface { incarnation, ..Interface::default() };
        mirror.interfaces.insert(link.name.clone(), interface);
    }
    for (key, slots) in maps.addresses()? {
        mirror.addresses.insert(AddressKey(key), slots.map(Slot));
    }
    for (key, sides) in maps.published()? {
        mirror.published.insert(layout::published_key_of(&key), layout::published_of(&sides));
    }
    for (ifindex, row) in maps.uplinks()? {
        let row = layout::uplink_row(&row, name_of(ifindex).unwrap_or_default());
        mirror.uplinks.insert(ifindex, row);
    }

    let slots_of_gates = slots_of_gates(&mirror);
    let by_name: BTreeMap<&str, u32> =
        all.values().map(|link| (link.name.as_str(), link.ifindex)).collect();
    let mut candidates: BTreeSet<String> = links.interfaces()?.into_iter().collect();
    candidates.extend(slots_of_gates.keys().cloned());
    let mut places = Vec::new();
    for name in &candidates {
        let Some(ifindex) = by_name.get(name.as_str()) else {
            links.detach(netlink, name)?;
            continue;
        };
        let mechanism = mechanisms.on(&mirror, name);
        places.push(Place { interface: name, ifindex: *ifindex, mechanism });
    }
    let tags = links.tags(netlink, &places)?;
    for (place, tags) in places.iter().zip(tags) {
        if tags.iter().all(Option::is_some) {
            // On another's interface there may have been several endpoints, one after the other.
            let is_it = |row: &Row| row.adopted.is_some() && row.interface == place.interface;
            let adopted = mirror.endpoints.values().any(is_it);
            let slot = slots_of_gates.get(place.interface).copied().filter(|_| !adopted);
            let slot = slot.unwrap_or(Slot(0));
            mirror.gates.insert(place.interface.to_owned(), GateState { slot, event_rate });
        }
    }

    let own: BTreeSet<_> = host::addresses(netlink)?
        .into_iter()
        .filter(|address| address.ifindex == LOOPBACK)
        .map(|address| address.address)
        .collect();
    mirror.host_addresses =
        layout.marked_addresses().into_iter().filter(|address| own.contains(address)).collect();

    let ids = maps.ids()?;
    for index in occupied(&ids, "programs", abi::MAX_SLOTS * 4)? {
        mirror.programs.insert(index, Held::Unknown);
    }
    mirror.policies = maps.policies()?.into_iter().collect();
    mirror.prefixes = maps.prefixes()?;
    // What is in them can't be told. Those that neither side refers to will make room for spares.
    for number in maps.tables(TableKind::Policy)? {
        mirror.policy_tables.note(number, Content::Unknown);
    }
    // Number 0 is nobody's, though an empty one may be there (see `Host::grace`).
    for number in maps.tables(TableKind::Prefix)?.into_iter().filter(|number| *number != 0) {
        mirror.prefix_tables.note(number, Content::Unknown);
    }
    Ok((mirror, interfaces))
}

/// Indices of an array of programs that hold something. Asked for one by one only where the kernel
/// does not tell many at once.
fn occupied(ids: &BTreeMap<u32, String>, name: &str, entries: u32) -> Result<Vec<u32>, Error> {
    let failed = |errno| Error::Other(format!("cannot read map {name}: {errno}"));
    let id = ids.iter().find(|(_, map)| *map == name).map(|(id, _)| *id);
    let map = sys::map_by_id(id.unwrap_or(0)).map_err(failed)?;
    let mut taken = Vec::new();
    let listed =
        sys::map_each(map.as_fd(), 4, 4, |index, _| taken.extend(sys::from_bytes::<u32>(index)));
    match listed {
        Ok(()) => Ok(taken),
        Err(_) => sys::occupied(map.as_fd(), entries).map_err(failed),
    }
}

/// Whose gate is on an interface: an endpoint's, by its row, or an uplink's.
fn slots_of_gates(mirror: &Mirror) -> BTreeMap<String, Slot> {
    let endpoints = mirror.endpoints.iter().map(|(slot, row)| (row.interface.clone(), *slot));
    let uplinks = mirror.uplinks.values().map(|row| (row.interface.clone(), row.slot));
    endpoints.chain(uplinks).filter(|(name, _)| !name.is_empty()).collect()
}

/// A digest of this daemon's gate programs, from the kernel's digests of their code. Constants are
/// no part of it: slot, MAC and addresses follow from the incarnation, the event rate is noted beside.
pub fn gate_digest(maps: &Maps) -> Result<String, Error> {
    let endpoint = datapath::load_gate(maps, &abi::Gate::default())?;
    let uplink = datapath::load_uplink_gate(maps, 0)?;
    let mut hash = Sha256::new();
    let adopted = datapath::load_adopted_gate(maps, &abi::Gate::default())?;
    let pairs = [&endpoint, &adopted, &uplink];
    for program in pairs.iter().flat_map(|pair| [&pair.ingress, &pair.egress]) {
        let tag = sys::program_tag(program.as_fd());
        hash.update(tag.map_err(|errno| Error::Other(format!("cannot read a gate: {errno}")))?);
    }
    let digest = hash.finalize();
    Ok(digest[..8].iter().map(|byte| format!("{byte:02x}")).collect())
}
