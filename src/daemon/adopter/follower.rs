//! The thread that follows: subscribes to events, then asks about all that runs, then about what events are about.
//!
//! Whatever an event says, the container is asked for anew: what is written is what is so now, not what happened. A lost
//! stream begins all of it again; until then what was written stays.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::Faults;
use super::asking::{Answer, Asking};
use super::seen::Seen;
use crate::adapter::docker::{ADOPTED, Engine, Error, Event, Events, attachment, short};
use crate::config::model::Docker;
use crate::control::attach::AttachmentId;
use crate::daemon::attachments::Attachments;
use crate::daemon::attachments::adopting::{Adoption, Refusals};
use crate::daemon::backoff::Backoff;
use crate::daemon::board::Answers;
use crate::desired::Fault;
use crate::kernel::netlink::Netlink;

/// How long answers may follow each other to share a commit.
const TOGETHER: Duration = Duration::from_millis(10);
/// How often to look for containers that no event told of.
const LOOK_ANYWAY: Duration = Duration::from_secs(60);

pub struct Follower {
    runtime: Runtime,
    netlink: Netlink,
    answers: Arc<Answers>,
    attachments: Arc<Attachments>,
    faults: Arc<Faults>,
    settings: watch::Receiver<Option<Docker>>,
    /// By id.
    containers: BTreeMap<String, Seen>,
    /// Those that are to be adopted, by name, and why one cannot be.
    networks: BTreeMap<String, Result<(), String>>,
    refusals: Refusals,
}

/// Why it stopped following.
enum Ended {
    /// The settings are others now.
    Changed,
    Lost(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Ended::Lost(error)
    }
}

