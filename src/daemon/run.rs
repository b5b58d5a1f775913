//! The main loop: waits for whatever may make what is in force wrong, and has a round when it is quiet.
//!
//! The watchdog is fed here and nowhere else: when this loop hangs, the service manager must learn of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use libbpf_rs::MapHandle;

use crate::config::model::Host;
use crate::config::{Changed, Loader};
use crate::control::server::Server;
use crate::control::view;
use crate::kernel::datapath::{MapLimits, Maps};
use crate::kernel::netlink::monitor::{KernelEvent, Monitor};
use crate::kernel::sockets::{Cgroup, Without};
use crate::kernel::{Error as KernelError, Kernel, Options as KernelOptions, Paths};
use crate::observe::health;
use crate::observe::reader::Reader;
use crate::types::Generation;

use super::adopter::Adopter;
use super::attachments::Attachments;
use super::backoff::Backoff;
use super::board::{Answers, Board, Committed};
use super::debounce::Debounce;
use super::docker::Docker;
use super::faults;
use super::l7::kept::Kept;
use super::l7::{L7, OWN, Told};
use super::lock::{self, Lock};
use super::meters::KernelMeters;
use super::options::Options;
use super::reconcile::{Done, Reconciler, Round, Scope};
use super::signals::{self, Signal};
use super::sweeper::Sweeper;
use super::watch::Watcher;
use super::{Exit, Fatal};

/// Until Docker's driver is started again that could not be.
const DRIVER_AGAIN: Duration = Duration::from_secs(2);
/// How often to look for what no event tells of (a namespace that is mounted later).
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How often to look anyway: events may be missed (NFS has none).
const LOOK_ANYWAY: Duration = Duration::from_secs(60);

/// What wakes the loop.
enum Wake {
    /// Files or directories changed.
    Files(Changed),
    Kernel(KernelEvent),
    Signal(Signal),
    /// Somebody waits for an endpoint to come or go.
    Request,
    /// There is another L7 worker, or none.
    Worker,
}

/// Runs until a signal ends it. Enforcement stays.
pub fn run(options: &Options) -> Result<Exit, Fatal> {
    start(options)?.turn()
}

struct Daemon {
    /// Something was edited since the last round.
    edited: bool,
    /// Files that may be others than in the last round. Any, if something else happened as well.
    changed: Changed,
    wakes: Receiver<Wake>,
    watcher: Watcher,
    debounce: Debounce,
    reconciler: Reconciler,
    answers: Arc<Answers>,
    attachments: Arc<Attachments>,
    adopter: Adopter,
    docker: Docker,
    l7: L7,
    maps: Arc<Maps>,
    /// What is put up changes by rounds; this is the last one.
    board: Board,
    look_again: Option<Instant>,
    /// After refusals of the kernel's.
    retry: Backoff,
    kernel_changed: bool,
    reported: String,
    _alone: Lock,
    // Running threads: dropping them ends them.
    _server: Server,
    /// From the first round on.
    reader: Option<Reader>,
    _monitor: Monitor,
    _sweeper: Sweeper,
}

