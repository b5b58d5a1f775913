//! Every fault of one reading, in the order of their places, for logs, programs and people.

use std::fmt;

use serde::Serialize;

use super::fault::{Fault, Faults, Severity};

/// Bounded: of very many faults only the first are kept; the rest are counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub errors: usize,
    pub warnings: usize,
    /// Sorted by file, line and column.
    pub faults: Vec<Fault>,
}

/// Faults that are shown at most, here and on terminals.
pub const SHOWN: usize = 100;

impl Report {
    pub(super) fn new(faults: Faults) -> Self {
        let (mut faults, errors, warnings) = faults.into_parts();
        faults
            .sort_by(|a, b| (&a.place, a.severity, &a.what).cmp(&(&b.place, b.severity, &b.what)));
        Report { errors, warnings, faults }
    }

    /// The same, with what was found out later.
    pub fn and(&self, more: impl IntoIterator<Item = Fault>) -> Self {
        let mut faults = Faults::default();
        self.faults.iter().cloned().chain(more).for_each(|fault| faults.push(fault));
        let omitted = self.errors + self.warnings - self.faults.len();
        let mut report = Report::new(faults);
        // What is not listed is counted all the same; errors are listed first.
        report.warnings += omitted;
        report
    }

    pub fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// The faults to show, errors before warnings if not all can be, and how many are left out.
    pub fn shown(&self) -> (Vec<&Fault>, usize) {
        let all = self.errors + self.warnings;
        if all <= SHOWN {
            return (self.faults.iter().collect(), all - self.faults.len());
        }
        let of = |severity| self.faults.iter().filter(move |fault| fault.severity == severity);
        let first = of(Severity::Error).chain(of(Severity::Warning)).take(SHOWN);
        let shown: Vec<&Fault> = first.collect();
        let left = all - shown.len();
        (shown, left)
    }

    /// `2 errors, 1 warning`; empty if there are none.
    pub fn summary(&self) -> String {
        let mut parts = Vec::new();
        for (count, what) in [(self.errors, "error"), (self.warnings, "warning")] {
            match count {
                0 => {}
                1 => parts.push(format!("1 {what}")),
                _ => parts.push(format!("{count} {what}s")),
            }
        }
        parts.join(", ")
    }
}

/// One line per fault: `file:line:column: error: what; hint`. At most [`SHOWN`], then `and N more`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, left) = self.shown();
        for fault in shown {
            writeln!(f, "{fault}")?;
        }
        if left > 0 {
            writeln!(f, "and {left} more")?;
        }
        Ok(())
    }
}
