//! One stream: a request that is judged, and its answer.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures_util::future::{Either, select};
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::pipe::{Broken, pipe};
use crate::proxy::record::{Counters, Record, Sink};
use crate::proxy::ruleset::{Headers, Matcher, Request, Verdict};
use crate::proxy::service::Addresses;
use crate::types::http::Authority;

/// A request that came.
pub struct Asked {
    pub request: http::Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
    pub addresses: Addresses,
    pub sink: Arc<dyn Sink>,
}

/// One that may go on.
pub struct Allowed {
    asked: Asked,
    record: Option<Record>,
}

impl Headers for HeaderMap {
    fn all(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let mut values = self.get_all(name).iter().peekable();
        values.peek().is_some() && values.all(|value| test(value.as_bytes().trim_ascii()))
    }
}

/// What is wrong with a request that `h2` let pass.
fn fault<'a>(
    request: &'a http::Request<RecvStream>,
) -> Result<Option<Authority<'a>>, &'static str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) => None,
        (Some(host), None) => Some(host.to_str().ok().and_then(Authority::parse).ok_or(HOST)?),
        (Some(_), Some(_)) => return Err(HOST),
    };
    let authority = match request.uri().authority() {
        Some(authority) => Some(Authority::parse(authority.as_str()).ok_or(HOST)?),
        None => None,
    };
    // RFC 9113 section 8.3.1.
    match (authority, host) {
        (Some(authority), Some(host)) if authority != host => {
            Err("the target's host is not that of Host")
        }
        (None, None) => Err(HOST),
        (authority, host) => Ok(authority.or(host)),
    }
}

const HOST: &str = "not one valid Host";

impl Asked {
    /// None: it was answered.
    pub fn judge(self, matcher: &Matcher, counters: &Counters) -> Option<Allowed> {
        let request = &self.request;
        let path = match *request.method() {
            Method::CONNECT => None,
            _ => Some(request.uri().path().as_bytes()),
        };
        let odd = path == Some(b"*") && request.method() != Method::OPTIONS;
        let host = match fault(request) {
            Ok(_) if odd => Err("no valid target"),
            host => host,
        };
        let verdict = host.map(|host| {
            let method = request.method().as_str().as_bytes();
            matcher.judge(&Request { method, path, host, headers: request.headers() })
        });
        match verdict {
            Ok(Verdict::Allow { egress, ingress }) => {
                Counters::add(&counters.allowed);
                let record =
                    self.sink.wants_allowed().then(|| Record { egress, ingress, ..self.record() });
                Some(Allowed { asked: self, record })
            }
            Ok(Verdict::Deny(denial)) => {
                Counters::add(&counters.denied);
                let status = 403;
                let record = self.record();
                self.sink.take(Record { status: Some(status), denial: Some(denial), ..record });
                self.refuse(status, "denied by network policy");
                None
            }
            Err(why) => {
                Counters::add(&counters.malformed);
                let record = self.record();
                let fault = Some(why.to_owned());
                self.sink.take(Record { status: Some(400), fault, ..record });
                self.refuse(400, why);
                None
            }
        }
    }

    fn record(&self) -> Record {
        let request = &self.request;
        let mut record = self.addresses.record("http/2");
        record.method = Record::text(request.method().as_str().as_bytes());
        record.path = Record::text(request.uri().path().as_bytes());
        let host = request.headers().get(header::HOST).map(HeaderValue::as_bytes);
        let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        record.host = Record::text(authority.or(host).unwrap_or_default());
        record
    }

    /// An answer of porin's own; to gRPC in its own words, which are trailers without a body ("Trailers-Only" in its
    /// HTTP/2 protocol), with its status PERMISSION_DENIED (7), UNAVAILABLE (14) or INTERNAL (13).
    fn refuse(mut self, status: u16, text: &'static str) {
        let kind = self.request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        let grpc = kind.is_some_and(|kind| kind.starts_with(b"application/grpc"));
        let mut response = Response::new(());
        let headers = response.headers_mut();
        if grpc {
            let code = match status {
                403 => "7",
                400 => "13",
                _ => "14",
            };
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from_static(code));
            headers.insert("grpc-message", HeaderValue::from_static(text));
            // If the client is gone, nobody waits for it.
            let _ = self.respond.send_response(response, true);
            return;
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len() as u64 + 1));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
        let head_only = self.request.method() == Method::HEAD;
        if let Ok(mut body) = self.respond.send_response(response, head_only)
            && !head_only
        {
            let _ = body.send_data(Bytes::from(format!("{text}\n")), true);
        }
    }
}

