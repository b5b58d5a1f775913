//! Endpoints on request: each is a file, like those by hand, and an answer once a round has put it in force.
//!
//! Threads of the control server come in here with requests; they write or remove the file, wake the main loop, and wait. The
//! main loop has a round at once, and tells all whose files that round saw: requests that come together share a commit. What is
//! remembered here could be read from the files again, and is when a daemon starts.

pub mod adopting;
mod conflicts;
mod files;
mod place;
mod ports;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::adapter::docker;
use crate::config::model::{Config, Endpoint};
use crate::control::attach::{self, Attach, Attached, AttachmentId};
use crate::control::wire::{ErrorCode, Response};
use crate::desired::digest;
use crate::desired::snapshot::{self, Attachment};
use crate::kernel::netlink::ready;

use super::board::Board;
use files::Files;
use place::Place;
use waiting::{Outcome, Ticket, Waiter, Wants};

/// How long a request waits for its round. Who asks waits longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the kernel may take to activate an interface.
const READY: Duration = Duration::from_secs(5);

pub struct Attachments {
    files: Files,
    wake: Box<dyn Fn() + Send + Sync>,
    /// The main loop was woken and has not come yet.
    woken: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: BTreeMap<AttachmentId, Known>,
    waiting: Vec<Waiter>,
    tickets: Ticket,
    /// Files written or removed that no round looked at yet.
    touched: BTreeSet<PathBuf>,
}

struct Known {
    endpoint: Arc<Endpoint>,
    /// Where it was when it was attached.
    place: Option<Place>,
    /// Of the request that it is there for; 0: an earlier daemon's.
    ticket: Ticket,
}

/// A request that waits for its round.
struct Begun {
    ticket: Ticket,
    told: Receiver<Outcome>,
    /// What it is to replace.
    before: Option<Arc<Endpoint>>,
}

/// Why a request is refused.
struct Refusal(ErrorCode, String);

impl Refusal {
    fn refused(what: impl Into<String>) -> Self {
        Refusal(ErrorCode::Refused, what.into())
    }
}

impl Attachments {
    /// Those that an earlier daemon left are known. `wake`: makes the main loop have a round.
    pub fn open(run: &Path, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let files = Files::new(run);
        files.sweep();
        let known = files.all().into_iter().map(|(id, endpoint)| {
            let place = Place::now(&endpoint);
            (id, Known { endpoint, place, ticket: 0 })
        });
        let state = State { known: known.collect(), ..State::default() };
        Attachments {
            files,
            wake: Box::new(wake),
            woken: AtomicBool::new(false),
            state: Mutex::new(state),
        }
    }

    /// Waits until the endpoint is in force. After any failure nothing is left of it; but of one that was to replace another, that is
    /// as before. `board`: the last one, whenever it is asked for.
    pub fn attach(&self, attach: &Attach, board: impl Fn() -> Arc<Board>) -> Response {
        let Begun { ticket, told, before } = match self.begin(attach, board) {
            Ok(begun) => begun,
            Err(Refusal(code, what)) => return Response::error(code, what),
        };
        let (code, what) = match told.recv_timeout(PATIENCE) {
            Ok(Outcome::InForce(attached, namespace)) => {
                // The other end of what is handed over is not up before the runtime has it.
                if let Some(namespace) = namespace {
                    until_ready(&attached, &namespace);
                }
                return Response::Attached(attached);
            }
            // When it is ready is for the program to know that made it.
            Ok(Outcome::Adopted(adopted)) => return Response::Adopted(adopted),
            Ok(Outcome::Closed(what)) => (ErrorCode::Refused, what),
            Ok(Outcome::Refused(what)) => {
                (ErrorCode::Later, format!("nothing is changed now: {what}"))
            }
            // Nothing of it is left, and there may be a new one of this id.
            Ok(Outcome::Gone) => {
                return Response::error(ErrorCode::Refused, "it was detached meanwhile");
            }
            Err(_) => {
                let name = &attach.name;
                let what = format!(
                    "endpoint `{name}` is not in force after {PATIENCE:?}: porind is still at work, its log may say at what"
                );
                (ErrorCode::Later, what)
            }
        };
        self.forget(&attach.id, ticket, before);
        Response::error(code, what)
    }

