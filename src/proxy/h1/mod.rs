//! HTTP/1.1: one connection of a client's and the one to its server, request after request.
//!
//! Messages are passed on byte for byte, those fields among them that RFC 9110 section 7.6.1 has intermediaries take out
//! (`Connection`, `Keep-Alive`, `TE`, `Upgrade`): both connections begin and end together, so that whatever one end says
//! of its connection is true of the other's. Requests go one after the other, pipelined ones too: which answer belongs to
//! which request is never in doubt. An upgrade to what would be HTTP again, unjudged, is taken out (see `plan`).

mod answer;
mod connection;
mod exchange;
mod plan;

pub use connection::Connection;
