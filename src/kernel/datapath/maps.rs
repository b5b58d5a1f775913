//! The shared maps: made or found again, and written to. `tables.rs` has what is
//! read in bulk.
//!
//! The one place where a generation comes into force is [`Maps::commit`].

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, num_possible_cpus};

use super::abi;
use super::error::{Cause, Context, Error, Result};
use super::gates::Template;
use super::print;
use super::skel::maps::MapsSkelBuilder;
use crate::kernel::sys::{self, StateWord, bytes_of};

/// How many entries the tables that learn from traffic may hold. Set at creation;
/// maps that exist keep theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapLimits {
    /// Flows, per family.
    pub flows: u32,
    /// Masqueraded flows.
    pub nat: u32,
    /// Fragmented packets under way.
    pub fragments: u32,
    /// Counters of rules: two for each that decided anything, at most.
    pub hits: u32,
}

impl Default for MapLimits {
    fn default() -> Self {
        Self { flows: 131_072, nat: 65_536, fragments: 8192, hits: abi::MAX_HITS }
    }
}

/// All maps that programs share.
#[derive(Debug)]
pub struct Maps {
    handles: BTreeMap<String, MapHandle>,
    state: StateWord,
    gates: OnceLock<Template>,
}

impl Maps {
    /// Makes a set of maps that lives as long as it is held or programs use it.
    pub fn create(limits: &MapLimits) -> Result<Self> {
        Self::from_handles(make(limits, &BTreeMap::new())?)
    }

    /// Opens the maps pinned in `dir`, or makes and pins them; true if made.
    ///
    /// A new set is pinned beside `dir` and renamed in one step, so none is ever
    /// half made. One that lacks maps all the same is completed, as long as it has
    /// the state; without the state it is of no use and is made anew.
    pub fn open_or_create(dir: &Path, limits: &MapLimits) -> Result<(Self, bool)> {
        let beside = beside(dir);
        remove_pins(&beside)?;
        let found = pinned(dir)?;
        if !found.contains_key("state") {
            remove_pins(dir)?;
            let handles = make(limits, &BTreeMap::new())?;
            fs::create_dir_all(&beside).context("make directory", beside.display().to_string())?;
            pin(&beside, &handles)?;
            fs::rename(&beside, dir).context("rename to", dir.display().to_string())?;
            return Ok((Self::from_handles(handles)?, true));
        }
        let handles = make(limits, &found)?;
        let missing: BTreeMap<_, _> =
            handles.into_iter().filter(|(name, _)| !found.contains_key(name)).collect();
        pin(dir, &missing)?;
        let handles = found.into_iter().chain(missing).collect();
        Ok((Self::from_handles(handles)?, false))
    }

    fn from_handles(handles: BTreeMap<String, MapHandle>) -> Result<Self> {
        let state =
            handles.get("state").map(MapHandle::as_fd).ok_or(io::ErrorKind::NotFound.into());
        let state = state.and_then(StateWord::map).context("map into memory", "map state")?;
        Ok(Self { handles, state, gates: OnceLock::new() })
    }

    pub(super) fn handle(&self, name: &str) -> Option<&MapHandle> {
        self.handles.get(name)
    }

    /// The code of gates, which refers to these maps.
    pub(super) fn gates(&self) -> Result<&Template> {
        match self.gates.get() {
            Some(template) => Ok(template),
            None => {
                let template = Template::open(self)?;
                Ok(self.gates.get_or_init(|| template))
            }
        }
    }

    /// A map by name; all names in `maps.h` are there, as every set is made from it.
    pub(super) fn map(&self, name: &'static str) -> Result<&MapHandle> {
        self.handle(name)
            .ok_or(io::Error::from(io::ErrorKind::NotFound))
            .context("find", format!("map {name}"))
    }

