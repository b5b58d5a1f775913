//! The socket under clients that are wrong, slow, gone, or too many.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use porin::control::client::{Client, ClientError};
use porin::control::server::{Patience, Server};
use porin::control::socket::SocketError;
use porin::control::wire::{ErrorCode, REQUEST_MAX, Request, Response};
use porin::observe::hub::Filter;

use super::fixture::{self, Daemon};

/// Nothing here may take longer, however busy the machine is.
const DEADLINE: Duration = Duration::from_secs(60);

pub struct Running {
    pub dir: tempfile::TempDir,
    pub daemon: Arc<Daemon>,
    server: Option<Server>,
}

impl Running {
    pub fn start() -> Self {
        Self::with(Patience::default(), Daemon::default())
    }

    pub fn with(patience: Patience, daemon: Daemon) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let daemon = Arc::new(daemon);
        let path = dir.path().join("porin.sock");
        let server = Server::with_patience(&path, None, daemon.clone(), patience).unwrap();
        Running { dir, daemon, server: Some(server) }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("porin.sock")
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Sends bytes and reads lines until the server closes.
    fn exchange(&self, bytes: &[u8]) -> Vec<String> {
        let mut stream = self.connect();
        // The server may have closed before it has read everything.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        BufReader::new(stream).lines().map_while(Result::ok).collect()
    }

    fn still_answers(&self) {
        let mut client = Client::connect(self.dir.path()).unwrap();
        assert!(matches!(client.ask(&Request::Status), Ok(Response::Status(_))));
    }
}

fn eventually(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "it did not happen in time");
        std::thread::yield_now();
    }
}

#[test]
fn every_request_has_its_answer() {
    let running = Running::start();
    let mut client = Client::connect(running.dir.path()).unwrap();
    let mut ask = |request| client.ask(&request).unwrap();
    assert_eq!(ask(Request::Status), Response::Status(Box::new(fixture::status())));
    assert_eq!(ask(Request::Endpoints), Response::Endpoints(fixture::endpoints()));
    assert_eq!(ask(Request::Identities), Response::Identities(fixture::identities()));
    assert_eq!(ask(Request::Policies), Response::Policies(fixture::policies()));
}

#[test]
fn flows_are_those_kept_then_those_to_come() {
    let running = Running::start();
    let flows = fixture::flows();
    running.daemon.hub.publish(flows[0].clone());
    running.daemon.hub.publish(flows[1].clone());
    let mut client = Client::connect(running.dir.path()).unwrap();
    let filter = Filter { last: Some(1), ..Filter::default() };
    let past = Request::Flows { follow: false, filter: filter.clone() };
    assert_eq!(client.ask(&past).unwrap(), Response::Flow(Arc::new(flows[1].clone())));
    assert_eq!(client.answer().unwrap(), Response::End {});
    // The same connection goes on.
    let follow = Request::Flows { follow: true, filter };
    assert_eq!(client.ask(&follow).unwrap(), Response::Flow(Arc::new(flows[1].clone())));
    for flow in &flows[2..] {
        running.daemon.hub.publish(flow.clone());
        assert_eq!(client.answer().unwrap(), Response::Flow(Arc::new(flow.clone())));
    }
    // A daemon that stops says so.
    drop(running);
    assert_eq!(client.answer().unwrap(), Response::End {});
}

#[test]
fn nonsense_is_refused_by_name_and_the_connection_goes_on() {
    let running = Running::start();
    let input =
        b"\n{\"request\":\"nothing\"}\n\x00\xff\xfe\n[]\n{\"version\":2,\"request\":\"new\"}\n\
                  {\"request\":\"flows\",\"types\":[\"x\"]}\n{\"request\":\"policies\"}\nno end";
    let lines = running.exchange(input);
    let codes: Vec<_> = lines
        .iter()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["version"], 1);
            value["error"]["code"].as_str().unwrap_or("none").to_owned()
        })
        .collect();
    let bad = "bad-request";
    assert_eq!(codes, [bad, bad, bad, "version", bad, "none"]);
}

#[test]
fn deep_nesting_and_long_lines_are_refused() {
    let running = Running::start();
    let deep = format!("{}\n", "[".repeat(REQUEST_MAX - 2));
    assert!(running.exchange(deep.as_bytes())[0].contains("bad-request"));
    let longest = format!("{{\"request\":\"status\"}}{}\n", " ".repeat(REQUEST_MAX - 20));
    assert_eq!(longest.len(), REQUEST_MAX + 1);
    assert!(running.exchange(longest.as_bytes())[0].contains("enforcing"));
    for endless in [vec![b'x'; REQUEST_MAX + 1], vec![b'\0'; 4 << 20]] {
        let lines = running.exchange(&endless);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("too-long"), "{lines:?}");
    }
    running.still_answers();
}

#[test]
fn random_bytes_never_harm() {
    use proptest::prelude::*;
    let running = Running::start();
    proptest!(ProptestConfig::with_cases(64), |(bytes: Vec<u8>)| {
        for line in running.exchange(&bytes) {
            prop_assert!(line.contains("\"error\""), "{}", line);
        }
    });
    running.still_answers();
}