fn start(options: &Options) -> Result<Daemon, Fatal> {
    let alone = lock::take(&paths(options).bpffs)?;
    let (tell, wakes) = channel();
    let monitor = watch_kernel(tell.clone())?;
    let (signal, request, worker) = (tell.clone(), tell.clone(), tell.clone());
    signals::listen(move |caught| _ = signal.send(Wake::Signal(caught)))
        .map_err(|error| Fatal::new(Exit::Failed, "listen for signals", error))?;
    let watcher = Watcher::new(move |changed| _ = tell.send(Wake::Files(changed)))
        .map_err(|error| Fatal::new(Exit::Failed, "watch files", error))?;

    let attachments =
        Arc::new(Attachments::open(&options.run, move || _ = request.send(Wake::Request)));
    // Nobody told us of containers that went while no daemon ran.
    attachments.prune();
    let mut loader = Loader::new(options.roots());
    let entries = loader
        .load()
        .config
        .map_or(Host::default().conntrack.entries, |config| config.host.conntrack.entries);
    let limits = MapLimits { flows: entries, ..MapLimits::default() };
    let kernel_options = KernelOptions {
        attach: options.attach.into(),
        cgroup: options.cgroup.clone().unwrap_or(Cgroup::Root),
        limits,
    };
    let (kernel, recovered) = Kernel::open(&paths(options), &kernel_options).map_err(|error| {
        let exit = match error {
            KernelError::Unusable(_) => Exit::Unusable,
            _ => Exit::Failed,
        };
        Fatal::new(exit, "open the datapath", error)
    })?;
    let attach = kernel.mechanisms().to_string();
    log::info!("programs are attached by {attach}");
    let (cgroup, cgroup_fault) = match kernel.cgroup() {
        Ok(path) => (Some(path.display().to_string()), None),
        Err(Without::Asked) => (None, None),
        Err(without) => {
            log::warn!("programs of the host itself do not reach published ports: {without}");
            (None, Some(without.to_string()))
        }
    };
    if recovered.generation != Generation::NONE {
        log::info!("adopting generation {}", recovered.generation);
    }

    let maps = kernel.maps().clone();
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let board = Board {
        generation: recovered.generation,
        state: match recovered.generation {
            Generation::NONE => view::State::Starting,
            _ => view::State::Enforcing,
        },
        since: Timestamp::now(),
        in_force: false,
        faults: Vec::new(),
        faults_omitted: 0,
        closed: Vec::new(),
        kernel: view::Kernel { attach, release, cgroup, cgroup_fault },
        committed: None,
    };
    let tracked = Arc::new(AtomicU64::new(0));
    let requests = Arc::new(OnceLock::new());
    let meters = KernelMeters::new(maps.clone(), tracked.clone(), requests.clone());
    let answers = Arc::new(Answers::new(board.clone(), Box::new(meters), attachments.clone()));
    let sweeper = Sweeper::start(maps.clone(), tracked)
        .map_err(|error| Fatal::new(Exit::Failed, "sweep conntrack", error))?;
    let server = Server::start(&options.run, answers.clone())
        .map_err(|error| Fatal::new(Exit::Failed, "serve the control socket", error))?;
    let adopter = Adopter::new(answers.clone(), attachments.clone());
    let names = answers.names.clone();
    let docker = Docker::new(&options.state, answers.clone());
    let worker = Mutex::new(worker);
    // At the end nobody listens any more.
    let wake = move || _ = worker.lock().unwrap_or_else(PoisonError::into_inner).send(Wake::Worker);
    let told = Told::new(answers.names.clone(), answers.hub.clone(), wake);
    let l7 = L7::new(Path::new(OWN), maps.clone(), Arc::new(told), Kept::take());
    // Nothing was set before.
    let _ = requests.set(l7.clone());
    let places = (options.state.as_path(), options.run.as_path());
    let reconciler = Reconciler::new(loader, places, kernel, recovered, names, l7.clone());
    let reload = Host::default().reload;
    Ok(Daemon {
        wakes,
        watcher,
        debounce: Debounce::new(reload.quiet, reload.at_most),
        reconciler,
        answers,
        attachments,
        adopter,
        docker,
        l7,
        maps,
        board,
        look_again: None,
        edited: false,
        changed: Changed::Any,
        retry: Backoff::default(),
        kernel_changed: false,
        reported: String::new(),
        _alone: alone,
        _server: server,
        reader: None,
        _monitor: monitor,
        _sweeper: sweeper,
    })
}

/// Not before there are names: what happened while no daemon ran waits in the buffer, and is to be told by name.
fn read_events(maps: &Maps, answers: &Answers) -> Result<Reader, Fatal> {
    let unopened = |why: String| Fatal::new(Exit::Failed, "open the event buffer", why);
    let events = maps.events().map_err(|error| unopened(error.to_string()))?;
    let events = MapHandle::try_from(events).map_err(|error| unopened(error.to_string()))?;
    Reader::ring_buffer(events, answers.names.clone(), answers.hub.clone())
        .map_err(|error| Fatal::new(Exit::Failed, "read events", error))
}

/// Where this daemon's pins are.
pub fn paths(options: &Options) -> Paths {
    Paths { bpffs: options.bpffs.join("porin") }
}