    pub(super) fn fd(&self, name: &'static str) -> Result<BorrowedFd<'_>> {
        Ok(self.map(name)?.as_fd())
    }

    /// The kernel's ids of the maps, by name.
    pub fn ids(&self) -> Result<BTreeMap<u32, String>> {
        let id = |(name, map): (&String, &MapHandle)| {
            Ok((
                sys::map_id(map.as_fd()).context("ask about", format!("map {name}"))?,
                name.clone(),
            ))
        };
        self.handles.iter().map(id).collect()
    }

    /// The generation in force; 0: none yet.
    pub fn generation(&self) -> u32 {
        self.state.load()
    }

    /// THE commit: one store to mapped memory, after which every packet that enters
    /// a gate is judged by `generation`. There must be nothing to do here but this.
    pub fn commit(&self, generation: u32) {
        self.state.store(generation);
    }

    fn update<K: sys::Pod, V: sys::Pod>(
        &self,
        name: &'static str,
        key: &K,
        value: &V,
    ) -> Result<()> {
        sys::map_update(self.fd(name)?, key, value).context("write to", format!("map {name}"))
    }

    /// In one call where the kernel can.
    pub(super) fn update_all<K: sys::Pod, V: sys::Pod>(
        &self,
        name: &'static str,
        keys: &[K],
        values: &[V],
    ) -> Result<()> {
        sys::map_update_all(self.fd(name)?, keys, values).context("write to", format!("map {name}"))
    }

    /// Deletes a key, which need not be there.
    fn delete<K: sys::Pod>(&self, name: &'static str, key: &K) -> Result<()> {
        match self.map(name)?.delete(bytes_of(key)) {
            Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
            result => result.context("delete from", format!("map {name}")),
        }
    }

    pub fn set_endpoint(&self, slot: u32, endpoint: &abi::Endpoint) -> Result<()> {
        self.update("endpoints", &slot, endpoint)
    }

    pub fn clear_endpoint(&self, slot: u32) -> Result<()> {
        self.update("endpoints", &slot, &abi::Endpoint::default())
    }

    /// `address` is IPv6, or IPv4-mapped; `slots` are those of either side.
    pub fn set_address(&self, address: [u8; 16], slots: [u32; 2]) -> Result<()> {
        let (key, value) = (abi::Address { bytes: address }, abi::AddressValue { slot: slots });
        self.update("addresses", &key, &value)
    }

    pub fn delete_address(&self, address: [u8; 16]) -> Result<()> {
        self.delete("addresses", &abi::Address { bytes: address })
    }

    pub fn set_published(&self, key: &abi::PublishedKey, to: &abi::Published) -> Result<()> {
        self.update("published", key, to)
    }

    pub fn delete_published(&self, key: &abi::PublishedKey) -> Result<()> {
        self.delete("published", key)
    }

    /// `index`: see [`abi::program_index`].
    pub fn set_program(&self, index: u32, program: BorrowedFd<'_>) -> Result<()> {
        self.update("programs", &index, &(program.as_raw_fd() as u32))
    }

    pub fn clear_program(&self, index: u32) -> Result<()> {
        self.delete("programs", &index)
    }

    /// Says which table is whose: pairs of [`abi::policy_index`] and a table's number, 0 for none. Waits for
    /// nobody. Not atomic: on an error some may have been set.
    pub fn set_policies(&self, tables: &[(u32, u32)]) -> Result<()> {
        let (indices, numbers): (Vec<u32>, Vec<u32>) = tables.iter().copied().unzip();
        self.update_all("policy_tables", &indices, &numbers)
    }

    /// The number of a side's prefix table; 0: none.
    pub fn set_prefixes(&self, side: u32, number: u32) -> Result<()> {
        self.update("prefix_tables", &side, &number)
    }

    /// Classes of source ports: pairs of [`abi::source_index`] and the block. Not atomic: on an error some may
    /// have been set.
    pub fn set_sources(&self, blocks: &[(u32, abi::SourceBlock)]) -> Result<()> {
        let (indices, blocks): (Vec<u32>, Vec<_>) = blocks.iter().copied().unzip();
        self.update_all("source_classes", &indices, &blocks)
    }

    /// A rule is counted no more.
    pub fn delete_hits(&self, key: &abi::HitKey) -> Result<()> {
        self.delete("hits", key)
    }

    pub fn set_uplink(&self, ifindex: u32, uplink: &abi::Uplink) -> Result<()> {
        self.update("uplinks", &ifindex, uplink)
    }

    pub fn delete_uplink(&self, ifindex: u32) -> Result<()> {
        self.delete("uplinks", &ifindex)
    }

    /// The socket that the L7 worker accepts a family's connections from (`PORIN_FAMILY_*`). It is gone from here when
    /// nobody has it any more.
    pub fn set_worker(&self, family: u32, socket: BorrowedFd<'_>) -> Result<()> {
        self.update("workers", &family, &u64::from(socket.as_raw_fd() as u32))
    }

    /// Descriptors for who may only read flows: of `flows6` and `flows4`.
    pub fn for_readers(&self) -> Result<[OwnedFd; 2]> {
        let one = |name| sys::map_read_only(self.fd(name)?).context("share", format!("map {name}"));
        Ok([one("flows6")?, one("flows4")?])
    }

    pub fn delete_flow4(&self, key: &abi::Flow4Key) -> Result<()> {
        self.delete("flows4", key)
    }

    pub fn delete_flow6(&self, key: &abi::Flow6Key) -> Result<()> {
        self.delete("flows6", key)
    }

    pub fn delete_nat4(&self, key: &abi::NatKey) -> Result<()> {
        self.delete("nat4", key)
    }

    /// For tests: overwrites an entry.
    pub fn set_flow4(&self, key: &abi::Flow4Key, flow: &abi::Flow) -> Result<()> {
        self.update("flows4", key, flow)
    }

    /// For tests: overwrites an entry.
    pub fn set_flow6(&self, key: &abi::Flow6Key, flow: &abi::Flow) -> Result<()> {
        self.update("flows6", key, flow)
    }

    /// For tests: overwrites an entry.
    pub fn set_nat4(&self, key: &abi::NatKey, nat: &abi::NatValue) -> Result<()> {
        self.update("nat4", key, nat)
    }

    /// Sets the counters of a slot to nothing: another has it now.
    pub fn clear_counters(&self, slot: u32) -> Result<()> {
        let cpus = num_possible_cpus().context("count", "CPUs")?;
        let nothing = vec![bytes_of(&abi::Traffic::default()).to_vec(); cpus];
        for hook in 0..2u16 {
            let index = slot * 2 + u32::from(hook);
            self.map("traffic")?
                .update_percpu(bytes_of(&index), &nothing, MapFlags::ANY)
                .context("write to", "map traffic")?;
            for reason in (0..abi::DROP_REASONS).filter_map(|reason| u16::try_from(reason).ok()) {
                self.delete("drops", &abi::DropKey { slot, hook, reason })?;
            }
        }
        Ok(())
    }

    /// The ring buffer of `struct porin_event`, for `libbpf_rs::RingBufferBuilder`.
    pub fn events(&self) -> Result<&MapHandle> {
        self.map("events")
    }
}

/// Where a set is made. No dot: bpffs refuses names with one.
fn beside(dir: &Path) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push("_new");
    name.into()
}

