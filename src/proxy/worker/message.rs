//! What daemon and worker say to each other: JSON, one message a packet.

use serde::{Deserialize, Serialize};

use crate::proxy::record::{Counts, Record};

/// Bytes of one end's rules as JSON.
pub const MAX_RULES: u64 = 8 << 20;

/// From the daemon. Each is answered by [`Report::Done`] or [`Report::Refused`], in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    tag = "order",
    deny_unknown_fields
)]
pub enum Order {
    /// What a number of the datapath's means from now on. With the message comes a file with one end's rules as JSON,
    /// which may be too long for a packet.
    Rules { number: u16 },
    /// The number means nothing any more. A connection that the datapath says it is of ends with its next request.
    Forget { number: u16 },
    /// Serve. With the message come the tables `flows6` and `flows4`, in this order, then listening sockets.
    Listen {},
    /// Accept no more, and end with the last connection.
    Drain {},
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
