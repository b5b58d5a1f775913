//! Waiting for conditions, each with a deadline; never for time.

use std::time::{Duration, Instant};

/// Between two looks at a condition.
pub fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}

/// What `condition` gives as soon as it gives something; none after the deadline.
pub fn some<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() > end {
            return None;
        }
        pause();
    }
}

/// The same for what takes less than a millisecond: looks again at once, after letting others run.
pub fn some_soon<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Panics, naming `what`, if the condition does not become true in time.
#[track_caller]
pub fn eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    if some(deadline, || condition().then_some(())).is_none() {
        panic!("not within {deadline:?}: {what}");
    }
}
