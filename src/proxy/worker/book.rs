//! The worker's rulebook: rulesets by number from the daemon, and from the datapath which are a connection's.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use super::message::MAX_RULES;
use crate::kernel::flows::{Flows, Judged};
use crate::proxy::rulebook::{NoRules, Rulebook};
use crate::proxy::ruleset::{Matcher, Rules, Side};

#[derive(Default)]
pub struct Book {
    flows: OnceLock<Flows>,
    rules: RwLock<HashMap<u16, Arc<Rules>>>,
}

impl Book {
    /// Once: the datapath does not change while a worker lives.
    pub fn open(&self, flows: Flows) -> Result<(), String> {
        self.flows.set(flows).map_err(|_| "it has tables of flows already".to_owned())
    }

    /// From now on the number means what the file says.
    pub fn learn(&self, number: u16, file: OwnedFd) -> Result<(), String> {
        // Whatever it meant before, it does not mean any more.
        self.forget(number);
        let rules = Arc::new(read(file)?);
        self.write().insert(number, rules);
        Ok(())
    }

    /// It means nothing any more.
    pub fn forget(&self, number: u16) {
        self.write().remove(&number);
    }

    /// Whether the datapath has an entry of a client's connection between the two that goes on.
    pub fn is_clients(&self, from: SocketAddr, server: SocketAddr) -> bool {
        let judged = self.flows.get().and_then(|flows| flows.tcp(from, server).ok().flatten());
        judged.is_some_and(|judged| judged.proxied && judged.alive)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<u16, Arc<Rules>>> {
        // Nothing panics between a lock and its end.
        self.rules.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_up(&self, number: u16) -> Result<Option<Arc<Rules>>, NoRules> {
        if number == 0 {
            return Ok(None);
        }
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.get(&number).cloned().map(Some).ok_or(NoRules::Unknown(number))
    }
}

impl Rulebook for Book {
    fn rules(&self, client: SocketAddr, server: SocketAddr) -> Result<Matcher, NoRules> {
        let flows = self.flows.get().ok_or(NoRules::NoFlow)?;
        let found = flows.tcp(client, server);
        let judged = found.map_err(|error: io::Error| NoRules::Unreadable(error.to_string()))?;
        let Judged { allowed, proxied, ingress, egress, .. } = judged.ok_or(NoRules::NoFlow)?;
        if !proxied {
            return Err(NoRules::NotProxied);
        }
        if !allowed {
            return Err(NoRules::Denied);
        }
        Ok(Matcher { egress: self.look_up(egress)?, ingress: self.look_up(ingress)? })
    }
}

fn read(file: OwnedFd) -> Result<Rules, String> {
    let mut json = Vec::new();
    let file = File::from(file);
    // Of anything else there may be no end.
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err("what came with it is no file".to_owned());
    }
    let read = file.take(MAX_RULES + 1).read_to_end(&mut json);
    read.map_err(|error| format!("the rules cannot be read: {error}"))?;
    if json.len() as u64 > MAX_RULES {
        return Err(format!("the rules have more than {MAX_RULES} bytes"));
    }
    let side: Side =
        serde_json::from_slice(&json).map_err(|error| format!("no valid rules: {error}"))?;
    Rules::new(&side).map_err(|error| error.to_string())
}
