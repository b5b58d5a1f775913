//! One question by gRPC (HTTP/2) on a Unix socket, and the little of protocol buffers that it takes.
//!
//! Bounded in size and time. Fields that are not known are skipped, as the format wants it.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

/// Bytes of an answer at most.
const LONGEST: usize = 8 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Http(#[from] h2::Error),
    /// Of the gRPC protocol: 5 is "not found".
    #[error("status {0}: {1}")]
    Status(u32, String),
    #[error("no answer in {0:?}")]
    Late(Duration),
    #[error("the answer makes no sense")]
    Foreign,
}

impl Error {
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Status(5, _))
    }
}

/// Calls `method` (`/package.Service/Method`) with one message; the answer's message.
pub fn unary(
    socket: &Path,
    method: &str,
    headers: &[(&str, &str)],
    message: &[u8],
    patience: Duration,
) -> Result<Vec<u8>, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let call = async {
        match tokio::time::timeout(patience, call(socket, method, headers, message)).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::Late(patience)),
        }
    };
    runtime.block_on(call)
}

async fn call(
    socket: &Path,
    method: &str,
    headers: &[(&str, &str)],
    message: &[u8],
) -> Result<Vec<u8>, Error> {
    let stream = tokio::net::UnixStream::connect(socket).await?;
    let (send, connection) = h2::client::handshake(stream).await?;
    // It ends with the runtime; what goes wrong on it is told to the stream as well.
    tokio::spawn(connection);
    let mut request = http::Request::post(format!("http://localhost{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(()).map_err(|_| Error::Foreign)?;
    let (answer, mut body) = send.ready().await?.send_request(request, false)?;
    let length = u32::try_from(message.len()).map_err(|_| Error::Foreign)?;
    // Not compressed.
    let framed = [&[0], &length.to_be_bytes()[..], message].concat();
    body.send_data(Bytes::from(framed), true)?;
    let answer = answer.await?;
    let mut ended = status(answer.headers());
    let mut body = answer.into_body();
    let mut data = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        data.extend_from_slice(&chunk);
        if data.len() > LONGEST {
            return Err(Error::Foreign);
        }
    }
    if let Some(trailers) = body.trailers().await? {
        ended = status(&trailers).or(ended);
    }
    match ended {
        Some((0, _)) => message_of(&data).map(<[u8]>::to_vec).ok_or(Error::Foreign),
        Some((code, what)) => Err(Error::Status(code, what)),
        None => Err(Error::Foreign),
    }
}

/// The one message of an answer, all of it and not compressed: a flag, its length, the bytes.
fn message_of(data: &[u8]) -> Option<&[u8]> {
    let ([0, length @ ..], message) = data.split_first_chunk::<5>()? else { return None };
    (u32::from_be_bytes(*length) as usize == message.len()).then_some(message)
}

fn status(headers: &http::HeaderMap) -> Option<(u32, String)> {
    let value = |name: &str| headers.get(name)?.to_str().ok();
    let code = value("grpc-status")?.parse().ok()?;
    let what: String = value("grpc-message").unwrap_or_default().chars().take(200).collect();
    Some((code, what))
}

/// One field of a message: its number and bytes (of text, or of a message inside).
pub fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(content);
    out
}

/// The fields of a message that are bytes, with their numbers; others are skipped. None: it is no message.
pub fn fields(mut message: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let skipped = match tag & 7 {
            0 => {
                varint(&mut message)?;
                0
            }
            1 => 8,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                found.push((tag >> 3, message.get(..length)?));
                length
            }
            5 => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(found)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_read_back_and_others_are_skipped() {
        let long = vec![7; 300];
        let mut message = field(1, b"id");
        message.extend([0x18, 0x96, 0x01]); // 3: varint 150
        message.extend([0x21, 1, 2, 3, 4, 5, 6, 7, 8]); // 4: 64 bits
        message.extend([0x2d, 1, 2, 3, 4]); // 5: 32 bits
        message.extend(field(2, &long));
        assert_eq!(fields(&message), Some(vec![(1, &b"id"[..]), (2, &long[..])]));
        assert_eq!(fields(&message[..message.len() - 1]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = fields(&bytes);
        }
    }
}
