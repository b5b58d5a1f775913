//! The daemon's side: it starts workers, tells them what they must know, and makes others when they die.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use porin::daemon::l7::kept::{self, Kept};
use porin::daemon::l7::{L7, Rulesets, Teller};
use porin::kernel::netlink::Netlink;
use porin::proxy::Record;
use porin::types::RulesetId;
use rustix::process::{Pid, Signal, kill_process};

use crate::lab::eventually;
use crate::place::{Client, Scene, run, serve};
use crate::support::{PATIENCE, ruleset};
use crate::worker::{A, B, Worker, ask, is_closed, judged};

#[derive(Default)]
struct Told {
    records: Mutex<Vec<Record>>,
    changes: AtomicUsize,
    followed: AtomicBool,
    stored: Mutex<Vec<(String, OwnedFd)>>,
}

impl Teller for Told {
    fn record(&self, record: Record) {
        self.records.lock().unwrap().push(record);
    }

    fn wants_allowed(&self) -> bool {
        self.followed.load(Ordering::Relaxed)
    }

    fn store(&self, name: &str, descriptor: BorrowedFd<'_>) {
        let copy = descriptor.try_clone_to_owned().unwrap();
        self.stored.lock().unwrap().push((name.to_owned(), copy));
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }
}

fn rulesets(rules: &[(u32, &str)]) -> Rulesets {
    let side = |json: &str| Arc::new(ruleset(json).ingress.unwrap());
    rules.iter().map(|(number, json)| (RulesetId(*number), side(json))).collect()
}

struct Daemon<'a> {
    scene: &'a Scene,
    l7: L7,
    netlink: Netlink,
    told: Arc<Told>,
    /// Where the daemon's socket is: made reachable, and with a server that has the same address.
    address: SocketAddr,
    // After the daemon's own: it is not there to start others.
    _end: End,
}

impl<'a> Daemon<'a> {
    /// One whose worker knows these.
    fn start(scene: &'a Scene, rules: &[(u32, &str)]) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_porind"));
        let told = Arc::new(Told::default());
        let (maps, teller) = (Arc::clone(&scene.maps), Arc::clone(&told) as Arc<dyn Teller>);
        let l7 = L7::new(program, maps, teller, Kept::default());
        let netlink = Netlink::open().unwrap();
        l7.prepare(&netlink, &Rulesets::new());
        assert!(workers().is_empty(), "without rules there is none");
        assert!(!scene.host.sh("ip rule").contains("0x706f0204"));
        let end = End;
        l7.prepare(&netlink, &rulesets(rules));
        assert_eq!(l7.faults(), None);
        let address = listening();
        scene.host.sh("ip addr add 192.0.0.8/32 dev lo\nip route add 192.0.0.8 dev v0 table 100");
        scene.server.sh("ip addr add 192.0.0.8/32 dev v1");
        serve(&scene.server, address, Arc::clone(&scene.seen));
        Daemon { scene, l7, netlink, told, address, _end: end }
    }

    fn prepare(&self, rules: &[(u32, &str)]) {
        self.l7.prepare(&self.netlink, &rulesets(rules));
    }

    /// Of so many requests.
    #[track_caller]
    fn is_told_of(&self, requests: usize) {
        let told = || (self.told.records.lock().unwrap().len() == requests).then_some(());
        assert!(eventually::some(PATIENCE, told).is_some(), "{:?}", self.told.records);
    }

    fn client(&self, number: u16) -> Client {
        let client = self.scene.client_of(self.address);
        self.scene.judge(&client, 1, 0, number);
        client
    }
}

/// Workers outlive daemons, but not the test.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        for pid in workers() {
            let _ = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL);
        }
    }
}

/// Workers in this world.
fn workers() -> Vec<u32> {
    let namespace = |path: String| fs::read_link(path).ok();
    let own = namespace("/proc/thread-self/ns/net".to_owned());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_worker = |pid: &u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.ends_with(b"--l7-worker\0") && namespace(format!("/proc/{pid}/ns/net")) == own
    };
    numbers.filter(is_worker).collect()
}

/// Where the daemon listens, of IPv4 (proc_net_tcp(5)).
fn listening() -> SocketAddr {
    let table = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    let ports = table.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, _, state) = (words.next()?, words.next()?, words.next()?);
        let port = local.strip_prefix("080000C0:").filter(|_| state == "0A")?;
        u16::from_str_radix(port, 16).ok()
    });
    let ports: Vec<u16> = ports.collect();
    assert_eq!(ports.len(), 1, "{table}");
    SocketAddr::from((Ipv4Addr::new(192, 0, 0, 8), ports[0]))
}

#[test]
fn a_worker_that_dies_has_a_successor() {
    run(|scene| {
        let daemon = Daemon::start(scene, &[(1, A)]);
        let mut first = daemon.client(1).connect();
        assert_eq!((ask(&mut first, "/a"), ask(&mut first, "/b")), (200, 403));
        // Before it dies with it.
        daemon.is_told_of(1);
        let old = workers();
        assert_eq!(old.len(), 1);
        let pid = Pid::from_raw(old[0] as i32).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        is_closed(&mut first);
        // Meanwhile connections wait, unjudged.
        let begun = Instant::now();
        let mut second = daemon.client(1).connect();
        assert_eq!((ask(&mut second, "/a"), ask(&mut second, "/b")), (200, 403));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        let new = workers();
        assert!(new.len() == 1 && new != old, "{old:?} {new:?}");
        assert!(daemon.told.changes.load(Ordering::Relaxed) > 0);
        assert_eq!(daemon.l7.faults(), None);
        daemon.is_told_of(2);
    });
}

