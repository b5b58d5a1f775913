//! Requests that the L7 worker judged, as flows with names: the same records, with what was asked beside.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::event::FlowType;
use super::flow::{End, Flow, named};
use super::names::Names;
use crate::types::{Cookie, Direction, Peer, Verdict};

/// What was asked, and what became of it. JSON: `request` of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// `http/1.1`, `http/2` or `tls`; empty: nothing was read of it.
    pub protocol: String,
    /// Empty: TLS, or what is no request.
    pub method: String,
    /// As it was sent; of TLS the server's name.
    pub host: String,
    /// Without the query.
    pub path: String,
    /// What the client was answered; none: TLS, or no answer.
    pub status: Option<u16>,
    /// Why it was denied or refused; none: it was allowed.
    pub why: Option<String>,
}

/// One request, in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub client: SocketAddr,
    pub server: SocketAddr,
    pub outcome: Outcome,
    /// Rules that allowed it.
    pub egress: Option<Cookie>,
    pub ingress: Option<Cookie>,
    pub request: Request,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Allowed,
    /// By one end's rules.
    Denied(Direction),
    /// Whatever rules say: it has more than one reading, or nobody knows its rules.
    Refused,
}

impl Flow {
    /// Names a request, which happened at `time`.
    pub fn of_request(asked: Asked, time: Timestamp, names: &Names) -> Self {
        let end = |address: SocketAddr| {
            let mut end = End::new(names, address.ip().to_canonical(), Peer::ANY);
            end.port = Some(address.port());
            end
        };
        let (kind, verdict, reason) = match asked.outcome {
            Outcome::Allowed => (FlowType::Flow, Some(Verdict::Allow), None),
            Outcome::Denied(Direction::Egress) => {
                (FlowType::Deny, Some(Verdict::Deny), Some("request-egress"))
            }
            Outcome::Denied(Direction::Ingress) => {
                (FlowType::Deny, Some(Verdict::Deny), Some("request-ingress"))
            }
            Outcome::Refused => (FlowType::Drop, None, Some("request-refused")),
        };
        let rule = |cookie: Option<Cookie>| cookie.and_then(|cookie| named(names, cookie));
        Flow {
            time,
            kind,
            verdict,
            reason: reason.map(ToOwned::to_owned),
            source: end(asked.client),
            destination: end(asked.server),
            protocol: "tcp".to_owned(),
            egress: rule(asked.egress),
            ingress: rule(asked.ingress),
            generation: names.generation(),
            length: 0,
            shadow: None,
            request: Some(asked.request),
        }
    }
}