/// Makes all maps but those in `found`, which are used as they are.
fn make(
    limits: &MapLimits,
    found: &BTreeMap<String, MapHandle>,
) -> Result<BTreeMap<String, MapHandle>> {
    let (result, log) = print::keep(|| {
        let mut storage = sys::object_storage();
        let mut open = MapsSkelBuilder::default().open(&mut storage)?;
        open.maps.flows4.set_max_entries(limits.flows)?;
        open.maps.flows6.set_max_entries(limits.flows)?;
        open.maps.nat4.set_max_entries(limits.nat)?;
        open.maps.fragments.set_max_entries(limits.fragments)?;
        open.maps.hits.set_max_entries(limits.hits)?;
        for mut map in open.open_object_mut().maps_mut() {
            if let Some(existing) = map.name().to_str().and_then(|name| found.get(name)) {
                if let Some(difference) = foreign(&map, existing) {
                    return Ok(Err(difference));
                }
                map.reuse_fd(existing.as_fd())?;
            }
        }
        let loaded = open.load()?;
        let mut handles = BTreeMap::new();
        for map in loaded.object().maps() {
            let name = map.name().to_string_lossy().into_owned();
            if !name.contains(".rodata") {
                handles.insert(name, MapHandle::try_from(&map)?);
            }
        }
        Ok(Ok(handles))
    });
    let failed = |cause| Error { operation: "make", object: "the maps".to_owned(), cause };
    match result {
        Ok(Ok(handles)) => Ok(handles),
        Ok(Err(difference)) => Err(failed(Cause::Foreign(difference))),
        Err(error) => Err(failed(Cause::Load { error, log })),
    }
}

/// How a pinned map differs from what it should be. Sizes of tables may.
fn foreign(map: &libbpf_rs::OpenMapMut<'_>, existing: &MapHandle) -> Option<String> {
    let want = (map.map_type(), map.key_size(), map.value_size());
    let is = (existing.map_type(), existing.key_size(), existing.value_size());
    let sized = want.0 != MapType::RingBuf; // neither keys nor values
    (want.0 != is.0 || (sized && want != is))
        .then(|| format!("map {}: {is:?} instead of {want:?}", map.name().to_string_lossy()))
}

fn pin(dir: &Path, handles: &BTreeMap<String, MapHandle>) -> Result<()> {
    for (name, handle) in handles {
        let path = dir.join(name);
        // The handle is of the object's map: a copy is pinned, its pin is the file.
        let mut handle = MapHandle::try_from(handle).context("copy", format!("map {name}"))?;
        handle.pin(&path).context("pin", path.display().to_string())?;
    }
    Ok(())
}

/// The maps pinned in a directory, which need not exist.
fn pinned(dir: &Path) -> Result<BTreeMap<String, MapHandle>> {
    let mut found = BTreeMap::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries.context("read", dir.display().to_string())?,
    };
    for entry in entries {
        let entry = entry.context("read", dir.display().to_string())?;
        let path = entry.path();
        let handle =
            MapHandle::from_pinned_path(&path).context("open", path.display().to_string())?;
        found.insert(entry.file_name().to_string_lossy().into_owned(), handle);
    }
    Ok(found)
}

/// Removes a directory of pins, which need not exist.
fn remove_pins(dir: &Path) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.context("read", dir.display().to_string())?,
    };
    for entry in entries {
        let path = entry.context("read", dir.display().to_string())?.path();
        fs::remove_file(&path).context("remove", path.display().to_string())?;
    }
    fs::remove_dir(dir).context("remove", dir.display().to_string())
}
