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
}

/// Not at all: until the datapath hands connections over, a connection's own address is the worker's, and to connect there
/// would go round in circles.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unjoined;

impl Upstream for Unjoined {
    async fn connect(&self, _: SocketAddr, _: SocketAddr) -> io::Result<TcpStream> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// From an address of the worker's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Direct;

impl Upstream for Direct {
    async fn connect(&self, _: SocketAddr, server: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(server).await
    }
}
