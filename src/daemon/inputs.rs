//! What a round looks at: the files' meaning, and what the kernel says of what they name.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::Changed;
use crate::config::model::{Attachment, Config, Endpoint};
use crate::desired::ipam;
use crate::desired::snapshot::{Interfaces, Namespace, Namespaces};
use crate::desired::{Fault, HostNetwork, UplinkFact};
use crate::kernel::netlink::Netlink;
use crate::kernel::netlink::facts::{self, Unusable};
use crate::types::{Name, PortRange};

use super::{machines, ports};

/// All that a generation depends on. Equal inputs need no new one.
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    pub config: Arc<Config>,
    pub host_addresses: Vec<IpAddr>,
    pub host_networks: Vec<HostNetwork>,
    pub local_ports: Vec<PortRange>,
    pub uplinks: Vec<UplinkFact>,
    /// Of endpoints whose interface porin makes.
    pub namespaces: Namespaces,
    /// Of adopted endpoints.
    pub interfaces: Interfaces,
}

/// What was seen, and what is wrong with it.
pub struct Seen {
    pub inputs: Inputs,
    pub faults: Vec<Fault>,
}

/// What the kernel says of what the configuration names. `before`: what was seen last, if nothing but files can have changed
/// since; of the host and of the endpoints that were there and still are where they were, it still holds, but for those of
/// `files`. `in_force`: the last generation's.
pub fn observe(
    netlink: &Netlink,
    config: Arc<Config>,
    before: Option<&Seen>,
    files: &Changed,
    in_force: Option<&Inputs>,
) -> Result<Seen, String> {
    let nothing = BTreeSet::new();
    let files = match files {
        Changed::At(paths) => paths,
        Changed::Any => &nothing,
    };
    match before.filter(|seen| seen.inputs.config.host == config.host) {
        Some(seen) => {
            let (namespaces, interfaces) = changed(netlink, &config, &seen.inputs, files);
            let inputs = Inputs { config, namespaces, interfaces, ..seen.inputs.clone() };
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
    let (mut namespaces, mut interfaces) = (Namespaces::new(), Interfaces::new());
    for endpoint in &config.endpoints {
        let name = endpoint.name.clone();
        match &endpoint.attachment {
            Attachment::Made { namespace: path, .. } => {
                let before = in_force.and_then(|inputs| inputs.namespaces.get(&name));
                namespaces.insert(name, namespace(netlink, before, path));
            }
            Attachment::HandedOver { .. } => {}
            Attachment::Adopted { interface } => {
                let found = facts::adopted(netlink, interface);
                interfaces.insert(name, found.map_err(|why| reason(&why)));
            }
        }
    }
    let inputs = Inputs {
        config,
        host_addresses,
        host_networks,
        local_ports,
        uplinks,
        namespaces,
        interfaces,
    };
    Ok(Seen { inputs, faults })
}

/// Looks at the endpoints that are new, elsewhere, or were not there.
fn changed(
    netlink: &Netlink,
    config: &Config,
    before: &Inputs,
    files: &BTreeSet<PathBuf>,
) -> (Namespaces, Interfaces) {
    let (mut namespaces, mut interfaces) = (before.namespaces.clone(), before.interfaces.clone());
    if before.config.endpoints != config.endpoints {
        let of = |name: &Name| config.endpoint(name);
        let gone: Vec<_> = before.namespaces.keys().filter(|name| !is_made(of(name))).collect();
        gone.into_iter().for_each(|name| _ = namespaces.remove(name));
        let other = |name: &&Name| of(name) != before.config.endpoint(name);
        let others: Vec<_> = before.interfaces.keys().filter(other).collect();
        others.into_iter().for_each(|name| _ = interfaces.remove(name));
    }
    for endpoint in &config.endpoints {
        // Who asks for it anew may mean another namespace by the same path.
        let touched = files.contains(&*endpoint.origin.file);
        let name = &endpoint.name;
        match &endpoint.attachment {
            Attachment::Made { namespace: path, .. } => match before.namespaces.get(name) {
                Some(Ok(known)) if known.path == *path && !touched => {}
                before => {
                    namespaces.insert(name.clone(), namespace(netlink, before, path));
                }
            },
            Attachment::HandedOver { .. } => {}
            Attachment::Adopted { interface } => match interfaces.get(name) {
                Some(Ok(_)) if !touched => {}
                _ => {
                    let found = facts::adopted(netlink, interface).map_err(|why| reason(&why));
                    interfaces.insert(name.clone(), found);
                }
            },
        }
    }
    (namespaces, interfaces)
}

fn is_made(endpoint: Option<&Arc<Endpoint>>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.namespace().is_some())
}

/// The network namespace of an endpoint: as in the last generation, if it is still there.
fn namespace(
    netlink: &Netlink,
    before: Option<&Result<Namespace, String>>,
    path: &Path,
) -> Result<Namespace, String> {
    let path = &*machines::resolve(path)?;
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

/// Why a namespace or an interface cannot be used, for one who sees its path already.
fn reason(why: &Unusable) -> String {
    let text = match why {
        Unusable::Failed(error) => error.source.to_string(),
        other => other.to_string(),
    };
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
