//! Who accepts connections.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::proxy::service::Service;
use crate::proxy::upstream::Upstream;

pub struct Listeners<U> {
    service: Arc<Service<U>>,
    /// One for each thread; all accept from all sockets.
    threads: Vec<Handle>,
    accepting: Vec<AbortHandle>,
}

impl<U: Upstream> Listeners<U> {
    pub fn new(service: Arc<Service<U>>, threads: Vec<Handle>) -> Self {
        Listeners { service, threads, accepting: Vec::new() }
    }

    /// From these.
    pub fn listen(&mut self, sockets: Vec<std::net::TcpListener>) -> Result<(), String> {
        let mut copies = Vec::new();
        for thread in &self.threads {
            for socket in &sockets {
                let copy = socket.try_clone().map_err(|error| error.to_string())?;
                copies.push((thread, copy));
            }
        }
        for (thread, socket) in copies {
            let task = thread.spawn(accept(Arc::clone(&self.service), socket));
            self.accepting.push(task.abort_handle());
        }
        Ok(())
    }

    /// What was accepted is served on; what waits is for others that have the sockets.
    pub fn stop(&mut self) {
        for task in self.accepting.drain(..) {
            task.abort();
        }
    }
}

/// All or none of what was given as listening sockets.
pub fn sockets(given: Vec<OwnedFd>) -> Result<Vec<std::net::TcpListener>, String> {
    given.into_iter().map(listening).collect()
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

async fn accept<U: Upstream>(service: Arc<Service<U>>, socket: std::net::TcpListener) {
    // Of descriptors, say: others have to be closed first.
    const WANT: Duration = Duration::from_millis(20);
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return log::error!("cannot accept connections: {error}"),
    };
    loop {
        match socket.accept().await {
            Ok((client, _)) => _ = tokio::spawn(serve(Arc::clone(&service), client)),
            Err(error) if is_of_one(&error) => {}
            Err(error) => {
                log::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(WANT).await;
            }
        }
    }
}

async fn serve<U: Upstream>(service: Arc<Service<U>>, client: TcpStream) {
    service.serve(client).await;
}

/// Whether it is about the connection that was to be accepted, not about the socket (see accept(2)).
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted | Kind::ConnectionReset | Kind::Interrupted | Kind::WouldBlock
    )
}
