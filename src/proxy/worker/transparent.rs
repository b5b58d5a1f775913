//! Connections to servers in clients' names: from the client's address, by a port of the worker's choice.
//!
//! Not by the client's own port: the host's conntrack would take the two halves for one connection. So the choice must
//! not be any client's connection to the same server, whose entry in the datapath's table has the same key.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::book::Book;
use crate::kernel::datapath::abi;
use crate::proxy::upstream::Upstream;

/// Ports that the worker's connections come from: below those that systems give to their programs' connections (Linux
/// 32768 to 60999, RFC 6335 from 49152), so that clients come to use none of them later.
const FIRST: u16 = 10_240;
const PORTS: u16 = 32_768 - FIRST;
/// Ports that are tried for one connection.
const TRIES: usize = 512;

pub struct Transparent {
    book: Arc<Book>,
    next: AtomicU32,
    own: Mutex<Own>,
}

/// Connections to servers: if something takes their mark off they come back, to be proxied again and again.
#[derive(Default)]
struct Own {
    /// From and to.
    ends: HashSet<(SocketAddr, SocketAddr)>,
    /// Where they come from, by the client's connection.
    clients: HashMap<(SocketAddr, SocketAddr), SocketAddr>,
}

impl Own {
    fn add(&mut self, client: SocketAddr, server: SocketAddr, from: SocketAddr) {
        self.remove(client, server);
        self.ends.insert((from, server));
        self.clients.insert((client, server), from);
    }

    fn remove(&mut self, client: SocketAddr, server: SocketAddr) {
        if let Some(from) = self.clients.remove(&(client, server)) {
            self.ends.remove(&(from, server));
        }
    }
}

impl Transparent {
    pub fn new(book: Arc<Book>) -> Self {
        // A worker before this one has begun elsewhere, and what it closed is in TIME_WAIT.
        let begin = RandomState::new().build_hasher().finish() as u32;
        Transparent { book, next: AtomicU32::new(begin), own: Mutex::default() }
    }

    /// All of them in turn: what was used last may still be in TIME_WAIT.
    fn port(&self) -> u16 {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % u32::from(PORTS);
        FIRST + turn as u16
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        // Nothing panics between the two tables.
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None: the port is taken.
    fn bound(&self, from: SocketAddr, server: SocketAddr) -> io::Result<Option<TcpSocket>> {
        if self.book.is_clients(from, server) {
            return Ok(None);
        }
        let socket = Socket::new(
            Domain::for_address(server),
            Type::STREAM.nonblocking().cloexec(),
            Some(Protocol::TCP),
        )?;
        // It tells the datapath whose packets these are.
        socket.set_mark(abi::MARK_WORKER)?;
        match server {
            SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
            SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
        }
        // Connections to several servers may have one port.
        socket.set_reuse_address(true)?;
        match socket.bind(&SockAddr::from(from)) {
            Ok(()) => Ok(Some(TcpSocket::from_std_stream(socket.into()))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Upstream for Transparent {
    async fn connect(&self, client: SocketAddr, server: SocketAddr) -> io::Result<TcpStream> {
        for _ in 0..TRIES {
            let from = SocketAddr::new(client.ip(), self.port());
            let Some(socket) = self.bound(from, server)? else { continue };
            // Before it can come back.
            self.own().add(client, server, from);
            match socket.connect(server).await {
                // There is one from that port to this server.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                connected => return connected,
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "no port is free"))
    }

    fn is_own(&self, client: SocketAddr, server: SocketAddr) -> bool {
        self.own().ends.contains(&(client, server))
    }

    fn over(&self, client: SocketAddr, server: SocketAddr) {
        self.own().remove(client, server);
    }
}
