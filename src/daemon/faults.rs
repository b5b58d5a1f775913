//! A round's faults, for the log and for `porinctl status`.

use std::fmt::Write;

use crate::control::fault;
use crate::control::view::FaultView;

use super::reconcile::Round;

/// Listed in `status` at most; the rest are counted.
const LISTED: usize = 1000;

/// Errors first, then in the order of their places; and how many are left out.
pub fn views(round: &Round) -> (Vec<FaultView>, u64) {
    let (mut views, omitted) = fault::of_report(&round.report);
    views.extend(round.faults.iter().map(FaultView::from));
    // Stable: the order of places stays.
    views.sort_by_key(|fault| fault.severity);
    let cut = views.len().saturating_sub(LISTED);
    views.truncate(LISTED);
    (views, omitted + cut as u64)
}

/// One line per fault, as the log has it.
pub fn text(round: &Round) -> String {
    let mut text = round.report.to_string();
    for fault in &round.faults {
        let _ = writeln!(text, "{fault}");
    }
    text
}
