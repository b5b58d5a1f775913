//! Counters of the datapath, summed to named rows.
//!
//! Takes what the kernel's tables hold (already summed over CPUs) and knows nothing of maps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::event::Hook;
use super::names::Names;
use super::reason;
use crate::types::Slot;

/// One entry of `drops`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropCount {
    pub slot: Slot,
    pub hook: Hook,
    pub reason: u32,
    pub packets: u64,
}

/// One entry of `traffic`: what passed a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrafficCount {
    pub slot: Slot,
    pub hook: Hook,
    pub packets: u64,
    pub bytes: u64,
}

/// Packets, and bytes of L3 and above.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    pub packets: u64,
    pub bytes: u64,
}

/// What one endpoint's (or uplink's) hooks counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Came in from the device: what an endpoint sent, or an uplink received.
    pub ingress: Traffic,
    /// Went out to the device.
    pub egress: Traffic,
    /// Packets dropped, by reason.
    pub drops: BTreeMap<String, u64>,
}

/// All rows of a generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// By endpoint name.
    pub endpoints: BTreeMap<String, Row>,
    /// By interface.
    pub uplinks: BTreeMap<String, Row>,
    /// Packets dropped by reason, also at slots that nobody has any more.
    pub drops: BTreeMap<String, u64>,
}

impl Counters {
    pub fn new(
        names: &Names,
        drops: impl IntoIterator<Item = DropCount>,
        traffic: impl IntoIterator<Item = TrafficCount>,
    ) -> Self {
        let mut counters = Counters::default();
        for drop in drops.into_iter().filter(|drop| drop.packets > 0) {
            let reason = reason::name(drop.reason);
            if let Some(row) = counters.row(names, drop.slot) {
                add(row.drops.entry(reason.clone()).or_default(), drop.packets);
            }
            add(counters.drops.entry(reason).or_default(), drop.packets);
        }
        for passed in traffic.into_iter().filter(|passed| passed.packets > 0) {
            if let Some(row) = counters.row(names, passed.slot) {
                let direction = match passed.hook {
                    Hook::Ingress => &mut row.ingress,
                    Hook::Egress => &mut row.egress,
                };
                add(&mut direction.packets, passed.packets);
                add(&mut direction.bytes, passed.bytes);
            }
        }
        counters
    }

    fn row(&mut self, names: &Names, slot: Slot) -> Option<&mut Row> {
        if let Some(endpoint) = names.endpoint(slot) {
            return Some(self.endpoints.entry(endpoint.name.to_string()).or_default());
        }
        let interface = names.uplink(slot)?;
        Some(self.uplinks.entry(interface.to_owned()).or_default())
    }
}

fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::fixture::{self, API, INTRUDER, UPLINK};

    #[test]
    fn slots_become_names_and_none_is_lost_in_the_total() {
        let drop = |slot, hook, reason, packets| DropCount { slot, hook, reason, packets };
        let passed = |slot, hook, packets, bytes| TrafficCount { slot, hook, packets, bytes };
        let counters = Counters::new(
            &fixture::names(41),
            [
                drop(INTRUDER, Hook::Ingress, 2, 5),
                drop(INTRUDER, Hook::Egress, 2, 1),
                drop(API, Hook::Egress, 4, u64::MAX),
                drop(UPLINK, Hook::Ingress, 4, 1),
                drop(Slot(9999), Hook::Ingress, 3, 2),
                drop(API, Hook::Egress, 6, 0),
            ],
            [
                passed(API, Hook::Ingress, 1, 60),
                passed(API, Hook::Egress, 2, 120),
                passed(API, Hook::Egress, 3, 180),
                passed(Slot(9999), Hook::Egress, 3, 180),
                passed(INTRUDER, Hook::Egress, 0, 0),
            ],
        );
        let totals = [("not-ready", 2), ("policy-ingress", 6), ("spoofed-mac", u64::MAX)];
        assert_eq!(counters.drops, totals.map(|(name, n)| (name.to_owned(), n)).into());
        assert_eq!(counters.endpoints["dev/intruder"].drops["policy-ingress"], 6);
        let api = &counters.endpoints["api"];
        assert_eq!(api.ingress, Traffic { packets: 1, bytes: 60 });
        assert_eq!(api.egress, Traffic { packets: 5, bytes: 300 });
        assert_eq!(api.drops.len(), 1);
        assert_eq!(counters.uplinks["ens3"].drops["spoofed-mac"], 1);
        assert_eq!((counters.endpoints.len(), counters.uplinks.len()), (2, 1));
    }
}
