//! What became of requests: a record of each that is wanted, and counts of all.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::ruleset::Denial;

/// One request, or one TLS connection, when it is over or denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Record {
    pub client: SocketAddr,
    pub server: SocketAddr,
    /// `http/1.1`, `http/2`, `tls`.
    pub protocol: String,
    /// Empty: TLS, or what is no request. This and the two below are cut at [`Record::LONGEST`] bytes.
    pub method: String,
    /// As it was sent; of TLS the server's name.
    pub host: String,
    /// Without the query, which may have secrets in it.
    pub path: String,
    /// What the client was answered; none: TLS, or no answer came.
    pub status: Option<u16>,
    /// Rules that allowed it.
    pub egress: Option<u32>,
    pub ingress: Option<u32>,
    pub denial: Option<Denial>,
    /// What is wrong with it, where it is not a matter of rules: it was refused.
    pub fault: Option<String>,
}

impl Record {
    pub const LONGEST: usize = 1024;

    pub(super) fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(&bytes[..bytes.len().min(Self::LONGEST)]).into_owned()
    }
}

/// Where records go. It must not block: what it cannot take it drops and counts.
pub trait Sink: Send + Sync {
    /// Whether records of what was allowed are wanted; the others always are.
    fn wants_allowed(&self) -> bool;
    fn take(&self, record: Record);
}

/// Since the start.
#[derive(Debug, Default)]
pub struct Counters {
    pub connections: AtomicU64,
    pub allowed: AtomicU64,
    pub denied: AtomicU64,
    /// Requests that are none, or have more than one reading.
    pub malformed: AtomicU64,
    /// Answers of servers that are none.
    pub bad_answers: AtomicU64,
    pub unreachable: AtomicU64,
    pub late: AtomicU64,
    pub too_many: AtomicU64,
    /// Connections that were closed because no rules were found for them.
    pub without_rules: AtomicU64,
    /// Connections to servers that came back to the worker.
    pub looped: AtomicU64,
}

/// The same, at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    pub connections: u64,
    pub allowed: u64,
    pub denied: u64,
    pub malformed: u64,
    pub bad_answers: u64,
    pub unreachable: u64,
    pub late: u64,
    pub too_many: u64,
    pub without_rules: u64,
    pub looped: u64,
}

impl Counters {
    pub fn now(&self) -> Counts {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            connections: value(&self.connections),
            allowed: value(&self.allowed),
            denied: value(&self.denied),
            malformed: value(&self.malformed),
            bad_answers: value(&self.bad_answers),
            unreachable: value(&self.unreachable),
            late: value(&self.late),
            too_many: value(&self.too_many),
            without_rules: value(&self.without_rules),
            looped: value(&self.looped),
        }
    }

    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