    fn begin(&self, attach: &Attach, board: impl Fn() -> Arc<Board>) -> Result<Begun, Refusal> {
        let asked = self.files.asked(attach);
        let (text, endpoint) =
            self.files.compose(&attach.id, &attach.about, &asked).map_err(Refusal::refused)?;
        let place = find(&attach.place, &endpoint).map_err(Refusal::refused)?;
        self.check_ports(&attach.id, &endpoint).map_err(Refusal::refused)?;
        let mut state = self.lock();
        let same = state.known.get(&attach.id).filter(|known| {
            known.place == Some(place)
                && known.endpoint.attachment == endpoint.attachment
                && self.files.exists(&attach.id)
        });
        // Elsewhere it is in force, and stays so: whoever wants it moved detaches it first.
        let elsewhere = state.known.get(&attach.id).filter(|known| {
            same.is_none()
                && self.files.exists(&attach.id)
                && !Place::is_gone(known.place, &known.endpoint)
        });
        if let Some(known) = elsewhere.filter(|_| !attach.replaces) {
            let what = format!("it is attached already, as endpoint `{}`", known.endpoint.name);
            return Err(Refusal(ErrorCode::Exists, what));
        }
        let before = same.filter(|_| attach.replaces).map(|known| known.endpoint.clone());
        match same {
            Some(known) if attach.again && known.endpoint == endpoint => {}
            Some(_) if !attach.replaces => {
                return Err(Refusal(ErrorCode::Exists, already(&attach.place)));
            }
            _ => {
                // Not before the lock: what was waited for may be in force now.
                let board = board();
                let check = |state: &State| self.check(state, &attach.id, &endpoint, place, &board);
                if check(&state).is_err() {
                    // Perhaps in the way is one whose file others have removed, or one that is gone and not yet missed.
                    state.known.retain(|id, _| self.files.exists(id));
                    let gone = self.prune_in(&mut state);
                    state.touched.extend(gone);
                    check(&state)?;
                }
                self.files.write(&attach.id, &text).map_err(|error| {
                    let path = self.files.path(&attach.id);
                    let what = format!("cannot write {}: {error}", path.display());
                    Refusal(ErrorCode::Failed, what)
                })?;
                let known = Known { endpoint: endpoint.clone(), place: Some(place), ticket: 0 };
                state.known.insert(attach.id.clone(), known);
            }
        }
        let ticket = state.tickets + 1;
        if let Some(known) = state.known.get_mut(&attach.id) {
            known.ticket = ticket;
        }
        let wants = Wants::Endpoint(endpoint, place);
        let told = self.wait(state, attach.id.clone(), wants);
        Ok(Begun { ticket, told, before })
    }

    /// What is published already stays so, whoever came to listen there.
    fn check_ports(&self, id: &AttachmentId, new: &Endpoint) -> Result<(), String> {
        let before = self.lock().known.get(id).map(|known| known.endpoint.publish.clone());
        let before = before.unwrap_or_default();
        let asked: Vec<_> =
            new.publish.iter().filter(|one| !before.contains(one)).copied().collect();
        if asked.is_empty() {
            return Ok(());
        }
        let local = super::ports::local().map_err(|error| {
            format!(
                "which ports the kernel gives to the host's own sockets cannot be read: {error}"
            )
        })?;
        ports::with_sockets(&asked, &local)
    }

