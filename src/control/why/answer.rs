//! The JSON form of answers. An interface: fields are only ever added.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::observe::flow::DefaultMark;
use crate::types::{Direction, Family, Generation, Invalid, Labels, Tier, Verdict};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    Why(Box<Why>),
    Error(Error),
}

/// The question cannot be answered as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// One sentence without a full stop.
    pub error: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl From<Invalid> for Error {
    fn from(Invalid { what, hint, .. }: Invalid) -> Self {
        Error { error: what, hint }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    pub verdict: Verdict,
    /// In force; none: the files were asked, not the daemon.
    pub generation: Option<Generation>,
    pub from: End,
    pub to: End,
    /// Of one protocol, by number.
    pub port: String,
    pub source_port: Option<u16>,
    /// Of the packet that was judged.
    pub family: Family,
    /// What the sender's policies say; none: it is no endpoint, or was not asked.
    pub egress: Option<Side>,
    pub ingress: Option<Side>,
    /// Only if neither end was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Rules that would have allowed it but for one thing. Empty if it is allowed.
    pub almost: Vec<Almost>,
    /// What would be if shadow policies were enforced; none: the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub endpoint: Option<String>,
    /// Security-relevant ones, of an endpoint that there is or may be.
    pub labels: Option<Arc<Labels>>,
    /// If it was asked for by address.
    pub address: Option<IpAddr>,
    /// The entity, if it is no endpoint; `pool`: an address in a pool that nobody has.
    pub class: Option<String>,
}

/// What one end's policies say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    pub verdict: Verdict,
    pub by: By,
    /// The policy that made the direction default deny.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_of: Option<Policy>,
    /// The last rule that left it to the next tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed: Option<Rule>,
    /// Of what is allowed, those requests are let through that are like one of these; empty: all are. As rules are written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<String>,
    /// A sentence without a full stop.
    pub because: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum By {
    Rule(Rule),
    Default(DefaultMark),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    #[serde(flatten)]
    pub policy: Policy,
    /// Counted from 1 within the policy and direction.
    pub rule: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub policy: String,
    pub file: String,
    /// Of the rule, or of what makes the direction default deny.
    pub line: u32,
    pub tier: Tier,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Almost {
    #[serde(flatten)]
    pub rule: Rule,
    pub direction: Direction,
    /// `port`, `source-port` or `peer`.
    pub differs: String,
    pub because: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadow {
    pub verdict: Verdict,
    pub egress: Option<Side>,
    pub ingress: Option<Side>,
}
