//! The generation in force, read where the datapath reads it.

use std::path::Path;
use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags, MapHandle};

use super::eventually;
use super::host::Host;

/// The pinned `state` map of a host: a look is one system call, so commits can be timed by it.
pub struct GenerationWatch {
    state: MapHandle,
}

impl GenerationWatch {
    pub fn open(host: &Host) -> GenerationWatch {
        let path = Path::new("/sys/fs/bpf/porin/v3/maps/state");
        // Only the host's mounts have this bpffs.
        let state = host.enter(|| MapHandle::from_pinned_path(path).map_err(|e| e.to_string()));
        GenerationWatch { state: state.unwrap_or_else(|e| panic!("{}: {e}", path.display())) }
    }

    pub fn now(&self) -> u32 {
        let value = self.state.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).expect("state");
        let value = value.expect("state[0]");
        u32::from_ne_bytes(value[..4].try_into().expect("four bytes"))
    }

    /// The first generation other than `before`; looked for almost without pause.
    #[track_caller]
    pub fn after(&self, before: u32, deadline: Duration) -> u32 {
        let changed = || Some(self.now()).filter(|now| *now != before);
        eventually::some_soon(deadline, changed)
            .unwrap_or_else(|| panic!("still generation {before} after {deadline:?}"))
    }
}
