//! Records on their way to the daemon: as many as fit; the rest is counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::proxy::record::{Record, Sink};

pub struct Records {
    sender: Sender<Record>,
    allowed: AtomicBool,
    lost: AtomicU64,
}

/// Records that wait.
const MOST: usize = 4096;

impl Records {
    pub fn new() -> (Self, Receiver<Record>) {
        let (sender, receiver) = channel(MOST);
        (Records { sender, allowed: AtomicBool::new(false), lost: AtomicU64::new(0) }, receiver)
    }

    pub fn log_allowed(&self, allowed: bool) {
        self.allowed.store(allowed, Ordering::Relaxed);
    }

    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}

impl Sink for Records {
    fn wants_allowed(&self) -> bool {
        self.allowed.load(Ordering::Relaxed)
    }

    fn take(&self, record: Record) {
        if self.sender.try_send(record).is_err() {
            self.lose();
        }
    }
}
