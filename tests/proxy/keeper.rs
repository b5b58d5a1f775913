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
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::lab::eventually;
use crate::lab::workers::Guard;
use crate::place::{Client, Scene, run, serve};
use crate::support::{PATIENCE, ruleset};
use crate::worker::{A, B, Worker, ask, is_closed, judged};

#[derive(Default)]
struct Told {
    records: Mutex<Vec<Record>>,
    changes: AtomicUsize,
    followed: AtomicBool,
    /// How often it was asked that.
    asked: AtomicUsize,
    stored: Mutex<Vec<(String, OwnedFd)>>,
}

impl Teller for Told {
    fn record(&self, record: Record) {
        self.records.lock().unwrap().push(record);
    }

    fn wants_allowed(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.followed.load(Ordering::Relaxed)
    }

    fn store(&self, name: &str, descriptor: BorrowedFd<'_>) {
        let copy = descriptor.try_clone_to_owned().unwrap();
        self.stored.lock().unwrap().push((name.to_owned(), copy));
    }

    fn forget(&self, name: &str) {
        self.stored.lock().unwrap().retain(|(stored, _)| stored != name);
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
        let end = End::of(scene, &l7);
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

/// Workers outlive daemons, but not the test: no more are started, and those there are end.
struct End(L7, Option<Guard>);

impl End {
    fn of(scene: &Scene, l7: &L7) -> Self {
        End(l7.clone(), Some(Guard::of(&scene.host)))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.0.leave();
        self.1 = None;
        assert!(std::thread::panicking() || workers().is_empty(), "{:?}", workers());
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
        let _end = End::of(scene, &l7);
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
    let process = pidfd_open(Pid::from_child(&worker.child), PidfdFlags::empty()).unwrap();
    let worker = kept::Worker { name: name.to_owned(), channel, process: Some(process) };
    Kept { sockets: vec![socket], workers: vec![worker] }
}

#[test]
fn the_next_daemon_goes_on_with_a_worker_of_the_same_program() {
    run(|scene| {
        let program = Path::new(env!("CARGO_BIN_EXE_porind"));
        let name = kept::name(program, &scene.maps).unwrap();
        let mut worker = Worker::serving(scene, &[(1, A)]);
        let (client, mut before) = judged(scene, 0, 1);
        assert_eq!(ask(&mut before, "/a"), 200);
        let told = Arc::new(Told::default());
        let kept = left(scene, &name, &mut worker);
        let l7 = L7::new(program, Arc::clone(&scene.maps), told.clone(), kept);
        let _end = End::of(scene, &l7);
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
        let stored = || {
            let stored = told.stored.lock().unwrap();
            stored.iter().any(|(stored, _)| stored.starts_with(&name)).then_some(())
        };
        assert!(eventually::some(PATIENCE, stored).is_some());
    });
}

#[test]
fn a_worker_of_another_program_serves_what_it_has() {
    run(|scene| {
        let program = Path::new(env!("CARGO_BIN_EXE_porind"));
        let mut old = Worker::serving(scene, &[(1, A)]);
        let (client, mut before) = judged(scene, 0, 1);
        assert_eq!(ask(&mut before, "/a"), 200);
        let kept = left(scene, "l7-worker-of-before", &mut old);
        let l7 = L7::new(program, Arc::clone(&scene.maps), Arc::new(Told::default()), kept);
        let _end = End::of(scene, &l7);
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

/// Stops a process, so that it neither answers nor ends.
fn stop(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::STOP).unwrap();
}

#[test]
fn a_worker_that_hangs_does_not_keep_a_commit_and_is_replaced() {
    run(|scene| {
        let daemon = Daemon::start(scene, &[(1, A)]);
        let hung = workers();
        stop(hung[0]);
        // Who counts, and who looks at faults, does not wait for it long, nor ends it.
        assert!(daemon.l7.counted().is_none());
        assert_eq!((daemon.l7.faults(), workers()), (None, hung.clone()));
        let begun = Instant::now();
        let many: Vec<_> = (2..30).map(|number| (number, B)).collect();
        daemon.prepare(&many);
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
        let replaced = || (daemon.l7.faults().is_none() && workers() != hung).then_some(());
        assert!(eventually::some(PATIENCE, replaced).is_some(), "{:?}", daemon.l7.faults());
        let mut stream = daemon.client(29).connect();
        assert_eq!((ask(&mut stream, "/a"), ask(&mut stream, "/b")), (403, 200));
        assert_eq!(workers().len(), 1);
    });
}

#[test]
fn a_worker_of_an_earlier_daemon_that_hangs_is_killed() {
    run(|scene| {
        let program = Path::new(env!("CARGO_BIN_EXE_porind"));
        let name = kept::name(program, &scene.maps).unwrap();
        let mut worker = Worker::serving(scene, &[(1, A)]);
        stop(worker.child.id());
        let kept = left(scene, &name, &mut worker);
        let l7 = L7::new(program, Arc::clone(&scene.maps), Arc::new(Told::default()), kept);
        let _end = End::of(scene, &l7);
        l7.prepare(&Netlink::open().unwrap(), &rulesets(&[(1, A), (2, B)]));
        assert!(eventually::some(PATIENCE, || worker.has_ended().then_some(())).is_some());
        let (_client, mut after) = judged(scene, 0, 2);
        assert_eq!((ask(&mut after, "/a"), ask(&mut after, "/b")), (403, 200));
    });
}

#[test]
fn one_ruleset_that_is_refused_stops_no_other() {
    run(|scene| {
        let daemon = Daemon::start(scene, &[(1, A)]);
        // 0 is no ruleset's number to a worker.
        daemon.prepare(&[(0, A), (1, A), (2, B)]);
        let refused = |fault: Option<porin::desired::Fault>| {
            let fault = fault.unwrap().to_string();
            assert!(fault.contains("refuses rulesets") && fault.contains("number 0"), "{fault}");
        };
        refused(daemon.l7.faults());
        let serves = || {
            let mut stream = daemon.client(2).connect();
            assert_eq!((ask(&mut stream, "/a"), ask(&mut stream, "/b")), (403, 200));
        };
        serves();
        let old = workers();
        kill_process(Pid::from_raw(old[0] as i32).unwrap(), Signal::KILL).unwrap();
        serves();
        let told = || daemon.l7.faults().filter(|fault| fault.to_string().contains("number 0"));
        refused(eventually::some(PATIENCE, told));
        for _ in 0..3 {
            daemon.l7.committed(&rulesets(&[(2, B)]));
        }
        assert_eq!(daemon.l7.faults(), None);
    });
}

#[test]
fn a_worker_that_was_taken_over_is_told_that_nobody_follows() {
    run(|scene| {
        let program = Path::new(env!("CARGO_BIN_EXE_porind"));
        let name = kept::name(program, &scene.maps).unwrap();
        let mut worker = Worker::serving(scene, &[(1, A)]);
        worker.tells_of_all();
        let kept = left(scene, &name, &mut worker);
        let told = Arc::new(Told::default());
        let l7 = L7::new(program, Arc::clone(&scene.maps), told.clone(), kept);
        let _end = End::of(scene, &l7);
        l7.prepare(&Netlink::open().unwrap(), &rulesets(&[(1, A)]));
        let (_client, mut stream) = judged(scene, 0, 1);
        let mut denied = 0;
        let quiet = || {
            let before = told.asked.load(Ordering::Relaxed);
            assert_eq!((ask(&mut stream, "/a"), ask(&mut stream, "/b")), (200, 403));
            // They come in order: what was allowed would have come before what was denied.
            denied += 1;
            let heard = || (told.records.lock().unwrap().len() == denied).then_some(());
            assert!(eventually::some(PATIENCE, heard).is_some());
            (told.asked.load(Ordering::Relaxed) == before).then_some(())
        };
        assert!(eventually::some(PATIENCE, quiet).is_some());
    });
}

#[test]
fn what_others_take_away_is_put_back() {
    run(|scene| {
        let daemon = Daemon::start(scene, &[(1, A)]);
        let rule = || scene.host.sh("ip rule; ip -6 rule").matches("0x706f0204").count();
        for put_back in [&(|| daemon.l7.look(&daemon.netlink)) as &dyn Fn(), &|| {
            daemon.prepare(&[(1, A)]);
        }] {
            assert_eq!(rule(), 2);
            scene.host.sh("ip rule del pref 112; ip -6 rule del pref 112");
            assert_eq!(rule(), 0);
            put_back();
        }
        assert_eq!(rule(), 2);
    });
}

#[test]
fn what_a_test_that_is_killed_leaves_ends() {
    run(|scene| {
        let mut worker = Worker::serving(scene, &[]);
        let mut guard = Guard::of(&scene.host);
        assert!(guard.is_there() && !worker.has_ended());
        // What is left of a test that is killed: nobody who holds it.
        guard.let_go();
        assert!(eventually::some(PATIENCE, || worker.has_ended().then_some(())).is_some());
    });
}