    fn check(
        &self,
        state: &State,
        id: &AttachmentId,
        new: &Endpoint,
        place: Place,
        board: &Board,
    ) -> Result<(), Refusal> {
        let Some(committed) = &board.committed else {
            let what = "the daemon has put nothing in force yet".to_owned();
            return Err(Refusal(ErrorCode::Later, what));
        };
        let by_hand = |one: &&Arc<Endpoint>| self.files.id(&one.origin.file).is_none();
        let requested = || state.known.iter().filter(|(other, _)| *other != id).map(|(_, k)| k);
        let endpoints = requested().map(|known| &known.endpoint);
        let written = committed.config.endpoints.iter().filter(by_hand);
        let host = &committed.config.host;
        let others = || endpoints.clone().chain(written.clone());
        conflicts::with_written(new, others(), host).map_err(Refusal::refused)?;
        ports::with_written(new, others(), host).map_err(Refusal::refused)?;
        ports::with_host(new, &committed.snapshot).map_err(Refusal::refused)?;
        let there = |known: &&Known| {
            known.place == Some(place) && known.endpoint.interface() == new.interface()
        };
        if let Some(known) = requested().find(there) {
            let (name, interface) = (&known.endpoint.name, new.interface());
            let what = format!("endpoint `{name}` has `{interface}` there already");
            return Err(Refusal::refused(what));
        }
        // One that is being replaced, or is detached though it is in force still, gives way.
        let stays = |endpoint: &snapshot::Endpoint| {
            let file = origin(&committed.config, endpoint);
            let attachment = file.and_then(|file| self.files.id(file));
            attachment.is_none_or(|other| other != *id && state.known.contains_key(&other))
        };
        let in_force = committed.snapshot.endpoints.values().map(Arc::as_ref);
        conflicts::with_attached(new, place, in_force.filter(|one| stays(one)))
            .map_err(Refusal::refused)
    }

    /// Waits until no packet passes any more. That there was none is fine; so is that nothing can be changed now:
    /// the file is gone, and the rest follows.
    pub fn detach(&self, id: &AttachmentId) -> Response {
        let told = {
            let mut state = self.lock();
            let was_there = match self.files.remove(id) {
                Ok(was_there) => was_there,
                Err(error) => {
                    let path = self.files.path(id);
                    let what = format!("cannot remove {}: {error}", path.display());
                    return Response::error(ErrorCode::Failed, what);
                }
            };
            // Who still waits for it would wait in vain.
            for waiter in state.waiting.extract_if(.., |waiter| waiter.id == *id) {
                let _ = waiter.tell.send(Outcome::Gone);
            }
            match state.known.remove(id) {
                Some(known) => {
                    let name = known.endpoint.name.clone();
                    self.wait(state, id.clone(), Wants::Gone(name))
                }
                None if was_there => {
                    // Not one that could be read, or not until now: whatever it was is not to be in force.
                    self.touch(state, id);
                    return Response::Detached {};
                }
                None => return Response::Detached {},
            }
        };
        match told.recv_timeout(PATIENCE) {
            Ok(Outcome::Refused(why)) => log::warn!("{id} is detached later: {why}"),
            Ok(_) => {}
            Err(_) => log::warn!("{id} is detached later: there was no round in {PATIENCE:?}"),
        }
        Response::Detached {}
    }

    /// What is in force of it.
    pub fn look(&self, id: &AttachmentId, board: &Board) -> Response {
        let state = self.lock();
        let Some(known) = state.known.get(id).filter(|_| self.files.exists(id)) else {
            return Response::error(ErrorCode::Unknown, "there is no such attachment");
        };
        let name = &known.endpoint.name;
        let found = waiting::find(board, name);
        let found = found.filter(|found| known.place == Some(Place::of(found)));
        match found.map(|found| (found, &found.attachment)) {
            Some((found, Attachment::Made(made))) => {
                Response::Attached(Box::new(waiting::attached(found, made, board)))
            }
            Some((found, Attachment::Adopted(there))) => {
                Response::Adopted(Box::new(waiting::adopted(found, *there, board)))
            }
            None => {
                let of_it = board.closed.iter().find(|fault| fault.endpoint.as_ref() == Some(name));
                let what = of_it.map_or_else(|| "it is not in force".to_owned(), |f| f.to_string());
                Response::error(ErrorCode::Refused, what)
            }
        }
    }

    /// All whose ids begin with `prefix`.
    pub fn list(&self, prefix: &str) -> Vec<AttachmentId> {
        let state = self.lock();
        let ids = state.known.keys().filter(|id| id.as_str().starts_with(prefix));
        ids.filter(|id| self.files.exists(id)).cloned().collect()
    }

