//! What is to be done about a request, without doing it.

use crate::proxy::body::{Body, Malformed};
use crate::proxy::head::{Asked, BadRequest, Fields, RequestHead, Target};
use crate::proxy::limits::Limits;
use crate::proxy::record::Record;
use crate::proxy::ruleset::{Matcher, Request, Verdict};
use crate::proxy::service::Addresses;

/// A request that was read and judged.
pub struct Plan {
    pub verdict: Verdict,
    /// Bytes of the head.
    pub head: usize,
    /// The head as it is passed on, if not as it came.
    pub rewritten: Option<Vec<u8>>,
    /// Bytes of the body that are there already.
    pub there: usize,
    /// The rest.
    pub body: Body,
    pub asked: Asked,
    pub persistent: bool,
    /// Whether 101 may be the answer.
    pub switch: bool,
    /// The client waits for 100 before it sends the body, and may not send it.
    pub expects: bool,
    pub record: Option<Record>,
}

/// Why there is none.
pub enum NoPlan {
    Head(BadRequest),
    Body(Malformed),
}

/// `buffer` begins with a head of `head` bytes.
pub fn plan(
    buffer: &[u8],
    head: usize,
    matcher: &Matcher,
    limits: &Limits,
    (addresses, wanted): (&Addresses, bool),
) -> Result<Plan, NoPlan> {
    let (text, rest) = buffer.split_at_checked(head).ok_or(NoPlan::Head(BadRequest::Line))?;
    let request = RequestHead::parse(text, limits).map_err(NoPlan::Head)?;
    let RequestHead { method, host, fields, persistent, old, .. } = &request;
    let path = request.path();
    let asked = Request { method, path, host: host.clone(), headers: fields };
    let verdict = matcher.judge(&asked);
    let mut body = request.body.clone();
    let there = body.advance(rest).map_err(NoPlan::Body)?.bytes;
    let upgrade = fields.named("upgrade").next().is_some();
    let rewritten = (upgrade && is_http_again(fields)).then(|| rewrite(text, fields));
    let denied = matches!(verdict, Verdict::Deny(_));
    let record = (denied || wanted).then(|| {
        let mut record = addresses.record("http/1.1");
        record.method = Record::text(method);
        let host = fields.named("host").next().map_or(b"".as_slice(), |field| field.value);
        record.host = Record::text(match request.form {
            Target::Authority => request.target,
            _ => host,
        });
        record.path = Record::text(path.unwrap_or_default());
        record
    });
    Ok(Plan {
        verdict,
        head,
        there,
        body,
        asked: match *method {
            b"HEAD" => Asked::Head,
            b"CONNECT" => Asked::Connect,
            _ => Asked::Other,
        },
        persistent: *persistent,
        switch: upgrade && !old && rewritten.is_none() && fields.lists("connection", "upgrade"),
        rewritten,
        expects: !old && fields.lists("expect", "100-continue"),
        record,
    })
}

/// Whether an upgrade would lead to HTTP, in the clear or in TLS, whose requests nobody would judge.
fn is_http_again(fields: &Fields) -> bool {
    const PROTOCOLS: [&[u8]; 4] = [b"h2c", b"h2", b"http", b"tls"];
    let is = |part: &[u8]| {
        let name = part.split(|byte| *byte == b'/').next().unwrap_or_default();
        PROTOCOLS.iter().any(|protocol| name.eq_ignore_ascii_case(protocol))
    };
    fields.named("upgrade").any(|field| field.parts().any(is))
}

/// The head without the offer to upgrade, which a server may ignore anyway (RFC 9110 section 7.8).
fn rewrite(text: &[u8], fields: &Fields) -> Vec<u8> {
    let line = text.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let mut head = text.get(..line).unwrap_or_default().to_vec();
    let mut push = |name: &[u8], value: &[u8]| {
        for part in [name, b": ", value, b"\r\n"] {
            head.extend_from_slice(part);
        }
    };
    let gone = |part: &[u8]| {
        part.eq_ignore_ascii_case(b"upgrade") || part.eq_ignore_ascii_case(b"http2-settings")
    };
    for field in fields.iter() {
        if field.is("connection") {
            let kept: Vec<_> = field.parts().filter(|part| !gone(part)).collect();
            if !kept.is_empty() {
                push(field.name, &kept.join(b", ".as_slice()));
            }
        } else if !gone(field.name) {
            push(field.name, field.value);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}
