//! What one end's policies ask of the requests of one kind of connection.

use serde::{Deserialize, Serialize};

use super::L7;

/// One end's rules: a request passes if any of them allows it; none allow nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Side {
    pub rules: Vec<SideRule>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SideRule {
    /// Which rule it is, for logs and counters (see [`Cookie`](crate::types::Cookie)).
    pub cookie: u32,
    pub l7: L7,
}
