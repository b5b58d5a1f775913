//! TLS is judged by the server's name in its first message, and passed on unopened.

mod hello;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::end::linger;
use super::record::{Counters, Record};
use super::ruleset::Verdict;
use super::service::{Addresses, Service};
use super::tunnel::{fill, tunnel};
use super::upstream::Upstream;
use super::watch::{Alarm, Late, Watch};
use crate::types::http::Domain;

pub use hello::{Hello, HelloError, hello};

/// A fatal alert (RFC 8446 section 6), in a record of its own.
fn alert(description: u8) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, description]
}
const ACCESS_DENIED: u8 = 49;
const DECODE_ERROR: u8 = 50;
const INTERNAL_ERROR: u8 = 80;

/// `first` begins with a handshake record.
pub async fn serve<U: Upstream>(
    service: &Service<U>,
    addresses: Addresses,
    mut client: TcpStream,
    mut first: BytesMut,
    (watch, mut alarm): (Watch, Alarm),
) {
    watch.patience(service.limits.head_time);
    let read = read_hello(&mut client, &mut first);
    let hello = match watch.guard(&mut alarm, read).await {
        Ok(Some(hello)) => hello,
        Ok(None) => return,
        Err(Late) => return Counters::add(&service.counters.late),
    };
    let mut record = addresses.record("tls");
    let name = match &hello {
        Ok(hello) => hello.server_name.as_deref(),
        Err(error) => {
            Counters::add(&service.counters.malformed);
            record.fault = Some(error.to_string());
            service.sink.take(record);
            return end(client, DECODE_ERROR).await;
        }
    };
    record.host = Record::text(name.unwrap_or_default().as_bytes());
    let Ok(matcher) = service.matcher(&addresses) else { return };
    // Parsed once already, so that it is a name.
    match matcher.judge_tls(name.and_then(Domain::parse).as_ref()) {
        Verdict::Allow { egress, ingress } => {
            (record.egress, record.ingress) = (egress, ingress);
            Counters::add(&service.counters.allowed);
        }
        Verdict::Deny(denial) => {
            record.denial = Some(denial);
            Counters::add(&service.counters.denied);
            service.sink.take(record);
            return end(client, ACCESS_DENIED).await;
        }
    }
    drop(matcher);
    if service.sink.wants_allowed() {
        service.sink.take(record);
    }
    let Ok(mut server) = service.connect(&addresses).await else {
        return end(client, INTERNAL_ERROR).await;
    };
    let time = (&watch, &mut alarm);
    let ends = ((&mut client, first), (&mut server, BytesMut::new()));
    if tunnel(ends.0, ends.1, &service.limits, time).await.is_err() {
        Counters::add(&service.counters.late);
    }
}

/// None: the client goes first.
async fn read_hello(
    client: &mut TcpStream,
    first: &mut BytesMut,
) -> Option<Result<Hello, HelloError>> {
    let mut wanted = 0;
    loop {
        if first.len() >= wanted {
            match hello(first) {
                Err(HelloError::More(bytes)) => wanted = bytes,
                whole => return Some(whole),
            }
        }
        let (mut from, _) = client.split();
        match fill(&mut from, first, 4 << 10).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return None,
        }
    }
}

async fn end(mut client: TcpStream, description: u8) {
    if client.write_all(&alert(description)).await.is_ok() {
        linger(&mut client).await;
    }
}
