//! Questions by HTTP/1.1 (RFC 9112) to another daemon, on its Unix socket: `GET`, bounded in size.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// Bytes of an error's text at most.
const LONGEST_TEXT: usize = 4 << 10;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}{why}", why = cause(.0))]
    Http(#[from] hyper::Error),
    #[error("status {0}: {1}")]
    Status(u16, String),
    #[error("the question makes no sense: {0}")]
    Question(#[from] http::Error),
    #[error("its answer has more than {0} bytes")]
    TooLong(usize),
    #[error("no answer in {0:?}")]
    Late(Duration),
}

/// The body of what is at `target` (a path with a query, percent-encoded), at most `longest` bytes. For threads that have
/// no runtime.
pub fn get_blocking(
    socket: &Path,
    target: &str,
    longest: usize,
    patience: Duration,
) -> Result<Vec<u8>, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(get(socket, target, longest, patience))
}

/// The same as a future.
pub async fn get(
    socket: &Path,
    target: &str,
    longest: usize,
    patience: Duration,
) -> Result<Vec<u8>, Error> {
    let whole = async { open(socket, target).await?.whole(longest).await };
    tokio::time::timeout(patience, whole).await.unwrap_or(Err(Error::Late(patience)))
}

/// An answer that comes in pieces, as long as the daemon has something to say.
pub struct Stream(Incoming);

/// Waits for the head of the answer, which must be that of a success.
pub async fn open(socket: &Path, target: &str) -> Result<Stream, Error> {
    let stream = TokioIo::new(UnixStream::connect(socket).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    // It ends with the answer, or when nobody wants that any more; what goes wrong on it is told there as well.
    tokio::spawn(connection);
    let request = http::Request::get(target).header("host", "localhost");
    let answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let status = answer.status();
    let body = Stream(answer.into_body());
    if status != http::StatusCode::OK {
        let text = body.whole(LONGEST_TEXT).await.unwrap_or_default();
        return Err(Error::Status(status.as_u16(), said(&text)));
    }
    Ok(body)
}

impl Stream {
    /// None: it is over.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.0.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    async fn whole(mut self, longest: usize) -> Result<Vec<u8>, Error> {
        let mut whole = Vec::new();
        while let Some(data) = self.next().await? {
            if whole.len() + data.len() > longest {
                return Err(Error::TooLong(longest));
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole)
    }
}

/// What hyper's own text leaves out.
fn cause(error: &hyper::Error) -> String {
    std::error::Error::source(error).map_or_else(String::new, |why| format!(": {why}"))
}

/// One line of what a daemon says of its refusal, as Docker and Podman wrap it, or as it is.
fn said(text: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Wrapped {
        message: String,
    }
    let wrapped: Option<Wrapped> = serde_json::from_slice(text).ok();
    let text = wrapped.map_or_else(|| String::from_utf8_lossy(text).into_owned(), |w| w.message);
    let text: String = text.trim().chars().take(200).collect();
    text.replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// What comes of it if the daemon answers so and closes.
    fn ask(answer: &'static [u8]) -> Result<Vec<u8>, Error> {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let daemon = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 1024];
            let n = stream.read(&mut asked).unwrap();
            let _ = stream.write_all(answer);
            String::from_utf8_lossy(&asked[..n]).into_owned()
        });
        let got = get_blocking(&socket, "/x?y=%7B", 64, PATIENCE);
        assert!(daemon.join().unwrap().starts_with("GET /x?y=%7B HTTP/1.1\r\n"));
        got
    }

    #[test]
    fn both_kinds_of_bodies_are_read() {
        let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(ask(plain).unwrap(), b"hello");
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x\r\nlo\r\n0\r\n\r\n";
        assert_eq!(ask(chunked).unwrap(), b"hello");
    }

    #[test]
    fn refusals_are_one_line_of_text() {
        let wrapped =
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 24\r\n\r\n{\"message\":\"no\\nsuch\"}\r\n";
        assert_eq!(ask(wrapped).unwrap_err().to_string(), "status 404: no such");
        let plain = b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\nno\n";
        assert_eq!(ask(plain).unwrap_err().to_string(), "status 500: no");
    }

    #[test]
    fn nonsense_is_an_error_and_no_panic() {
        let broken: [&'static [u8]; 8] = [
            b"",
            b"HTTP/1.1 200 OK\r\n",
            b"SSH-2.0\r\n\r\n",
            b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy",
            b"HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n0123456789012345678901234567890123456789012345678901234567890123456789",
        ];
        for bad in broken {
            assert!(ask(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn nobody_waits_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        assert!(matches!(get_blocking(&socket, "/", 64, PATIENCE), Err(Error::Io(_))));
        let _silent = UnixListener::bind(&socket).unwrap();
        let late = get_blocking(&socket, "/", 64, Duration::from_millis(20));
        assert!(matches!(late, Err(Error::Late(_))));
    }
}
