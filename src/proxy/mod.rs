//! The L7 worker: between client and server it lets through the requests that rules allow, byte for byte.
//!
//! A connection comes to [`Service::serve`]; a [`Rulebook`] says which rules it is under. Its first bytes tell what it is (`sniff`): HTTP/1.1 (`h1`), HTTP/2 (`h2`) or TLS (`tls`), which is not opened. `head` and
//! `body` read messages strictly: what has more than one reading is refused, and the connection closed. `ruleset` judges.
//! What is allowed goes to the server through [`Upstream`], one connection to it for each of a client's.
//!
//! Knows nothing of endpoints, policies or BPF.

mod body;
mod end;
mod frames;
mod h1;
mod h2;
mod head;
mod limits;
mod open;
mod record;
mod rulebook;
mod ruleset;
mod service;
mod splice;
mod tls;
mod tunnel;
mod upstream;
mod watch;
pub mod worker;

pub use body::{Body, Malformed, Part};
pub use head::{
    Asked, BadRequest, BadResponse, Field, FieldFault, Fields, RequestHead, ResponseHead, Target,
};
pub use limits::Limits;
pub use record::{Counters, Counts, Record, Sink};
pub use rulebook::{NoRules, Rulebook};
pub use ruleset::{Denial, Headers, Matcher, Refusal, Request, Rules, Side, SideRule, Verdict};
pub use service::{End, Service};
pub use tls::{Hello, HelloError, hello};
pub use upstream::Upstream;
