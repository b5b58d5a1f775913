//! What daemon and worker say to each other: JSON, one message a packet.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::proxy::record::{Counts, Record};
use crate::proxy::ruleset::Digest;

/// Bytes of a ruleset's JSON.
pub const MAX_RULESET: u64 = 8 << 20;

/// From the daemon. Each is answered by [`Report::Done`] or [`Report::Refused`], in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    tag = "order",
    deny_unknown_fields
)]
pub enum Order {
    /// Serve what these sockets accept. With the message come a file with the ruleset's JSON (it may be too long for a
    /// packet), and the listening sockets.
    Add {
        ruleset: Digest,
        /// Where its connections go, from an address of the worker's; none: where the client wanted, in its name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        server: Option<SocketAddr>,
    },
    /// Judge by the successor, which was added, what connections of the old one ask from now on.
    Retire { old: Digest, successor: Digest },
    /// Accept no more. Connections go on if it was retired; else they end with their next request.
    Drop { ruleset: Digest },
    /// Whether records of what is allowed are wanted. At first they are not.
    Log { allowed: bool },
    /// A [`Report::Counts`] is wanted, which comes before the answer.
    Count {},
}

/// From the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    tag = "report",
    deny_unknown_fields
)]
pub enum Report {
    /// First of all: what confines it.
    Started {
        sandbox: super::Sandbox,
    },
    Done {},
    Refused {
        why: String,
    },
    Record {
        record: Record,
    },
    Counts {
        counts: Counts,
        /// Connections that are open.
        open: usize,
        /// Records that nobody took in time.
        lost: u64,
    },
}