#[test]
fn what_is_prepared_is_known_and_what_is_gone_is_forgotten_late() {
    run(|scene| {
        let daemon = Daemon::start(scene, &[(1, A)]);
        let first = daemon.client(1);
        let mut stream = first.connect();
        daemon.l7.committed(&rulesets(&[(1, A)]));
        daemon.prepare(&[(2, B)]);
        scene.judge(&first, 2, 0, 2);
        assert_eq!((ask(&mut stream, "/a"), ask(&mut stream, "/b")), (403, 200));
        // Packets of two generations before may be on their way.
        for _ in 0..2 {
            daemon.l7.committed(&rulesets(&[(2, B)]));
            let mut late = daemon.client(1).connect();
            assert_eq!(ask(&mut late, "/a"), 200);
        }
        daemon.l7.committed(&rulesets(&[(2, B)]));
        is_closed(&mut daemon.client(1).connect());
        assert_eq!(ask(&mut stream, "/b"), 200);
        assert_eq!(workers().len(), 1);
    });
}

#[test]
fn a_program_that_is_none_is_a_fault_and_refuses_nothing() {
    run(|scene| {
        let told = Arc::new(Told::default());
        let l7 = L7::new(Path::new("/bin/true"), Arc::clone(&scene.maps), told, Kept::default());
        let netlink = Netlink::open().unwrap();
        l7.prepare(&netlink, &rulesets(&[(1, A)]));
        let fault = l7.faults().unwrap().to_string();
        assert!(fault.contains("requests are not judged"), "{fault}");
        l7.committed(&rulesets(&[(1, A)]));
        l7.prepare(&netlink, &rulesets(&[(1, A), (2, B)]));
        assert!(l7.faults().is_some());
    });
}

/// What a daemon that is gone has left with the service manager: its socket, and the channel to its worker.
fn left(scene: &Scene, name: &str, worker: &mut Worker) -> Kept {
    let socket = scene.listener.as_fd().try_clone_to_owned().unwrap();
    let channel = worker.channel.take().unwrap().into_fd();
    Kept { sockets: vec![socket], workers: vec![(name.to_owned(), channel)] }
}

#[test]
fn the_next_daemon_goes_on_with_a_worker_of_the_same_program() {
    run(|scene| {
        let _end = End;
        let program = Path::new(env!("CARGO_BIN_EXE_porind"));
        let name = kept::name(program, &scene.maps).unwrap();
        let mut worker = Worker::serving(scene, &[(1, A)]);
        let (client, mut before) = judged(scene, 0, 1);
        assert_eq!(ask(&mut before, "/a"), 200);
        let told = Arc::new(Told::default());
        let kept = left(scene, &name, &mut worker);
        let l7 = L7::new(program, Arc::clone(&scene.maps), told.clone(), kept);
        let netlink = Netlink::open().unwrap();
        l7.prepare(&netlink, &rulesets(&[(1, A), (2, B)]));
        assert_eq!(l7.faults(), None);
        scene.judge(&client, 1, 0, 2);
        assert_eq!((ask(&mut before, "/a"), ask(&mut before, "/b")), (403, 200));
        assert_eq!(workers(), [worker.child.id()]);
        assert_eq!(l7.counted().unwrap().open, 1);
        // It is watched like one of the daemon's own.
        worker.child.kill().unwrap();
        worker.child.wait().unwrap();
        let (_client, mut after) = judged(scene, 0, 2);
        assert_eq!((ask(&mut after, "/a"), ask(&mut after, "/b")), (403, 200));
        assert!(told.stored.lock().unwrap().iter().any(|(stored, _)| *stored == name));
    });
}

#[test]
fn a_worker_of_another_program_serves_what_it_has() {
    run(|scene| {
        let _end = End;
        let program = Path::new(env!("CARGO_BIN_EXE_porind"));
        let mut old = Worker::serving(scene, &[(1, A)]);
        let (client, mut before) = judged(scene, 0, 1);
        assert_eq!(ask(&mut before, "/a"), 200);
        let kept = left(scene, "l7-worker-of-before", &mut old);
        let l7 = L7::new(program, Arc::clone(&scene.maps), Arc::new(Told::default()), kept);
        let netlink = Netlink::open().unwrap();
        l7.prepare(&netlink, &rulesets(&[(1, A), (2, B)]));
        assert_eq!(l7.faults(), None);
        for _ in 0..10 {
            let (_client, mut after) = judged(scene, 0, 2);
            assert_eq!((ask(&mut after, "/a"), ask(&mut after, "/b")), (403, 200));
        }
        assert_eq!(l7.counted().unwrap().counts.connections, 10, "the new one has them all");
        scene.judge(&client, 1, 0, 2);
        assert_eq!((ask(&mut before, "/a"), ask(&mut before, "/b")), (403, 200));
        drop((client, before));
        assert!(eventually::some(PATIENCE, || old.has_ended().then_some(())).is_some());
    });
}
