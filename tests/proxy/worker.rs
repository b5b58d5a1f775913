//! The worker as a process: orders, confinement, and a daemon that dies.

use std::fs;
use std::io::{Read, Seek, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use porin::proxy::worker::{Channel, ChannelError, Order, Report, Sandbox};
use porin::proxy::{Digest, Record, Ruleset};

use crate::support::{PATIENCE, ruleset};

struct Worker {
    child: Child,
    channel: Option<Channel>,
    records: Vec<Record>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Worker {
    fn start() -> (Self, Sandbox) {
        let (own, theirs) = Channel::pair().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_porind"))
            .arg("--l7-worker")
            .stdin(theirs.into_fd())
            .spawn()
            .unwrap();
        let mut worker = Worker { child, channel: Some(own), records: Vec::new() };
        match worker.report() {
            Report::Started { sandbox } => (worker, sandbox),
            other => panic!("{other:?}"),
        }
    }

    fn report(&mut self) -> Report {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.channel.as_ref().unwrap().receive::<Report>() {
                Ok((report, descriptors)) => {
                    assert!(descriptors.is_empty());
                    return report;
                }
                Err(ChannelError::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    assert!(Instant::now() < end, "no report in time");
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn orders(&mut self, order: &Order, descriptors: &[BorrowedFd]) -> Result<(), String> {
        self.channel.as_ref().unwrap().send(order, descriptors).unwrap();
        loop {
            match self.report() {
                Report::Done {} => return Ok(()),
                Report::Refused { why } => return Err(why),
                Report::Record { record } => self.records.push(record),
                other => panic!("{other:?}"),
            }
        }
    }

    fn add(&mut self, rules: &Ruleset, listener: &TcpListener, server: SocketAddr) -> Digest {
        let ruleset = rules.digest();
        let order = Order::Add { ruleset, server: Some(server) };
        self.orders(&order, &[json(rules).as_fd(), listener.as_fd()]).unwrap();
        ruleset
    }
}

fn json(rules: &Ruleset) -> fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&serde_json::to_vec(rules).unwrap()).unwrap();
    file.rewind().unwrap();
    file
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// One request and the status of its answer; the server answers at once.
fn ask(client: &mut TcpStream, path: &str) -> u16 {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(client, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    let text = String::from_utf8(text).unwrap();
    let length = text.split("Content-Length: ").nth(1).unwrap().split('\r').next().unwrap();
    client.read_exact(&mut vec![0; length.parse().unwrap()]).unwrap();
    text[9..12].parse().unwrap()
}

/// Answers every request on every connection, until the test is over.
fn server() -> SocketAddr {
    let listener = listener();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let (mut text, mut byte) = (Vec::new(), [0]);
                while stream.read_exact(&mut byte).is_ok() {
                    text.push(byte[0]);
                    if text.ends_with(b"\r\n\r\n") {
                        text.clear();
                        stream
                            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                            .unwrap();
                    }
                }
            });
        }
    });
    address
}

