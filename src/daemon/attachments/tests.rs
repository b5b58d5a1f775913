//! What the main loop would do is done here by hand, so that requests can be caught in between.

use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::*;
use crate::config::model::{Host, Pool};
use crate::control::attach::Place;
use crate::control::view;
use crate::daemon::board::Committed;
use crate::desired::snapshot::{Namespace, Namespaces};
use crate::desired::{Change, Desired};
use crate::types::{Generation, Label, Labels, Name, Origin};

/// A namespace that is there: requests look no further than at its inode.
const NAMESPACE: &str = "/proc/self/ns/net";

fn board(endpoints: Vec<Arc<Endpoint>>) -> Arc<Board> {
    let origin = Origin { file: Path::new("porin.toml").into(), line: 1, column: 1 };
    let network = "10.0.0.0/24".parse().unwrap();
    let name = "four".parse().unwrap();
    let pool = Pool { name, network, reserved: Vec::new(), origin };
    let host = Host { pools: vec![pool], ..Host::default() };
    let config = Arc::new(Config { host, endpoints, ..Config::default() });
    let namespace = |endpoint: &Arc<Endpoint>| {
        let (device, inode) = identity(endpoint)?;
        let path = endpoint.namespace()?.to_owned();
        Some((endpoint.name.clone(), Ok(Namespace { path, device, inode })))
    };
    let namespaces: Namespaces = config.endpoints.iter().filter_map(namespace).collect();
    let mut desired = Desired::default();
    desired.apply(Change::Config(config.clone()));
    desired.apply(Change::Namespaces(namespaces));
    let (snapshot, _) = desired.snapshot().unwrap();
    Arc::new(Board {
        generation: Generation(1),
        state: view::State::Enforcing,
        since: Timestamp::UNIX_EPOCH,
        in_force: true,
        faults: Vec::new(),
        faults_omitted: 0,
        closed: Vec::new(),
        kernel: view::Kernel { attach: String::new(), release: String::new() },
        committed: Some(Committed::new(config, snapshot)),
    })
}

fn labels(app: &str) -> Labels {
    let mut labels = Labels::default();
    labels.insert(Label { key: "app".parse().unwrap(), value: app.to_owned() });
    labels
}

fn asked(app: &str) -> Attach {
    Attach {
        id: AttachmentId::new("cni", "net", &["c", "eth0"]),
        about: "a test".to_owned(),
        name: "c-1".parse::<Name>().unwrap(),
        place: Place::Namespace { path: NAMESPACE.into(), interface: "eth0".to_owned() },
        labels: labels(app),
        ipv6: None,
        ipv4: None,
        mac: None,
        shut: false,
        again: false,
        replaces: false,
    }
}

fn eventually(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        thread::yield_now();
    }
}

struct Lab {
    _run: tempfile::TempDir,
    attachments: Arc<Attachments>,
}

impl Lab {
    fn new() -> Lab {
        let run = tempfile::tempdir().unwrap();
        let attachments = Arc::new(Attachments::open(run.path(), || ()));
        Lab { _run: run, attachments }
    }

    fn waiting(&self) -> usize {
        self.attachments.lock().waiting.len()
    }

    fn attach(&self, attach: Attach) -> thread::JoinHandle<Response> {
        let attachments = self.attachments.clone();
        thread::spawn(move || attachments.attach(&attach, || board(Vec::new())))
    }

    fn known(&self) -> Arc<Endpoint> {
        self.attachments.lock().known.values().next().unwrap().endpoint.clone()
    }
}

fn code(response: &Response) -> ErrorCode {
    match response {
        Response::Error(error) => error.code,
        other => panic!("{other:?}"),
    }
}

/// The request that was waited for must not take the next one's place away.
#[test]
fn detaching_what_is_waited_for_is_waited_for_itself() {
    let lab = Lab::new();
    let attaching = lab.attach(asked("web"));
    eventually("it waits", || lab.waiting() == 1);
    let (attachments, id) = (lab.attachments.clone(), asked("web").id);
    let detaching = thread::spawn(move || attachments.detach(&id));
    assert_eq!(code(&attaching.join().unwrap()), ErrorCode::Refused);
    eventually("the other waits", || lab.waiting() == 1);
    // A new one of the same id, before any round.
    let again = lab.attach(asked("web"));
    eventually("both wait", || lab.waiting() == 2);
    assert!(!detaching.is_finished());
    let (ticket, files) = lab.attachments.mark();
    assert_eq!(files, BTreeSet::from([lab.attachments.files.path(&asked("web").id)]));
    lab.attachments.tell(ticket, &board(Vec::new()));
    assert!(matches!(detaching.join().unwrap(), Response::Detached {}));
    // It is not in force: and gone again, as nothing says why.
    assert_eq!(code(&again.join().unwrap()), ErrorCode::Refused);
    assert!(!lab.attachments.files.exists(&asked("web").id));
}

