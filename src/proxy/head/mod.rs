//! Heads of HTTP/1 messages (RFC 9112), strictly: one reading or none.
//!
//! What the RFC lets a recipient put right (bare line feeds, folded lines, blanks before colons, lengths said twice) is
//! refused, because the next recipient may put it right differently.

mod fields;
mod line;
mod request;
mod response;

use bytes::BytesMut;

use super::limits::Limits;

pub use fields::{Field, FieldFault, Fields};
pub use request::{BadRequest, RequestHead, Target};
pub use response::{Asked, BadResponse, ResponseHead};

/// Looks for the end of a head in bytes that come bit by bit.
#[derive(Debug, Default)]
pub struct Finder {
    /// So many bytes have no end in them.
    seen: usize,
}

/// Whether the head is all there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The head's bytes, with the empty line.
    Whole(usize),
    More,
    TooLong,
}

impl Finder {
    /// `buffer` begins with the head, and has at its end what came since the last time.
    pub fn find(&mut self, buffer: &BytesMut, limits: &Limits) -> Found {
        const END: &[u8] = b"\r\n\r\n";
        let from = self.seen.saturating_sub(END.len() - 1);
        let found = memchr::memmem::find(buffer.get(from..).unwrap_or_default(), END);
        match found.map(|at| from + at + END.len()) {
            Some(length) if length <= limits.head => Found::Whole(length),
            None if buffer.len() < limits.head => {
                self.seen = buffer.len();
                Found::More
            }
            _ => Found::TooLong,
        }
    }
}
