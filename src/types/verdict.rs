//! What may be decided, and in which direction.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Allow,
    Deny,
    /// Deny, and tell the sender: a TCP reset, or an ICMP error.
    Reject,
    /// Leave it to the next tier.
    Pass,
}

/// What a packet gets. The L7 proxy's redirect comes with HTTP rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Allow,
    Deny,
    Reject,
}

/// Which policies are asked first: admin, then normal, then baseline. Ordered from the last to the first.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    Baseline,
    #[default]
    Normal,
    Admin,
}

impl Tier {
    /// In the order in which they are asked.
    pub const ALL: [Tier; 3] = [Tier::Admin, Tier::Normal, Tier::Baseline];
}

/// What becomes of a policy's verdicts.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Enforce,
    /// Judged, counted and told of, not enforced.
    Shadow,
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
    Action { Allow => "allow", Deny => "deny", Reject => "reject", Pass => "pass" }
    Verdict { Allow => "allow", Deny => "deny", Reject => "reject" }
    Tier { Admin => "admin", Normal => "normal", Baseline => "baseline" }
    Mode { Enforce => "enforce", Shadow => "shadow" }
    Direction { Ingress => "ingress", Egress => "egress" }
}