/// Its labels would be others than were asked for.
#[test]
fn what_is_in_force_of_the_same_name_is_not_what_was_asked_for() {
    let lab = Lab::new();
    let attaching = lab.attach(asked("web"));
    eventually("it waits", || lab.waiting() == 1);
    let wanted = lab.known();
    let labels = asked("old").labels;
    let old = Arc::new(Endpoint { labels, ..Endpoint::clone(&wanted) });
    let tell = |endpoint: &Arc<Endpoint>| {
        let (ticket, _) = lab.attachments.mark();
        let mut board = Board::clone(&board(vec![endpoint.clone()]));
        board.in_force = false;
        let state = lab.attachments.lock();
        let waiter = state.waiting.first().unwrap();
        assert!(waiter.ticket <= ticket);
        waiter.judge(&board, "", |_| false)
    };
    assert!(matches!(tell(&old), Some(Outcome::Refused(_))));
    assert!(matches!(tell(&wanted), Some(Outcome::InForce(..))));
    lab.attachments.tell(lab.attachments.mark().0, &board(Vec::new()));
    assert_eq!(code(&attaching.join().unwrap()), ErrorCode::Refused);
}

#[test]
fn a_file_that_nobody_knows_is_removed_and_looked_at() {
    let lab = Lab::new();
    let id = asked("web").id;
    lab.attachments.files.write(&id, "not TOML").unwrap();
    assert!(matches!(lab.attachments.detach(&id), Response::Detached {}));
    assert!(!lab.attachments.files.exists(&id));
    assert_eq!(lab.attachments.mark().1.len(), 1);
    assert!(matches!(lab.attachments.detach(&id), Response::Detached {}));
    assert_eq!(lab.attachments.mark().1.len(), 0);
}

/// A container that runs must not lose its network because something new about it cannot be.
#[test]
fn what_could_not_be_replaced_is_as_before() {
    let lab = Lab::new();
    let attaching = lab.attach(asked("web"));
    eventually("it waits", || lab.waiting() == 1);
    let before = lab.known();
    let (ticket, _) = lab.attachments.mark();
    lab.attachments.tell(ticket, &board(vec![before.clone()]));
    assert!(matches!(attaching.join().unwrap(), Response::Attached(_)));
    let replacing = lab.attach(Attach { replaces: true, again: true, ..asked("new") });
    eventually("it waits", || lab.waiting() == 1);
    assert_ne!(lab.known(), before);
    let (ticket, _) = lab.attachments.mark();
    let mut refused = Board::clone(&board(vec![before.clone()]));
    refused.in_force = false;
    lab.attachments.tell(ticket, &refused);
    assert_eq!(code(&replacing.join().unwrap()), ErrorCode::Later);
    assert_eq!(lab.known(), before);
    assert_eq!(lab.attachments.files.all()[0].1, before);
    assert_eq!(lab.attachments.mark().1.len(), 1, "a round looks at it");
    // Without the word it is another one's place.
    let again = lab.attach(asked("new"));
    assert_eq!(code(&again.join().unwrap()), ErrorCode::Exists);
}

/// The next daemon would not read it.
#[test]
fn more_labels_than_a_file_may_have_are_refused() {
    let lab = Lab::new();
    let label = |n: u32| Label { key: format!("l{n}").parse().unwrap(), value: "x".repeat(4000) };
    let many = Attach { labels: (0..40).map(label).collect(), ..asked("web") };
    assert_eq!(code(&lab.attach(many).join().unwrap()), ErrorCode::Refused);
    assert!(!lab.attachments.files.exists(&asked("web").id));
}

#[test]
fn what_is_handed_over_goes_with_its_interface() {
    let lab = Lab::new();
    let asked = Attach { place: Place::HandOver("taken".into()), ..asked("web") };
    let attaching = lab.attach(asked.clone());
    eventually("it waits", || lab.waiting() == 1);
    let interface = digest::handed_host_interface("taken");
    // Not while it is being made.
    lab.attachments.vanished(&interface);
    assert!(lab.attachments.prune().is_empty());
    let (ticket, _) = lab.attachments.mark();
    lab.attachments.tell(ticket, &board(vec![lab.known()]));
    assert!(matches!(attaching.join().unwrap(), Response::Attached(_)));
    lab.attachments.vanished("pn0123456789ab");
    assert!(lab.attachments.files.exists(&asked.id));
    lab.attachments.vanished(&interface);
    assert!(!lab.attachments.files.exists(&asked.id));
    assert_eq!(lab.attachments.mark().1.len(), 1, "a round looks at it");
}

#[test]
fn what_a_killed_daemon_was_about_to_write_is_removed() {
    let run = tempfile::tempdir().unwrap();
    let directory = run.path().join("endpoints.d");
    std::fs::create_dir(&directory).unwrap();
    let half = directory.join(format!("{}.new", asked("web").id));
    let others = directory.join("mine.new");
    for path in [&half, &others] {
        std::fs::write(path, "").unwrap();
    }
    Attachments::open(run.path(), || ());
    assert_eq!((half.exists(), others.exists()), (false, true));
}
