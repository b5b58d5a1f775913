//! From a configured endpoint and what was found out about it to the endpoint of a snapshot, or to the fault that keeps it closed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use crate::config::model::{self, AddressWish};
use crate::types::{Family, Identity, Labels, Name, Slot};

use super::ipam::{Answers, Refused};
use super::snapshot::{
    Adopted, Attachment, Endpoint, Interfaces, Made, Namespace, Namespaces, Uplink,
};
use super::{Fault, UplinkFact, digest};

/// An endpoint that can be opened, without its numbers yet.
pub(super) struct Openable<'a> {
    pub config: &'a model::Endpoint,
    place: Place<'a>,
    pub addresses: [Option<IpAddr>; 2],
    pub host_interface: String,
    pub incarnation: [u8; 16],
}

/// Where an endpoint was found.
enum Place<'a> {
    Namespace { namespace: Namespace, interface: &'a str },
    HandedOver { interface: &'a str },
    Interface(Adopted),
}

/// What was found out about all of them.
pub(super) struct Facts<'a> {
    pub namespaces: &'a Namespaces,
    pub interfaces: &'a Interfaces,
    pub answers: &'a [Answers; 2],
    pub pools: bool,
    pub host_addresses: &'a [IpAddr],
}

/// Sorts the endpoints into those that can be opened and faults.
pub(super) fn openable<'a>(
    endpoints: &'a [Arc<model::Endpoint>],
    facts: &Facts,
) -> (Vec<Openable<'a>>, Vec<Fault>) {
    let mut open: Vec<Openable> = Vec::with_capacity(endpoints.len());
    let mut faults = Vec::new();
    let mut inside: BTreeMap<(u64, u64, &str), &Name> = BTreeMap::new();
    let mut outside: BTreeMap<String, &Name> = BTreeMap::new();
    for config in endpoints {
        let endpoint = match examine(config, facts) {
            Ok(endpoint) => endpoint,
            Err(fault) => {
                faults.push(*fault);
                continue;
            }
        };
        let place = match &endpoint.place {
            Place::Namespace { namespace: Namespace { device, inode, .. }, interface } => {
                Some((*device, *inode, *interface))
            }
            Place::HandedOver { .. } | Place::Interface(_) => None,
        };
        if let Some(place) = &place
            && let Some(other) = inside.get(place)
        {
            let interface = config.interface();
            let why =
                format!("its namespace is that of endpoint `{other}`, which has `{interface}`");
            faults.push(closed(config, "is in another's place").why(why).hint(
                "give each endpoint a namespace of its own, or another interface name inside",
            ));
            continue;
        }
        if let Some(other) = outside.get(&endpoint.host_interface) {
            let why = format!("its host interface would be that of endpoint `{other}`");
            faults.push(closed(config, "has an unlucky name").why(why).hint("rename one of them"));
            continue;
        }
        inside.extend(place.map(|place| (place, &config.name)));
        outside.insert(endpoint.host_interface.clone(), &config.name);
        open.push(endpoint);
    }
    (open, faults)
}

/// A fault about an endpoint that stays closed for it.
pub(super) fn closed(config: &model::Endpoint, what: &str) -> Fault {
    let what = format!("endpoint `{}` {what} and stays closed", config.name);
    Fault::endpoint(&config.name, what).origin(&config.origin)
}

fn examine<'a>(config: &'a model::Endpoint, facts: &Facts) -> Result<Openable<'a>, Box<Fault>> {
    match &config.attachment {
        model::Attachment::Made { namespace, interface } => {
            examine_made(config, namespace, interface, facts)
        }
        model::Attachment::HandedOver { interface } => {
            // The kernel refused it in this round.
            if let Some(Err(why)) = facts.namespaces.get(&config.name) {
                return Err(Box::new(closed(config, "cannot be made").why(why.clone())));
            }
            let addresses = addresses(config, facts)?;
            let all = addresses.into_iter().flatten();
            let incarnation = digest::handed_incarnation(interface, all, config.mac);
            Ok(Openable {
                config,
                place: Place::HandedOver { interface },
                addresses,
                host_interface: digest::handed_host_interface(interface),
                incarnation,
            })
        }
        model::Attachment::Adopted { interface } => examine_adopted(config, interface, facts),
    }
}

fn examine_adopted<'a>(
    config: &'a model::Endpoint,
    interface: &str,
    facts: &Facts,
) -> Result<Openable<'a>, Box<Fault>> {
    let adopted = match facts.interfaces.get(&config.name) {
        Some(Ok(adopted)) => *adopted,
        Some(Err(why)) => {
            let fault = closed(config, "cannot be adopted").why(why.clone());
            return Err(Box::new(fault.hint(
                "start what makes the interface, or correct `interface`; it is adopted as soon as it is there",
            )));
        }
        None => {
            let fault = closed(config, "has an interface that was not looked at");
            return Err(Box::new(fault.why(interface.to_owned()).passing()));
        }
    };
    let mut addresses = [None, None];
    for address in config.fixed_addresses() {
        if facts.host_addresses.contains(&address) {
            let fault = closed(config, "cannot be adopted");
            let fault = fault.why(format!("{address} is an address of this host"));
            return Err(Box::new(fault.hint(
                "state the addresses that are behind the interface, not the host's own on it",
            )));
        }
        addresses[Family::of(address) as usize] = Some(address);
    }
    let own = addresses.into_iter().flatten();
    Ok(Openable {
        config,
        place: Place::Interface(adopted),
        addresses,
        host_interface: interface.to_owned(),
        incarnation: digest::adopted_incarnation(&config.name, interface, adopted, own),
    })
}

