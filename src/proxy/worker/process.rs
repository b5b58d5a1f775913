//! The worker's life: it confines itself, takes orders, and reports.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::Receiver;

use super::book::Book;
use super::channel::{self, Channel, ChannelError};
use super::listeners::{self, Listeners};
use super::message::{Order, Report};
use super::reports::Records;
use super::sandbox;
use super::transparent::Transparent;
use crate::kernel::flows::Flows;
use crate::kernel::sys;
use crate::proxy::limits::Limits;
use crate::proxy::record::{Record, Sink};
use crate::proxy::rulebook::Rulebook;
use crate::proxy::service::Service;

/// Without a daemon and without a connection for so long, it ends.
pub const LONELY: Duration = Duration::from_secs(600);

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}: {why}")]
pub struct Failed {
    operation: &'static str,
    why: io::Error,
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> Failed {
    move |why| Failed { operation, why }
}

/// Until it is no longer needed. The daemon is at the other end of standard input.
pub fn run() -> Result<(), Failed> {
    let socket = io::stdin().as_fd().try_clone_to_owned();
    let channel =
        socket.and_then(Channel::of).map_err(failed("take orders from standard input"))?;
    let limits = limits();
    // Before there are threads, as it is about this one and those it starts.
    let sandbox = sandbox::enter().map_err(failed("confine the worker"))?;
    let (records, queue) = Records::new();
    let records = Arc::new(records);
    let sink = Arc::clone(&records) as Arc<dyn Sink>;
    let book = Arc::new(Book::default());
    let upstream = Transparent::new(Arc::clone(&book));
    let rules = Arc::clone(&book) as Arc<dyn Rulebook>;
    let service = Arc::new(Service::new(upstream, rules, limits, sink));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads: Result<Vec<_>, _> = (0..threads).map(|_| thread()).collect();
    let threads = threads.map_err(failed("start threads"))?;
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed("start a runtime"))?;
    runtime.block_on(async {
        let channel = sys::wait_on(channel.into_fd()).map_err(failed("wait for orders"))?;
        report(&channel, &Report::Started { sandbox }).await;
        let worker = Worker {
            listeners: Listeners::new(Arc::clone(&service), threads),
            service: &service,
            book: &book,
            records: &records,
            channel: &channel,
            draining: false,
        };
        worker.work(queue).await;
        Ok(())
    })
}

/// As many descriptors as the process may have, and no more connections than have room in them.
fn limits() -> Limits {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const OTHERS: u64 = 512;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // If it is refused, it is as it was.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let mut limits = Limits::default();
    if let Some(descriptors) = getrlimit(Resource::Nofile).current {
        let room = usize::try_from(descriptors.saturating_sub(OTHERS) / 2).unwrap_or(usize::MAX);
        limits.connections = limits.connections.min(room.max(1));
    }
    limits
}

/// A thread that does what it is given for as long as the process lives.
fn thread() -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("l7".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}

struct Worker<'a> {
    listeners: Listeners<Transparent>,
    service: &'a Service<Transparent>,
    book: &'a Book,
    records: &'a Records,
    channel: &'a AsyncFd<OwnedFd>,
    draining: bool,
}

impl Worker<'_> {
    async fn work(mut self, queue: Receiver<Record>) {
        let (channel, records) = (self.channel, self.records);
        let orders = async {
            loop {
                let next = match self.draining {
                    false => next(channel).await,
                    true => match select(pin!(next(channel)), pin!(self.idle())).await {
                        Either::Left((next, _)) => next,
                        Either::Right(((), _)) => return,
                    },
                };
                match next {
                    Ok((order, descriptors)) => {
                        let done = self.obey(order, descriptors).await;
                        let answer =
                            done.map_or_else(|why| Report::Refused { why }, |()| Report::Done {});
                        report(channel, &answer).await;
                    }
                    Err(ChannelError::Message(why)) => {
                        report(channel, &Report::Refused { why }).await;
                    }
                    Err(ChannelError::Over | ChannelError::Io(_)) => break,
                }
            }
            log::info!("nobody gives orders any more");
            match self.draining {
                true => self.idle().await,
                false => self.lonely().await,
            }
        };
        let tell = tell(channel, records, queue);
        select(pin!(orders), pin!(tell)).await;
    }

    async fn obey(&mut self, order: Order, descriptors: Vec<OwnedFd>) -> Result<(), String> {
        match order {
            Order::Rules { number: 0 } => Err("0 is the number of no rules".to_owned()),
            Order::Rules { number } => {
                let [file] = these(descriptors)?;
                self.book.learn(number, file)
            }
            Order::Forget { number } => {
                self.book.forget(number);
                Ok(())
            }
            Order::Listen {} if self.draining => Err("it accepts no more".to_owned()),
            Order::Listen {} => {
                let mut maps = descriptors;
                if maps.len() < 2 {
                    return Err("tables of flows and sockets did not come with it".to_owned());
                }
                let sockets = listeners::sockets(maps.split_off(2))?;
                self.book.open(Flows::new(these(maps)?))?;
                self.listeners.listen(sockets)
            }
            Order::Drain {} => {
                self.listeners.stop();
                self.draining = true;
                Ok(())
            }
            Order::Log { allowed } => {
                self.records.log_allowed(allowed);
                Ok(())
            }
            Order::Count {} => {
                let counts = self.service.counters.now();
                let (open, lost) = (self.service.open(), self.records.lost());
                report(self.channel, &Report::Counts { counts, open, lost }).await;
                Ok(())
            }
        }
    }

    /// Serves until nobody is left.
    async fn idle(&self) {
        const LOOK: Duration = Duration::from_millis(200);
        while self.service.open() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Serves until there was nobody to serve for long.
    async fn lonely(&self) {
        const LOOK: Duration = Duration::from_secs(5);
        let mut since = std::time::Instant::now();
        let mut before = self.service.counters.now().connections;
        while since.elapsed() < LONELY {
            tokio::time::sleep(LOOK).await;
            let connections = self.service.counters.now().connections;
            if self.service.open() > 0 || connections != before {
                (since, before) = (std::time::Instant::now(), connections);
            }
        }
    }
}

/// Just so many.
fn these<const N: usize>(descriptors: Vec<OwnedFd>) -> Result<[OwnedFd; N], String> {
    let came = descriptors.len();
    descriptors.try_into().map_err(|_| format!("{came} descriptors came instead of {N}"))
}

async fn next(channel: &AsyncFd<OwnedFd>) -> Result<(Order, Vec<OwnedFd>), ChannelError> {
    loop {
        let mut ready = channel.readable().await?;
        match channel::receive(channel.as_fd()) {
            Err(ChannelError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                ready.clear_ready();
            }
            received => return received,
        }
    }
}

/// Passes records on, for ever.
async fn tell(channel: &AsyncFd<OwnedFd>, records: &Records, mut queue: Receiver<Record>) {
    while let Some(record) = queue.recv().await {
        if !report(channel, &Report::Record { record }).await {
            records.lose();
        }
    }
    // The records' own end is kept as long as the service.
    std::future::pending().await
}

/// Whether it could be said. Waits for room.
async fn report(channel: &AsyncFd<OwnedFd>, report: &Report) -> bool {
    loop {
        let Ok(mut ready) = channel.writable().await else { return false };
        match channel::send(channel.as_fd(), report, &[]) {
            Err(ChannelError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                ready.clear_ready();
            }
            sent => return sent.is_ok(),
        }
    }
}
