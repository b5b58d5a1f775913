//! Which rules a connection's requests are judged by at the moment.
//!
//! Not those of a listening socket, nor of when it began: each connection has an entry in a table (the datapath's, of
//! flows), and that entry is the only truth. It is looked at for each request, so that a commit has nobody to tell.

use std::net::SocketAddr;

use super::ruleset::Matcher;

/// Says of connections which rules they are under.
pub trait Rulebook: Send + Sync + 'static {
    /// Now, for the connection between these, as its ends see themselves. It is asked for each request, so it must be
    /// cheap, and must not block.
    fn rules(&self, client: SocketAddr, server: SocketAddr) -> Result<Matcher, NoRules>;
}

/// Why a connection has none: it is to be closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRules {
    /// Who connects to the worker's own address, past the datapath, gets here.
    #[error("the datapath knows no such connection")]
    NoFlow,
    #[error("the datapath did not hand the connection over")]
    NotProxied,
    #[error("policy denies the connection by now")]
    Denied,
    /// Of the number, which the daemon has not told yet, or not any more.
    #[error("the worker does not know its rules (number {0})")]
    Unknown(u16),
    #[error("its entry cannot be read: {0}")]
    Unreadable(String),
}
