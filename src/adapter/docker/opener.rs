//! Opens endpoints that Docker does not ask external connectivity for, and those of an earlier daemon; removes what Docker
//! forgot while no daemon ran.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Weak;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::driver::{self, Driver};
use super::pools::Given;
use super::wire::OfEndpoint;
use crate::control::attach::AttachmentId;

/// Docker is told that an endpoint is joined, writes it down, and knows then whose it is.
const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(5);
/// What takes longer is told.
const LONG: Duration = Duration::from_secs(10);
const RECONCILE: Duration = Duration::from_secs(5);

/// What an earlier daemon knew.
pub struct Left {
    pub attachments: Vec<AttachmentId>,
    pub given: Given,
}

struct Waiting {
    of: OfEndpoint,
    since: Instant,
    at: Instant,
    pause: Duration,
    told: bool,
}

/// Runs until the other end of `joined` is gone.
pub fn run(driver: &Weak<Driver>, joined: &Receiver<OfEndpoint>, mut left: Left) {
    let mut waiting: Vec<Waiting> = Vec::new();
    let anything = !left.attachments.is_empty() || !left.given.is_empty();
    let mut reconcile = anything.then(Instant::now);
    let mut told = false;
    loop {
        let next = waiting.iter().map(|one| one.at).chain(reconcile).min();
        let joined = match next {
            Some(at) => joined.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => joined.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let now = Instant::now();
        match joined {
            Ok(of) => {
                waiting.push(Waiting { of, since: now, at: now + FIRST, pause: FIRST, told: false })
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(driver) = driver.upgrade() else { return };
        if reconcile.is_some_and(|at| at <= now) {
            match self::reconcile(&driver, &mut left) {
                Ok(()) => reconcile = None,
                Err(why) => {
                    if !std::mem::replace(&mut told, true) {
                        log::warn!("what Docker has is not known yet: {why}");
                    }
                    reconcile = Some(Instant::now() + RECONCILE);
                }
            }
        }
        waiting.retain_mut(|one| one.at > now || try_to_open(&driver, one));
    }
}

/// Whether it is still to be done.
fn try_to_open(driver: &Driver, one: &mut Waiting) -> bool {
    let Err(why) = driver.open(&one.of) else { return false };
    let id = driver::id(&one.of);
    if !driver.is_shut(&one.of) {
        return false;
    }
    if one.since.elapsed() > LONG && !std::mem::replace(&mut one.told, true) {
        log::warn!("{id} stays shut: {why}");
    }
    one.pause = (one.pause * 2).min(LONGEST);
    one.at = Instant::now() + one.pause;
    true
}

/// Opens what is left and still there, and forgets the rest. What Docker has asked for since this daemon began is left alone.
fn reconcile(driver: &Driver, left: &mut Left) -> Result<(), String> {
    let told = |error: super::api::Error| error.to_string();
    let there = driver.api().networks(super::NAME).map_err(told)?;
    let (mut known, mut failed) = (BTreeSet::new(), Ok(()));
    for network in &there {
        let found = driver.api().network(network).map_err(told)?;
        let mut used = found.reserved;
        for (endpoint, seen) in found.endpoints {
            let addresses = [seen.ipv6.map(IpAddr::V6), seen.ipv4.map(IpAddr::V4)];
            used.extend(addresses.into_iter().flatten());
            let of = OfEndpoint { network: network.clone(), endpoint };
            let id = driver::id(&of);
            if left.attachments.contains(&id) && seen.container.is_some() {
                // The others need not wait for it.
                failed = failed.and(driver.open(&of).map_err(|error| error.to_string()));
            }
            known.insert(id);
        }
        used.extend(driver.awaited());
        // Once: what is given out later is none of what was left.
        let mut unused = left.given.remove(network).unwrap_or_default();
        unused.retain(|address| !used.contains(address));
        if !unused.is_empty() {
            log::info!("{} addresses of Docker network {network} are free", unused.len());
            driver.pools.take_back(&unused).map_err(|error| error.to_string())?;
        }
    }
    for id in left.attachments.iter().filter(|id| !known.contains(*id) && !driver.knows(id)) {
        log::info!("{id} is removed: Docker has no such endpoint any more");
        driver.detach(id).map_err(|error| error.to_string())?;
    }
    for network in std::mem::take(&mut left.given).keys() {
        log::info!("subnets of Docker network {network} are free: it is gone");
        driver.pools.forget(network).map_err(|error| error.to_string())?;
    }
    failed
}
