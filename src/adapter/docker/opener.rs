//! Opens endpoints that Docker does not ask external connectivity for, and those of an earlier daemon; removes what Docker
//! forgot while no daemon ran.

use std::collections::BTreeSet;
use std::sync::Weak;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::driver::{self, Driver};
use super::wire::OfEndpoint;
use crate::control::attach::AttachmentId;

/// Docker is told that an endpoint is joined, writes it down, and knows then whose it is.
const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(5);
/// What takes longer is told.
const LONG: Duration = Duration::from_secs(10);
const RECONCILE: Duration = Duration::from_secs(5);

struct Waiting {
    of: OfEndpoint,
    since: Instant,
    at: Instant,
    pause: Duration,
    told: bool,
}

/// Runs until the other end of `joined` is gone. `left`: attachments and Docker networks that an earlier daemon knew.
pub fn run(
    driver: &Weak<Driver>,
    joined: &Receiver<OfEndpoint>,
    left: &(Vec<AttachmentId>, BTreeSet<String>),
) {
    let mut waiting: Vec<Waiting> = Vec::new();
    let anything = !left.0.is_empty() || !left.1.is_empty();
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
            match self::reconcile(&driver, left) {
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

fn reconcile(
    driver: &Driver,
    (attachments, networks): &(Vec<AttachmentId>, BTreeSet<String>),
) -> Result<(), String> {
    let there = driver.api().networks(super::NAME).map_err(|error| error.to_string())?;
    let mut endpoints = Vec::new();
    for network in &there {
        let of_it = driver.api().endpoints(network).map_err(|error| error.to_string())?;
        let of = |endpoint| OfEndpoint { network: network.clone(), endpoint };
        endpoints.extend(of_it.into_keys().map(of));
    }
    for of in endpoints.iter().filter(|of| attachments.contains(&driver::id(of))) {
        driver.open(of).map_err(|error| error.to_string())?;
    }
    let known: BTreeSet<_> = endpoints.iter().map(driver::id).collect();
    for id in attachments.iter().filter(|id| !known.contains(*id) && !driver.knows(id)) {
        log::info!("{id} is removed: Docker has no such endpoint any more");
        driver.detach(id).map_err(|error| error.to_string())?;
    }
    for network in networks.iter().filter(|network| !there.contains(network)) {
        log::info!("subnets of Docker network {network} are free: it is gone");
        driver.pools.forget(network).map_err(|error| error.to_string())?;
    }
    Ok(())
}
