//! How the worker comes to the server that a client wanted.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

pub trait Upstream: Send + Sync + 'static {
    /// A connection to `server` in the name of `client`, whose addresses were those of the client's own connection.
    fn connect(
        &self,
        client: SocketAddr,
        server: SocketAddr,
    ) -> impl Future<Output = io::Result<TcpStream>> + Send;

    /// Whether a connection that was accepted is one of those to servers, come back.
    fn is_own(&self, _client: SocketAddr, _server: SocketAddr) -> bool {
        false
    }

    /// The client's connection is over, and the one in its name.
    fn over(&self, _client: SocketAddr, _server: SocketAddr) {}
}