impl Allowed {
    /// There is no server; `status` tells of it.
    pub fn unreachable(self, status: u16) {
        if let Some(record) = self.record {
            self.asked.sink.take(Record { status: Some(status), ..record });
        }
        self.asked.refuse(status, "the server cannot be reached");
    }

    pub async fn forward(self, requests: SendRequest<Bytes>) {
        let Allowed { asked: Asked { request, mut respond, sink, .. }, record } = self;
        let mut status = None;
        let broken = {
            let whole = pin!(exchange(request, &mut respond, requests, &mut status));
            whole.await.err()
        };
        if let Some(Broken(reason)) = broken {
            respond.send_reset(reason);
        }
        if let Some(record) = record {
            sink.take(Record { status, ..record });
        }
    }
}

async fn exchange(
    request: http::Request<RecvStream>,
    respond: &mut SendResponse<Bytes>,
    requests: SendRequest<Bytes>,
    status: &mut Option<u16>,
) -> Result<(), Broken> {
    // Waits while the server allows no more streams; the client may give up meanwhile.
    let mut ready = {
        let ready = pin!(requests.ready());
        let reset = pin!(poll_fn(|cx| respond.poll_reset(cx)));
        match select(ready, reset).await {
            // It has not seen the request, so that the client may ask again.
            Either::Left((ready, _)) => ready.map_err(|_| Broken(Reason::REFUSED_STREAM))?,
            Either::Right((reason, _)) => return Err(Broken(reason.unwrap_or(Reason::CANCEL))),
        }
    };
    let (parts, body) = request.into_parts();
    let request = http::Request::from_parts(with_authority(parts)?, ());
    let (mut response, to_server) = ready.send_request(request, body.is_end_stream())?;
    let up = async {
        match body.is_end_stream() {
            true => Ok(()),
            false => pipe(body, to_server).await,
        }
    };
    let down = async {
        let answer = answer(&mut response, respond).await?;
        let (parts, body) = answer.into_parts();
        let end = body.is_end_stream();
        *status = Some(parts.status.as_u16());
        let to_client = respond.send_response(Response::from_parts(parts, ()), end)?;
        match end {
            true => Ok(()),
            false => pipe(body, to_client).await,
        }
    };
    // An answer that is over ends the stream: the server wants no more of the request (RFC 9113 section 8.1).
    match select(pin!(down), pin!(up)).await {
        Either::Left((answered, _)) => answered,
        Either::Right((Ok(()), down)) => down.await,
        // Where the server has reset the stream, its answer says why.
        Either::Right((Err(_), down)) => down.await,
    }
}

/// A request that has its host in `Host` alone gets `:authority` as well (RFC 9113 section 8.3.1): the same.
fn with_authority(mut parts: http::request::Parts) -> Result<http::request::Parts, Broken> {
    if parts.uri.authority().is_some() {
        return Ok(parts);
    }
    let host = parts.headers.get(header::HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let authority = http::uri::Authority::try_from(host);
    let mut uri = parts.uri.into_parts();
    uri.authority = Some(authority.map_err(|_| Broken(Reason::PROTOCOL_ERROR))?);
    uri.scheme = Some(uri.scheme.unwrap_or(http::uri::Scheme::HTTP));
    parts.uri = http::Uri::from_parts(uri).map_err(|_| Broken(Reason::PROTOCOL_ERROR))?;
    Ok(parts)
}

/// The final answer; interim ones are passed on.
async fn answer(
    response: &mut ResponseFuture,
    respond: &mut SendResponse<Bytes>,
) -> Result<Response<RecvStream>, Broken> {
    poll_fn(|cx| {
        if let Poll::Ready(reason) = respond.poll_reset(cx) {
            return Poll::Ready(Err(Broken(reason.unwrap_or(Reason::CANCEL))));
        }
        while let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
            let interim = interim?;
            // 101 is not HTTP/2's (RFC 9113 section 8.6).
            if interim.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Err(Broken(Reason::PROTOCOL_ERROR)));
            }
            respond.send_informational(interim)?;
        }
        std::pin::Pin::new(&mut *response).poll(cx).map_err(Broken::from)
    })
    .await
}
