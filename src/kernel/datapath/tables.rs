//! Inner tables, made whole and then frozen, and the maps that are read in bulk.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libbpf_rs::{MapCore, MapFlags, MapType, libbpf_sys, num_possible_cpus};

use super::abi;
use super::error::{Context, Result};
use super::maps::Maps;
use crate::kernel::sys::{self, Pod};

impl Maps {
    /// A policy table for [`Maps::set_policy`], just large enough, and frozen.
    pub fn new_policy_table(
        &self,
        entries: &[(abi::PolicyKey, abi::PolicyValue)],
    ) -> Result<OwnedFd> {
        new_table("porin_policy", entries)
    }

    /// A prefix table for [`Maps::set_prefixes`], just large enough, and frozen.
    pub fn new_prefix_table(
        &self,
        entries: &[(abi::PrefixKey, abi::PrefixValue)],
    ) -> Result<OwnedFd> {
        new_table("porin_prefix", entries)
    }

    /// The slots in use.
    pub fn endpoints(&self) -> Result<Vec<(u32, abi::Endpoint)>> {
        let empty = abi::Endpoint::default();
        let empty = sys::bytes_of(&empty);
        let mut found = Vec::new();
        self.each::<u32, abi::Endpoint>("endpoints", |slot, endpoint| {
            if sys::bytes_of(&endpoint) != empty {
                found.push((slot, endpoint));
            }
        })?;
        Ok(found)
    }

    /// Addresses (IPv4 as IPv4-mapped) and their slots on either side.
    pub fn addresses(&self) -> Result<Vec<([u8; 16], [u32; 2])>> {
        let mut found = Vec::new();
        self.each::<abi::Address, abi::AddressValue>("addresses", |a, v| {
            found.push((a.bytes, v.slot))
        })?;
        Ok(found)
    }

    /// Uplinks by interface.
    pub fn uplinks(&self) -> Result<Vec<(u32, abi::Uplink)>> {
        self.all("uplinks")
    }

    /// Calls `f` with each flow, without holding them all in memory.
    pub fn each_flow4(&self, f: impl FnMut(abi::Flow4Key, abi::Flow)) -> Result<()> {
        self.each("flows4", f)
    }

    /// Calls `f` with each flow, without holding them all in memory.
    pub fn each_flow6(&self, f: impl FnMut(abi::Flow6Key, abi::Flow)) -> Result<()> {
        self.each("flows6", f)
    }

    pub fn flows4(&self) -> Result<Vec<(abi::Flow4Key, abi::Flow)>> {
        self.all("flows4")
    }

    pub fn flows6(&self) -> Result<Vec<(abi::Flow6Key, abi::Flow)>> {
        self.all("flows6")
    }

    pub fn nat4(&self) -> Result<Vec<(abi::NatKey, abi::NatValue)>> {
        self.all("nat4")
    }

    pub fn fragments(&self) -> Result<Vec<(abi::FragmentKey, abi::FragmentValue)>> {
        self.all("fragments")
    }

    /// Dropped packets, summed over all CPUs.
    pub fn drops(&self) -> Result<Vec<(abi::DropKey, u64)>> {
        let mut found = Vec::new();
        self.each_per_cpu::<abi::DropKey, u64>("drops", |key, counts| {
            found.push((key, counts.iter().sum()));
        })?;
        Ok(found)
    }

    /// What passed at (slot, hook), summed over all CPUs; where something did.
    pub fn traffic(&self) -> Result<Vec<((u32, u32), abi::Traffic)>> {
        let mut found = Vec::new();
        self.each_per_cpu::<u32, abi::Traffic>("traffic", |index, counts| {
            let packets = counts.iter().map(|t| t.packets).sum();
            let bytes = counts.iter().map(|t| t.bytes).sum();
            if packets != 0 {
                found.push(((index / 2, index % 2), abi::Traffic { packets, bytes }));
            }
        })?;
        Ok(found)
    }

    /// What passed at one slot and hook, summed over all CPUs.
    pub fn traffic_of(&self, slot: u32, hook: u32) -> Result<abi::Traffic> {
        let index = slot * 2 + hook;
        let map = self.map("traffic")?;
        let counts = map.lookup_percpu(sys::bytes_of(&index), MapFlags::ANY);
        let counts = counts.context("read", "map traffic")?.unwrap_or_default();
        let counts: Vec<abi::Traffic> =
            counts.iter().filter_map(|bytes| sys::from_bytes(bytes)).collect();
        Ok(abi::Traffic {
            packets: counts.iter().map(|t| t.packets).sum(),
            bytes: counts.iter().map(|t| t.bytes).sum(),
        })
    }

    /// Events that were not told, for lack of tokens or of room in the ring.
    pub fn suppressed_events(&self) -> Result<u64> {
        let mut suppressed = 0;
        self.each_per_cpu::<u32, abi::Budget>("budgets", |_, budgets| {
            suppressed += budgets.iter().map(|b| b.suppressed).sum::<u64>();
        })?;
        Ok(suppressed)
    }

    fn all<K: Pod, V: Pod>(&self, name: &'static str) -> Result<Vec<(K, V)>> {
        let mut found = Vec::new();
        self.each(name, |key, value| found.push((key, value)))?;
        Ok(found)
    }

    fn each<K: Pod, V: Pod>(&self, name: &'static str, mut f: impl FnMut(K, V)) -> Result<()> {
        sys::map_each(self.fd(name)?, size_of::<K>(), size_of::<V>(), |key, value| {
            if let (Some(key), Some(value)) = (sys::from_bytes(key), sys::from_bytes(value)) {
                f(key, value);
            }
        })
        .context("read", format!("map {name}"))
    }

    /// Values of per-CPU maps come one after another, each rounded up to 8 bytes.
    fn each_per_cpu<K: Pod, V: Pod>(
        &self,
        name: &'static str,
        mut f: impl FnMut(K, &[V]),
    ) -> Result<()> {
        let cpus = num_possible_cpus().context("count", "CPUs")?;
        let stride = size_of::<V>().next_multiple_of(8);
        sys::map_each(self.fd(name)?, size_of::<K>(), stride * cpus, |key, values| {
            let values: Vec<V> = values.chunks_exact(stride).filter_map(sys::from_bytes).collect();
            if let Some(key) = sys::from_bytes(key) {
                f(key, &values);
            }
        })
        .context("read", format!("map {name}"))
    }
}

fn new_table<K: Pod, V: Pod>(name: &str, entries: &[(K, V)]) -> Result<OwnedFd> {
    let size = u32::try_from(entries.len()).unwrap_or(u32::MAX).max(1);
    let table = sys::map_create(
        MapType::LpmTrie,
        name,
        size_of::<K>(),
        size_of::<V>(),
        size,
        libbpf_sys::BPF_F_NO_PREALLOC,
    )
    .context("make", format!("table {name}"))?;
    fill(table.as_fd(), entries).context("write to", format!("table {name}"))?;
    // No one writes to a table that may be in force.
    sys::map_freeze(table.as_fd()).context("freeze", format!("table {name}"))?;
    Ok(table)
}

fn fill<K: Pod, V: Pod>(table: BorrowedFd<'_>, entries: &[(K, V)]) -> std::io::Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let (keys, values): (Vec<K>, Vec<V>) = entries.iter().copied().unzip();
    match sys::map_update_batch(table, &keys, &values) {
        // Tries have no batches before Linux 5.13.
        Err((_, error)) if error.raw_os_error() == Some(sys::ENOTSUPP) => {
            entries.iter().try_for_each(|(key, value)| sys::map_update(table, key, value))
        }
        result => result.map_err(|(_, error)| error),
    }
}
