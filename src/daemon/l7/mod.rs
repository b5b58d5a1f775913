//! The L7 worker beside the daemon: made when the first rules about requests come, told what it must know before a
//! generation is in force, watched, and made anew when it dies.
//!
//! Nothing here ever refuses a generation: without a worker its connections are not served, which is the datapath's way to
//! fail closed, and the status says so.

mod keeper;
pub mod kept;
mod link;
mod process;
mod sockets;
mod told;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::desired::Fault;
use crate::kernel::datapath::Maps;
use crate::kernel::netlink::{Netlink, steering};
use crate::types::RulesetId;
use crate::types::http::Side;

use keeper::Keeper;
use kept::Kept;
use sockets::Sockets;

pub use keeper::Teller;
pub use link::Counted;
pub use process::OWN;
pub use told::Told;

/// What a plan asks of requests.
pub type Rulesets = BTreeMap<RulesetId, Arc<Side>>;

/// A handle, of which there may be many.
#[derive(Clone)]
pub struct L7(Arc<Mutex<State>>);

struct State {
    keeper: Keeper,
    /// Routes and rules are there.
    steered: bool,
    /// Those of the last commits, the newest first: packets and connections may still be under them.
    recent: VecDeque<BTreeSet<u16>>,
    /// Why requests are not served.
    failed: Option<String>,
}

/// For so many commits after its last a number is not forgotten.
const KEPT: usize = 2;

impl L7 {
    /// `program` is `porind`, which workers are of. `teller` gets the records of requests, and is woken when what
    /// [`L7::faults`] says may have changed.
    ///
    /// What an earlier daemon has left with the service manager goes on: connections that wait in sockets are not lost, and
    /// a worker of another program serves what it has.
    pub fn new(program: &Path, maps: Arc<Maps>, teller: Arc<dyn Teller>, kept: Kept) -> Self {
        let own = L7(Arc::new(Mutex::new(State {
            keeper: Keeper::new(program, maps, teller),
            steered: false,
            recent: VecDeque::new(),
            failed: None,
        })));
        own.state().keeper.adopt(&own, kept);
        own
    }

    /// To be called before a generation is put in force that has these: when it returns, workers know them. If that
    /// cannot be, it is told in [`L7::faults`], and mended as soon as it can.
    pub fn prepare(&self, netlink: &Netlink, rulesets: &Rulesets) {
        let mut state = self.state();
        if rulesets.is_empty() && !state.steered {
            return;
        }
        let prepared = state.steer(netlink).and_then(|()| state.keeper.know(self, rulesets));
        if let Err(why) = &prepared
            && state.failed.as_ref() != Some(why)
        {
            log::error!("requests are not judged, and so not served: {why}");
        }
        state.failed = prepared.err();
    }

    /// To be called after it.
    pub fn committed(&self, rulesets: &Rulesets) {
        let mut state = self.state();
        let numbers = rulesets.keys().filter_map(|id| u16::try_from(id.0).ok()).collect();
        state.recent.push_front(numbers);
        state.recent.truncate(KEPT + 1);
        let kept: BTreeSet<u16> = state.recent.iter().flatten().copied().collect();
        state.keeper.keep(&kept);
    }

    /// What keeps requests from being served.
    pub fn faults(&self) -> Option<Fault> {
        let state = self.state();
        let why = state.failed.as_deref().or(state.keeper.fault())?;
        Some(Fault::whole(format!("requests are not judged, and so not served: {why}")))
    }

    /// Records of what is allowed are wanted, until nobody follows any more.
    pub fn follow(&self) {
        self.state().keeper.log_allowed(true);
    }

    /// What the worker that serves has counted; none: there is none.
    pub fn counted(&self) -> Option<Counted> {
        let (link, teller) = {
            let state = self.state();
            (state.keeper.link()?, state.keeper.teller())
        };
        let mut counted = link.count()?;
        counted.lost = counted.lost.saturating_add(teller.untold());
        Some(counted)
    }

    /// Unless somebody follows again.
    fn unfollow(&self, teller: &dyn Teller) {
        let mut state = self.state();
        if !teller.wants_allowed() {
            state.keeper.log_allowed(false);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic leaves what the next call puts right: it teaches and starts what is missing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn steer(&mut self, netlink: &Netlink) -> Result<(), String> {
        if !self.steered {
            steering::add(netlink).map_err(|error| error.to_string())?;
            self.steered = true;
        }
        Ok(())
    }
}