impl Follower {
    pub fn new(
        answers: Arc<Answers>,
        attachments: Arc<Attachments>,
        faults: Arc<Faults>,
        settings: watch::Receiver<Option<Docker>>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Follower {
            runtime: runtime?,
            netlink: Netlink::open().map_err(io::Error::other)?,
            answers,
            attachments,
            faults,
            settings,
            containers: BTreeMap::new(),
            networks: BTreeMap::new(),
            refusals: Refusals::new(),
        })
    }

    /// Until the settings are none.
    pub fn run(mut self) {
        let mut pause = Backoff::default();
        loop {
            let Some(docker) = self.settings.borrow_and_update().clone() else { return };
            let prefixes: Vec<String> =
                docker.adopt.iter().map(|name| AttachmentId::prefix(ADOPTED, name)).collect();
            self.attachments.release(ADOPTED, |id| {
                prefixes.iter().any(|prefix| id.as_str().starts_with(prefix))
            });
            match self.follow(&docker, &mut pause) {
                Ended::Changed => {}
                Ended::Lost(why) => {
                    self.tell(&docker, Some(&why));
                    let pause = pause.failed();
                    let _ = self.unless_changed(async { tokio::time::sleep(pause).await });
                }
            }
        }
    }

    fn follow(&mut self, docker: &Docker, pause: &mut Backoff) -> Ended {
        match self.follow_engine(docker, pause) {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    fn follow_engine(
        &mut self,
        docker: &Docker,
        pause: &mut Backoff,
    ) -> Result<std::convert::Infallible, Ended> {
        let engine = Engine::new(&docker.socket);
        let mut events = self.unless_changed(engine.events())??;
        let mut asking = Asking::new(engine.clone());
        self.networks =
            docker.adopt.iter().map(|name| (name.clone(), Err(String::new()))).collect();
        let running = self.unless_changed(engine.running())??;
        self.containers.retain(|id, _| running.contains(id));
        self.ask(&mut asking, running);
        let mut list_at = Instant::now() + LOOK_ANYWAY;
        let (mut retry, mut retry_at) = (Backoff::default(), None);
        loop {
            self.look_for_networks(&engine)?;
            match self.adopt(docker, &asking) {
                true => (retry, retry_at) = (Backoff::default(), None),
                false => _ = retry_at.get_or_insert_with(|| Instant::now() + retry.failed()),
            }
            self.tell(docker, None);
            pause.succeeded();
            let deadline = retry_at.map_or(list_at, |at| list_at.min(at));
            if self.wait(docker, &mut events, &mut asking, deadline)? {
                // Most likely a matter of time.
                (retry, retry_at) = (Backoff::default(), None);
            }
            let now = Instant::now();
            if retry_at.is_some_and(|at| at <= now) {
                let unfinished = self.containers.iter().filter(|(_, seen)| !seen.is_whole());
                let unfinished = unfinished.map(|(id, _)| id.clone()).collect();
                self.ask(&mut asking, unfinished);
                retry_at = None;
            }
            if list_at <= now {
                let running = self.unless_changed(engine.running())??;
                let all = running.iter().chain(self.containers.keys());
                let differ =
                    |id: &&String| running.contains(*id) != self.containers.contains_key(*id);
                let differ = all.filter(differ).cloned().collect();
                self.ask(&mut asking, differ);
                list_at = now + LOOK_ANYWAY;
            }
        }
    }

    fn ask(&self, asking: &mut Asking, ids: BTreeSet<String>) {
        let _runtime = self.runtime.enter();
        ids.into_iter().for_each(|id| asking.ask(id));
    }

    /// Looks at those that could not be adopted.
    fn look_for_networks(&mut self, engine: &Engine) -> Result<(), Ended> {
        let unfit = self.networks.iter().filter(|(_, fit)| fit.is_err());
        let unfit: Vec<String> = unfit.map(|(name, _)| name.clone()).collect();
        for name in unfit {
            let fit = match self.unless_changed(engine.network(&name))? {
                // Podman's and Docker's name of it.
                Ok(Some(network)) if network.driver == "bridge" => Ok(()),
                Ok(Some(network)) => Err(format!("it is one of `{}`", network.driver)),
                Ok(None) => Err("there is none of this name".to_owned()),
                Err(error) if error.is_about_answer() => Err(error.to_string()),
                Err(error) => return Err(error.into()),
            };
            self.networks.insert(name, fit);
        }
        Ok(())
    }

    /// Waits until more is known of some containers, or the deadline. True: one was not as it should be that was before.
    fn wait(
        &mut self,
        docker: &Docker,
        events: &mut Events,
        asking: &mut Asking,
        mut deadline: Instant,
    ) -> Result<bool, Ended> {
        let mut unfinished = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(unfinished);
            }
            let next = self.unless_changed(async {
                let (event, answer) = (pin!(events.next()), pin!(asking.next()));
                tokio::time::timeout(left, select(event, answer)).await.map(|either| match either {
                    Either::Left((event, _)) => Either::Left(event),
                    Either::Right((answer, _)) => Either::Right(answer),
                })
            })?;
            match next {
                Ok(Either::Left(Event::Container(ids))) => {
                    let ids = ids.into_iter().filter(|id| !id.is_empty()).collect();
                    self.ask(asking, ids);
                }
                Ok(Either::Left(Event::Begun)) => {}
                Ok(Either::Left(Event::Lost(error))) => return Err(error.into()),
                Ok(Either::Right(answer)) => {
                    unfinished |= self.learn(docker, answer)?;
                    deadline = deadline.min(Instant::now() + TOGETHER);
                }
                Err(_) => return Ok(unfinished),
            }
        }
    }

    /// Looks where a container's interfaces end on the host. True: that is not found, and was before.
    fn learn(&mut self, docker: &Docker, (id, answer): Answer) -> Result<bool, Ended> {
        let before = self.containers.remove(&id);
        let was_whole = before.as_ref().is_none_or(Seen::is_whole);
        let seen = match answer {
            // Whether it runs decides whether it is let go: that is not to be guessed.
            Ok(Some(container)) if container.state.pid.is_none() => {
                let why = format!("container {} may run or not: its state is not told", short(&id));
                Some(Seen::failed(before, why))
            }
            Ok(Some(container)) => Seen::new(&container, &docker.adopt, before.as_ref()),
            Ok(None) => None,
            // Its answer makes no sense; others' may.
            Err(error) if error.is_about_answer() => {
                let why = format!("container {} cannot be looked at: {error}", short(&id));
                Some(Seen::failed(before, why))
            }
            Err(error) => return Err(error.into()),
        };
        let Some(mut seen) = seen else { return Ok(false) };
        seen.find(&self.netlink);
        let unfinished = was_whole && !seen.is_whole();
        self.containers.insert(id, seen);
        Ok(unfinished)
    }

    /// False: some could not be adopted now. Of what is not known now, or not found, what was adopted stays so: at worst
    /// it is closed.
    fn adopt(&mut self, docker: &Docker, asking: &Asking) -> bool {
        let wanted: Vec<Adoption> = self.containers.values().flat_map(Seen::adoptions).collect();
        let unfinished = self.containers.iter().filter(|(_, seen)| !seen.is_whole());
        let undecided = asking.asked().chain(unfinished.map(|(id, _)| id.as_str()));
        let attachments = |id| docker.adopt.iter().map(move |network| attachment(network, id));
        let undecided = undecided.flat_map(attachments).collect();
        let board = self.answers.board();
        self.refusals = self.attachments.adopt(ADOPTED, &wanted, &undecided, &board);
        let fit = self.networks.values().all(Result::is_ok);
        fit && self.refusals.is_empty() && self.containers.values().all(Seen::is_whole)
    }

    /// Has the main loop show what is wrong, if that is other than before.
    fn tell(&self, docker: &Docker, lost: Option<&Error>) {
        let mut faults = Vec::new();
        if let Some(why) = lost {
            let socket = docker.socket.display();
            let fault = Fault::whole(format!("containers cannot be followed by {socket}"));
            let hint = "[docker] names the socket; does the daemon run? What is adopted stays so";
            faults.push(fault.why(why.to_string()).hint(hint));
        } else {
            faults.extend(self.networks.iter().filter_map(|(name, fit)| {
                let fault = Fault::whole(format!("the network `{name}` cannot be adopted"));
                let hint = "[docker] is to name bridge networks";
                Some(fault.why(fit.as_ref().err()?).hint(hint))
            }));
        }
        let told = self.containers.values().flat_map(Seen::faults);
        faults.extend(told.map(|(what, why)| Fault { why, ..Fault::whole(what) }));
        let abouts = self.containers.values().flat_map(Seen::adoptions);
        for one in abouts {
            if let Some(why) = self.refusals.get(&one.id) {
                faults.push(Fault::whole(format!("{} is not adopted", one.about)).why(why.clone()));
            }
        }
        if self.faults.set(faults) {
            self.attachments.wake();
        }
    }

    /// What comes of it, unless the settings change before.
    fn unless_changed<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Ended> {
        let changed = self.settings.changed();
        self.runtime.block_on(async {
            match select(pin!(work), pin!(changed)).await {
                Either::Left((done, _)) => Ok(done),
                Either::Right(_) => Err(Ended::Changed),
            }
        })
    }
}
