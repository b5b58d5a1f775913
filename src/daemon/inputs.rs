//! What a round looks at: the files' meaning, and what the kernel says of what they name.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::model::{Config, Endpoint};
use crate::desired::ipam;
use crate::desired::snapshot::{Namespace, Namespaces};
use crate::desired::{Fault, HostNetwork, UplinkFact};
use crate::kernel::netlink::Netlink;
use crate::kernel::netlink::facts::{self, Unusable};
use crate::types::PortRange;

use super::ports;

/// All that a generation depends on. Equal inputs need no new one.
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    pub config: Arc<Config>,
    pub host_addresses: Vec<IpAddr>,
    pub host_networks: Vec<HostNetwork>,
    pub local_ports: Vec<PortRange>,
    pub uplinks: Vec<UplinkFact>,
    pub namespaces: Namespaces,
}

/// What was seen, and what is wrong with it.
pub struct Seen {
    pub inputs: Inputs,
    pub faults: Vec<Fault>,
}

/// What the kernel says of what the configuration names. `before`: what was seen last, if nothing but files can have changed
/// since; of the host and of the endpoints that were there and still are where they were, it still holds. `in_force`: the
/// last generation's.
pub fn observe(
    netlink: &Netlink,
    config: Arc<Config>,
    before: Option<&Seen>,
    in_force: Option<&Inputs>,
) -> Result<Seen, String> {
    match before.filter(|seen| seen.inputs.config.host == config.host) {
        Some(seen) => {
            let namespaces = changed(netlink, &config.endpoints, &seen.inputs);
            let inputs = Inputs { config, namespaces, ..seen.inputs.clone() };
            Ok(Seen { inputs, faults: seen.faults.clone() })
        }
        None => everything(netlink, config, in_force),
    }
}

fn everything(
    netlink: &Netlink,
    config: Arc<Config>,
    in_force: Option<&Inputs>,
) -> Result<Seen, String> {
    let mut faults = Vec::new();
    let unreadable = |error| format!("the host cannot be looked at: {error}");
    let mut host_addresses = facts::host_addresses(netlink).map_err(unreadable)?;
    // Our own doing: they come and go with the pools, and are the host's anyhow.
    let own: Vec<IpAddr> = config.host.pools.iter().filter_map(ipam::host_address).collect();
    host_addresses.retain(|address| !own.contains(address));
    let pools: Vec<IpNet> = config.host.pools.iter().map(|pool| pool.network).collect();
    let meets = |n: &IpNet| pools.iter().any(|pool| pool.contains(n) || n.contains(pool));
    let host_networks = facts::host_networks(netlink, meets).map_err(unreadable)?;
    let host_networks = host_networks
        .into_iter()
        .map(|(interface, network)| HostNetwork { interface, network })
        .collect();
    let local_ports = ports::local()
        .map_err(|error| format!("the host's range of ports cannot be read: {error}"))?;
    let mut uplinks = Vec::new();
    for uplink in &config.host.uplinks {
        match facts::uplink(netlink, &uplink.interface) {
            Ok(found) => uplinks.push(UplinkFact {
                interface: uplink.interface.clone(),
                ifindex: found.ifindex,
                mac: found.mac,
                mtu: found.mtu,
                address4: found.address4,
            }),
            // What is not there yet is a fault of what should be, told with the rest.
            Err(Unusable::NoInterface(_)) => {}
            Err(why) => faults.push(
                Fault::whole(format!("uplink `{}` is not used: {why}", uplink.interface))
                    .origin(&uplink.origin),
            ),
        }
    }
    let namespaces = config.endpoints.iter().map(|endpoint| {
        let before = in_force.and_then(|inputs| inputs.namespaces.get(&endpoint.name));
        (endpoint.name.clone(), namespace(netlink, before, &endpoint.namespace))
    });
    let namespaces = namespaces.collect();
    let inputs = Inputs { config, host_addresses, host_networks, local_ports, uplinks, namespaces };
    Ok(Seen { inputs, faults })
}

/// Looks at the endpoints that are new, elsewhere, or were not there.
fn changed(netlink: &Netlink, endpoints: &[Arc<Endpoint>], before: &Inputs) -> Namespaces {
    let mut namespaces = before.namespaces.clone();
    if before.config.endpoints != endpoints {
        let there = |name| endpoints.binary_search_by(|endpoint| endpoint.name.cmp(name)).is_ok();
        let gone: Vec<_> = before.namespaces.keys().filter(|name| !there(name)).cloned().collect();
        gone.iter().for_each(|name| _ = namespaces.remove(name));
    }
    for endpoint in endpoints {
        match before.namespaces.get(&endpoint.name) {
            Some(Ok(known)) if known.path == endpoint.namespace => {}
            _ => {
                let found = namespace(netlink, None, &endpoint.namespace);
                namespaces.insert(endpoint.name.clone(), found);
            }
        }
    }
    namespaces
}

/// The network namespace of an endpoint: as in the last generation, if it is still there.
fn namespace(
    netlink: &Netlink,
    before: Option<&Result<Namespace, String>>,
    path: &Path,
) -> Result<Namespace, String> {
    if let Some(Ok(before)) = before
        && before.path == path
        && facts::namespace_is(
            path,
            facts::NamespaceFacts { device: before.device, inode: before.inode },
        )
    {
        return Ok(before.clone());
    }
    match facts::namespace(netlink, path) {
        Ok(found) => {
            Ok(Namespace { path: path.to_owned(), device: found.device, inode: found.inode })
        }
        Err(why) => Err(reason(&why)),
    }
}

/// Why a namespace cannot be used, for one who sees its path already.
fn reason(why: &Unusable) -> String {
    let text = match why {
        Unusable::Failed(error) => error.source.to_string(),
        other => other.to_string(),
    };
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
