//! The daemon's end of the channel to one worker: orders and their answers, one at a time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

use crate::observe::text::plain;
use crate::proxy::Counts;
use crate::proxy::worker::{Channel, ChannelError, Order, Report, Sandbox};

/// How long an answer may take. A worker that is late is no use: it is ended.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long who only wants to know the counts waits for them.
const CURIOSITY: Duration = Duration::from_secs(1);

pub struct Link {
    channel: Channel,
    /// A pidfd; none: an earlier daemon has left none.
    process: Option<OwnedFd>,
    said: Mutex<Said>,
    /// Something in `said` is another.
    more: Condvar,
}

/// What the worker has said so far.
#[derive(Default)]
struct Said {
    sandbox: Option<Sandbox>,
    /// An order is under way: others wait for their turn.
    busy: bool,
    /// Orders that are not answered yet. Whoever is not waited for any more is answered before the one under way.
    unanswered: u32,
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
    /// The link is ended.
    #[error("{0}")]
    Broken(String),
}

/// Why there is no answer.
enum Silent {
    Over,
    Late,
    Unsent(String),
}

/// The right to give an order.
struct Turn<'a>(&'a Link);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.0.said).busy = false;
        self.0.more.notify_all();
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Link {
    pub fn new(channel: Channel, process: Option<OwnedFd>) -> Self {
        Link { channel, process, said: Mutex::default(), more: Condvar::new() }
    }

    /// Until it is obeyed. The time in which others give theirs is not the worker's.
    pub fn order(&self, order: &Order, with: &[BorrowedFd<'_>]) -> Result<(), Unheeded> {
        let turn = self.turn(None)?;
        self.obeyed(turn, order, with, Instant::now() + PATIENCE)
    }

    /// Until then at the latest, others' orders included.
    pub fn order_by(
        &self,
        order: &Order,
        with: &[BorrowedFd<'_>],
        end: Instant,
    ) -> Result<(), Unheeded> {
        let turn = self.turn(Some(end))?;
        self.obeyed(turn, order, with, end)
    }

    /// What it counted until now; if it is busy, or does not answer soon, what it said last.
    pub fn count(&self) -> Option<Counted> {
        let free = {
            let mut said = lock(&self.said);
            let free = !said.busy && !said.over && said.unanswered == 0;
            said.busy |= free;
            free
        };
        if free {
            let turn = Turn(self);
            // If it is late, who orders something next finds that out.
            let _ = self.ask(&turn, &Order::Count {}, &[], Instant::now() + CURIOSITY);
        }
        lock(&self.said).counted
    }

    /// It is spoken to no more, and its watcher ends it.
    pub fn end(&self) {
        lock(&self.said).over = true;
        // If that is so already, all the better.
        let _ = rustix::net::shutdown(self.channel.as_fd(), rustix::net::Shutdown::Both);
        self.more.notify_all();
    }

    /// Ends the process.
    pub fn kill(&self) {
        let Some(process) = &self.process else { return };
        match pidfd_send_signal(process, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => log::error!("cannot end an L7 worker: {error}"),
        }
    }

    pub fn process(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(AsFd::as_fd)
    }

    pub fn sandbox(&self) -> Option<Sandbox> {
        lock(&self.said).sandbox
    }

    pub fn is_over(&self) -> bool {
        lock(&self.said).over
    }

    /// Hears the worker until it is gone, or has said what makes no sense. Records are `tell`'s.
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
                    Report::Done {} if self.answered(Ok(())) => {}
                    Report::Refused { why } if self.answered(Err(short(&why))) => {}
                    Report::Done {} | Report::Refused { .. } => {
                        log::error!("the L7 worker is ended: it answers what it was not asked");
                        break;
                    }
                },
                Err(ChannelError::Message(why)) => {
                    let why = short(&why);
                    log::error!("the L7 worker is ended: it says what makes no sense: {why}");
                    break;
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
        self.end();
    }

    /// Whether an answer was due.
    fn answered(&self, answer: Result<(), String>) -> bool {
        let mut said = lock(&self.said);
        let Some(left) = said.unanswered.checked_sub(1) else { return false };
        said.unanswered = left;
        // They come in the order of what was asked: the last is the one that is waited for.
        if left == 0 {
            said.answer = Some(answer);
        }
        drop(said);
        self.more.notify_all();
        true
    }

    fn turn(&self, end: Option<Instant>) -> Result<Turn<'_>, Unheeded> {
        let mut said = lock(&self.said);
        while said.busy && !said.over {
            let Some(end) = end else {
                said = self.more.wait(said).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(said);
                self.end();
                return Err(Unheeded::Broken("it is busy with another order".to_owned()));
            }
            let waited = self.more.wait_timeout(said, left);
            said = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if said.over {
            return Err(Unheeded::Broken("it has ended".to_owned()));
        }
        said.busy = true;
        Ok(Turn(self))
    }

    fn obeyed(
        &self,
        turn: Turn<'_>,
        order: &Order,
        with: &[BorrowedFd<'_>],
        end: Instant,
    ) -> Result<(), Unheeded> {
        let why = match self.ask(&turn, order, with, end) {
            Ok(answer) => return answer.map_err(Unheeded::Refused),
            Err(Silent::Over) => "it has ended".to_owned(),
            Err(Silent::Late) => "it does not answer in time".to_owned(),
            Err(Silent::Unsent(why)) => why,
        };
        self.end();
        Err(Unheeded::Broken(why))
    }

    /// The worker's answer, if it comes until then.
    fn ask(
        &self,
        _turn: &Turn<'_>,
        order: &Order,
        with: &[BorrowedFd<'_>],
        end: Instant,
    ) -> Result<Result<(), String>, Silent> {
        {
            let mut said = lock(&self.said);
            said.answer = None;
            said.unanswered += 1;
        }
        if let Err(error) = self.send(order, with, end) {
            let mut said = lock(&self.said);
            said.unanswered = said.unanswered.saturating_sub(1);
            return Err(Silent::Unsent(error.to_string()));
        }
        let mut said = lock(&self.said);
        loop {
            if let Some(answer) = said.answer.take() {
                return Ok(answer);
            }
            if said.over {
                return Err(Silent::Over);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Silent::Late);
            }
            let waited = self.more.wait_timeout(said, left);
            said = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
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

/// What a process says that strangers speak to, for the log.
fn short(text: &str) -> String {
    const LONGEST: usize = 300;
    plain(&text.chars().take(LONGEST).collect::<String>()).into_owned()
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
