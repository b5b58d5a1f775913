//! Policy and prefix tables, made ahead and filled once, and the maps that are read in bulk.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use libbpf_rs::{MapCore, MapFlags, MapType, libbpf_sys, num_possible_cpus};

use super::abi;
use super::error::{Context, Result};
use super::maps::Maps;
use crate::compile;
use crate::kernel::sys::{self, Pod};

/// What is looked up by longest prefix, and kept in numbered tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableKind {
    Policy,
    Prefix,
}

impl TableKind {
    /// Numbers are below; 0 is none's.
    pub const fn numbers(self) -> u32 {
        match self {
            Self::Policy => abi::MAX_POLICY_TABLES,
            Self::Prefix => abi::MAX_PREFIX_TABLES,
        }
    }

    /// The table of tables.
    const fn outer(self) -> &'static str {
        match self {
            Self::Policy => "policies",
            Self::Prefix => "prefixes",
        }
    }

    /// A new table of this kind. It takes memory for what is in it only, whatever may be.
    fn make(self) -> Result<OwnedFd> {
        let (name, key, value, entries) = match self {
            Self::Policy => (
                "porin_policy",
                size_of::<abi::PolicyKey>(),
                size_of::<abi::PolicyValue>(),
                compile::POLICY_ENTRIES,
            ),
            Self::Prefix => (
                "porin_prefix",
                size_of::<abi::PrefixKey>(),
                size_of::<abi::PrefixValue>(),
                compile::PREFIXES,
            ),
        };
        let entries = u32::try_from(entries).unwrap_or(u32::MAX);
        let flags = libbpf_sys::BPF_F_NO_PREALLOC;
        sys::map_create(MapType::LpmTrie, name, key, value, entries, flags)
            .context("make", format!("table {name}"))
    }
}

impl Maps {
    /// Puts new, empty tables under these numbers, whatever is there now. Costs an RCU grace period, one in
    /// all where the kernel can (Linux 5.14). Not atomic: on an error some may be there.
    pub fn make_tables(&self, kind: TableKind, numbers: &[u32]) -> Result<()> {
        let made = numbers.iter().map(|_| kind.make()).collect::<Result<Vec<_>>>()?;
        let tables: Vec<u32> = made.iter().map(|table| table.as_raw_fd() as u32).collect();
        self.update_all(kind.outer(), numbers, &tables)
    }

    /// Fills an empty policy table, for good. On an error it may be half full.
    pub fn fill_policy_table(
        &self,
        number: u32,
        entries: &[(abi::PolicyKey, abi::PolicyValue)],
    ) -> Result<()> {
        self.fill(TableKind::Policy, number, entries)
    }

    /// Fills an empty prefix table, for good. On an error it may be half full.
    pub fn fill_prefix_table(
        &self,
        number: u32,
        entries: &[(abi::PrefixKey, abi::PrefixValue)],
    ) -> Result<()> {
        self.fill(TableKind::Prefix, number, entries)
    }

    fn fill<K: Pod, V: Pod>(&self, kind: TableKind, number: u32, entries: &[(K, V)]) -> Result<()> {
        let what = || format!("table {number} of {}", kind.outer());
        let id: u32 = sys::map_look_up(self.fd(kind.outer())?, &number).context("find", what())?;
        let table = sys::map_by_id(id).map_err(std::io::Error::from).context("open", what())?;
        let (keys, values): (Vec<K>, Vec<V>) = entries.iter().copied().unzip();
        sys::map_update_all(table.as_fd(), &keys, &values).context("write to", what())?;
        // No one writes to a table that may be in force.
        sys::map_freeze(table.as_fd()).context("freeze", what())
    }

    /// The numbers that have a table.
    pub fn tables(&self, kind: TableKind) -> Result<Vec<u32>> {
        let outer = self.fd(kind.outer())?;
        let mut taken = Vec::new();
        let each = sys::map_each(outer, size_of::<u32>(), size_of::<u32>(), |number, _| {
            taken.extend(sys::from_bytes::<u32>(number));
        });
        match each {
            // Tables of tables have no batches before Linux 5.14.
            Err(error) if error.raw_os_error() == Some(sys::ENOTSUPP) => {
                sys::occupied(outer, kind.numbers()).map_err(std::io::Error::from)
            }
            each => each.map(|()| taken),
        }
        .context("read", format!("map {}", kind.outer()))
    }

    /// The tables that are referred to: indices as in [`abi::policy_index`], with numbers.
    pub fn policies(&self) -> Result<Vec<(u32, u32)>> {
        let mut found = self.all::<u32, u32>("policy_tables")?;
        found.retain(|(_, number)| *number != 0);
        Ok(found)
    }

    /// The number of either side's prefix table; 0: none.
    pub fn prefixes(&self) -> Result<[u32; 2]> {
        let mut numbers = [0; 2];
        for (side, number) in self.all::<u32, u32>("prefix_tables")? {
            if let Some(place) = numbers.get_mut(side as usize) {
                *place = number;
            }
        }
        Ok(numbers)
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

    /// Published ports, and what they lead to on either side.
    pub fn published(&self) -> Result<Vec<(abi::PublishedKey, abi::Published)>> {
        self.all("published")
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

    /// How often rules decided, or would have, summed over all CPUs.
    pub fn hits(&self) -> Result<Vec<(abi::HitKey, u64)>> {
        let mut found = Vec::new();
        self.each_per_cpu::<abi::HitKey, u64>("hits", |key, counts| {
            found.push((key, counts.iter().sum()));
        })?;
        Ok(found)
    }

    /// Decisions that `hits` had no room for.
    pub fn uncounted_hits(&self) -> Result<u64> {
        self.suppressed(&[abi::BUDGET_HITS])
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
        self.suppressed(&[abi::BUDGET_EVENTS, abi::BUDGET_FLOWS])
    }

    fn suppressed(&self, kinds: &[u32]) -> Result<u64> {
        let mut suppressed = 0;
        self.each_per_cpu::<u32, abi::Budget>("budgets", |kind, budgets| {
            if kinds.contains(&kind) {
                suppressed += budgets.iter().map(|b| b.suppressed).sum::<u64>();
            }
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