fn examine_made<'a>(
    config: &'a model::Endpoint,
    path: &Path,
    interface: &'a str,
    facts: &Facts,
) -> Result<Openable<'a>, Box<Fault>> {
    let path = path.display();
    let namespace = match facts.namespaces.get(&config.name) {
        Some(Ok(namespace)) => namespace.clone(),
        Some(Err(why)) => {
            let fault = closed(config, "cannot be attached");
            if let Some(machine) = config.machine() {
                return Err(Box::new(fault.why(format!("machine {machine}: {why}")).hint(
                    "start it with a network of its own, or correct `machine`; it is attached as soon as it runs",
                )));
            }
            return Err(Box::new(fault.why(format!("{path}: {why}")).hint(
                "create the namespace (ip netns add), or correct `namespace`; it is opened as soon as it is there",
            )));
        }
        None => {
            let fault = closed(config, "has a namespace that was not looked at");
            return Err(Box::new(fault.why(path.to_string()).passing()));
        }
    };
    let addresses = addresses(config, facts)?;
    let all = addresses.into_iter().flatten();
    let incarnation = digest::incarnation(&config.name, &namespace, interface, all, config.mac);
    let host_interface = digest::host_interface(&config.name);
    let place = Place::Namespace { namespace, interface };
    Ok(Openable { config, place, addresses, host_interface, incarnation })
}

/// What the pools have given it, by family.
fn addresses(config: &model::Endpoint, facts: &Facts) -> Result<[Option<IpAddr>; 2], Box<Fault>> {
    let mut addresses = [None, None];
    for family in Family::BOTH {
        addresses[family as usize] = match facts.answers[family as usize].get(&config.name) {
            Some(Ok(address)) => *address,
            Some(Err(refused)) => return Err(Box::new(refusal(config, refused))),
            None => None,
        };
    }
    if addresses == [None, None] {
        let hint = if facts.pools {
            "do not set both `ipv6` and `ipv4` to none, and have a pool of a family that is wanted"
        } else {
            "add a [[pool]] to porin.toml"
        };
        return Err(Box::new(closed(config, "has no address").hint(hint)));
    }
    Ok(addresses)
}

fn refusal(config: &model::Endpoint, refused: &Refused) -> Fault {
    let hint = match refused {
        Refused::OutsidePools { .. } => "take an address inside a pool, or add a pool around it",
        Refused::Special { .. } => "take another address of the pool",
        Refused::Taken { .. } => "give each endpoint an address of its own",
        Refused::Exhausted { .. } => "add a pool, make one larger, or reserve less of it",
        Refused::OtherFamily { .. } => "write IPv6 addresses to `ipv6` and IPv4 ones to `ipv4`",
    };
    closed(config, "cannot have an address").why(refused.to_string()).hint(hint)
}

pub(super) fn wish(endpoint: &model::Endpoint, family: Family) -> AddressWish {
    match family {
        Family::Ipv6 => endpoint.ipv6,
        Family::Ipv4 => endpoint.ipv4,
    }
}

pub(super) fn uplink(fact: &UplinkFact, slot: Slot) -> Uplink {
    Uplink {
        interface: fact.interface.clone(),
        ifindex: fact.ifindex,
        mac: fact.mac,
        mtu: fact.mtu,
        slot,
        address4: fact.address4,
    }
}

pub(super) fn endpoint(
    openable: &Openable,
    slot: Slot,
    identity: Identity,
    labels: Arc<Labels>,
    mtu: u32,
) -> Endpoint {
    let addresses = || openable.addresses.iter().flatten();
    let config = openable.config;
    let mac = |name: &str| config.mac.unwrap_or_else(|| digest::mac(name, &openable.incarnation));
    Endpoint {
        name: config.name.clone(),
        slot,
        labels,
        identity,
        ipv6: addresses().find_map(|a| v6(*a)),
        ipv4: addresses().find_map(|a| v4(*a)),
        ports: config.ports.clone(),
        publish: config.publish.clone(),
        shut: config.shut,
        attachment: match &openable.place {
            Place::Namespace { namespace, interface } => Attachment::Made(Made {
                namespace: Some(namespace.clone()),
                interface: (*interface).to_owned(),
                mac: mac(config.name.as_str()),
                mtu,
            }),
            Place::HandedOver { interface } => Attachment::Made(Made {
                namespace: None,
                interface: (*interface).to_owned(),
                mac: mac(interface),
                mtu,
            }),
            Place::Interface(adopted) => Attachment::Adopted(*adopted),
        },
        host_interface: openable.host_interface.clone(),
        incarnation: openable.incarnation,
    }
}

fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(v6) => Some(v6),
        IpAddr::V4(_) => None,
    }
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    }
}
