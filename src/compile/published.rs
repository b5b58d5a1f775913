//! Published ports: which addresses and ports of the host are which endpoint's.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::model::Host;
use crate::config::published::MOST;
use crate::desired::Fault;
use crate::desired::ipam::host_sources;
use crate::desired::snapshot::{Endpoint, Snapshot};
use crate::types::addr::check_unicast;
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
    let host: Vec<IpAddr> =
        snapshot.host_addresses.iter().copied().chain(own).filter(reachable).collect();
    for endpoint in publishing {
        for publication in &endpoint.publish {
            // At another's address nothing is the host's to publish: what goes there is to go there.
            let covered = host.iter().copied().filter(|a| publication.at().covers(*a));
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
