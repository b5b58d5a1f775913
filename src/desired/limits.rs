//! What the datapath's tables hold at most, and which uplinks are there to be counted.

use crate::config::model;

use super::{Fault, UplinkFact};

/// Endpoints and uplinks share the slots `1..=SLOTS` (`PORIN_MAX_SLOTS`).
pub const SLOTS: u32 = 16_383;
/// Uplinks at most (`PORIN_MAX_UPLINKS`).
pub const UPLINKS: usize = 64;

/// The configured uplinks that exist; those that do not are reported, and refuse nothing.
pub(super) fn configured<'a>(
    uplinks: &[model::Uplink],
    facts: &'a [UplinkFact],
    faults: &mut Vec<Fault>,
) -> Vec<&'a UplinkFact> {
    for uplink in uplinks {
        if !facts.iter().any(|fact| fact.interface == uplink.interface) {
            let what = format!(
                "uplink `{}` does not exist: endpoints reach nothing through it",
                uplink.interface
            );
            let hint =
                "correct `uplinks` (see: ip link), or create it; it is used as soon as it is there";
            faults.push(Fault::whole(what).hint(hint).origin(&uplink.origin));
        }
    }
    let wanted = |fact: &&UplinkFact| uplinks.iter().any(|u| u.interface == fact.interface);
    facts.iter().filter(wanted).collect()
}

/// Refuses what can never fit, and says by how much.
pub(super) fn check(endpoints: usize, uplinks: usize) -> Result<(), Vec<Fault>> {
    let mut faults = Vec::new();
    let slots = SLOTS as usize;
    if endpoints + uplinks > slots {
        let over = endpoints + uplinks - slots;
        let what = format!(
            "{endpoints} endpoints and {uplinks} uplinks are {over} more than the {slots} that fit"
        );
        faults.push(Fault::whole(what).hint("remove endpoints, or spread them over hosts"));
    }
    if uplinks > UPLINKS {
        let over = uplinks - UPLINKS;
        let what = format!("{uplinks} uplinks are {over} more than the {UPLINKS} that fit");
        faults.push(Fault::whole(what));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}
