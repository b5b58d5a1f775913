//! What the main loop would do is done here by hand, so that requests can be caught in between.

use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::adopting::Adoption;
use super::*;
use crate::config::model::{Host, Pool};
use crate::control::attach;
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
        let Some(Place::Inside { device, inode }) = Place::now(endpoint) else { return None };
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
        kernel: view::Kernel::default(),
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
        place: attach::Place::Inside { namespace: NAMESPACE.into(), interface: "eth0".to_owned() },
        labels: labels(app),
        ipv6: None,
        ipv4: None,
        publish: Vec::new(),
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
    // It has no other addresses than those that the runtime gives it.
    let ipv4 = Some("10.0.0.5".parse().unwrap());
    let asked = Attach { place: attach::Place::HandOver("taken".into()), ipv4, ..asked("web") };
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

fn adoption(container: &str, interface: &str, last: u8) -> Adoption {
    Adoption {
        id: AttachmentId::new(docker::ADOPTED, "bridge", &[container]),
        about: format!("container {container}\n[x]"),
        name: format!("bridge/{container}").parse().unwrap(),
        labels: labels("web"),
        interface: interface.to_owned(),
        ipv6: None,
        ipv4: Some([172, 17, 0, last].into()),
    }
}

#[test]
fn the_adopted_are_what_is_wanted_and_no_others() {
    let root = tempfile::tempdir().unwrap();
    let wakes = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counts = wakes.clone();
    let wake = move || _ = counts.fetch_add(1, Ordering::Relaxed);
    let attachments = Attachments::open(root.path(), wake);
    let board = board(Vec::new());
    let none = BTreeSet::new();
    let (web, db) = (adoption("web", "veth1", 2), adoption("db", "veth2", 3));
    let path = |one: &Adoption| attach::file(root.path(), &one.id);
    assert!(
        attachments.adopt(docker::ADOPTED, &[web.clone(), db.clone()], &none, &board).is_empty()
    );
    assert_eq!(wakes.load(Ordering::Relaxed), 1);
    assert_eq!(attachments.mark().1, [path(&web), path(&db)].into());
    let text = std::fs::read_to_string(path(&web)).unwrap();
    assert!(text.starts_with("# Adopted: container web [x]\n"), "{text}");
    assert!(text.contains("interface = \"veth1\"") && text.contains("ipv6 = \"none\""), "{text}");

    // The same again is nothing new; a file that others removed comes back; and pruning leaves them alone.
    assert!(
        attachments.adopt(docker::ADOPTED, &[web.clone(), db.clone()], &none, &board).is_empty()
    );
    assert!(attachments.prune().is_empty());
    assert!(attachments.mark().1.is_empty());
    std::fs::remove_file(path(&db)).unwrap();
    attachments.adopt(docker::ADOPTED, &[web.clone(), db.clone()], &none, &board);
    assert_eq!(attachments.mark().1, [path(&db)].into());

    // What is not known now stays.
    let undecided = [db.id.clone()].into();
    assert!(attachments.adopt(docker::ADOPTED, &[], &undecided, &board).is_empty());
    assert!(!path(&web).exists() && path(&db).exists());
    attachments.adopt(docker::ADOPTED, &[web.clone(), db.clone()], &none, &board);

    // One takes over what another had, in one go; the other cannot have what is taken.
    let mut taken = adoption("new", "veth1", 2);
    assert!(
        attachments.adopt(docker::ADOPTED, &[taken.clone(), db.clone()], &none, &board).is_empty()
    );
    assert!(!path(&web).exists());
    let refused = attachments.adopt(
        docker::ADOPTED,
        &[taken.clone(), db.clone(), web.clone()],
        &none,
        &board,
    );
    assert_eq!(refused.len(), 1);
    assert!(refused[&web.id].contains("veth1"), "{refused:?}");
    taken.ipv4 = Some([10, 0, 0, 7].into());
    let refused = attachments.adopt(docker::ADOPTED, &[taken.clone(), web.clone()], &none, &board);
    assert!(refused[&taken.id].contains("inside the pool"), "{refused:?}");
    assert!(path(&web).exists() && !path(&taken).exists() && !path(&db).exists());

    // A later daemon knows them, and lets them go; what else there is stays.
    drop(attachments);
    let attachments = Attachments::open(root.path(), || ());
    attachments.release(docker::ADOPTED, |id| *id == web.id);
    assert!(path(&web).exists());
    attachments.release("cni", |_| false);
    assert!(path(&web).exists());
    attachments.release(docker::ADOPTED, |_| false);
    assert!(!path(&web).exists());
}

#[test]
fn an_endpoint_by_hand_is_not_adopted_as_another() {
    let root = tempfile::tempdir().unwrap();
    let attachments = Attachments::open(root.path(), || ());
    let by_hand = |text: &str| {
        crate::config::one::endpoints(Path::new("/etc/porin/endpoints.d/x.toml"), text.to_owned())
            .unwrap_or_else(|report| panic!("{report}"))
    };
    let with = |endpoints: Vec<Arc<Endpoint>>| {
        let nobody = board(Vec::new());
        let committed = nobody.committed.clone().unwrap();
        let config = Config { endpoints, ..(*committed.config).clone() };
        let committed = Committed::new(Arc::new(config), committed.snapshot);
        Board { committed: Some(committed), ..(*nobody).clone() }
    };
    let (web, none) = (adoption("web", "veth1", 2), BTreeSet::new());
    for (hand, why) in [
        ("name = \"bridge/web\"\ninterface = \"veth9\"\nipv4 = \"172.17.0.9\"", "bridge/web"),
        ("name = \"x\"\ninterface = \"veth1\"\nipv4 = \"172.17.0.9\"", "behind `veth1`"),
        ("name = \"x\"\ninterface = \"veth9\"\nipv4 = \"172.17.0.2\"", "172.17.0.2"),
    ] {
        let board = with(by_hand(&format!("[[endpoint]]\n{hand}\n")));
        let refused = attachments.adopt(docker::ADOPTED, std::slice::from_ref(&web), &none, &board);
        assert!(refused[&web.id].contains(why), "{refused:?}");
    }
    assert!(attachments.adopt(docker::ADOPTED, &[web], &none, &with(Vec::new())).is_empty());
}
