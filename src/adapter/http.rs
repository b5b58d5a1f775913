//! As much of an HTTP/1.1 client (RFC 9112) as it takes to ask another daemon on its Unix socket one question.
//!
//! One request, one answer, bounded in size and time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of an answer at most, with its headers.
const LONGEST: u64 = 8 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("status {0}: {1}")]
    Status(u16, String),
    #[error("the answer is no HTTP: {0}")]
    Foreign(&'static str),
}

/// The body of what is at `target` (a path with a query, percent-encoded).
pub fn get(socket: &Path, target: &str, patience: Duration) -> Result<Vec<u8>, Error> {
    let deadline = Instant::now() + patience;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(patience))?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer)? {
            0 => return parse(&answer),
            n => answer.extend_from_slice(&buffer[..n]),
        }
        if answer.len() as u64 > LONGEST {
            return Err(Error::Foreign("it does not end"));
        }
    }
}

fn parse(answer: &[u8]) -> Result<Vec<u8>, Error> {
    let end = find(answer, b"\r\n\r\n").ok_or(Error::Foreign("there is no end of its headers"))?;
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| Error::Foreign("not UTF-8"))?;
    let body = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let mut status = lines.next().unwrap_or_default().split(' ');
    let version = status.next().unwrap_or_default();
    let code = status.next().and_then(|code| code.parse::<u16>().ok());
    let code = code.filter(|_| version.starts_with("HTTP/1."));
    let code = code.ok_or(Error::Foreign("there is no status"))?;
    let mut headers = lines.filter_map(|line| line.split_once(':'));
    let chunked = headers.any(|(name, value)| {
        name.eq_ignore_ascii_case("transfer-encoding")
            && value.trim().eq_ignore_ascii_case("chunked")
    });
    let body = if chunked { unchunk(body)? } else { body.to_vec() };
    if code != 200 {
        let text: String = String::from_utf8_lossy(&body).chars().take(200).collect();
        return Err(Error::Status(code, text.trim().to_owned()));
    }
    Ok(body)
}

fn unchunk(mut body: &[u8]) -> Result<Vec<u8>, Error> {
    let broken = Error::Foreign("a chunk is broken");
    let mut whole = Vec::new();
    loop {
        let Some(end) = find(body, b"\r\n") else { return Err(broken) };
        let size = std::str::from_utf8(&body[..end]).ok();
        let size = size.and_then(|size| size.split(';').next());
        let size = size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
        let rest = &body[end + 2..];
        let (Some(size), true) = (size, rest.len() >= 2) else { return Err(broken) };
        if size == 0 {
            return Ok(whole);
        }
        let Some((chunk, after)) = rest.split_at_checked(size) else { return Err(broken) };
        whole.extend_from_slice(chunk);
        body = after.strip_prefix(b"\r\n").ok_or(Error::Foreign("a chunk has no end"))?;
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_bodies_are_read() {
        let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(parse(plain).unwrap(), b"hello");
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x\r\nlo\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).unwrap(), b"hello");
    }

    #[test]
    fn nonsense_is_an_error_and_no_panic() {
        let chunked =
            |body: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        for bad in [
            String::new(),
            "HTTP/1.1 200 OK\r\n".to_owned(),
            "SSH-2.0\r\n\r\n".to_owned(),
            "HTTP/1.1 abc\r\n\r\n".to_owned(),
            "HTTP/1.1 404 Not Found\r\n\r\nno".to_owned(),
            chunked(""),
            chunked("5\r\nhel"),
            chunked("ffffffffffffffff\r\nx\r\n"),
            chunked("-1\r\nx\r\n"),
            chunked("1\r\nxy"),
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
