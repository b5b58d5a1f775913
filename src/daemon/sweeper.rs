//! The thread that sweeps conntrack: what has timed out goes, so that live flows keep their places.
//!
//! It has no part in judging: an entry that timed out counts as absent for the datapath already.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::kernel::datapath::Maps;
use crate::kernel::sweep;

/// The running thread. Dropping it stops it.
pub struct Sweeper {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    const INTERVAL: Duration = Duration::from_secs(10);

    /// `tracked` is told how many flows there are after each sweep.
    pub fn start(maps: Arc<Maps>, tracked: Arc<AtomicU64>) -> io::Result<Self> {
        let (stop, stopped) = mpsc::sync_channel::<()>(1);
        let thread = std::thread::Builder::new().name("sweeper".to_owned()).spawn(move || {
            let mut uncounted = 0;
            loop {
                uncounted = tell_uncounted(&maps, uncounted);
                match sweep::sweep(&maps, sweep::now(), |_| {}) {
                    Ok(swept) => {
                        tracked.store(swept.alive as u64, Ordering::Relaxed);
                        log::debug!("conntrack: {} kept, {} ended", swept.alive, swept.ended);
                    }
                    Err(error) => log::warn!("cannot sweep conntrack: {error}"),
                }
                if stopped.recv_timeout(Self::INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        })?;
        Ok(Sweeper { stop: Some(stop), thread: Some(thread) })
    }
}

/// Says so if rules decided without a counter since there were `before` such decisions.
fn tell_uncounted(maps: &Maps, before: u64) -> u64 {
    match maps.uncounted_hits() {
        Ok(now) if now > before => {
            log::warn!(
                "{} decisions were not counted: there are no counters left for so many rules",
                now - before
            );
            now
        }
        Ok(now) => now,
        Err(error) => {
            log::warn!("cannot tell whether all decisions are counted: {error}");
            before
        }
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the panic hook; there is nothing to add.
            let _ = thread.join();
        }
    }
}
