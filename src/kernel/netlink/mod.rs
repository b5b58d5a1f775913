//! Interfaces, addresses, routes and neighbours: a synchronous facade over rtnetlink.
//!
//! Requests are data. A batch is sent at once and the kernel answers in order, so a whole endpoint
//! takes a handful of round trips. This module knows endpoints' interfaces but no BPF and no plan.

pub mod adopted;
pub mod behind;
pub mod endpoint;
pub mod facts;
mod forwarding;
pub mod host;
mod message;
pub mod monitor;
pub mod namespace;
pub mod ready;
pub mod steering;
pub mod veth;

use std::io;
use std::os::fd::AsFd;

use futures_util::StreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use tokio::runtime::Runtime;

pub use namespace::Namespace;

/// An operation on an object of the network stack that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}")]
pub struct Error {
    pub what: String,
    pub source: io::Error,
}

impl Error {
    pub fn new(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Error { what: what.into(), source: source.into() }
    }

    pub fn is(&self, errno: rustix::io::Errno) -> bool {
        self.source.raw_os_error() == Some(errno.raw_os_error())
    }
}

/// Sockets of the namespace that the daemon runs in, and of others while they are worked on.
pub struct Netlink {
    runtime: Runtime,
    handle: Handle,
    home: Namespace,
}

/// A socket that was opened in some namespace and stays there.
pub struct Socket<'a> {
    runtime: &'a Runtime,
    handle: Handle,
}

/// One message, and what to call it if it fails.
pub struct Request {
    pub what: String,
    message: RouteNetlinkMessage,
    flags: u16,
    /// Errors that mean "it is so already" or "never mind".
    tolerated: &'static [rustix::io::Errno],
}

impl Request {
    fn new(what: impl Into<String>, message: RouteNetlinkMessage, flags: u16) -> Self {
        Request { what: what.into(), message, flags: NLM_F_REQUEST | flags, tolerated: &[] }
    }

    /// Fails if it exists.
    pub fn create(what: impl Into<String>, message: RouteNetlinkMessage) -> Self {
        Self::new(what, message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
    }

    pub fn replace(what: impl Into<String>, message: RouteNetlinkMessage) -> Self {
        Self::new(what, message, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Changes or removes what exists.
    pub fn change(what: impl Into<String>, message: RouteNetlinkMessage) -> Self {
        Self::new(what, message, NLM_F_ACK)
    }

    /// Asks for one object.
    pub fn read(what: impl Into<String>, message: RouteNetlinkMessage) -> Self {
        Self::new(what, message, 0)
    }

    /// Asks for all of a kind.
    pub fn dump(what: impl Into<String>, message: RouteNetlinkMessage) -> Self {
        Self::new(what, message, NLM_F_DUMP)
    }

    pub fn tolerate(mut self, errors: &'static [rustix::io::Errno]) -> Self {
        self.tolerated = errors;
        self
    }
}

impl Netlink {
    /// Opens a socket in the calling thread's namespace, which is home from now on.
    pub fn open() -> Result<Self, Error> {
        let failed = |error: io::Error| Error::new("open a netlink socket", error);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(|error| Error::new("start the netlink runtime", error))?;
        let home = Namespace::current()?;
        let handle = connect(&runtime).map_err(failed)?;
        Ok(Netlink { runtime, handle, home })
    }

    /// The namespace that the daemon runs in.
    pub fn home(&self) -> &Namespace {
        &self.home
    }

    pub fn socket(&self) -> Socket<'_> {
        Socket { runtime: &self.runtime, handle: self.handle.clone() }
    }

    /// A socket on which the kernel heeds what a list is to be narrowed to. Without that a host with all
    /// routes of the internet would list them all.
    pub fn filtering_socket(&self) -> Result<Socket<'_>, Error> {
        let handle = connect_with(&self.runtime, |socket| socket.set_netlink_get_strict_chk(true));
        let handle = handle.map_err(|error| Error::new("open a netlink socket", error))?;
        Ok(Socket { runtime: &self.runtime, handle })
    }

    /// A socket in another namespace. The thread itself is back home when this returns.
    pub fn socket_in(&self, namespace: &Namespace) -> Result<Socket<'_>, Error> {
        let handle =
            namespace::within(namespace.as_fd(), self.home.as_fd(), || connect(&self.runtime))
                .and_then(|connected| connected)
                .map_err(|error| Error::new(format!("enter {namespace}"), error))?;
        Ok(Socket { runtime: &self.runtime, handle })
    }
}

/// The connection runs on the runtime, whenever that is driven, until the last handle is gone.
fn connect(runtime: &Runtime) -> io::Result<Handle> {
    connect_with(runtime, |_| Ok(()))
}

fn connect_with(
    runtime: &Runtime,
    prepare: impl FnOnce(&mut rtnetlink::sys::Socket) -> io::Result<()>,
) -> io::Result<Handle> {
    use rtnetlink::sys::AsyncSocket;
    let _guard = runtime.enter();
    let (mut connection, handle, messages) = rtnetlink::new_connection()?;
    prepare(connection.socket_mut().socket_mut())?;
    drop(messages);
    runtime.spawn(connection);
    Ok(handle)
}

impl Socket<'_> {
    /// Sends all, then waits for all: answers by request, in order.
    pub fn each(&self, requests: Vec<Request>) -> Vec<Result<Vec<RouteNetlinkMessage>, Error>> {
        let mut handle = self.handle.clone();
        self.runtime.block_on(async move {
            let mut waiting = Vec::with_capacity(requests.len());
            for request in requests {
                let mut message = NetlinkMessage::from(request.message);
                message.header.flags = request.flags;
                waiting.push((request.what, request.tolerated, handle.request(message)));
            }
            let mut answers = Vec::with_capacity(waiting.len());
            for (what, tolerated, answer) in waiting {
                let answer = match answer {
                    Ok(stream) => collect(stream, tolerated).await,
                    Err(_) => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
                };
                answers.push(answer.map_err(|error| Error::new(what, error)));
            }
            answers
        })
    }

    /// The first failure of all, if any.
    pub fn all(&self, requests: Vec<Request>) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let mut messages = Vec::new();
        for answer in self.each(requests) {
            messages.extend(answer?);
        }
        Ok(messages)
    }

    pub fn one(&self, request: Request) -> Result<Vec<RouteNetlinkMessage>, Error> {
        self.all(vec![request])
    }
}

async fn collect(
    mut answer: impl futures_util::Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Unpin,
    tolerated: &[rustix::io::Errno],
) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut messages = Vec::new();
    while let Some(message) = answer.next().await {
        match message.payload {
            NetlinkPayload::InnerMessage(message) => messages.push(message),
            NetlinkPayload::Error(error) if error.code.is_some() => {
                let error = error.to_io();
                let number = error.raw_os_error();
                if !tolerated.iter().any(|errno| number == Some(errno.raw_os_error())) {
                    return Err(error);
                }
            }
            NetlinkPayload::Overrun(_) => return Err(rustix::io::Errno::NOBUFS.into()),
            _ => {}
        }
    }
    Ok(messages)
}
