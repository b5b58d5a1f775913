//! Time-outs that cost nothing while all goes well: the timer is set anew only when it rings, or earlier is wanted.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Until when the next thing must have happened on a connection.
pub struct Watch {
    begin: Instant,
    /// Milliseconds since `begin`.
    until: AtomicU64,
}

pub struct Alarm {
    sleep: Pin<Box<Sleep>>,
}

/// It did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late;

impl Watch {
    pub fn new(patience: Duration) -> (Self, Alarm) {
        let begin = Instant::now();
        let watch = Watch { begin, until: AtomicU64::new(millis(patience)) };
        let alarm = Alarm { sleep: Box::pin(sleep_until(begin + patience)) };
        (watch, alarm)
    }

    pub fn patience(&self, patience: Duration) {
        let until = self.begin.elapsed() + patience;
        self.until.store(millis(until), Ordering::Relaxed);
    }

    fn until(&self) -> Instant {
        self.begin + Duration::from_millis(self.until.load(Ordering::Relaxed))
    }

    /// What `future` gives, unless that comes too late. `future` says by `patience` when it has got on.
    pub async fn guard<T>(
        &self,
        alarm: &mut Alarm,
        future: impl Future<Output = T>,
    ) -> Result<T, Late> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            let until = self.until();
            if alarm.sleep.deadline() > until {
                alarm.sleep.as_mut().reset(until);
            }
            while alarm.sleep.as_mut().poll(cx).is_ready() {
                if Instant::now() >= until {
                    return Poll::Ready(Err(Late));
                }
                alarm.sleep.as_mut().reset(until);
            }
            Poll::Pending
        })
        .await
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
