//! Keeps a worker: what it must know, the sockets it serves, and another one when it dies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};

use super::kept::{self, Kept};
use super::link::{Link, Unheeded};
use super::{L7, Rulesets, Sockets, process};
use crate::daemon::backoff::Backoff;
use crate::kernel::datapath::Maps;
use crate::proxy::Record;
use crate::proxy::worker::{Channel, Order};
use crate::types::http::Side;

/// Who hears of what workers do.
pub trait Teller: Send + Sync + 'static {
    fn record(&self, record: Record);
    /// Whether somebody still wants to hear of what is allowed.
    fn wants_allowed(&self) -> bool;
    /// Records that it has let go, for their number.
    fn untold(&self) -> u64 {
        0
    }
    /// To be kept for the next daemon.
    fn store(&self, name: &str, descriptor: BorrowedFd<'_>);
    /// There is another worker, or none.
    fn changed(&self);
}

pub struct Keeper {
    program: PathBuf,
    maps: Arc<Maps>,
    teller: Arc<dyn Teller>,
    sockets: Option<Sockets>,
    /// What workers know, or will know when there is one.
    known: BTreeMap<u16, Arc<Side>>,
    serving: Option<Arc<Link>>,
    /// Those before, which serve what they have: they learn, but are not replaced.
    draining: Vec<Arc<Link>>,
    /// Records of what is allowed are wanted.
    logging: bool,
    backoff: Backoff,
    failed: Option<String>,
}

/// A worker that lived for so long did not die of its start.
const LONG: Duration = Duration::from_secs(10);

impl Keeper {
    pub fn new(program: &Path, maps: Arc<Maps>, teller: Arc<dyn Teller>) -> Self {
        Keeper {
            program: program.to_owned(),
            maps,
            teller,
            sockets: None,
            known: BTreeMap::new(),
            serving: None,
            draining: Vec::new(),
            logging: false,
            backoff: Backoff::default(),
            failed: None,
        }
    }

