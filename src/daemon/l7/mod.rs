//! The L7 worker beside the daemon: made when the first rules about requests come, told what it must know before a
//! generation is in force, watched, and made anew when it dies.
//!
//! Nothing here ever refuses a generation: without a worker its connections are not served, which is the datapath's way to
//! fail closed, and the status says so.

mod keeper;
pub mod kept;
mod life;
mod link;
mod process;
mod sockets;
mod told;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::desired::Fault;
use crate::kernel::datapath::Maps;
use crate::kernel::netlink::{Netlink, steering};
use crate::proxy::Record;
use crate::proxy::worker::Order;
use crate::types::RulesetId;
use crate::types::http::Side;

use keeper::Keeper;
use kept::Kept;
use link::PATIENCE;
use sockets::Sockets;

pub use link::Counted;
pub use process::OWN;
pub use told::Told;

/// What a plan asks of requests.
pub type Rulesets = BTreeMap<RulesetId, Arc<Side>>;

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
    /// What was stored by that name need not be kept.
    fn forget(&self, name: &str);
    /// There is another worker, or none.
    fn changed(&self);
}

/// A handle, of which there may be many.
#[derive(Clone)]
pub struct L7(Arc<Shared>);

struct Shared {
    program: PathBuf,
    maps: Arc<Maps>,
    teller: Arc<dyn Teller>,
    /// Nobody waits for a worker while he holds it.
    state: Mutex<State>,
    /// A worker serves, or could not be started.
    settled: Condvar,
    /// Held by who tells a worker whether records of what is allowed are wanted: what it hears last is to be the truth.
    telling: Mutex<()>,
}

#[derive(Default)]
struct State {
    keeper: Keeper,
    /// Routes and rules are there.
    steered: bool,
    /// No more workers are started.
    leaving: bool,
    /// Those of the last commits, the newest first: packets and connections may still be under them.
    recent: VecDeque<BTreeSet<u16>>,
    /// Why requests are not served, apart from workers.
    failed: Option<String>,
}

/// For so many commits after its last a number is not forgotten.
const KEPT: usize = 2;
/// Of the time that a commit waits, workers of before have so much after the one that serves.
const FOR_THE_OLD: Duration = Duration::from_secs(1);

impl L7 {
    /// `program` is `porind`, which workers are of. `teller` gets the records of requests, and is woken when what
    /// [`L7::faults`] says may have changed.
    ///
    /// What an earlier daemon has left with the service manager goes on: connections that wait in sockets are not lost, and
    /// a worker of another program serves what it has.
    pub fn new(program: &Path, maps: Arc<Maps>, teller: Arc<dyn Teller>, kept: Kept) -> Self {
        let own = L7(Arc::new(Shared {
            program: program.to_owned(),
            maps,
            teller,
            state: Mutex::default(),
            settled: Condvar::new(),
            telling: Mutex::default(),
        }));
        life::adopt(&own, kept);
        own
    }

    /// To be called before a generation is put in force that has these: when it returns, workers know them. If that
    /// cannot be within [`PATIENCE`], whatever workers do, it is told in [`L7::faults`], and mended as soon as it can.
    pub fn prepare(&self, netlink: &Netlink, rulesets: &Rulesets) {
        if rulesets.is_empty() && !self.state().steered {
            return;
        }
        let end = Instant::now() + PATIENCE;
        let prepared = self.steer(netlink).and_then(|()| self.teach(rulesets, end));
        let mut state = self.state();
        if let Err(why) = &prepared
            && state.failed.as_ref() != Some(why)
        {
            log::error!("requests are not judged, and so not served: {why}");
        }
        state.failed = prepared.err();
    }

    /// To be called after it.
    pub fn committed(&self, rulesets: &Rulesets) {
        let (gone, links) = {
            let mut state = self.state();
            let numbers = rulesets.keys().filter_map(|id| u16::try_from(id.0).ok()).collect();
            state.recent.push_front(numbers);
            state.recent.truncate(KEPT + 1);
            let kept: BTreeSet<u16> = state.recent.iter().flatten().copied().collect();
            let gone = state.keeper.keep(&kept);
            (gone, state.keeper.link().into_iter().chain(state.keeper.draining()))
        };
        let end = Instant::now() + PATIENCE;
        for link in links {
            for number in &gone {
                if let Err(why) = link.order_by(&Order::Forget { number: *number }, &[], end) {
                    log::warn!("an L7 worker does not forget ruleset {number}: {why}");
                }
            }
        }
    }

