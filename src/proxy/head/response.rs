//! The head of a response.

use std::fmt;

use super::fields::{FieldFault, Fields};
use super::line;
use crate::proxy::body::Body;
use crate::proxy::limits::Limits;

/// A response with one reading.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    pub status: u16,
    pub body: Body,
    /// Whether another may follow.
    pub persistent: bool,
}

/// What a response's end depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Head,
    Connect,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadResponse {
    Line,
    Field(FieldFault),
    /// Transfer-Encoding in HTTP/1.0, or where no body can be.
    Coding,
    /// A length where no body can be.
    Length,
    HeadTooLong,
    /// Too many 1xx.
    Interim,
    /// 101 that was not asked for.
    Switch,
}

impl From<FieldFault> for BadResponse {
    fn from(fault: FieldFault) -> Self {
        BadResponse::Field(fault)
    }
}

impl ResponseHead {
    /// `text`: from the status line to the empty line.
    pub fn parse(text: &[u8], asked: Asked, limits: &Limits) -> Result<Self, BadResponse> {
        let (line, rest) = line::cut(text).ok_or(BadResponse::Line)?;
        let (old, status) = status_line(line).ok_or(BadResponse::Line)?;
        let fields = Fields::parse(rest, limits.fields)?;
        let (length, chunked) = (fields.length()?, fields.chunked()?);
        if chunked && length.is_some() {
            return Err(FieldFault::LengthAndCoding.into());
        }
        let tunnel = asked == Asked::Connect && (200..300).contains(&status);
        if chunked && (old || tunnel || matches!(status, 100..200 | 204)) {
            return Err(BadResponse::Coding);
        }
        if matches!(status, 100..200 | 204) && length.is_some_and(|length| length > 0) {
            return Err(BadResponse::Length);
        }
        // RFC 9112 section 6.3.
        let body = match (status, asked) {
            (100..200 | 204 | 304, _) | (_, Asked::Head) => Body::length(0),
            _ if tunnel => Body::length(0),
            _ if chunked => Body::chunked(),
            _ => length.map_or(Body::until_close(), Body::length),
        };
        let close = fields.lists("connection", "close");
        let persistent =
            !close && !body.is_until_close() && (!old || fields.lists("connection", "keep-alive"));
        Ok(ResponseHead { status, body, persistent })
    }

    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status)
    }
}

/// Whether it is HTTP/1.0, and the status. The blank after the status may be missing, as it often is.
fn status_line(line: &[u8]) -> Option<(bool, u16)> {
    let (version, rest) = line::split(line)?;
    let old = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return None,
    };
    let (digits, reason) = rest.split_at_checked(3)?;
    let valid = digits.iter().all(u8::is_ascii_digit)
        && matches!(digits[0], b'1'..=b'5')
        && matches!(reason.first(), None | Some(b' '))
        && reason.iter().all(|byte| super::fields::is_text(*byte));
    let status = || digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    valid.then(|| (old, status()))
}

impl fmt::Display for BadResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadResponse::Line => "no status line",
            BadResponse::Field(fault) => return write!(f, "{fault}"),
            BadResponse::Coding => "Transfer-Encoding where there can be none",
            BadResponse::Length => "Content-Length where there can be none",
            BadResponse::HeadTooLong => "the head is too long",
            BadResponse::Interim => "too many interim responses",
            BadResponse::Switch => "101 without a request for it",
        })
    }
}
