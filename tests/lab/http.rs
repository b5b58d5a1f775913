//! HTTP/1.1 by hand, byte by byte as a test wants it: a server that says whom it heard what from, and a client.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::place::Place;
use super::traffic::connect;

/// Bytes of what is at a path that ends in `/large`.
pub const LARGE: usize = 3 << 20;

/// Answers each request with `ADDRESS METHOD PATH`: the client's address, without the port, and what was asked. Connections
/// are kept until the client closes them. Dropped: it accepts no more.
pub struct HttpServer(TcpListener);

impl HttpServer {
    pub fn start(place: &Place, port: u16) -> HttpServer {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let listener = place.enter(|| TcpListener::bind(any));
        let listener =
            listener.unwrap_or_else(|e| panic!("{}: listen on {any}: {e}", place.name()));
        let accepting = listener.try_clone().expect("clone");
        std::thread::spawn(move || {
            while let Ok((stream, from)) = accepting.accept() {
                std::thread::spawn(move || serve(stream, from));
            }
        });
        HttpServer(listener)
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }
}

fn serve(stream: TcpStream, from: SocketAddr) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if reader.read_until(b'\n', &mut head).ok()? == 0 {
                return None;
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut line = head.split(' ');
        let (method, path) = (line.next()?, line.next()?);
        let length =
            |line: &str| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok();
        let length: usize = head.lines().find_map(length).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let said = match path.ends_with("/large") {
            true => "x".repeat(LARGE),
            false => format!("{} {method} {path}", from.ip().to_canonical()),
        };
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{said}", said.len());
        writer.write_all(answer.as_bytes()).ok()?;
    }
}

/// One connection.
pub struct HttpClient(BufReader<TcpStream>);

impl HttpClient {
    pub fn connect(place: &Place, to: SocketAddr, patience: Duration) -> io::Result<HttpClient> {
        Ok(HttpClient(BufReader::new(connect(place, to, patience)?)))
    }

    pub fn local(&self) -> SocketAddr {
        self.0.get_ref().local_addr().expect("a socket has an address")
    }

    pub fn peer(&self) -> SocketAddr {
        self.0.get_ref().peer_addr().expect("it is connected")
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    /// The status and body of the next answer.
    pub fn answer(&mut self) -> io::Result<(u16, String)> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if self.0.read_until(b'\n', &mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let length =
            |line: &str| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok();
        let mut body = vec![0; head.lines().find_map(length).unwrap_or(0)];
        self.0.read_exact(&mut body)?;
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// The same, if it comes soon.
    pub fn answer_within(&mut self, patience: Duration) -> io::Result<(u16, String)> {
        self.0.get_ref().set_read_timeout(Some(patience))?;
        self.answer()
    }

    pub fn ask(&mut self, method: &str, path: &str) -> io::Result<(u16, String)> {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        self.send(request.as_bytes())?;
        self.answer()
    }
}
