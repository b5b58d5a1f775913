//! How long to leave alone what keeps failing: a kernel that refuses, a container that removes its own interface.
//!
//! Times come in as values: nothing here waits or reads a clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::types::Name;

const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);

/// Half a second, doubling to a minute.
#[derive(Debug, Default)]
pub struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// How long to wait after one more failure.
    pub fn failed(&mut self) -> Duration {
        let delay = self.last.map_or(SHORTEST, |last| (last * 2).min(LONGEST));
        self.last = Some(delay);
        delay
    }

    pub fn succeeded(&mut self) {
        self.last = None;
    }
}

/// Endpoints whose interface went away though their namespace did not.
///
/// Once or twice it is made anew at once. Who does it again and again is left closed for longer and longer:
/// otherwise a container could make the host commit generations as fast as it can.
#[derive(Debug, Default)]
pub struct Vanished {
    endpoints: BTreeMap<Name, Record>,
}

#[derive(Debug)]
struct Record {
    times: u32,
    backoff: Backoff,
    /// Closed until then.
    until: Instant,
    delay: Duration,
}

impl Vanished {
    /// Made anew without a wait.
    const FREE: u32 = 2;

    /// An interface that stayed for a minute is no part of a series.
    pub fn note(&mut self, endpoint: &Name, now: Instant) {
        let first =
            || Record { times: 0, backoff: Backoff::default(), until: now, delay: Duration::ZERO };
        let record = self.endpoints.entry(endpoint.clone()).or_insert_with(first);
        if now >= record.until + LONGEST {
            *record = first();
        }
        record.times += 1;
        record.delay = match record.times > Self::FREE {
            true => record.backoff.failed(),
            false => Duration::ZERO,
        };
        record.until = now + record.delay;
    }

    /// Its namespace is gone, so it was not the container's doing; or it is not configured any more.
    pub fn forget_unless(&mut self, keep: impl Fn(&Name) -> bool) {
        self.endpoints.retain(|name, _| keep(name));
    }

    /// The endpoints to leave closed now, and why. The text is the same as long as the wait is.
    pub fn held(&self, now: Instant) -> impl Iterator<Item = (&Name, String)> {
        let held = self.endpoints.iter().filter(move |(_, record)| now < record.until);
        held.map(|(name, record)| {
            let Record { times, delay, .. } = record;
            let why = format!(
                "its interface was removed {times} times in a row; it is made anew after {delay:?}"
            );
            (name, why)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_begin_anew_after_success() {
        let mut backoff = Backoff::default();
        let mut waits = || backoff.failed().as_millis();
        let first: Vec<_> = (0..9).map(|_| waits()).collect();
        assert_eq!(first, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        backoff.succeeded();
        assert_eq!(backoff.failed(), SHORTEST);
    }

    #[test]
    fn who_removes_its_interface_again_and_again_is_left_closed_longer_and_longer() {
        let name: Name = "bad".parse().unwrap();
        let mut vanished = Vanished::default();
        let mut now = Instant::now();
        let mut times = 0;
        let begun = now;
        // As fast as it can, for an hour.
        while now < begun + Duration::from_secs(3600) {
            now = vanished.held(now).next().map_or(now, |_| vanished.endpoints[&name].until);
            vanished.note(&name, now + Duration::from_millis(50));
            now += Duration::from_millis(50);
            times += 1;
        }
        assert!(times < 80, "{times} times in an hour");
        let held: Vec<_> = vanished.held(now).collect();
        assert_eq!(held.len(), 1);
        assert!(held[0].1.ends_with("times in a row; it is made anew after 60s"), "{}", held[0].1);
        // Once it was good for a minute, it is like any other.
        now += Duration::from_secs(121);
        vanished.note(&name, now);
        assert_eq!(vanished.held(now).count(), 0);
        vanished.note(&name, now);
        vanished.note(&name, now);
        assert_eq!(vanished.held(now).count(), 1);
        vanished.forget_unless(|_| false);
        assert_eq!(vanished.held(now).count(), 0);
    }
}