    /// To be called now and then: others take away what leads packets to workers (systemd-networkd what it does not
    /// know, when it starts).
    pub fn look(&self, netlink: &Netlink) {
        if !self.state().steered {
            return;
        }
        if let Err(why) = self.steer(netlink) {
            log::error!("requests may not be served: {why}");
        }
    }

    /// What keeps requests from being served.
    pub fn faults(&self) -> Option<Fault> {
        let state = self.state();
        let failed = state.failed.as_ref();
        let failed = failed.map(|why| format!("requests are not judged, and so not served: {why}"));
        failed.or_else(|| state.keeper.fault()).map(Fault::whole)
    }

    /// Records of what is allowed are wanted, until nobody follows any more.
    pub fn follow(&self) {
        self.state().keeper.wants_allowed = true;
        self.tell_allowed();
    }

    /// What the worker that serves has counted; none: there is none.
    pub fn counted(&self) -> Option<Counted> {
        let link = self.state().keeper.link()?;
        let mut counted = link.count()?;
        counted.lost = counted.lost.saturating_add(self.0.teller.untold());
        Some(counted)
    }

    /// Starts no more workers: the daemon ends. Those that there are serve on, and one that is being started is waited
    /// for, as it would not be known to the next daemon.
    pub fn leave(&self) {
        self.state().leaving = true;
        self.wait(Instant::now() + PATIENCE);
    }

    fn steer(&self, netlink: &Netlink) -> Result<(), String> {
        let added = steering::add(netlink).map_err(|error| error.to_string())?;
        let before = std::mem::replace(&mut self.state().steered, true);
        if added && before {
            log::warn!(
                "the routing rule {} (mark {:#x}), which leads requests to the L7 worker, was gone and is there again: something \
                 takes rules away that it does not know, as systemd-networkd does without ManageForeignRoutingPolicyRules=no",
                steering::PRIORITY,
                steering::MARK
            );
        }
        Ok(())
    }

    fn teach(&self, rulesets: &Rulesets, end: Instant) -> Result<(), String> {
        let (news, link, draining, wants) = {
            let mut state = self.state();
            if state.keeper.sockets.is_none() {
                state.keeper.sockets = Some(Arc::new(self.sockets()?));
            }
            let keeper = &mut state.keeper;
            let news = keeper.note(rulesets)?;
            (news, keeper.link(), keeper.draining(), keeper.wants_worker())
        };
        match link {
            Some(link) => match life::teach(&link, &news, end - FOR_THE_OLD) {
                Ok(refused) => self.state().keeper.learned(&link, &news, refused),
                // Its watcher starts another, which learns everything.
                Err(why) => log::error!("the L7 worker is ended: {why}"),
            },
            None if wants => {
                life::begin(self).map_err(|error| format!("cannot start a thread: {error}"))?;
                self.wait(end);
            }
            // Somebody does, or will after a while; a commit does not wait for that.
            None => {}
        }
        for link in draining {
            if let Err(why) = life::teach(&link, &news, end) {
                log::warn!("an L7 worker of before is ended: {why}");
            }
        }
        Ok(())
    }

    /// For a worker that serves, or cannot be.
    fn wait(&self, end: Instant) {
        let mut state = self.state();
        while !state.keeper.is_settled() || (state.keeper.wants_worker() && !state.leaving) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.0.settled.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn sockets(&self) -> Result<Sockets, String> {
        let sockets = Sockets::make().map_err(|error| format!("cannot listen: {error}"))?;
        sockets.put(&self.0.maps)?;
        for socket in sockets.descriptors() {
            self.0.teller.store(kept::SOCKETS, socket);
        }
        Ok(sockets)
    }

    /// Unless somebody follows again.
    fn unfollow(&self) {
        {
            let mut state = self.state();
            state.keeper.wants_allowed = self.0.teller.wants_allowed();
        }
        self.tell_allowed();
    }

    fn tell_allowed(&self) {
        let _one = self.0.telling.lock().unwrap_or_else(PoisonError::into_inner);
        let (link, allowed) = {
            let keeper = &self.state().keeper;
            let allowed = keeper.wants_allowed;
            match keeper.link() {
                Some(link) if keeper.told_allowed != Some(allowed) => (link, allowed),
                _ => return,
            }
        };
        match link.order(&Order::Log { allowed }, &[]) {
            Ok(()) => self.state().keeper.told_allowed = Some(allowed),
            Err(why) => log::warn!("the L7 worker does not tell of requests as is wanted: {why}"),
        }
    }

    /// Workers have come or gone.
    fn changed(&self) {
        self.0.settled.notify_all();
        self.0.teller.changed();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic leaves what the next call puts right: it teaches and starts what is missing.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
