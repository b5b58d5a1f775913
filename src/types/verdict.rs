//! What may be decided, and in which direction.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a rule says. Reject and pass come with the tiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Allow,
    Deny,
}

/// What a packet gets. The L7 proxy's redirect comes with HTTP rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Allow,
    Deny,
}

/// A policy's direction, seen from its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];
}

macro_rules! lowercase_display {
    ($($type:ident { $($variant:ident => $text:literal),* $(,)? })*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($type::$variant => $text),* })
            }
        }
    )*};
}

lowercase_display! {
    Action { Allow => "allow", Deny => "deny" }
    Verdict { Allow => "allow", Deny => "deny" }
    Direction { Ingress => "ingress", Egress => "egress" }
}
