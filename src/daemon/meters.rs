//! The kernel's counters, for the board.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::kernel::datapath::Maps;
use crate::observe::counters::{Counters, DropCount, TrafficCount};
use crate::observe::event::Hook;
use crate::observe::names::NameBook;
use crate::types::{Cookie, Slot};

use super::board::Meters;

pub struct KernelMeters {
    maps: Arc<Maps>,
    /// Counting flows means walking their tables: the sweeper does that anyway.
    tracked: Arc<AtomicU64>,
}

impl KernelMeters {
    pub fn new(maps: Arc<Maps>, tracked: Arc<AtomicU64>) -> Self {
        KernelMeters { maps, tracked }
    }
}

impl Meters for KernelMeters {
    fn counters(&self, names: &NameBook) -> Result<Counters, String> {
        let drops = self.maps.drops().map_err(|error| error.to_string())?;
        let traffic = self.maps.traffic().map_err(|error| error.to_string())?;
        let drops = drops.into_iter().map(|(key, packets)| DropCount {
            slot: Slot(key.slot),
            hook: hook(key.hook.into()),
            reason: key.reason.into(),
            packets,
        });
        let traffic = traffic.into_iter().map(|((slot, at), passed)| TrafficCount {
            slot: Slot(slot),
            hook: hook(at),
            packets: passed.packets,
            bytes: passed.bytes,
        });
        Ok(Counters::new(&names.in_force(), drops, traffic))
    }

    fn hits(&self) -> Result<BTreeMap<(Cookie, bool), u64>, String> {
        let hits = self.maps.hits().map_err(|error| error.to_string())?;
        Ok(hits
            .into_iter()
            .map(|(key, count)| ((Cookie(key.cookie), key.shadow != 0), count))
            .collect())
    }

    fn flows(&self) -> Result<(u64, u64), String> {
        let suppressed = self.maps.suppressed_events().map_err(|error| error.to_string())?;
        Ok((self.tracked.load(Ordering::Relaxed), suppressed))
    }
}

/// `PORIN_HOOK_*`.
fn hook(number: u32) -> Hook {
    match number {
        0 => Hook::Ingress,
        _ => Hook::Egress,
    }
}
