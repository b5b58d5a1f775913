//! What all connections share, and what a connection's first bytes say it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use tokio::net::TcpStream;

use super::h1;
use super::h2;
use super::limits::Limits;
use super::open::Open;
use super::record::{Counters, Record, Sink};
use super::rulebook::{NoRules, Rulebook};
use super::ruleset::Matcher;
use super::tls;
use super::tunnel::fill;
use super::upstream::Upstream;
use super::watch::{Late, Watch};

pub struct Service<U> {
    pub upstream: U,
    pub book: Arc<dyn Rulebook>,
    pub limits: Limits,
    pub sink: Arc<dyn Sink>,
    pub counters: Counters,
    open: Open,
}

/// Whose connection it is, and to whom.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub client: SocketAddr,
    pub server: SocketAddr,
}

/// Why a connection was not served to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Served,
    /// [`Limits::connections`] are open, or [`Limits::per_client`] of the client's.
    TooMany,
    /// It was gone before its addresses could be read.
    Gone,
    NoRules(NoRules),
    /// It is the worker's own connection to a server.
    Looped,
}

/// Until a connection is over.
struct Served<'a, U: Upstream>(&'a U, Addresses);

impl<U: Upstream> Drop for Served<'_, U> {
    fn drop(&mut self) {
        self.0.over(self.1.client, self.1.server);
    }
}

impl<U: Upstream> Service<U> {
    pub fn new(upstream: U, book: Arc<dyn Rulebook>, limits: Limits, sink: Arc<dyn Sink>) -> Self {
        let (counters, open) = (Counters::default(), Open::default());
        Service { upstream, book, limits, sink, counters, open }
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.open.count()
    }

    /// Until the connection is over. Its own address is the server's, as it was taken from the client transparently.
    pub async fn serve(&self, client: TcpStream) -> End {
        let (Ok(peer), Ok(own)) = (client.peer_addr(), client.local_addr()) else {
            return End::Gone;
        };
        let addresses = Addresses { client: peer, server: own };
        if self.upstream.is_own(peer, own) {
            self.tell_loop(&addresses);
            return End::Looped;
        }
        let Some(_open) = self.open.one(peer.ip(), &self.limits) else {
            Counters::add(&self.counters.too_many);
            return End::TooMany;
        };
        Counters::add(&self.counters.connections);
        let _served = Served(&self.upstream, addresses);
        // Nothing is read of what is nobody's to judge.
        if let Err(why) = self.matcher(&addresses) {
            return End::NoRules(why);
        }
        // Whatever was read is passed on: there is nothing to wait for.
        let _ = client.set_nodelay(true);
        self.begin(client, addresses).await;
        End::Served
    }

    fn tell_loop(&self, addresses: &Addresses) {
        const WHY: &str = "it is the worker's own connection, come back";
        if self.counters.looped.fetch_add(1, Ordering::Relaxed) == 0 {
            log::error!(
                "connections of the L7 worker to servers come back to it, the first to {}, and are closed: something takes the \
                 mark off the worker's packets (look for rules of netfilter that set marks in OUTPUT)",
                addresses.server
            );
        }
        self.sink.take(Record { fault: Some(WHY.to_owned()), ..addresses.record("") });
    }

    /// For a request that is judged now. Without any the connection is to be closed, which has been told.
    pub(super) fn matcher(&self, addresses: &Addresses) -> Result<Matcher, NoRules> {
        let found = self.book.rules(addresses.client, addresses.server);
        if let Err(why) = &found {
            Counters::add(&self.counters.without_rules);
            self.sink.take(Record { fault: Some(why.to_string()), ..addresses.record("") });
        }
        found
    }

    async fn begin(&self, mut client: TcpStream, addresses: Addresses) {
        let (watch, mut alarm) = Watch::new(self.limits.head_time);
        let mut first = BytesMut::new();
        let kind = loop {
            match Kind::of(&first) {
                Some(kind) => break kind,
                None if first.is_empty() => {}
                None => watch.patience(self.limits.head_time),
            }
            let (mut from, _) = client.split();
            match watch.guard(&mut alarm, fill(&mut from, &mut first, 4 << 10)).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return,
                Err(Late) => return Counters::add(&self.counters.late),
            }
        };
        match kind {
            Kind::Http1 => {
                let connection = h1::Connection {
                    service: self,
                    addresses,
                    client,
                    requests: first,
                    watch,
                    alarm,
                };
                connection.serve().await;
            }
            // Few connections are of these, and they need more room.
            Kind::Http2 => Box::pin(h2::serve(self, addresses, client, first)).await,
            Kind::Tls => {
                Box::pin(tls::serve(self, addresses, client, first, (watch, alarm))).await;
            }
        }
    }

    /// To the server of a connection. An error is the status that tells of it.
    pub(super) async fn connect(&self, addresses: &Addresses) -> Result<TcpStream, u16> {
        let connect = self.upstream.connect(addresses.client, addresses.server);
        let status = match tokio::time::timeout(self.limits.connect_time, connect).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => {
                log::debug!("{}: cannot be reached: {error}", addresses.server);
                502
            }
            Err(_) => 504,
        };
        Counters::add(&self.counters.unreachable);
        Err(status)
    }
}

impl Addresses {
    pub fn record(&self, protocol: &str) -> Record {
        Record {
            client: self.client,
            server: self.server,
            protocol: protocol.to_owned(),
            method: String::new(),
            host: String::new(),
            path: String::new(),
            status: None,
            egress: None,
            ingress: None,
            denial: None,
            fault: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http1,
    Http2,
    Tls,
}

impl Kind {
    /// None: more bytes are needed to tell. What is nothing of all is for HTTP/1.1 to refuse.
    fn of(first: &[u8]) -> Option<Self> {
        /// RFC 9113 section 3.4.
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        /// A record with handshake messages (RFC 8446 section 5.1).
        const HANDSHAKE: u8 = 22;
        match first.first()? {
            &HANDSHAKE => Some(Kind::Tls),
            _ if first.starts_with(PREFACE) => Some(Kind::Http2),
            _ if PREFACE.starts_with(first) => None,
            _ => Some(Kind::Http1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell() {
        assert_eq!(Kind::of(b""), None);
        assert_eq!(Kind::of(b"P"), None);
        assert_eq!(Kind::of(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"), None);
        assert_eq!(Kind::of(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0"), Some(Kind::Http2));
        assert_eq!(Kind::of(b"PO"), Some(Kind::Http1));
        assert_eq!(Kind::of(b"PRI * HTTP/2.1"), Some(Kind::Http1));
        assert_eq!(Kind::of(b"\x16"), Some(Kind::Tls));
        assert_eq!(Kind::of(b"\0"), Some(Kind::Http1));
    }
}
