//! The datapath's clock (nanoseconds of `CLOCK_MONOTONIC`) to the time of day.

use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// How far the time of day is ahead of the monotonic clock, at one moment.
///
/// The difference changes when the time of day is set, so it is taken anew for every batch of events.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    now: Timestamp,
    monotonic: SignedDuration,
}

impl Clock {
    pub fn now() -> Self {
        let monotonic = duration(clock_gettime(ClockId::Monotonic));
        Clock { now: Timestamp::now(), monotonic }
    }

    /// When `nanoseconds` of the monotonic clock was, to the microsecond.
    pub fn time_of(self, nanoseconds: u64) -> Timestamp {
        let at = i64::try_from(nanoseconds).map_or(SignedDuration::MAX, SignedDuration::from_nanos);
        let time = at
            .checked_sub(self.monotonic)
            .and_then(|since| self.now.checked_add(since).ok())
            .unwrap_or(self.now);
        Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
    }
}

fn duration(time: Timespec) -> SignedDuration {
    SignedDuration::new(time.tv_sec, i32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_placed_relative_to_now() {
        let now: Timestamp = "2026-11-23T16:02:11Z".parse().unwrap();
        let clock = Clock { now, monotonic: SignedDuration::from_secs(100) };
        let time = |ns| clock.time_of(ns).to_string();
        assert_eq!(time(100_000_000_000), "2026-11-23T16:02:11Z");
        assert_eq!(time(98_876_543_999), "2026-11-23T16:02:09.876543Z");
        assert_eq!(time(101_000_000_000), "2026-11-23T16:02:12Z");
        assert_eq!(time(0), "2026-11-23T16:00:31Z");
        // Nonsense from a broken record must not panic.
        clock.time_of(u64::MAX);
    }
}
