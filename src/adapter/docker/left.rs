//! What an earlier daemon knew of Docker's, and whether Docker still has it.
//!
//! Docker notes things a moment after it has been answered, so one look at its API proves nothing: what two looks, some
//! seconds apart, do not find is gone. What Docker has asked for since this daemon began is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::api;
use super::driver::{self, Driver};
use super::pools::Given;
use super::wire::OfEndpoint;
use crate::control::attach::AttachmentId;

pub struct Left {
    /// To be opened, or found gone.
    attachments: BTreeSet<AttachmentId>,
    /// To be found in use, or taken back.
    given: Given,
    /// Not found by the last look.
    missing: Missing,
}

#[derive(Default)]
struct Missing {
    attachments: BTreeSet<AttachmentId>,
    /// Docker networks.
    networks: BTreeSet<String>,
    addresses: BTreeMap<String, BTreeSet<IpAddr>>,
}

/// How it goes on.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    Done,
    /// Something was missing for the first time.
    More,
    /// There is nothing but endpoints that Docker has and no container has joined.
    Waits,
}

impl Left {
    pub fn new(attachments: impl IntoIterator<Item = AttachmentId>, given: Given) -> Self {
        let attachments = attachments.into_iter().collect();
        Left { attachments, given, missing: Missing::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.attachments.is_empty() && self.given.is_empty()
    }

    /// Tells `opens` of what is there and joined, and takes back what is gone.
    ///
    /// # Errors
    /// The API does not answer, or something cannot be taken back: to be tried again.
    pub fn look(
        &mut self,
        driver: &Driver,
        mut opens: impl FnMut(OfEndpoint),
    ) -> Result<Progress, String> {
        let told = |error: api::Error| error.to_string();
        let there = driver.api().networks(super::NAME).map_err(told)?;
        let mut missing = Missing::default();
        let mut found = BTreeSet::new();
        for network in &there {
            let seen = driver.api().network(network).map_err(told)?;
            let mut used = seen.reserved;
            for (endpoint, seen) in seen.endpoints {
                let addresses = [seen.ipv6.map(IpAddr::V6), seen.ipv4.map(IpAddr::V4)];
                used.extend(addresses.into_iter().flatten());
                let of = OfEndpoint { network: network.clone(), endpoint };
                let id = driver::id(&of);
                if seen.container.is_some() && self.attachments.remove(&id) {
                    opens(of);
                }
                found.insert(id);
            }
            used.extend(driver.awaited());
            if let Some(given) = self.given.get(network) {
                missing
                    .addresses
                    .insert(network.clone(), given.difference(&used).copied().collect());
            }
        }
        let unknown = |id: &&AttachmentId| !found.contains(*id) && !driver.knows(id);
        missing.attachments = self.attachments.iter().filter(unknown).cloned().collect();
        // What was deleted or asked for since is no longer what was left.
        self.attachments.retain(|id| found.contains(id) || missing.attachments.contains(id));
        missing.networks = self.given.keys().filter(|one| !there.contains(one)).cloned().collect();
        self.take_back(driver, &missing)?;
        let more = self.missing_now(missing);
        Ok(match (self.is_empty(), more) {
            (true, _) => Progress::Done,
            (false, true) => Progress::More,
            (false, false) => Progress::Waits,
        })
    }

    /// What was missing the last time, too.
    fn take_back(&mut self, driver: &Driver, missing: &Missing) -> Result<(), String> {
        for id in missing.attachments.intersection(&self.missing.attachments) {
            log::info!("{id} is removed: Docker has no such endpoint any more");
            driver.detach(id).map_err(|error| error.to_string())?;
            self.attachments.remove(id);
        }
        for network in missing.networks.intersection(&self.missing.networks) {
            log::info!("subnets of Docker network {network} are free: it is gone");
            driver.pools.forget(network).map_err(|error| error.to_string())?;
            self.given.remove(network);
        }
        for (network, unused) in &missing.addresses {
            let Some(before) = self.missing.addresses.get(network) else { continue };
            let unused: BTreeSet<IpAddr> = unused.intersection(before).copied().collect();
            if !unused.is_empty() {
                log::info!("{} addresses of Docker network {network} are free", unused.len());
                driver.pools.take_back(&unused).map_err(|error| error.to_string())?;
            }
            self.given.remove(network);
        }
        Ok(())
    }

    /// Keeps what is to be looked at again, and says whether that is anything.
    fn missing_now(&mut self, mut missing: Missing) -> bool {
        missing.attachments.retain(|id| self.attachments.contains(id));
        missing.networks.retain(|network| self.given.contains_key(network));
        missing.addresses.retain(|network, _| self.given.contains_key(network));
        self.missing = missing;
        let Missing { attachments, networks, addresses } = &self.missing;
        !(attachments.is_empty() && networks.is_empty() && addresses.is_empty())
    }
}
