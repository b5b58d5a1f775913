//! The thread that follows: subscribes to events, then looks at everything, then at what events are about.
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
use super::seen::Seen;
use crate::adapter::docker::{ADAPTER, Engine, Error, Event, Events, Network, short};
use crate::config::model::Docker;
use crate::control::attach::AttachmentId;
use crate::daemon::attachments::Attachments;
use crate::daemon::attachments::adopting::{Adoption, Refusals};
use crate::daemon::backoff::Backoff;
use crate::daemon::board::Answers;
use crate::desired::Fault;
use crate::kernel::netlink::Netlink;

/// How long events may follow each other to share a commit.
const TOGETHER: Duration = Duration::from_millis(10);
/// How many of them at most.
const MOST_TOGETHER: usize = 256;
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
    /// Those that are to be adopted; none: there is no such network.
    networks: BTreeMap<String, Option<Network>>,
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
                docker.adopt.iter().map(|name| AttachmentId::prefix(ADAPTER, name)).collect();
            self.attachments.release(ADAPTER, |id| {
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
        let running = self.unless_changed(engine.running())??;
        self.containers.retain(|id, _| running.contains(id));
        let mut dirty = running;
        let mut listed = Instant::now();
        let mut retry = Backoff::default();
        self.networks = docker.adopt.iter().map(|name| (name.clone(), None)).collect();
        loop {
            self.look_for_networks(&engine)?;
            self.look(&engine, docker, &dirty)?;
            let whole = self.adopt();
            self.tell(docker, None);
            pause.succeeded();
            let look_again = match whole {
                true => {
                    retry.succeeded();
                    LOOK_ANYWAY
                }
                false => retry.failed(),
            };
            let look_anyway = listed + LOOK_ANYWAY;
            dirty = self.wait(&mut events, look_anyway.min(Instant::now() + look_again))?;
            let unfinished = self.containers.iter().filter(|(_, seen)| !seen.is_whole());
            dirty.extend(unfinished.map(|(id, _)| id.clone()));
            if Instant::now() >= look_anyway {
                let running = self.unless_changed(engine.running())??;
                let differ =
                    |id: &&String| running.contains(*id) != self.containers.contains_key(*id);
                let all = running.iter().chain(self.containers.keys());
                dirty.extend(all.filter(differ).cloned());
                listed = Instant::now();
            }
        }
    }

    /// Those that are not there yet.
    fn look_for_networks(&mut self, engine: &Engine) -> Result<(), Ended> {
        let missing = self.networks.iter().filter(|(_, network)| network.is_none());
        let missing: Vec<String> = missing.map(|(name, _)| name.clone()).collect();
        for name in missing {
            let network = self.unless_changed(engine.network(&name))??;
            self.networks.insert(name, network);
        }
        Ok(())
    }

    /// Asks for these, and looks where they end on the host.
    fn look(
        &mut self,
        engine: &Engine,
        docker: &Docker,
        ids: &BTreeSet<String>,
    ) -> Result<(), Ended> {
        for id in ids {
            let before = self.containers.remove(id);
            let seen = match self.unless_changed(engine.container(id))? {
                Ok(Some(container)) => Seen::new(&container, &docker.adopt, before.as_ref()),
                Ok(None) => None,
                // Its answer makes no sense; others' may.
                Err(error) if error.is_about_answer() => {
                    let why = format!("container {} cannot be looked at: {error}", short(id));
                    Some(Seen::failed(before, why))
                }
                Err(error) => return Err(error.into()),
            };
            if let Some(mut seen) = seen {
                seen.find(&self.netlink);
                self.containers.insert(id.clone(), seen);
            }
        }
        Ok(())
    }

    /// False: some could not be adopted now.
    fn adopt(&mut self) -> bool {
        let wanted: Vec<Adoption> = self.containers.values().flat_map(Seen::adoptions).collect();
        self.refusals = self.attachments.adopt(ADAPTER, &wanted, &self.answers.board());
        self.refusals.is_empty() && self.containers.values().all(Seen::is_whole)
    }

    /// The containers that something happened to; none if nothing did until the deadline.
    fn wait(&mut self, events: &mut Events, deadline: Instant) -> Result<BTreeSet<String>, Ended> {
        let mut about = BTreeSet::new();
        let mut deadline = deadline;
        while about.len() < MOST_TOGETHER {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.unless_changed(async { tokio::time::timeout(left, events.next()).await })? {
                Ok(Event::Container(ids)) => {
                    about.extend(ids.into_iter().filter(|id| !id.is_empty()));
                    deadline = deadline.min(Instant::now() + TOGETHER);
                }
                Ok(Event::Begun) => {}
                Ok(Event::Lost(error)) => return Err(error.into()),
                Err(_) => break,
            }
        }
        Ok(about)
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
            let networks = self.networks.iter();
            faults.extend(networks.filter_map(|(name, network)| about(name, network.as_ref())));
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

/// What is wrong with a network that is to be adopted.
fn about(name: &str, network: Option<&Network>) -> Option<Fault> {
    let Some(network) = network else {
        let fault = Fault::whole(format!("there is no network `{name}` to adopt"));
        return Some(fault.hint("[docker] names it; is it yet to be made?"));
    };
    // Podman's and Docker's name of it.
    if network.driver == "bridge" {
        return None;
    }
    let fault = Fault::whole(format!("the network `{name}` cannot be adopted"));
    Some(fault.why(format!("it is no bridge network but one of `{}`", network.driver)))
}