#[test]
fn it_serves_as_it_is_told() {
    let (mut worker, _) = Worker::start();
    let (server, old, new) = (server(), listener(), listener());
    let first = worker.add(&ruleset(r#"[{"path": "/a"}]"#), &old, server);
    let mut client = TcpStream::connect(old.local_addr().unwrap()).unwrap();
    assert_eq!((ask(&mut client, "/a"), ask(&mut client, "/b")), (200, 403));
    // The next request on the same connection is judged by the successor.
    let second = worker.add(&ruleset(r#"[{"path": "/b"}]"#), &new, server);
    worker.orders(&Order::Retire { old: first, successor: second }, &[]).unwrap();
    assert_eq!((ask(&mut client, "/a"), ask(&mut client, "/b")), (403, 200));
    worker.orders(&Order::Drop { ruleset: first }, &[]).unwrap();
    assert_eq!(ask(&mut client, "/b"), 200);
    worker.orders(&Order::Log { allowed: true }, &[]).unwrap();
    assert_eq!(ask(&mut client, "/b"), 200);
    worker.orders(&Order::Drop { ruleset: second }, &[]).unwrap();
    client.write_all(b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(client.read(&mut [0; 100]).unwrap_or(0), 0);
    worker.channel.as_ref().unwrap().send(&Order::Count {}, &[]).unwrap();
    let counts = loop {
        match worker.report() {
            Report::Counts { counts, .. } => break counts,
            Report::Record { record } => worker.records.push(record),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((counts.connections, counts.allowed, counts.denied), (1, 4, 2));
    let statuses: Vec<_> = worker.records.iter().map(|record| record.status).collect();
    assert_eq!(statuses, [Some(403), Some(403), Some(200)]);
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let (mut worker, _) = Worker::start();
    let (server, listener) = (server(), listener());
    let rules = ruleset("[{}]");
    let digest = worker.add(&rules, &listener, server);
    let other = ruleset(r#"[{"path": "/x"}]"#).digest();
    let add = |ruleset| Order::Add { ruleset, server: Some(server) };
    let connected = TcpStream::connect(server).unwrap();
    let file = json(&rules);
    for (order, descriptors) in [
        (add(other), vec![]),
        (add(other), vec![file.as_fd()]),
        (add(digest), vec![file.as_fd(), file.as_fd()]),
        (add(digest), vec![file.as_fd(), connected.as_fd()]),
        (Order::Retire { old: digest, successor: other }, vec![]),
        (Order::Retire { old: other, successor: digest }, vec![]),
        (Order::Drop { ruleset: other }, vec![]),
    ] {
        assert!(worker.orders(&order, &descriptors).is_err(), "{order:?}");
    }
    for text in ["", "{}", "[1]", r#"{"order":"add"}"#, r#"{"order":"kill"}"#] {
        let channel = worker.channel.as_ref().unwrap();
        channel
            .send(&serde_json::from_str::<serde_json::Value>(text).unwrap_or_default(), &[])
            .unwrap();
        assert!(matches!(worker.report(), Report::Refused { .. }), "{text}");
    }
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(ask(&mut client, "/"), 200);
}

#[test]
fn it_goes_on_without_a_daemon() {
    let (mut worker, _) = Worker::start();
    let (server, listener) = (server(), listener());
    worker.add(&ruleset(r#"[{"path": "/a"}]"#), &listener, server);
    let mut before = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(ask(&mut before, "/a"), 200);
    worker.channel = None;
    for _ in 0..100 {
        assert_eq!((ask(&mut before, "/a"), ask(&mut before, "/b")), (200, 403));
        let mut after = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!((ask(&mut after, "/b"), ask(&mut after, "/a")), (403, 200));
    }
    assert!(worker.child.try_wait().unwrap().is_none());
}

#[test]
fn it_has_no_rights_that_it_does_not_need() {
    let (worker, sandbox) = Worker::start();
    let tasks = fs::read_dir(format!("/proc/{}/task", worker.child.id())).unwrap();
    let mut threads = 0;
    for task in tasks {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(value("NoNewPrivs:"), "1");
        assert_eq!(value("CapInh:"), "0000000000000000");
        if sandbox.user {
            assert_eq!(value("Uid:"), "65534 65534 65534 65534");
            assert_eq!(
                (value("Gid:").as_str(), value("Groups:").as_str()),
                ("65534 65534 65534 65534", "")
            );
            // NET_ADMIN alone.
            assert_eq!(
                (value("CapEff:"), value("CapPrm:")),
                (format!("{:016x}", 1 << 12), format!("{:016x}", 1 << 12))
            );
        } else {
            assert_eq!(value("CapPrm:"), "0000000000000000");
        }
        if sandbox.calls {
            assert_eq!(value("Seccomp:"), "2");
        }
        threads += 1;
    }
    assert!(threads > 1);
    assert!(sandbox.calls || !cfg!(target_arch = "x86_64"));
}
