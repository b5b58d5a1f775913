//! The protocol of the socket: one JSON value per line, UTF-8, both ways.
//!
//! ```text
//! > {"version":1,"request":"endpoints"}
//! < {"version":1,"endpoints":[...]}
//! > {"version":1,"request":"flows","follow":true,"types":["deny"],"last":10}
//! < {"version":1,"flow":{...}}
//! < {"version":1,"lost":12}
//! > {"version":1,"request":"why","queries":[{"from":"web","to":"api","port":"80/tcp"}]}
//! < {"version":1,"why":{"answers":[{"version":1,"verdict":"allow",...}],"failed":0}}
//! > {"version":1,"request":"attach","attach":{"id":"cni-...","name":"web-0123456789ab",...}}
//! < {"version":1,"attached":{"name":"web-0123456789ab","mac":"...",...}}
//! < {"version":1,"error":{"code":"bad-request","what":"..."}}
//! ```
//!
//! Requests that change something are root's; the answer to `attach` comes when the endpoint is in force.
//!
//! There may be fewer answers to `why` than questions, but one at least: the client asks the rest again.
//!
//! Flows end with `{"version":1,"end":{}}` unless they are followed; then the daemon sends an empty
//! line now and then to learn whether anybody still listens. Empty lines mean nothing.

use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::attach::{Adopted, Attach, Attached, AttachmentId};
use super::view::{EndpointView, HitView, IdentityView, PolicyView, Status, VERSION, Versioned};
use super::why::answer::Answer;
use super::why::query::Query;
use crate::observe::flow::Flow;
use crate::observe::hub::Filter;

/// Bytes in the longest line that the daemon reads.
pub const REQUEST_MAX: usize = 32 << 10;
/// Bytes in the longest line that a client reads: every endpoint of a host with its labels.
pub const RESPONSE_MAX: usize = 256 << 20;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    Status,
    Endpoints,
    Identities,
    Policies,
    /// How often each rule decided.
    Hits,
    /// What would become of these flows, and why.
    Why {
        queries: Vec<Query>,
    },
    Flows {
        /// Go on with those to come.
        #[serde(default)]
        follow: bool,
        #[serde(flatten)]
        filter: Filter,
    },
    /// Make this endpoint, and answer when it is in force.
    Attach {
        attach: Box<Attach>,
    },
    /// Remove an endpoint that was made on request. It is fine if there is none.
    Detach {
        id: AttachmentId,
    },
    /// Whether it is in force.
    Attachment {
        id: AttachmentId,
    },
    /// All whose ids begin so.
    Attachments {
        prefix: String,
    },
}

impl Request {
    /// Only root may.
    pub fn changes(&self) -> bool {
        matches!(self, Request::Attach { .. } | Request::Detach { .. })
    }
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    Status(Box<Status>),
    Endpoints(Vec<EndpointView>),
    Identities(Vec<IdentityView>),
    Policies(Vec<PolicyView>),
    Hits(Vec<HitView>),
    Why(Answers),
    Flow(Arc<Flow>),
    /// This many flows are missing here: the client did not keep up.
    Lost(u64),
    /// No more flows.
    End {},
    Attached(Box<Attached>),
    Adopted(Box<Adopted>),
    Detached {},
    Attachments(Vec<AttachmentId>),
    Error(ErrorView),
}

/// One for each of the first questions, in order; the rest is to be asked again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers<A = Versioned<Answer>> {
    pub answers: Vec<A>,
    /// How many of them are errors.
    pub failed: u64,
}

impl FromIterator<Answer> for Answers {
    fn from_iter<I: IntoIterator<Item = Answer>>(answers: I) -> Self {
        let answers: Vec<_> = answers.into_iter().map(Versioned::new).collect();
        let failed = answers.iter().filter(|answer| matches!(answer.body, Answer::Error(_)));
        Answers { failed: failed.count() as u64, answers }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    pub code: ErrorCode,
    pub what: String,
    pub hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// Not a request of this protocol.
    BadRequest,
    /// Another version of the protocol.
    Version,
    /// The line is longer than [`REQUEST_MAX`].
    TooLong,
    /// Too many connections.
    Busy,
    /// Neither root nor in the socket's group.
    Forbidden,
    /// The daemon could not find the answer.
    Failed,
    /// What is to be attached cannot be, as things are.
    Refused,
    /// It is attached already.
    Exists,
    /// There is no such attachment.
    Unknown,
    /// Not now; the same may succeed later.
    Later,
}

impl Response {
    pub fn error(code: ErrorCode, what: impl Into<String>) -> Self {
        Response::Error(ErrorView { code, what: what.into(), hint: None })
    }
}

/// Reads a request's line. What is wrong with it is the answer.
pub fn parse_request(line: &[u8]) -> Result<Request, Response> {
    #[derive(Deserialize)]
    struct Version {
        version: Option<u32>,
    }
    let bad = |error: serde_json::Error| {
        Response::error(ErrorCode::BadRequest, format!("not a request: {error}"))
    };
    let version: Version = serde_json::from_slice(line).map_err(bad)?;
    match version.version {
        None | Some(VERSION) => serde_json::from_slice(line).map_err(bad),
        Some(other) => {
            let what = format!("version {other} was asked for, this daemon speaks {VERSION}");
            Err(Response::error(ErrorCode::Version, what))
        }
    }
}

/// Writes one value as a line, in one piece.
pub fn write_line<T: Serialize>(to: &mut impl Write, value: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Versioned::new(value))?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    Text(Vec<u8>),
    /// There is more of it than may be.
    TooLong,
    /// The other side will say no more; what came of a last line without an end is dropped.
    Closed,
}

/// Reads one line of at most `limit` bytes.
pub fn read_line(from: &mut impl BufRead, limit: usize) -> io::Result<Line> {
    let mut line = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    from.take(most).read_until(b'\n', &mut line)?;
    Ok(match line.pop() {
        Some(b'\n') => Line::Text(line),
        Some(_) if line.len() >= limit => Line::TooLong,
        _ => Line::Closed,
    })
}
