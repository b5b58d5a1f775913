//! The daemon's end of the socket: accepts, reads requests, hands them on, writes answers.
//!
//! One thread per connection, at most [`Server::CONNECTIONS`]. Nothing that a client sends, or does
//! not send, can hold a thread for long or make the daemon grow. What the answers are is the
//! handler's business.

use std::io::{self, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::{Shutdown, shutdown};

use super::socket::{self, Socket, SocketError};
use super::wire::{
    self, ErrorCode, Line, REQUEST_MAX, Request, Response, parse_request, read_line, write_line,
};
use crate::observe::hub::{Filter, Item, Subscription};

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Every request but `Flows`. Must not wait for longer than a client does.
    fn handle(&self, request: Request) -> Response;

    /// For `Flows`.
    fn subscribe(&self, filter: Filter) -> Subscription;
}

/// The running server. Dropping it stops accepting, removes the socket's file and lets the
/// connections end.
#[derive(Debug)]
pub struct Server {
    socket: Arc<Socket>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From the end of one answer (or the connection) to the end of the next request.
    pub request: Duration,
    /// For a client to take some of an answer.
    pub answer: Duration,
    /// Without flows, after which a follower is asked whether it is still there.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            request: Duration::from_secs(10),
            answer: Duration::from_secs(10),
            idle: Duration::from_secs(5),
        }
    }
}

impl Server {
    /// Connections at a time. More are told that the daemon is busy.
    pub const CONNECTIONS: usize = 64;
    /// The same for root: containers that start wait here, and the group's members must not keep them out.
    pub const CONNECTIONS_OF_ROOT: usize = 256;

    /// Serves `<run>/porin.sock`.
    pub fn start(run: &Path, handler: Arc<dyn Handler>) -> Result<Self, SocketError> {
        let io = |error| SocketError::Io { operation: "make", path: run.to_owned(), error };
        std::fs::create_dir_all(run).map_err(io)?;
        let path = run.join(socket::NAME);
        Self::with_patience(&path, socket::group(socket::GROUP), handler, Patience::default())
    }