/// The monitor's events, as wakes.
fn watch_kernel(tell: Sender<Wake>) -> Result<Monitor, Fatal> {
    let failed = |error| Fatal::new(Exit::Failed, "watch the network", error);
    let (events, received) = channel();
    let monitor = Monitor::start(events).map_err(failed)?;
    let forward = move || {
        for event in received {
            if tell.send(Wake::Kernel(event)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("kernel-events".to_owned())
        .spawn(forward)
        .map_err(|error| Fatal::new(Exit::Failed, "watch the network", error))?;
    Ok(monitor)
}

impl Daemon {
    fn turn(mut self) -> Result<Exit, Fatal> {
        self.round(Changed::Any);
        if self.board.generation == Generation::NONE {
            // Nothing is in force and the files are wrong: better to say so and fail than to look alive.
            return Err(Fatal::new(Exit::Config, "put a generation in force", self.headline()));
        }
        self.reader = Some(read_events(&self.maps, &self.answers)?);
        health::ready(&self.headline());
        self.reconciler.settle();
        let alive = health::watchdog_interval().unwrap_or(LOOK_ANYWAY);
        let mut listed = Instant::now();
        loop {
            health::alive();
            let now = Instant::now();
            let look = listed + LOOK_ANYWAY;
            // While something is being edited nothing else is looked at: it may be half done.
            let editing = self.debounce.deadline();
            let looks = [Some(look), self.look_again].map(|at| at.filter(|_| editing.is_none()));
            let deadlines = [Some(now + alive), editing, looks[0], looks[1]];
            let wait = deadlines.into_iter().flatten().min().unwrap_or(now);
            let mut requested = false;
            match self.wakes.recv_timeout(wait.saturating_duration_since(now)) {
                Ok(Wake::Signal(Signal::Stop)) => break,
                Ok(Wake::Request) => requested = true,
                Ok(wake) => self.note(wake),
                Err(RecvTimeoutError::Timeout) => {}
                // The senders live as long as this daemon.
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = Instant::now();
            let settled = self.debounce.settle(now);
            let editing = self.debounce.deadline().is_some();
            let again = !editing && self.look_again.is_some_and(|at| at <= now);
            // However often there are rounds: what they do not look at is looked at, too.
            let relist = !editing && now.duration_since(listed) >= LOOK_ANYWAY;
            if relist {
                self.kernel_changed |= self.reconciler.note(&KernelEvent::Relist);
                self.reconciler.look();
                listed = now;
            }
            let files = match settled {
                _ if again || relist => Some(Changed::Any),
                true => Some(std::mem::replace(&mut self.changed, Changed::nothing())),
                false => requested.then(Changed::nothing),
            };
            if let Some(files) = files {
                self.round(files);
                health::status(&self.headline());
                self.reconciler.settle();
            }
        }
        self.l7.leave();
        health::stopping("stopped; enforcement goes on");
        log::info!("stopping; generation {} stays in force", self.board.generation);
        Ok(Exit::Ok)
    }

    fn note(&mut self, wake: Wake) {
        match wake {
            Wake::Signal(Signal::Reload) => {
                health::reloading();
                self.round(Changed::Any);
                health::ready(&self.headline());
                self.reconciler.settle();
                return;
            }
            // Something of ours is gone by another's hand: equal files do not mean that all is well.
            Wake::Kernel(event) => {
                log::debug!("{event:?}");
                if let KernelEvent::InterfaceVanished(interface) = &event {
                    self.attachments.vanished(interface);
                }
                self.kernel_changed |= self.reconciler.note(&event);
                self.changed = Changed::Any;
            }
            // Our own doing, of which a round knows already.
            Wake::Files(Changed::At(paths)) if self.attachments.expects(&paths) => return,
            Wake::Files(mut changed) => {
                if !self.watcher.concerns(&mut changed) {
                    return;
                }
                self.changed.and(changed);
                self.note_edit();
            }
            // What is wrong with it is looked at in any round.
            Wake::Worker => {}
            Wake::Signal(Signal::Stop) | Wake::Request => {}
        }
        self.debounce.disturb(Instant::now());
    }

    /// Who looks at the status right after an edit must not take what was in force before for the edit.
    fn note_edit(&mut self) {
        self.edited = true;
        if self.board.in_force {
            self.board.in_force = false;
            self.answers.put_up(self.board.clone());
        }
    }

    /// `files`: those that may have changed, besides what was asked for.
    fn round(&mut self, mut files: Changed) {
        // About requests alone: all else is still to be looked at.
        let requests = files == Changed::nothing();
        if !requests {
            self.look_again = None;
        }
        if files == Changed::Any {
            self.changed = Changed::nothing();
        }
        let (seen, requested) = self.attachments.mark();
        let everywhere = files == Changed::Any;
        let scope = match requests {
            true => Scope::Requests(requested),
            false => {
                files.and(Changed::At(requested));
                Scope::Files(files)
            }
        };
        if everywhere {
            let directories = self.reconciler.directories();
            for (path, error) in self.watcher.watch(&directories) {
                log::warn!("cannot watch {}: {error}; send SIGHUP after edits", path.display());
            }
        }
        if everywhere {
            // Another thing may be by now where something was: it must not be taken for what was asked for.
            self.attachments.prune();
        }
        let changed = std::mem::take(&mut self.kernel_changed);
        let mut round = self.reconciler.round(changed, &scope, &self.attachments);
        let pruned = if round.look_again { self.attachments.prune() } else { BTreeSet::new() };
        if !pruned.is_empty() {
            let again = self.reconciler.round(changed, &Scope::Requests(pruned), &self.attachments);
            // What the first has committed is in force, whatever becomes of the second.
            let committed = again.committed.or(round.committed);
            let other_endpoints = again.other_endpoints || round.other_endpoints;
            round = Round { committed, other_endpoints, ..again };
        }
        let elsewhere = everywhere || round.other_endpoints;
        // It was not put right: the next round must try again. A round may commit though the files have faults.
        self.kernel_changed = changed && round.refused && round.committed.is_none();
        // Commits are what a passing fault waits for.
        if round.faults.iter().any(|fault| fault.passing) {
            self.kernel_changed = true;
            self.look_again_in(LOOK_AGAIN);
        }
        // A watch that died with its directory may have gone unnoticed so far (see `Watcher::watch`), or a file that no event
        // named.
        let edited = !requests && std::mem::take(&mut self.edited);
        if round.look_again || edited {
            self.look_again_in(LOOK_AGAIN);
        }
        if round.kernel_refused {
            let pause = self.retry.failed();
            self.look_again_in(pause);
        } else if round.committed.is_some() {
            self.retry.succeeded();
        }
        round.faults.extend(self.adopter.faults());
        round.faults.extend(self.docker.faults());
        round.faults.extend(self.l7.faults());
        if let Some(config) = self.reconciler.config() {
            self.debounce.set(config.host.reload.quiet, config.host.reload.at_most);
        }
        self.put_up(&round);
        self.attachments.tell(seen, &self.board);
        if let Some(config) = self.reconciler.config() {
            self.adopter.set(&config.host.docker);
        }
        if let Some(config) = self.reconciler.config().filter(|_| self.board.committed.is_some()) {
            self.docker.follow(&config.host.docker);
            if self.docker.faults().is_some() {
                self.look_again_in(DRIVER_AGAIN);
            }
        }
        // Warnings take their time, and nobody waits for them.
        let report = self.reconciler.report();
        if report != round.report {
            self.put_up_faults(&Round { report, ..round });
        }
        // The configuration may name namespaces in directories not watched so far. What came into
        // them since was either seen by this round or is looked for again.
        if elsewhere {
            self.watcher.watch(&self.reconciler.directories());
        }
    }

    /// No later than was meant before.
    fn look_again_in(&mut self, pause: Duration) {
        let at = Instant::now() + pause;
        self.look_again = Some(self.look_again.map_or(at, |before| before.min(at)));
    }

    fn put_up(&mut self, round: &Round) {
        self.board.closed.clone_from(&round.faults);
        // After a round about requests alone, an edit may still be to be read.
        self.board.in_force = !round.refused && !self.edited;
        if let Some(done) = &round.committed {
            self.committed(done);
        } else if self.board.generation == Generation::NONE {
            self.board.state = view::State::Closed;
        }
        self.put_up_faults(round);
    }

    fn committed(&mut self, done: &Done) {
        let Done { generation, config, snapshot, took, ops } = done;
        log::info!(
            "generation {generation} in force: {}, {}; {} in {:.1} ms",
            count(snapshot.endpoints.len(), "endpoint", "endpoints"),
            count(snapshot.policies.len(), "policy", "policies"),
            count(*ops, "change", "changes"),
            took.as_secs_f64() * 1e3,
        );
        let open = snapshot.policies.is_empty() && !snapshot.endpoints.is_empty();
        let opened = |before: &Committed| !before.snapshot.policies.is_empty();
        if open && self.board.committed.as_ref().is_none_or(opened) {
            log::warn!("there is no policy: everything passes between endpoints");
        }
        self.board.generation = *generation;
        self.board.since = Timestamp::now();
        self.board.state = view::State::Enforcing;
        self.board.committed = Some(Committed::new(config.clone(), snapshot.clone()));
    }

    fn put_up_faults(&mut self, round: &Round) {
        self.report(round);
        (self.board.faults, self.board.faults_omitted) = faults::views(round);
        self.answers.put_up(self.board.clone());
    }

    /// Logs the faults of a round that the round before did not have.
    fn report(&mut self, round: &Round) {
        let text = faults::text(round);
        if text == self.reported {
            return;
        }
        let known: BTreeSet<&str> = self.reported.lines().collect();
        for line in text.lines().filter(|line| !known.contains(line)) {
            match round.refused {
                true => log::error!("{line}"),
                false => log::warn!("{line}"),
            }
        }
        if round.refused && self.board.generation != Generation::NONE {
            log::error!("nothing was changed: generation {} stays in force", self.board.generation);
        }
        if text.is_empty() && !self.reported.is_empty() {
            log::info!("all faults are mended");
        }
        self.reported = text;
    }

    fn headline(&self) -> String {
        let board = &self.board;
        let attached = board.committed.as_ref().map_or(0, |c| c.snapshot.endpoints.len());
        let attached = count(attached, "endpoint", "endpoints");
        let mut line = format!("generation {}, {attached}", board.generation);
        let errors = board.faults.iter().filter(|f| f.severity == view::Severity::Error).count();
        if !board.in_force {
            line.push_str("; not what the files say now");
        }
        if let Some(first) = board.faults.first().filter(|_| errors > 0) {
            let errors = count(errors, "fault", "faults");
            line.push_str(&format!("; {errors}, first: {}", first.what));
        }
        line
    }
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