#[test]
fn who_says_nothing_or_too_slowly_is_hung_up_on() {
    let patience = Patience { request: Duration::from_millis(300), ..Patience::default() };
    let running = Running::with(patience, Daemon::default());
    let silent = running.connect();
    let mut slow = running.connect();
    slow.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let started = Instant::now();
    // A byte now and then does not buy time: the deadline is for the whole line.
    eventually(|| slow.write_all(b" ").is_err() || matches!(slow.read(&mut [0]), Ok(0)));
    assert!(started.elapsed() >= Duration::from_millis(250));
    assert_eq!((&silent).read(&mut [0]).unwrap(), 0);
    running.still_answers();
}

#[test]
fn half_closed_clients_still_get_their_answer() {
    let running = Running::start();
    let lines = running.exchange(b"{\"request\":\"identities\"}\n");
    assert!(lines[0].starts_with("{\"version\":1,\"identities\":["), "{lines:?}");
}

#[test]
fn a_follower_that_left_is_noticed_without_flows() {
    let patience = Patience { idle: Duration::from_millis(20), ..Patience::default() };
    let running = Running::with(patience, Daemon::default());
    for _ in 0..Server::CONNECTIONS_OF_ROOT {
        let mut stream = running.connect();
        stream.write_all(b"{\"request\":\"flows\",\"follow\":true}\n").unwrap();
    }
    // All places were taken; they come free although nothing happens.
    eventually(|| {
        let mut client = Client::connect(running.dir.path()).unwrap();
        client.ask(&Request::Status).is_ok()
    });
}

#[test]
fn a_follower_that_does_not_read_is_hung_up_on_and_blocks_nobody() {
    let patience = Patience { answer: Duration::from_millis(100), ..Patience::default() };
    let running = Running::with(patience, Daemon::default());
    let mut stuck = running.connect();
    stuck.write_all(b"{\"request\":\"flows\",\"follow\":true}\n").unwrap();
    let flow = fixture::flows().remove(0);
    running.daemon.hub.publish(flow.clone());
    let mut reader = BufReader::with_capacity(1, stuck.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    // Now nothing is read. Publishing goes on at full speed until the connection is given up.
    eventually(|| {
        (0..100).for_each(|_| running.daemon.hub.publish(flow.clone()));
        stuck.write_all(b" ").is_err()
    });
    running.still_answers();
}

#[test]
fn too_many_are_told_so() {
    let running = Running::start();
    let mut held: Vec<_> = (0..Server::CONNECTIONS_OF_ROOT).map(|_| running.connect()).collect();
    // Each has been taken in once it has an answer.
    for stream in &mut held {
        stream.write_all(b"{\"request\":\"policies\"}\n").unwrap();
        let mut line = String::new();
        BufReader::with_capacity(1, stream).read_line(&mut line).unwrap();
        assert!(line.contains("shop-api"));
    }
    for _ in 0..3 {
        let mut client = Client::connect(running.dir.path()).unwrap();
        match client.ask(&Request::Status) {
            Err(ClientError::Error(error)) => assert_eq!(error.code, ErrorCode::Busy),
            other => panic!("{other:?}"),
        }
    }
    drop(held);
    eventually(|| {
        let mut client = Client::connect(running.dir.path()).unwrap();
        client.ask(&Request::Status).is_ok()
    });
}

#[test]
fn the_socket_is_for_root_and_its_group_and_goes_away() {
    let running = Running::start();
    let metadata = fs::symlink_metadata(running.path()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o660);
    assert_eq!(fs::read_dir(running.dir.path()).unwrap().count(), 1);
    let Running { dir, server, .. } = running;
    drop(server);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn only_a_dead_socket_is_replaced() {
    let running = Running::start();
    let start = |path: &Path| {
        Server::with_patience(path, None, Arc::new(Daemon::default()), Patience::default())
    };
    assert!(matches!(start(&running.path()), Err(SocketError::InUse(_))));
    running.still_answers();

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("porin.sock");
    drop(UnixListener::bind(&path).unwrap());
    drop(start(&path).unwrap());

    fs::write(&path, "precious").unwrap();
    assert!(matches!(start(&path), Err(SocketError::NotSocket(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
    assert!(matches!(start(&path), Err(SocketError::NotSocket(_))));

    let missing = dir.path().join("none/porin.sock");
    assert!(matches!(start(&missing), Err(SocketError::Io { .. })));
}

/// A daemon that was replaced must not take its successor's socket away.
#[test]
fn another_s_socket_is_not_removed() {
    let running = Running::start();
    fs::remove_file(running.path()).unwrap();
    let successor = UnixListener::bind(running.path()).unwrap();
    let Running { dir, server, .. } = running;
    drop(server);
    assert!(dir.path().join("porin.sock").exists());
    drop(successor);
}

#[test]
fn others_are_forbidden() {
    // Only root can become somebody else to try.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let running = Running::start();
    fs::set_permissions(running.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let output = super::client::porinctl_as_nobody(running.dir.path());
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("no permission"), "{error}");
    // Even where somebody has opened the file to all.
    fs::set_permissions(running.path(), fs::Permissions::from_mode(0o666)).unwrap();
    let output = super::client::porinctl_as_nobody(running.dir.path());
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("only root and the group porin may ask"), "{error}");
}