    /// Serves `path` to root and `group`.
    pub fn with_patience(
        path: &Path,
        group: Option<u32>,
        handler: Arc<dyn Handler>,
        patience: Patience,
    ) -> Result<Self, SocketError> {
        let socket = Arc::new(Socket::bind(path, group)?);
        let stopping = Arc::new(AtomicBool::new(false));
        let context = Context {
            socket: socket.clone(),
            handler,
            patience,
            stopping: stopping.clone(),
            connections: Arc::default(),
        };
        let accepting = std::thread::Builder::new().name("control".to_owned());
        let thread = accepting.spawn(move || context.accept()).map_err(|error| {
            SocketError::Io { operation: "start serving", path: path.to_owned(), error }
        })?;
        Ok(Server { socket, stopping, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        self.socket.remove();
        // Wakes accept(2), which then fails; so does every later one.
        if let Err(error) = shutdown(&self.socket.listener, Shutdown::Both) {
            log::warn!("cannot shut the control socket down: {error}");
        }
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the panic hook; there is nothing to add.
            let _ = thread.join();
        }
    }
}

#[derive(Clone)]
struct Context {
    socket: Arc<Socket>,
    handler: Arc<dyn Handler>,
    patience: Patience,
    stopping: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

impl Context {
    fn accept(self) {
        loop {
            match self.socket.listener.accept() {
                Ok((stream, _)) => self.admit(stream),
                Err(_) if self.stopping() => return,
                Err(error) => {
                    // Out of descriptors or memory: both pass. Not a busy loop until then.
                    log::warn!("cannot accept a control connection: {error}");
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    fn admit(&self, stream: UnixStream) {
        let most = match socket::is_superior(&stream) {
            Ok(true) => Server::CONNECTIONS_OF_ROOT,
            _ => Server::CONNECTIONS,
        };
        let refusal = match self.socket.admits(&stream) {
            Ok(true) if self.connections.load(Ordering::Acquire) < most => None,
            Ok(true) => Some((ErrorCode::Busy, "too many connections")),
            Ok(false) => Some((ErrorCode::Forbidden, "only root and the group porin may ask")),
            Err(error) => return log::warn!("cannot tell who asks: {error}"),
        };
        if let Some((code, what)) = refusal {
            return refuse(&stream, &Response::error(code, what));
        }
        self.connections.fetch_add(1, Ordering::AcqRel);
        let context = self.clone();
        let thread = std::thread::Builder::new().name("control client".to_owned());
        let spawned = thread.spawn(move || {
            let _leave = Leave(context.connections.clone());
            context.converse(&stream);
        });
        if let Err(error) = spawned {
            self.connections.fetch_sub(1, Ordering::AcqRel);
            log::warn!("cannot serve a control connection: {error}");
        }
    }

    /// Errors here mean that the client went away, or was too slow: its own loss.
    fn converse(&self, stream: &UnixStream) {
        if let Err(error) = self.answer_all(stream) {
            log::debug!("control connection: {error}");
        }
    }

    fn answer_all(&self, mut stream: &UnixStream) -> io::Result<()> {
        stream.set_write_timeout(Some(self.patience.answer))?;
        let mut requests = BufReader::with_capacity(8 << 10, Patient { stream, deadline: None });
        while !self.stopping() {
            requests.get_mut().deadline = Some(Instant::now() + self.patience.request);
            let line = match read_line(&mut requests, REQUEST_MAX)? {
                Line::Text(line) => line,
                Line::TooLong => {
                    let what = format!("a request has at most {REQUEST_MAX} bytes");
                    refuse(stream, &Response::error(ErrorCode::TooLong, what));
                    return Ok(());
                }
                Line::Closed => return Ok(()),
            };
            if line.trim_ascii().is_empty() {
                continue;
            }
            match parse_request(&line) {
                Ok(Request::Flows { follow, filter }) => self.flows(stream, follow, filter)?,
                Ok(request) if request.changes() && !socket::is_superior(stream)? => {
                    let what = "only root may change what is attached";
                    write_line(&mut stream, &Response::error(ErrorCode::Forbidden, what))?;
                }
                Ok(request) => write_line(&mut stream, &self.handler.handle(request))?,
                Err(response) => write_line(&mut stream, &response)?,
            }
        }
        Ok(())
    }

    fn flows(&self, mut stream: &UnixStream, follow: bool, filter: Filter) -> io::Result<()> {
        let subscription = self.handler.subscribe(filter);
        let send = |item| {
            let response = match item {
                Item::Flow(flow) => Response::Flow(flow),
                Item::Lost(count) => Response::Lost(count),
            };
            write_line(&mut &*stream, &response)
        };
        // Not until there are no more: they may come as fast as they are sent.
        for item in std::iter::from_fn(|| subscription.try_next()).take(subscription.past()) {
            send(item)?;
        }
        let mut quiet_since = Instant::now();
        while follow && !self.stopping() {
            match subscription.next(Duration::from_millis(250).min(self.patience.idle)) {
                Some(item) => {
                    send(item)?;
                    quiet_since = Instant::now();
                }
                None if quiet_since.elapsed() >= self.patience.idle => {
                    io::Write::write_all(&mut stream, b"\n")?;
                    quiet_since = Instant::now();
                }
                None => {}
            }
        }
        write_line(&mut stream, &Response::End {})
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// Says why, without waiting for a client that does not listen.
fn refuse(mut stream: &UnixStream, response: &Response) {
    let said = stream.set_nonblocking(true).and_then(|()| wire::write_line(&mut stream, response));
    if let Err(error) = said {
        log::debug!("refused control connection: {error}");
    }
}

struct Leave(Arc<AtomicUsize>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Reads until a deadline, however few bytes come at a time.
struct Patient<'a> {
    stream: &'a UnixStream,
    deadline: Option<Instant>,
}

impl Read for Patient<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(left)?;
        self.stream.read(into)
    }
}
