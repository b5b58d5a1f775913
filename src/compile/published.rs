//! Published ports: which addresses and ports of the host are which endpoint's.
//!
//! Loopback addresses are for the host's own programs. What is published at all addresses is so at 127.0.0.1 and ::1,
//! and at no other address of 127.0.0.0/8: programs of the host have those for themselves (127.0.0.53).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::config::model::Host;
use crate::config::published::MOST;
use crate::desired::Fault;
use crate::desired::ipam::host_sources;
use crate::desired::snapshot::{Endpoint, Snapshot};
use crate::types::addr::check_unicast;
use crate::types::publication::At;
use crate::types::{AddressKey, Family, Slot};

use super::plan::{PublishedKey, PublishedPort, PublishedTable};

/// The table, and what it was made from. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub(super) struct Published {
    from: Option<Basis>,
    table: Arc<PublishedTable>,
}

#[derive(Debug, Clone)]
struct Basis {
    host: Arc<Host>,
    host_addresses: Arc<Vec<IpAddr>>,
    endpoints: Arc<BTreeMap<Slot, Arc<Endpoint>>>,
}

impl Basis {
    fn is_of(&self, snapshot: &Snapshot) -> bool {
        Arc::ptr_eq(&self.host, &snapshot.host)
            && Arc::ptr_eq(&self.host_addresses, &snapshot.host_addresses)
            && Arc::ptr_eq(&self.endpoints, &snapshot.endpoints)
    }
}

impl Published {
    pub fn table(&self) -> &Arc<PublishedTable> {
        &self.table
    }

    /// Whether any is for packets: at a loopback address none is.
    pub fn concerns_packets(&self) -> bool {
        self.table.keys().any(|key| !IpAddr::from(key.address).is_loopback())
    }

    /// # Errors
    /// There are more than fit.
    pub fn update(&mut self, snapshot: &Snapshot) -> Result<(), Vec<Fault>> {
        if self.from.as_ref().is_some_and(|from| from.is_of(snapshot)) {
            return Ok(());
        }
        let table = table(snapshot)?;
        if *self.table != table {
            self.table = Arc::new(table);
        }
        self.from = Some(Basis {
            host: Arc::clone(&snapshot.host),
            host_addresses: Arc::clone(&snapshot.host_addresses),
            endpoints: Arc::clone(&snapshot.endpoints),
        });
        Ok(())
    }
}

/// One key for each address, so that a packet needs one look-up.
fn table(snapshot: &Snapshot) -> Result<PublishedTable, Vec<Fault>> {
    let mut table = PublishedTable::new();
    let publishing = |endpoint: &&Arc<Endpoint>| !endpoint.publish.is_empty() && !endpoint.shut;
    let mut publishing = snapshot.endpoints.values().filter(publishing).peekable();
    if publishing.peek().is_none() {
        return Ok(table);
    }
    let own = host_sources(&snapshot.host.pools);
    let reachable = |address: &IpAddr| check_unicast(*address).is_ok();
    let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let routed = snapshot.host_addresses.iter().copied().chain(own).filter(reachable);
    let host: Vec<IpAddr> = routed.chain(loopback).collect();
    for endpoint in publishing {
        for publication in &endpoint.publish {
            // At another's address nothing is the host's to publish: what goes there is to go there.
            let by_name = match publication.at() {
                At::One(address) if address.is_loopback() => Some(address),
                _ => None,
            };
            let covered = host.iter().copied().filter(|a| publication.at().covers(*a));
            let covered = covered.chain(by_name);
            for address in covered.filter(|a| has(endpoint, Family::of(*a))) {
                for (port, to) in publication.pairs() {
                    let protocol = publication.protocol();
                    let key = PublishedKey { address: AddressKey::from(address), protocol, port };
                    // Configuration has no two for one, and the first would stay.
                    table.entry(key).or_insert(PublishedPort { slot: endpoint.slot, port: to });
                }
                if table.len() > MOST {
                    return Err(vec![too_many()]);
                }
            }
        }
    }
    Ok(table)
}

fn has(endpoint: &Endpoint, family: Family) -> bool {
    match family {
        Family::Ipv6 => endpoint.ipv6.is_some(),
        Family::Ipv4 => endpoint.ipv4.is_some(),
    }
}

fn too_many() -> Fault {
    Fault::whole(format!(
        "the published ports, each at each address of the host, are more than the {MOST} that fit"
    ))
    .hint("publish at one address instead of all, or fewer ports")
}
