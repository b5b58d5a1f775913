//! The kernel's counters, for the board.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::control::view;
use crate::kernel::datapath::Maps;
use crate::observe::counters::{Counters, DropCount, TrafficCount};
use crate::observe::event::Hook;
use crate::observe::names::NameBook;
use crate::types::{Cookie, Slot};

use super::board::Meters;
use super::l7::L7;

pub struct KernelMeters {
    maps: Arc<Maps>,
    /// Counting flows means walking their tables: the sweeper does that anyway.
    tracked: Arc<AtomicU64>,
    /// From the daemon's start on, but for its first moments.
    l7: Arc<OnceLock<L7>>,
}

impl KernelMeters {
    pub fn new(maps: Arc<Maps>, tracked: Arc<AtomicU64>, l7: Arc<OnceLock<L7>>) -> Self {
        KernelMeters { maps, tracked, l7 }
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

    fn requests(&self) -> Option<view::Requests> {
        let counted = self.l7.get()?.counted()?;
        let counts = counted.counts;
        Some(view::Requests {
            allowed: counts.allowed,
            denied: counts.denied,
            malformed: counts.malformed,
            open: counted.open,
            connections: counts.connections,
            unjudged: counts.without_rules,
            unreachable: counts.unreachable,
            bad_answers: counts.bad_answers,
            late: counts.late,
            too_many: counts.too_many,
            untold: counted.lost,
        })
    }

    fn followed(&self) {
        if let Some(l7) = self.l7.get() {
            l7.follow();
        }
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
