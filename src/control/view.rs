//! What `porinctl` shows, as data. These forms are an interface: `--json` prints them.
//!
//! Fields are only ever added; a change of meaning needs another [`VERSION`]. Values here are plain:
//! whoever has them needs nothing else to show them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::observe::counters::Traffic;
use crate::types::{Action, Direction, Generation, Identity, Labels, Mode, Tier};

/// Of the JSON forms and of the socket's protocol.
pub const VERSION: u32 = 1;

/// Anything with the version in front.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned<T> {
    pub version: u32,
    #[serde(flatten)]
    pub body: T,
}

impl<T> Versioned<T> {
    pub fn new(body: T) -> Self {
        Versioned { version: VERSION, body }
    }
}

/// `porinctl status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's own version.
    pub porin: String,
    /// In force; 0: nothing was ever committed.
    pub generation: Generation,
    pub state: State,
    /// When that generation was committed, or this daemon began if there is none.
    pub since: Timestamp,
    /// Whether what is in force is what the files say now.
    pub in_force: bool,
    /// Of the last reading of the files and of what they met; errors first.
    pub faults: Vec<FaultView>,
    /// Faults beyond those listed.
    pub faults_omitted: u64,
    pub endpoints: EndpointTotals,
    pub identities: u64,
    pub policies: u64,
    pub kernel: Kernel,
    pub flows: FlowTotals,
    /// None: there is no L7 worker, as no rule is about requests, or it does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Requests>,
    /// Packets dropped since the counters were made, by reason.
    pub drops: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The first generation is being built.
    Starting,
    /// A generation is in force.
    Enforcing,
    /// No generation is in force and none could be built: endpoints pass nothing.
    Closed,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Enforcing => "enforcing",
            State::Closed => "closed",
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointTotals {
    pub attached: u64,
    /// Configured, but kept out of the generation by a fault.
    pub closed: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// `tcx` or `clsact`.
    pub attach: String,
    /// uname(2).
    pub release: String,
    /// The cgroup whose sockets reach published ports as the host's own programs do; none: no program of the host does.
    #[serde(default)]
    pub cgroup: Option<String>,
    /// Why there is none.
    #[serde(default)]
    pub cgroup_fault: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTotals {
    /// In the conntrack tables.
    pub tracked: u64,
    /// Told of since the daemon began.
    pub seen: u64,
    /// Denials and drops that were counted but not told of, for their number.
    pub suppressed: u64,
}

/// What the L7 worker has counted since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    pub allowed: u64,
    pub denied: u64,
    /// No requests, or such with more than one reading.
    pub malformed: u64,
    /// Connections of clients' now, and in all.
    pub open: u64,
    pub connections: u64,
    /// Closed, as no rules were found for them.
    pub unjudged: u64,
    /// Whose servers could not be reached, or answered what is no answer.
    pub unreachable: u64,
    pub bad_answers: u64,
    /// Ended because something took too long, or there were too many.
    pub late: u64,
    pub too_many: u64,
    /// Requests that were not told of, for their number.
    pub untold: u64,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultView {
    pub severity: Severity,
    pub file: Option<String>,
    pub line: Option<u32>,
    pub column: Option<u32>,
    /// One sentence without a full stop.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The endpoint that stays closed for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Other places that this is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<RelatedView>,
}

/// What another place has to do with a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelatedView {
    pub file: String,
    pub line: Option<u32>,
    pub column: Option<u32>,
    pub what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// One row of `porinctl endpoints`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointView {
    pub name: String,
    pub state: EndpointState,
    /// Why it is closed.
    pub fault: Option<String>,
    /// None while closed, as are addresses that are not given yet.
    pub identity: Option<Identity>,
    pub labels: Arc<Labels>,
    pub ipv6: Option<Ipv6Addr>,
    pub ipv4: Option<Ipv4Addr>,
    /// As written. None: the endpoint is adopted.
    pub namespace: Option<String>,
    /// Inside the namespace or, if there is none, on the host.
    pub interface: String,
    pub host_interface: Option<String>,
    /// Named ports.
    pub ports: BTreeMap<String, String>,
    /// Ports of the host that are its, as written.
    #[serde(default)]
    pub publish: Vec<String>,
    /// Directions that are default deny.
    pub default_deny: Vec<Direction>,
    pub sent: Traffic,
    pub received: Traffic,
    /// Packets dropped at its interface, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Where it was written.
    pub file: String,
    pub line: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointState {
    Attached,
    /// It is there, and nothing passes: so it was asked for.
    Shut,
    Closed,
}

impl EndpointState {
    pub fn as_str(self) -> &'static str {
        match self {
            EndpointState::Attached => "attached",
            EndpointState::Shut => "shut",
            EndpointState::Closed => "closed",
        }
    }
}

/// One row of `porinctl identities`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityView {
    pub identity: Identity,
    pub labels: Arc<Labels>,
    /// Names of those that have it.
    pub endpoints: Vec<String>,
}

/// One row of `porinctl policies`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    pub name: String,
    /// The selector as written.
    pub subject: String,
    pub tier: Tier,
    /// None in the normal tier.
    pub priority: Option<u16>,
    pub mode: Mode,
    /// Whether it denies what no rule of its tier matches.
    pub default_deny: bool,
    /// Number of rules; none: the policy does not speak of this direction.
    pub ingress: Option<u64>,
    pub egress: Option<u64>,
    /// Names of the endpoints that it is about.
    pub endpoints: Vec<String>,
    pub file: String,
    pub line: u32,
}

/// One row of `porinctl policies --hits`: a rule, or a policy's default deny.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HitView {
    pub policy: String,
    pub tier: Tier,
    pub mode: Mode,
    pub direction: Direction,
    /// Counted from 1 within the policy and direction; none: the policy made the direction default deny.
    pub rule: Option<u32>,
    pub action: Action,
    /// How often it decided: once for each flow that was allowed, and for each packet that was denied or rejected, as
    /// such are judged anew. None: such a rule never decides.
    pub hits: Option<u64>,
    /// Likewise, what it would have decided if shadow policies were enforced, where that makes a difference.
    pub shadow_hits: Option<u64>,
    pub file: String,
    pub line: u32,
}

/// `porinctl check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckView {
    /// No errors; warnings do not count.
    pub ok: bool,
    pub errors: u64,
    pub warnings: u64,
    /// At most the first thousand of each severity.
    pub faults: Vec<FaultView>,
    /// That were read.
    pub files: u64,
    /// What is configured; none if there are errors.
    pub endpoints: Option<u64>,
    pub policies: Option<u64>,
    pub pools: Option<u64>,
    pub uplinks: Option<u64>,
}
