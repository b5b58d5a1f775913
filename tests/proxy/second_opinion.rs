//! Hyper's server is asked about what porin lets through: it must see the same request, and the next one at the same byte.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use porin::proxy::{Limits, RequestHead};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::soon;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    method: String,
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

/// What hyper makes of all that is said on a connection.
fn hyper_sees(text: &[u8]) -> Vec<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let kept = Arc::clone(&seen);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let kept = Arc::clone(&kept);
        async move {
            let (parts, body) = request.into_parts();
            let mut fields: Vec<_> = parts
                .headers
                .iter()
                .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
                .collect();
            fields.sort();
            // Trailers are read and left alone.
            if let Ok(body) = body.collect().await {
                kept.lock().unwrap().push(Seen {
                    method: parts.method.to_string(),
                    target: parts.uri.to_string(),
                    fields,
                    body: body.to_bytes().to_vec(),
                });
            }
            Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new()))
        }
    });
    runtime.block_on(soon("hyper's opinion", async {
        let talk = async {
            client.write_all(text).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answers = Vec::new();
            let _ = client.read_to_end(&mut answers).await;
        };
        let serve = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(server), service);
        let _ = futures_util::future::join(talk, serve).await;
    }));
    seen.lock().unwrap().clone()
}

/// What a body with its chunks says.
fn content(body: &[u8], chunked: bool) -> Vec<u8> {
    if !chunked {
        return body.to_vec();
    }
    let (mut rest, mut out) = (body, Vec::new());
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = std::str::from_utf8(&rest[..end]).unwrap().split(';').next().unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return out;
        }
        out.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
}

const NEXT: &str = "GET /next HTTP/1.1\r\nHost: next\r\n\r\n";

/// Whether porin takes it; panics if hyper then takes it for another.
fn agree(text: &[u8]) -> bool {
    let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) else {
        return false;
    };
    let Ok(head) = RequestHead::parse(&text[..end], &Limits::default()) else { return false };
    let (mut body, chunked) = (head.body.clone(), head.fields.chunked().unwrap());
    let Ok(part) = body.advance(&text[end..]) else { return false };
    if !body.is_over() || head.method == b"CONNECT" {
        return false;
    }
    let mut fields: Vec<_> = head
        .fields
        .iter()
        .map(|field| (String::from_utf8_lossy(field.name).to_lowercase(), field.value.to_vec()))
        .collect();
    fields.sort();
    let ours = Seen {
        method: String::from_utf8_lossy(head.method).into_owned(),
        target: String::from_utf8_lossy(head.target).into_owned(),
        fields,
        body: content(&text[end..end + part.bytes], chunked),
    };
    let whole = [&text[..end + part.bytes], NEXT.as_bytes()].concat();
    let seen = hyper_sees(&whole);
    // It may refuse; it must not take it for something else.
    if let Some(first) = seen.first() {
        let shown = String::from_utf8_lossy(&whole);
        let same = |a: &str, b: &str| a == b || format!("{a}/") == b || a.eq_ignore_ascii_case(b);
        assert!(same(&ours.target, &first.target), "{shown:?}: {first:?}");
        assert_eq!(Seen { target: first.target.clone(), ..ours }, *first, "{shown:?}");
        let next: Vec<_> = seen[1..].iter().map(|seen| seen.target.as_str()).collect();
        let wanted: &[&str] = if head.persistent { &["/next"] } else { &[] };
        assert_eq!(next, wanted, "{shown:?}");
    }
    true
}

fn part(choices: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    proptest::sample::select(choices)
}

const LINES: &[&str] = &[
    "GET / HTTP/1.1",
    "POST / HTTP/1.1",
    "POST /a?b HTTP/1.1",
    "PUT http://a/x HTTP/1.1",
    "POST / HTTP/1.0",
    "OPTIONS * HTTP/1.1",
    "POST  / HTTP/1.1",
    "POST / HTTP/1.1 ",
    "HEAD /a%2fb HTTP/1.1",
    "FOO /.. HTTP/1.1",
    "POST /\u{e9} HTTP/1.1",
    "POST /|{}^[] HTTP/1.1",
];
const FIELDS: &[&str] = &[
    "Host: a",
    "host:a",
    "Content-Length: 5",
    "Content-Length: 0",
    "content-length:\t10",
    "Content-Length: 5, 5",
    "Content-Length: +5",
    "Content-Length: 05",
    "Content-Length : 5",
    "Content-Length:",
    "Content_Length: 5",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: Chunked",
    "Transfer-Encoding:\tchunked ",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding : chunked",
    " Transfer-Encoding: chunked",
    "Transfer-Encoding: chunked\x0b",
    "Transfer-Encoding: identity",
    "X: y",
    "X:",
    "X:\tz ",
    "X: \x0c",
    "X: \x7f",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: content-length",
    "Expect: 100-continue",
    "X: a\rb",
    "X: a\nContent-Length: 3",
    "X: \u{e9}",
    "Upgrade: foo",
    "TE: trailers",
];
const ENDS: &[&str] = &[
    "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n",
    "\r\n\r\n",
];
const BODIES: &[&str] = &[
    "",
    "hello",
    "hellohello",
    "5\r\nhello\r\n0\r\n\r\n",
    "5;a=b\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "5\nhello\n0\n\n",
    "0\r\n\r\n",
    "0\r\nX: y\r\n\r\n",
    "0\r\nContent-Length: 9\r\n\r\n",
    "00\r\n\r\n",
    "a\r\n0\r\n\r\nGET /\r\n0\r\n\r\n",
    "-1\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    "FFFFFFFFFFFFFFFF\r\n",
    "5\r\nhello\r\n00000000\r\n\r\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn hyper_sees_the_same(
        line in part(LINES),
        line_end in part(ENDS),
        fields in proptest::collection::vec((part(FIELDS), part(ENDS)), 0..5),
        host in any::<bool>(),
        body in part(BODIES),
    ) {
        let mut text = format!("{line}{line_end}");
        if host {
            text.push_str("Host: a\r\n");
        }
        for (field, end) in fields {
            text.push_str(field);
            text.push_str(end);
        }
        text.push_str("\r\n");
        text.push_str(body);
        agree(text.as_bytes());
    }
}

/// The property above is not true because nothing is taken.
#[test]
fn plain_requests_are_taken() {
    for text in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
        "PUT http://a/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX:\t\u{e9} \r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert!(agree(text.as_bytes()), "{text:?}");
    }
}
