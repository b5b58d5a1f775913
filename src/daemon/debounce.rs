//! When is it quiet? Edits come in bursts; one round of work should see the whole burst.
//!
//! Pure: the caller brings the clock.

use std::time::{Duration, Instant};

/// Settles `quiet` after the last disturbance, or `at_most` after the first.
#[derive(Debug)]
pub struct Debounce {
    quiet: Duration,
    at_most: Duration,
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    first: Instant,
    last: Instant,
}

impl Debounce {
    pub fn new(quiet: Duration, at_most: Duration) -> Self {
        Debounce { quiet, at_most, pending: None }
    }

    /// Times from a new configuration hold from the next disturbance on.
    pub fn set(&mut self, quiet: Duration, at_most: Duration) {
        self.quiet = quiet;
        self.at_most = at_most;
    }

    pub fn disturb(&mut self, now: Instant) {
        match &mut self.pending {
            Some(pending) => pending.last = now,
            None => self.pending = Some(Pending { first: now, last: now }),
        }
    }

    /// When to look again; none: nothing is pending.
    pub fn deadline(&self) -> Option<Instant> {
        let pending = self.pending.as_ref()?;
        Some((pending.last + self.quiet).min(pending.first + self.at_most))
    }

    /// True once for each settled burst.
    pub fn settle(&mut self, now: Instant) -> bool {
        let settled = self.deadline().is_some_and(|deadline| deadline <= now);
        if settled {
            self.pending = None;
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_burst_settles_once_after_quiet() {
        let start = Instant::now();
        let mut debounce = Debounce::new(50 * MS, 500 * MS);
        assert_eq!(debounce.deadline(), None);
        debounce.disturb(start);
        debounce.disturb(start + 40 * MS);
        assert!(!debounce.settle(start + 89 * MS));
        assert!(debounce.settle(start + 90 * MS));
        assert!(!debounce.settle(start + 91 * MS));
    }

    #[test]
    fn endless_edits_are_read_all_the_same() {
        let start = Instant::now();
        let mut debounce = Debounce::new(50 * MS, 500 * MS);
        let settled = (0..100).find(|i| {
            let now = start + *i * 10 * MS;
            debounce.disturb(now);
            debounce.settle(now)
        });
        assert_eq!(settled, Some(50));
    }
}
