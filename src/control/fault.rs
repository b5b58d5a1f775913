//! Faults of the files, and of what they meet, in the one form that operators see.

use std::path::Path;

use super::view::{FaultView, RelatedView, Severity};
use crate::config::{self, Place, Report};
use crate::desired;

/// The faults of a report to show, errors first if not all can be, and how many are left out.
pub fn of_report(report: &Report) -> (Vec<FaultView>, u64) {
    let (shown, left) = report.shown();
    let views = shown.into_iter().map(FaultView::from).collect();
    (views, u64::try_from(left).unwrap_or(u64::MAX))
}

impl From<&config::Fault> for FaultView {
    fn from(fault: &config::Fault) -> Self {
        let (line, column) = position(&fault.place);
        FaultView {
            severity: match fault.severity {
                config::Severity::Error => Severity::Error,
                config::Severity::Warning => Severity::Warning,
            },
            file: Some(path(&fault.place.file)),
            line,
            column,
            what: fault.what.clone(),
            hint: fault.hint.clone(),
            endpoint: None,
            related: fault.related.iter().map(RelatedView::from).collect(),
        }
    }
}

impl From<&config::Related> for RelatedView {
    fn from(related: &config::Related) -> Self {
        let (line, column) = position(&related.place);
        RelatedView { file: path(&related.place.file), line, column, what: related.what.clone() }
    }
}

impl From<&desired::Fault> for FaultView {
    fn from(fault: &desired::Fault) -> Self {
        let origin = fault.origin.as_ref();
        FaultView {
            severity: Severity::Error,
            file: origin.map(|origin| path(&origin.file)),
            line: origin.map(|origin| origin.line),
            column: origin.map(|origin| origin.column),
            what: match &fault.why {
                Some(why) => format!("{}: {why}", fault.what),
                None => fault.what.clone(),
            },
            hint: fault.hint.clone(),
            endpoint: fault.endpoint.as_ref().map(ToString::to_string),
            related: Vec::new(),
        }
    }
}

fn position(place: &Place) -> (Option<u32>, Option<u32>) {
    place.position.as_ref().map(|position| (position.line, position.column)).unzip()
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
