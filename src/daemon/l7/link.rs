//! The daemon's end of the channel to one worker: orders and their answers, one at a time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::proxy::Counts;
use crate::proxy::worker::{Channel, ChannelError, Order, Report, Sandbox};

/// How long an answer may take. A worker that is late is no use: it is ended.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Link {
    channel: Channel,
    /// Held while an order is under way.
    ordering: Mutex<()>,
    said: Mutex<Said>,
    more: Condvar,
}

/// What the worker has said so far.
#[derive(Default)]
struct Said {
    sandbox: Option<Sandbox>,
    answer: Option<Result<(), String>>,
    counted: Option<Counted>,
    over: bool,
}

/// What a worker counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted {
    pub counts: Counts,
    pub open: u64,
    /// Records that nobody took in time.
    pub lost: u64,
}

/// Why an order was not obeyed.
#[derive(Debug, thiserror::Error)]
pub enum Unheeded {
    #[error("it refuses: {0}")]
    Refused(String),
    /// It is not to be spoken to any more.
    #[error("{0}")]
    Broken(String),
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Link {
    pub fn new(channel: Channel) -> Self {
        Link { channel, ordering: Mutex::default(), said: Mutex::default(), more: Condvar::new() }
    }

    /// Until it is obeyed.
    pub fn order(&self, order: &Order, with: &[BorrowedFd<'_>]) -> Result<(), Unheeded> {
        let end = Instant::now() + PATIENCE;
        let _one = lock(&self.ordering);
        lock(&self.said).answer = None;
        self.send(order, with, end).map_err(|error| Unheeded::Broken(error.to_string()))?;
        let mut said = lock(&self.said);
        loop {
            if let Some(answer) = said.answer.take() {
                return answer.map_err(Unheeded::Refused);
            }
            if said.over {
                return Err(Unheeded::Broken("it has ended".to_owned()));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // An answer that comes now would be taken for that to the next order.
                drop(said);
                self.end();
                return Err(Unheeded::Broken("it does not answer".to_owned()));
            }
            let waited = self.more.wait_timeout(said, left);
            said = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What it counted until now.
    pub fn count(&self) -> Option<Counted> {
        self.order(&Order::Count {}, &[]).ok()?;
        lock(&self.said).counted
    }

    /// It is spoken to no more, and its watcher ends it.
    pub fn end(&self) {
        lock(&self.said).over = true;
        // If that is so already, all the better.
        let _ = rustix::net::shutdown(self.channel.as_fd(), rustix::net::Shutdown::Both);
        self.more.notify_all();
    }

    pub fn sandbox(&self) -> Option<Sandbox> {
        lock(&self.said).sandbox
    }

    pub fn is_over(&self) -> bool {
        lock(&self.said).over
    }

    /// Hears the worker until it is gone. Records are `tell`'s.
    pub fn listen(&self, mut tell: impl FnMut(crate::proxy::Record)) {
        loop {
            match self.channel.receive::<Report>() {
                Ok((report, _)) => match report {
                    Report::Record { record } => tell(record),
                    Report::Started { sandbox } => lock(&self.said).sandbox = Some(sandbox),
                    Report::Counts { counts, open, lost } => {
                        let counted = Counted { counts, open: open as u64, lost };
                        lock(&self.said).counted = Some(counted);
                    }
                    Report::Done {} => self.answered(Ok(())),
                    Report::Refused { why } => self.answered(Err(why)),
                },
                Err(ChannelError::Message(why)) => {
                    log::warn!("the L7 worker says what makes no sense: {why}");
                }
                Err(ChannelError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.wait(PollFlags::IN, None).is_err() {
                        break;
                    }
                }
                Err(ChannelError::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(ChannelError::Over | ChannelError::Io(_)) => break,
            }
        }
        lock(&self.said).over = true;
        self.more.notify_all();
    }

    fn answered(&self, answer: Result<(), String>) {
        lock(&self.said).answer = Some(answer);
        self.more.notify_all();
    }

    fn send(
        &self,
        order: &Order,
        with: &[BorrowedFd<'_>],
        end: Instant,
    ) -> Result<(), ChannelError> {
        loop {
            match self.channel.send(order, with) {
                Err(ChannelError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::OUT, Some(end))?;
                }
                sent => return sent,
            }
        }
    }

    fn wait(&self, what: PollFlags, end: Option<Instant>) -> io::Result<()> {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::from_borrowed_fd(self.channel.as_fd(), what)], left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in there is whole between any two statements above.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