    /// Why there is no worker.
    pub fn fault(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Goes on with what an earlier daemon has left.
    pub fn adopt(&mut self, own: &L7, kept: Kept) {
        self.sockets = Sockets::of(kept.sockets);
        if let Some(sockets) = &self.sockets
            && let Err(why) = sockets.put(&self.maps)
        {
            log::warn!("the datapath does not take the L7 worker's sockets: {why}");
            self.sockets = None;
        }
        let mine = kept::name(&self.program, &self.maps);
        for (name, descriptor) in kept.workers {
            let channel = match Channel::of(descriptor) {
                Ok(channel) => channel,
                Err(error) => {
                    log::warn!("what was kept as {name} is no channel: {error}");
                    continue;
                }
            };
            let link = Arc::new(Link::new(channel));
            let serves = self.sockets.is_some()
                && self.serving.is_none()
                && mine.as_ref().is_ok_and(|mine| *mine == name);
            match serves {
                true => self.serving = Some(Arc::clone(&link)),
                false => self.draining.push(Arc::clone(&link)),
            }
            if let Err(error) = self.watch(own, &link, None) {
                log::warn!("cannot watch an L7 worker: {error}");
            }
        }
    }

    pub fn teller(&self) -> Arc<dyn Teller> {
        Arc::clone(&self.teller)
    }

    /// The worker that serves.
    pub fn link(&self) -> Option<Arc<Link>> {
        self.serving.clone().filter(|link| !link.is_over())
    }

    pub fn log_allowed(&mut self, allowed: bool) {
        if self.logging == allowed {
            return;
        }
        self.logging = allowed;
        if let Some(link) = self.link()
            && let Err(why) = link.order(&Order::Log { allowed }, &[])
        {
            log::warn!("the L7 worker does not tell of requests as is wanted: {why}");
        }
    }

    /// When it returns without an error, a worker serves that knows these.
    pub fn know(&mut self, own: &L7, rulesets: &Rulesets) -> Result<(), String> {
        let mut news = Vec::new();
        for (id, side) in rulesets {
            let number =
                u16::try_from(id.0).map_err(|_| format!("{id:?} is no ruleset's number"))?;
            if self.known.get(&number).is_none_or(|known| known != side) {
                self.known.insert(number, Arc::clone(side));
                news.push((number, Arc::clone(side)));
            }
        }
        if self.sockets.is_none() {
            let sockets = Sockets::make().map_err(|error| format!("cannot listen: {error}"))?;
            sockets.put(&self.maps)?;
            for socket in sockets.descriptors() {
                self.teller.store(kept::SOCKETS, socket);
            }
            self.sockets = Some(sockets);
        }
        self.draining.retain(|link| !link.is_over());
        for (number, side) in &news {
            for link in &self.draining {
                if let Err(why) = teach(link, *number, side) {
                    log::warn!("an L7 worker of before does not learn ruleset {number}: {why}");
                }
            }
        }
        let Some(link) = self.link() else {
            return match self.failed.clone() {
                // Another is tried after a while.
                Some(why) => Err(why),
                None => self.start(own).inspect_err(|why| self.try_again(own, why)),
            };
        };
        for (number, side) in &news {
            match teach(&link, *number, side) {
                Ok(()) => {}
                Err(Unheeded::Refused(why)) => return Err(format!("ruleset {number}: {why}")),
                // Another is made, which learns everything.
                Err(Unheeded::Broken(why)) => {
                    log::error!("the L7 worker is ended: {why}");
                    link.end();
                    return self.start(own).inspect_err(|why| self.try_again(own, why));
                }
            }
        }
        Ok(())
    }

    /// Forgets all other numbers.
    pub fn keep(&mut self, kept: &BTreeSet<u16>) {
        let gone: Vec<u16> =
            self.known.keys().filter(|number| !kept.contains(number)).copied().collect();
        for number in gone {
            self.known.remove(&number);
            for link in self.serving.iter().chain(&self.draining) {
                let Err(why) = link.order(&Order::Forget { number }, &[]) else { continue };
                log::warn!("the L7 worker does not forget ruleset {number}: {why}");
            }
        }
    }

    /// A worker that knows everything and serves, in place of any.
    fn start(&mut self, own: &L7) -> Result<(), String> {
        let (child, channel) = process::start(&self.program)
            .map_err(|error| format!("cannot start the L7 worker: {error}"))?;
        let link = Arc::new(Link::new(channel));
        self.watch(own, &link, Some(child))
            .map_err(|error| format!("cannot watch the L7 worker: {error}"))?;
        if let Err(why) = self.teach_all(&link) {
            link.end();
            return Err(format!("the L7 worker cannot serve: {why}"));
        }
        if let Some(sandbox) = link.sandbox() {
            log::info!("an L7 worker serves, with {} rulesets; {sandbox:?}", self.known.len());
        }
        match kept::name(&self.program, &self.maps) {
            Ok(name) => self.teller.store(&name, link.as_fd()),
            Err(why) => log::warn!("the L7 worker is lost to the next daemon: {why}"),
        }
        self.serving = Some(link);
        self.failed = None;
        // Not before there is another that accepts.
        for link in &self.draining {
            if let Err(why) = link.order(&Order::Drain {}, &[]) {
                log::warn!("an L7 worker of before goes on to accept connections: {why}");
            }
        }
        Ok(())
    }

    /// `child`: its process, if it is this one's.
    fn watch(&self, own: &L7, link: &Arc<Link>, child: Option<Child>) -> std::io::Result<()> {
        let (own, watched) = (own.clone(), Arc::clone(link));
        let teller = Arc::clone(&self.teller);
        let thread = std::thread::Builder::new().name("l7-worker".to_owned());
        thread.spawn(move || watch(&own, &watched, child, &teller)).map(|_| ())
    }

    fn try_again(&mut self, own: &L7, why: &str) {
        self.failed = Some(why.to_owned());
        let (pause, again) = (self.backoff.failed(), own.clone());
        let thread = std::thread::Builder::new().name("l7-again".to_owned());
        if let Err(error) = thread.spawn(move || replace(&again, pause)) {
            // Then the next generation's turn is the next try.
            log::error!("cannot try again to start the L7 worker: {error}");
            self.failed = None;
        }
    }

    fn teach_all(&self, link: &Link) -> Result<(), String> {
        for (number, side) in &self.known {
            teach(link, *number, side).map_err(|why| format!("ruleset {number}: {why}"))?;
        }
        if self.logging {
            link.order(&Order::Log { allowed: true }, &[]).map_err(|why| why.to_string())?;
        }
        let tables = self.maps.for_readers().map_err(|error| error.to_string())?;
        let mut with: Vec<_> = tables.iter().map(AsFd::as_fd).collect();
        with.extend(self.sockets.iter().flat_map(Sockets::descriptors));
        link.order(&Order::Listen {}, &with).map_err(|why| why.to_string())
    }

    /// The worker is gone. In what time another is to be started; none: that was done.
    fn died(&mut self, link: &Arc<Link>, lived: Duration) -> Option<Duration> {
        if !self.serving.as_ref().is_some_and(|serving| Arc::ptr_eq(serving, link)) {
            return None;
        }
        self.serving = None;
        if lived >= LONG {
            self.backoff.succeeded();
            log::error!("the L7 worker has died; another is started");
            return Some(Duration::ZERO);
        }
        let pause = self.backoff.failed();
        let why = format!("the L7 worker has died {lived:.1?} after its start");
        log::error!("{why}; another is started in {pause:?}");
        self.failed = Some(why);
        Some(pause)
    }
}

fn teach(link: &Link, number: u16, side: &Side) -> Result<(), Unheeded> {
    let file = file(side).map_err(|error| Unheeded::Refused(error.to_string()))?;
    link.order(&Order::Rules { number }, &[file.as_fd()])
}

/// A file that only the worker will have. Its position is the receiver's, too: each gets one of its own.
fn file(side: &Side) -> std::io::Result<File> {
    let mut file = File::from(memfd_create("porin-rules", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(side)?)?;
    file.rewind()?;
    Ok(file)
}

/// Hears a worker for as long as it lives, then sees that there is another.
fn watch(own: &L7, link: &Arc<Link>, child: Option<Child>, teller: &Arc<dyn Teller>) {
    let begun = Instant::now();
    let quiet = AtomicBool::new(false);
    link.listen(|record| {
        let allowed = record.denial.is_none() && record.fault.is_none();
        if !allowed || teller.wants_allowed() {
            quiet.store(false, Ordering::Relaxed);
            teller.record(record);
        } else if !quiet.swap(true, Ordering::Relaxed) {
            // An order waits for an answer, which is heard here.
            let (own, teller) = (own.clone(), Arc::clone(teller));
            let thread = std::thread::Builder::new().name("l7-quiet".to_owned());
            if thread.spawn(move || own.unfollow(&*teller)).is_err() {
                quiet.store(false, Ordering::Relaxed);
            }
        }
    });
    // Whether it has died, or only broken the channel: nobody could tell it anything any more.
    if let Some(mut child) = child {
        let _ = child.kill();
        let _ = child.wait();
    }
    let died = own.state().keeper.died(link, begun.elapsed());
    if let Some(pause) = died {
        replace(own, pause);
    }
}

/// Starts a worker, unless somebody else does.
fn replace(own: &L7, mut pause: Duration) {
    let teller = own.state().keeper.teller();
    loop {
        teller.changed();
        std::thread::sleep(pause);
        let mut state = own.state();
        let keeper = &mut state.keeper;
        if keeper.serving.is_some() {
            return;
        }
        match keeper.start(own) {
            Ok(()) => break,
            Err(why) => {
                log::error!("{why}");
                keeper.failed = Some(why);
                pause = keeper.backoff.failed();
            }
        }
    }
    teller.changed();
}
