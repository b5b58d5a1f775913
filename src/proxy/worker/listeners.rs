//! The rulesets in use, and who accepts connections for them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::message::MAX_RULESET;
use crate::proxy::live::Live;
use crate::proxy::ruleset::{Digest, Matcher, Ruleset};
use crate::proxy::service::Service;
use crate::proxy::upstream::Upstream;

pub struct Listeners<U> {
    service: Arc<Service<U>>,
    /// One for each thread; all accept from all sockets.
    threads: Vec<Handle>,
    used: HashMap<Digest, Used>,
}

struct Used {
    live: Arc<Live>,
    retired: bool,
    accepting: Vec<AbortHandle>,
}

impl<U: Upstream> Listeners<U> {
    pub fn new(service: Arc<Service<U>>, threads: Vec<Handle>) -> Self {
        Listeners { service, threads, used: HashMap::new() }
    }

    /// `descriptors`: the ruleset's file, then sockets. Nothing is done if anything is wrong.
    pub fn add(
        &mut self,
        digest: Digest,
        server: Option<SocketAddr>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), String> {
        let mut descriptors = descriptors.into_iter();
        let file = descriptors.next().ok_or("no ruleset came with it")?;
        let sockets: Vec<_> = descriptors.map(listening).collect::<Result<_, _>>()?;
        let mut copies = Vec::new();
        for thread in &self.threads {
            for socket in &sockets {
                let copy = socket.try_clone().map_err(|error| error.to_string())?;
                copies.push((thread, copy));
            }
        }
        let used = match self.used.entry(digest) {
            std::collections::hash_map::Entry::Occupied(used) => used.into_mut(),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                let live = Live::new(Arc::new(read(file, digest)?));
                vacant.insert(Used { live, retired: false, accepting: Vec::new() })
            }
        };
        for (thread, socket) in copies {
            let (service, live) = (Arc::clone(&self.service), Arc::clone(&used.live));
            let task = thread.spawn(accept(service, socket, live, server));
            used.accepting.push(task.abort_handle());
        }
        Ok(())
    }

    pub fn retire(&mut self, old: Digest, successor: Digest) -> Result<(), String> {
        let next = self.used.get(&successor).ok_or("the successor was not added")?;
        let next = Arc::clone(&next.live);
        let used = self.used.get_mut(&old).ok_or("no such ruleset")?;
        used.live.retire(&next);
        used.retired = true;
        Ok(())
    }

    pub fn drop(&mut self, digest: Digest) -> Result<(), String> {
        let used = self.used.remove(&digest).ok_or("no such ruleset")?;
        for task in &used.accepting {
            task.abort();
        }
        if !used.retired {
            used.live.close();
        }
        Ok(())
    }
}

fn listening(socket: OwnedFd) -> Result<std::net::TcpListener, String> {
    match rustix::net::sockopt::socket_acceptconn(&socket) {
        Ok(true) => {}
        Ok(false) | Err(_) => return Err("a descriptor is no listening socket".to_owned()),
    }
    let socket = std::net::TcpListener::from(socket);
    socket.local_addr().map_err(|error| format!("a socket is not of TCP: {error}"))?;
    socket.set_nonblocking(true).map_err(|error| error.to_string())?;
    Ok(socket)
}

fn read(file: OwnedFd, digest: Digest) -> Result<Matcher, String> {
    let mut json = Vec::new();
    let read = File::from(file).take(MAX_RULESET + 1).read_to_end(&mut json);
    read.map_err(|error| format!("the ruleset cannot be read: {error}"))?;
    if json.len() as u64 > MAX_RULESET {
        return Err(format!("the ruleset has more than {MAX_RULESET} bytes"));
    }
    let ruleset: Ruleset = serde_json::from_slice(&json)
        .map_err(|error| format!("the ruleset is not valid: {error}"))?;
    if ruleset.digest() != digest {
        return Err("the ruleset is not the one that was named".to_owned());
    }
    Matcher::new(&ruleset).map_err(|error| error.to_string())
}

async fn accept<U: Upstream>(
    service: Arc<Service<U>>,
    socket: std::net::TcpListener,
    live: Arc<Live>,
    server: Option<SocketAddr>,
) {
    // Of descriptors, say: others have to be closed first.
    const WANT: Duration = Duration::from_millis(20);
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return log::error!("cannot accept connections: {error}"),
    };
    loop {
        match socket.accept().await {
            Ok((client, _)) => {
                let (service, live) = (Arc::clone(&service), Arc::clone(&live));
                tokio::spawn(serve(service, client, live, server));
            }
            Err(error) if is_of_one(&error) => {}
            Err(error) => {
                log::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(WANT).await;
            }
        }
    }
}

async fn serve<U: Upstream>(
    service: Arc<Service<U>>,
    client: TcpStream,
    live: Arc<Live>,
    server: Option<SocketAddr>,
) {
    service.serve(client, live, server).await;
}

/// Whether it is about the connection that was to be accepted, not about the socket (see accept(2)).
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted | Kind::ConnectionReset | Kind::Interrupted | Kind::WouldBlock
    )
}
