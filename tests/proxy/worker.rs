//! The worker as a process: orders, the datapath's table, confinement, and a daemon that dies.

use std::fs;
use std::io::{Read, Seek, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use porin::kernel::datapath::abi;
use porin::proxy::worker::{Channel, ChannelError, Order, Report, Sandbox};
use porin::proxy::{Counts, Record, Side};

use crate::lab::eventually;
use crate::place::{Client, SERVER, Scene, is_read_only, run};
use crate::support::{PATIENCE, ruleset};

pub struct Worker {
    pub child: Child,
    pub channel: Option<Channel>,
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

    /// One that serves and knows these, by their numbers.
    pub fn serving(scene: &Scene, rules: &[(u16, &str)]) -> Self {
        let (mut worker, _) = Self::start();
        for (number, json) in rules {
            worker.learns(*number, json);
        }
        worker.listens(scene);
        worker
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

    fn learns(&mut self, number: u16, rules: &str) {
        let side = ruleset(rules).ingress.unwrap();
        self.orders(&Order::Rules { number }, &[json(&side).as_fd()]).unwrap();
    }

    fn listens(&mut self, scene: &Scene) {
        let tables = scene.tables();
        let tables: Vec<_> = tables.iter().map(AsFd::as_fd).collect();
        self.orders(&Order::Listen {}, &tables).unwrap();
    }

    /// Records of what is allowed too.
    pub fn tells_of_all(&mut self) {
        self.orders(&Order::Log { allowed: true }, &[]).unwrap();
    }

    fn counts(&mut self) -> Counts {
        self.channel.as_ref().unwrap().send(&Order::Count {}, &[]).unwrap();
        let mut counted = None;
        loop {
            match self.report() {
                Report::Counts { counts, .. } => counted = Some(counts),
                Report::Record { record } => self.records.push(record),
                Report::Done {} => return counted.unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

fn json(side: &Side) -> fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&serde_json::to_vec(side).unwrap()).unwrap();
    file.rewind().unwrap();
    file
}

/// One request and the status of its answer.
pub fn ask(client: &mut TcpStream, path: &str) -> u16 {
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

/// The connection ends, before or instead of an answer.
#[track_caller]
pub fn is_closed(client: &mut TcpStream) {
    // It may be gone already.
    let _ = client.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    let heard = client.read(&mut [0; 100]);
    let is_end = match &heard {
        Ok(bytes) => *bytes == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    };
    assert!(is_end, "{heard:?}");
}

pub fn judged(scene: &Scene, egress: u16, ingress: u16) -> (Client, TcpStream) {
    let client = scene.client();
    scene.judge(&client, scene.maps.generation(), egress, ingress);
    let stream = client.connect();
    (client, stream)
}

pub const A: &str = r#"[{"path": "/a"}]"#;
pub const B: &str = r#"[{"path": "/b"}]"#;

#[test]
fn the_flow_s_entry_decides() {
    run(|scene| {
        let mut worker = Worker::serving(scene, &[(1, A), (2, B), (65_535, "[{}]")]);
        let (client, mut stream) = judged(scene, 0, 1);
        assert_eq!((ask(&mut stream, "/a"), ask(&mut stream, "/b")), (200, 403));
        // The next request is judged by what the entry says then.
        scene.judge(&client, 2, 0, 2);
        assert_eq!((ask(&mut stream, "/a"), ask(&mut stream, "/b")), (403, 200));
        // Both sides, and neither.
        scene.judge(&client, 3, 65_535, 1);
        assert_eq!((ask(&mut stream, "/a"), ask(&mut stream, "/b")), (200, 403));
        scene.judge(&client, 4, 1, 2);
        assert_eq!((ask(&mut stream, "/a"), ask(&mut stream, "/b")), (403, 403));
        scene.judge(&client, 5, 0, 0);
        assert_eq!((ask(&mut stream, "/a"), ask(&mut stream, "/b")), (200, 200));
        scene.put(&client, 6, abi::VERDICT_DENY, abi::FLOW_PROXIED, [0, 0]);
        is_closed(&mut stream);
        let seen = scene.seen.lock().unwrap().clone();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].ip(), client.address.ip(), "the server sees the client's own address");
        assert_ne!(seen[0].port(), client.address.port());
        let counts = worker.counts();
        assert_eq!((counts.connections, counts.allowed, counts.denied), (1, 5, 5));
        assert_eq!(counts.without_rules, 1);
    });
}

#[test]
fn what_is_not_the_datapath_s_is_closed() {
    run(|scene| {
        let mut worker = Worker::serving(scene, &[(1, "[{}]")]);
        let allow = abi::VERDICT_ALLOW;
        // Past the datapath; a flow that is none of the worker's; one that is denied; and rules that nobody told of.
        is_closed(&mut scene.client().connect());
        let cases = [(1, allow, 0, 1), (1, abi::VERDICT_REJECT, abi::FLOW_PROXIED, 1)];
        for (generation, verdict, flags, number) in cases {
            let client = scene.client();
            scene.put(&client, generation, verdict, flags, [number, 0]);
            is_closed(&mut client.connect());
        }
        let (_client, mut stream) = judged(scene, 1, 2);
        is_closed(&mut stream);
        let (client, mut stream) = judged(scene, 1, 1);
        assert_eq!(ask(&mut stream, "/a"), 200);
        // An entry that is being written, for ever.
        let key = porin::kernel::flows::key4(client.address, SERVER.parse().unwrap()).unwrap();
        scene.maps.set_flow4(&key, &abi::Flow::default()).unwrap();
        is_closed(&mut stream);
        let (_client, mut stream) = judged(scene, 1, 1);
        assert_eq!(ask(&mut stream, "/a"), 200);
        worker.orders(&Order::Forget { number: 1 }, &[]).unwrap();
        is_closed(&mut stream);
        assert_eq!(worker.counts().without_rules, 6);
        let faults: Vec<_> = worker.records.iter().filter_map(|r| r.fault.clone()).collect();
        assert_eq!(faults.len(), 6);
        assert!(faults[3].contains("number 2") && faults[5].contains("number 1"), "{faults:?}");
    });
}

#[test]
fn the_worker_s_connections_take_no_client_s_port() {
    run(|scene| {
        let _worker = Worker::serving(scene, &[(1, "[{}]")]);
        let port = |number: usize| scene.seen.lock().unwrap()[number].port();
        let (_client, mut stream) = judged(scene, 1, 0);
        assert_eq!(ask(&mut stream, "/a"), 200);
        // Clients that happen to have the next of the ports that workers take, in turn from 10240 to 32767.
        let next = |steps: u16| 10_240 + (port(0) - 10_240 + steps) % 22_528;
        let other = |steps| {
            let mut other = scene.client();
            other.address.set_port(next(steps));
            other
        };
        for steps in 1..=8 {
            scene.judge(&other(steps), 1, 1, 0);
        }
        let (_client, mut stream) = judged(scene, 1, 0);
        assert_eq!(ask(&mut stream, "/a"), 200);
        assert_eq!(port(1), next(9));
        // What is closed, or has been silent for long, is nobody's any more.
        let flow = |flags: u32, last_seen: u64| abi::Flow {
            judged: 1 << 32 | u64::from(abi::VERDICT_ALLOW),
            flags: abi::FLOW_PROXIED | flags,
            last_seen,
            ..Default::default()
        };
        let now = porin::kernel::sweep::now().as_nanos() as u64;
        let both = abi::FLOW_FIN_ORIGINAL | abi::FLOW_FIN_REPLY;
        let forgotten = flow(0, 0);
        for (steps, gone) in (10..).zip([flow(abi::FLOW_RST, now), flow(both, now), forgotten]) {
            scene.set(&other(steps), &gone);
            let (_client, mut stream) = judged(scene, 1, 0);
            assert_eq!(ask(&mut stream, "/a"), 200);
            assert_eq!(port(usize::from(steps) - 8), next(steps));
        }
    });
}

#[test]
fn its_own_connections_are_not_proxied_again() {
    run(|scene| {
        let mut worker = Worker::serving(scene, &[(1, "[{}]")]);
        // As if something had taken the mark off.
        scene.host.sh("ip rule del pref 10");
        let (_client, mut stream) = judged(scene, 1, 0);
        write!(stream, "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        let counts = worker.counts();
        assert_eq!((counts.looped, counts.connections, counts.without_rules), (1, 1, 0));
        assert!(scene.seen.lock().unwrap().is_empty());
        scene.host.sh(&format!("ip rule add pref 10 fwmark {:#x} lookup 100", abi::MARK_WORKER));
        let (_client, mut stream) = judged(scene, 1, 0);
        assert_eq!(ask(&mut stream, "/a"), 200);
    });
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    run(|scene| {
        let mut worker = Worker::serving(scene, &[(1, A)]);
        let (_client, connected) = judged(scene, 0, 1);
        let (file, tables) = (json(&Side::default()), scene.tables());
        let tables: Vec<_> = tables.iter().map(AsFd::as_fd).collect();
        for (order, descriptors) in [
            (Order::Rules { number: 1 }, vec![]),
            (Order::Rules { number: 0 }, vec![file.as_fd()]),
            (Order::Rules { number: 1 }, vec![file.as_fd(), file.as_fd()]),
            // A number that gets a new meaning has lost the old one, also if it does not get it.
            (Order::Rules { number: 2 }, vec![connected.as_fd()]),
            (Order::Listen {}, vec![]),
            (Order::Listen {}, tables[..1].to_vec()),
            (Order::Listen {}, [&tables[..2], &[file.as_fd()]].concat()),
            (Order::Listen {}, [&tables[..2], &[connected.as_fd()]].concat()),
            // The datapath is one.
            (Order::Listen {}, tables.clone()),
        ] {
            assert!(worker.orders(&order, &descriptors).is_err(), "{order:?}");
        }
        for text in ["", "{}", "[1]", r#"{"order":"rules"}"#, r#"{"order":"kill"}"#] {
            let channel = worker.channel.as_ref().unwrap();
            channel
                .send(&serde_json::from_str::<serde_json::Value>(text).unwrap_or_default(), &[])
                .unwrap();
            assert!(matches!(worker.report(), Report::Refused { .. }), "{text}");
        }
        let (_client, mut stream) = judged(scene, 0, 1);
        assert_eq!((ask(&mut stream, "/a"), ask(&mut stream, "/b")), (200, 403));
    });
}

#[test]
fn it_goes_on_without_a_daemon() {
    run(|scene| {
        let mut worker = Worker::serving(scene, &[(1, A)]);
        let (_before, mut before) = judged(scene, 0, 1);
        assert_eq!(ask(&mut before, "/a"), 200);
        worker.channel = None;
        for _ in 0..20 {
            assert_eq!((ask(&mut before, "/a"), ask(&mut before, "/b")), (200, 403));
            let (_after, mut after) = judged(scene, 0, 1);
            assert_eq!((ask(&mut after, "/b"), ask(&mut after, "/a")), (403, 200));
        }
        assert!(!worker.has_ended());
    });
}

#[test]
fn what_waits_when_a_worker_dies_is_the_next_one_s() {
    run(|scene| {
        let mut first = Worker::serving(scene, &[(1, A)]);
        let (_client, mut served) = judged(scene, 0, 1);
        assert_eq!(ask(&mut served, "/a"), 200);
        first.child.kill().unwrap();
        first.child.wait().unwrap();
        is_closed(&mut served);
        let (_client, mut waiting) = judged(scene, 0, 1);
        let began = Instant::now();
        let _second = Worker::serving(scene, &[(1, A)]);
        assert_eq!((ask(&mut waiting, "/a"), ask(&mut waiting, "/b")), (200, 403));
        assert!(began.elapsed() < PATIENCE);
    });
}

#[test]
fn one_that_drains_serves_what_it_has_and_ends() {
    run(|scene| {
        let mut old = Worker::serving(scene, &[(1, A)]);
        let (client, mut before) = judged(scene, 0, 1);
        assert_eq!(ask(&mut before, "/a"), 200);
        let mut new = Worker::serving(scene, &[(1, A), (2, B)]);
        old.orders(&Order::Drain {}, &[]).unwrap();
        for _ in 0..20 {
            let (_after, mut after) = judged(scene, 0, 2);
            assert_eq!((ask(&mut after, "/a"), ask(&mut after, "/b")), (403, 200));
        }
        assert_eq!(new.counts().connections, 20);
        // It learns as long as it serves.
        old.learns(2, B);
        scene.judge(&client, 2, 0, 2);
        assert_eq!((ask(&mut before, "/a"), ask(&mut before, "/b")), (403, 200));
        assert!(!old.has_ended());
        drop((client, before));
        let ended = eventually::some(PATIENCE, || old.has_ended().then_some(()));
        assert!(ended.is_some(), "it has nobody left to serve");
    });
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
            // NET_ADMIN, and BPF where look-ups need it.
            let capabilities = 1u64 << 12 | u64::from(sandbox.bpf) << 39;
            assert_eq!(
                (value("CapEff:"), value("CapPrm:")),
                (format!("{capabilities:016x}"), format!("{capabilities:016x}"))
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

#[test]
fn what_it_is_given_of_the_datapath_can_only_be_read() {
    run(|scene| {
        assert!(scene.maps.for_readers().unwrap().iter().all(is_read_only));
    });
}
