//! The head of a request.

use std::fmt;

use super::fields::{FieldFault, Fields};
use super::line;
use crate::proxy::body::Body;
use crate::proxy::limits::Limits;
use crate::types::http::{Authority, is_token};

/// A request with one reading. Its path may have more, which is the judge's concern.
#[derive(Debug, Clone)]
pub struct RequestHead<'a> {
    pub method: &'a [u8],
    /// As it was sent.
    pub target: &'a [u8],
    pub form: Target<'a>,
    /// None: HTTP/1.0 without it.
    pub host: Option<Authority<'a>>,
    pub fields: Fields<'a>,
    pub body: Body,
    /// Whether another request may follow.
    pub persistent: bool,
    /// HTTP/1.0.
    pub old: bool,
}

/// RFC 9112 section 3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A path, without the query; of the origin form or the absolute one.
    Path(&'a [u8]),
    /// Of CONNECT.
    Authority,
    /// `*`
    Asterisk,
}

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRequest {
    Line,
    Method,
    /// Not 1.0 or 1.1.
    Version,
    Target,
    TargetTooLong,
    /// Missing, more than one, or no host.
    Host,
    /// The target's other than `Host`.
    TwoHosts,
    Field(FieldFault),
    /// Transfer-Encoding in HTTP/1.0.
    OldCoding,
    /// CONNECT with a body.
    ConnectBody,
    HeadTooLong,
}

impl From<FieldFault> for BadRequest {
    fn from(fault: FieldFault) -> Self {
        BadRequest::Field(fault)
    }
}

impl<'a> RequestHead<'a> {
    /// `text`: from the request line to the empty line.
    pub fn parse(text: &'a [u8], limits: &Limits) -> Result<Self, BadRequest> {
        let (line, rest) = line::cut(text).ok_or(BadRequest::Line)?;
        let (method, line) = line::split(line).ok_or(BadRequest::Line)?;
        let (target, version) = line::split(line).ok_or(BadRequest::Line)?;
        if method.is_empty() || method.len() > 32 || !method.iter().all(|byte| is_token(*byte)) {
            return Err(BadRequest::Method);
        }
        let old = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(BadRequest::Version),
        };
        if target.len() > limits.target {
            return Err(BadRequest::TargetTooLong);
        }
        let fields = Fields::parse(rest, limits.fields)?;
        let said = host(&fields, old)?;
        let (form, authority) = target_form(method, target)?;
        // Whom the request is for is said once, or twice the same (RFC 9112 section 3.2.2 would have it ignored).
        let host = match (said, authority) {
            (Some(said), Some(authority)) if said != authority => {
                return Err(BadRequest::TwoHosts);
            }
            (said, authority) => said.or(authority),
        };
        let (length, chunked) = (fields.length()?, fields.chunked()?);
        let body = match (length, chunked) {
            (Some(_), true) => return Err(FieldFault::LengthAndCoding.into()),
            (None, true) if old => return Err(BadRequest::OldCoding),
            (None, true) => Body::chunked(),
            (length, false) => Body::length(length.unwrap_or(0)),
        };
        if form == Target::Authority && (length.is_some() || chunked) {
            return Err(BadRequest::ConnectBody);
        }
        let close = fields.lists("connection", "close");
        let persistent = !close && (!old || fields.lists("connection", "keep-alive"));
        Ok(RequestHead { method, target, form, host, fields, body, persistent, old })
    }

    /// What is judged: the path without the query, `*`, or none with CONNECT.
    pub fn path(&self) -> Option<&'a [u8]> {
        match self.form {
            Target::Path(path) => Some(path),
            Target::Asterisk => Some(b"*"),
            Target::Authority => None,
        }
    }
}

fn host<'a>(fields: &Fields<'a>, old: bool) -> Result<Option<Authority<'a>>, BadRequest> {
    let mut hosts = fields.named("host");
    match (hosts.next(), hosts.next()) {
        (None, _) if old => Ok(None),
        (Some(field), None) => authority(field.value).map(Some).ok_or(BadRequest::Host),
        _ => Err(BadRequest::Host),
    }
}

fn authority(text: &[u8]) -> Option<Authority<'_>> {
    Authority::parse(std::str::from_utf8(text).ok()?)
}

fn target_form<'a>(
    method: &[u8],
    target: &'a [u8],
) -> Result<(Target<'a>, Option<Authority<'a>>), BadRequest> {
    let visible = |byte: &u8| matches!(byte, b'!'..=b'~') && *byte != b'#';
    let query = |text: &'a [u8]| {
        let path = text.split(|byte| *byte == b'?').next().unwrap_or_default();
        // The path's own bytes are the judge's concern. `<` and `>` are in no URI, and not everybody lets them pass.
        let query = text.get(path.len()..).unwrap_or_default();
        match query.iter().any(|byte| matches!(byte, b'<' | b'>')) {
            true => Err(BadRequest::Target),
            false => Ok(path),
        }
    };
    if method == b"CONNECT" {
        let authority = authority(target).filter(|authority| authority.port.is_some());
        return Ok((Target::Authority, Some(authority.ok_or(BadRequest::Target)?)));
    }
    if target.starts_with(b"/") {
        // What is not ASCII is in the path, which is denied, or in the query, which servers read as they like.
        if !target.iter().all(|byte| visible(byte) || *byte >= 0x80) {
            return Err(BadRequest::Target);
        }
        let path = query(target)?;
        let ascii = target.get(path.len()..).unwrap_or_default().is_ascii();
        return if ascii { Ok((Target::Path(path), None)) } else { Err(BadRequest::Target) };
    }
    if target == b"*" && method == b"OPTIONS" {
        return Ok((Target::Asterisk, None));
    }
    let scheme = target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case(b"http://"));
    if scheme.is_none() || !target.iter().all(visible) {
        return Err(BadRequest::Target);
    }
    let rest = &target[7..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let host = authority(&rest[..end]).ok_or(BadRequest::Target)?;
    let form = match &rest[end..] {
        b"" if method == b"OPTIONS" => Target::Asterisk,
        b"" => Target::Path(b"/"),
        // `http://host?query`: a path that is not there, and that servers add.
        path if path.starts_with(b"?") => return Err(BadRequest::Target),
        path => Target::Path(query(path)?),
    };
    Ok((form, Some(host)))
}

impl BadRequest {
    /// Of the answer.
    pub fn status(self) -> u16 {
        match self {
            BadRequest::TargetTooLong => 414,
            BadRequest::HeadTooLong | BadRequest::Field(FieldFault::TooMany) => 431,
            BadRequest::Version => 505,
            BadRequest::Field(FieldFault::Coding) => 501,
            _ => 400,
        }
    }
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadRequest::Line => "no request line",
            BadRequest::Method => "no method",
            BadRequest::Version => "not HTTP/1.1 or HTTP/1.0",
            BadRequest::Target => "no valid target",
            BadRequest::TargetTooLong => "the target is too long",
            BadRequest::Host => "not one valid Host",
            BadRequest::TwoHosts => "the target's host is not that of Host",
            BadRequest::Field(fault) => return write!(f, "{fault}"),
            BadRequest::OldCoding => "Transfer-Encoding in HTTP/1.0",
            BadRequest::ConnectBody => "CONNECT with a body",
            BadRequest::HeadTooLong => "the head is too long",
        })
    }
}