    /// The last good configuration, with the endpoints that are there on request now: containers come and go though
    /// the operator's files have faults.
    pub fn over(&self, config: Arc<Config>) -> Arc<Config> {
        let by_hand = config.endpoints.iter();
        let by_hand = by_hand.filter(|one| self.files.id(&one.origin.file).is_none());
        let mut endpoints: Vec<Arc<Endpoint>> = by_hand.cloned().collect();
        let state = self.lock();
        let there = state.known.iter().filter(|(id, _)| self.files.exists(id));
        endpoints.extend(there.map(|(_, known)| known.endpoint.clone()));
        drop(state);
        endpoints.sort_by(|a, b| a.name.cmp(&b.name));
        endpoints.dedup_by(|a, b| a.name == b.name);
        match endpoints == config.endpoints {
            true => config,
            false => Arc::new(Config { endpoints, ..(*config).clone() }),
        }
    }

    /// Whether nothing but these changed, and only as was asked for: what is known is there, and what is not, is not.
    pub fn expects(&self, paths: &BTreeSet<PathBuf>) -> bool {
        let state = self.lock();
        paths.iter().all(|path| {
            let id = self.files.id(&path.with_extension("toml"));
            id.is_some_and(|id| state.known.contains_key(&id) == self.files.exists(&id))
        })
    }

    /// To be called before a round: what it will have seen of requests, and the files that it must look at.
    pub fn mark(&self) -> (Ticket, BTreeSet<PathBuf>) {
        self.woken.store(false, Ordering::Release);
        let mut state = self.lock();
        (state.tickets, std::mem::take(&mut state.touched))
    }

    /// Tells those who wait what the round that began at `seen` came to.
    pub fn tell(&self, seen: Ticket, board: &Board) {
        let mut state = self.lock();
        if state.waiting.is_empty() {
            return;
        }
        let theirs = |file: &str| self.files.id(Path::new(file)).is_some();
        state.waiting.retain(|waiter| {
            if waiter.ticket > seen {
                return true;
            }
            let file = self.files.path(&waiter.id);
            match waiter.judge(board, &file.to_string_lossy(), theirs) {
                // Who no longer listens has given up.
                Some(outcome) => drop(waiter.tell.send(outcome)),
                None => return true,
            }
            false
        });
    }

    /// Removes the files of endpoints whose namespaces, or others' interfaces, are gone for good: nobody may ever detach
    /// them. Returns which.
    pub fn prune(&self) -> BTreeSet<PathBuf> {
        self.prune_in(&mut self.lock())
    }

    fn prune_in(&self, state: &mut State) -> BTreeSet<PathBuf> {
        let State { known, waiting, .. } = state;
        let mut pruned = BTreeSet::new();
        known.retain(|id, one| {
            // Who adopts a whole network's knows when they are gone.
            if id.adapter() == docker::ADOPTED {
                return true;
            }
            let stays = !Place::is_gone(one.place, &one.endpoint);
            if stays || waiting.iter().any(|waiter| waiter.id == *id) {
                return true;
            }
            let with = if one.endpoint.is_adopted() { "interface" } else { "namespace" };
            log::info!("endpoint `{}` is gone with its {with}", one.endpoint.name);
            if let Err(error) = self.files.remove(id) {
                log::warn!("cannot remove {}: {error}", self.files.path(id).display());
                return true;
            }
            pruned.insert(self.files.path(id));
            false
        });
        pruned
    }

    /// A host interface is gone. If it was one's whose other end was handed over, that end's namespace is gone, and the endpoint
    /// goes, too: it is not for porin to make it anew.
    pub fn vanished(&self, host_interface: &str) {
        let mut state = self.lock();
        let State { known, waiting, touched, .. } = &mut *state;
        let its = |endpoint: &Endpoint| {
            let handed = endpoint.handed_over().map(digest::handed_host_interface);
            handed.is_some_and(|interface| interface == host_interface)
        };
        let Some((id, one)) = known.iter().find(|(_, one)| its(&one.endpoint)) else { return };
        // The event may be of one before it, of the same name.
        let gone = Place::is_gone(Some(Place::HandedOver), &one.endpoint);
        if !gone || waiting.iter().any(|waiter| waiter.id == *id) {
            return;
        }
        log::info!("endpoint `{}` is gone with its interface", one.endpoint.name);
        let (id, path) = (id.clone(), self.files.path(id));
        match self.files.remove(&id) {
            Ok(_) => {
                known.remove(&id);
                touched.insert(path);
            }
            Err(error) => log::warn!("cannot remove {}: {error}", path.display()),
        }
    }

    /// Removes what the request with this ticket has made, or puts back what it replaced, unless it is another's by now.
    fn forget(&self, id: &AttachmentId, ticket: Ticket, before: Option<Arc<Endpoint>>) {
        let mut state = self.lock();
        state.waiting.retain(|waiter| waiter.ticket != ticket);
        let Some(known) = state.known.get_mut(id).filter(|known| known.ticket == ticket) else {
            return;
        };
        if let Some(before) = before {
            let same = known.endpoint == before;
            known.endpoint = before.clone();
            if !same {
                if let Err(error) = self.files.restore(id, &before) {
                    log::warn!("cannot write {}: {error}", self.files.path(id).display());
                }
                self.touch(state, id);
            }
            return;
        }
        state.known.remove(id);
        if let Err(error) = self.files.remove(id) {
            log::warn!("cannot remove {}: {error}", self.files.path(id).display());
        }
        self.touch(state, id);
    }

    /// Has a round look at its file.
    fn touch(&self, mut state: MutexGuard<'_, State>, id: &AttachmentId) {
        state.touched.insert(self.files.path(id));
        self.touched(state);
    }

    /// Has a round look at all files that were written or removed.
    fn touched(&self, state: MutexGuard<'_, State>) {
        let any = !state.touched.is_empty();
        drop(state);
        if any {
            self.wake();
        }
    }

    fn wait(
        &self,
        mut state: MutexGuard<'_, State>,
        id: AttachmentId,
        wants: Wants,
    ) -> Receiver<Outcome> {
        let (tell, told) = channel();
        state.tickets += 1;
        let ticket = state.tickets;
        state.waiting.push(Waiter { ticket, id: id.clone(), wants, tell });
        self.touch(state, &id);
        told
    }

    /// Makes the main loop have a round.
    pub fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change of the state is one insertion or removal: a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place that is asked for.
///
/// # Errors
/// There is none, or another by now.
fn find(asked: &attach::Place, endpoint: &Endpoint) -> Result<Place, String> {
    let found = Place::now(endpoint);
    match asked {
        attach::Place::Inside { namespace, .. } => {
            let none = || format!("there is no network namespace at {}", namespace.display());
            found.ok_or_else(none)
        }
        attach::Place::Behind { interface, ifindex } => {
            let is_it = |found: &Place| *found == Place::Behind { ifindex: *ifindex };
            found.filter(is_it).ok_or_else(|| format!("`{interface}` is not there any more"))
        }
        attach::Place::HandOver(_) => Ok(Place::HandedOver),
    }
}

fn already(asked: &attach::Place) -> String {
    match asked {
        attach::Place::Inside { namespace, interface } => {
            format!("`{interface}` in {} is attached already", namespace.display())
        }
        attach::Place::Behind { interface, .. } => format!("`{interface}` is adopted already"),
        attach::Place::HandOver(interface) => format!("`{interface}` is handed over already"),
    }
}

/// The container's first packets would be lost, though policy allows them.
fn until_ready(attached: &Attached, namespace: &snapshot::Namespace) {
    let Attached { name, interface, host_interface, .. } = attached;
    match ready::wait(namespace, interface, host_interface, READY) {
        Ok(true) => {}
        Ok(false) => log::warn!("the interface of endpoint `{name}` is not ready in {READY:?}"),
        Err(error) => log::warn!("the interface of endpoint `{name}` is not ready: {error}"),
    }
}

/// The file of an endpoint in force.
fn origin<'a>(config: &'a Config, endpoint: &snapshot::Endpoint) -> Option<&'a Path> {
    config.endpoint(&endpoint.name).map(|one| &*one.origin.file)
}

#[cfg(test)]
mod tests;
