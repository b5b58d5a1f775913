//! What would make the files as a whole wrong, or another endpoint pay for a new one: refused before anything is written.

use std::net::IpAddr;
use std::sync::Arc;

use super::place::Place;
use crate::config::model::{AddressWish, Endpoint, Host};
use crate::desired::snapshot;

/// `others`: the endpoints that there are to be besides.
pub fn with_written<'a>(
    new: &Endpoint,
    others: impl Iterator<Item = &'a Arc<Endpoint>>,
    host: &Host,
) -> Result<(), String> {
    for other in others {
        let name = &other.name;
        if *name == new.name {
            return Err(format!("there is an endpoint `{name}` already"));
        }
        if let Some(path) = new.namespace().filter(|_| other.attachment == new.attachment) {
            let (interface, path) = (new.interface(), path.display());
            return Err(format!("endpoint `{name}` has `{interface}` in {path} already"));
        }
        if new.is_adopted() && other.attachment == new.attachment {
            return Err(format!("endpoint `{name}` is behind `{}` already", new.interface()));
        }
        if let Some(interface) = new.handed_over()
            && other.handed_over() == Some(interface)
        {
            return Err(format!("endpoint `{name}` hands over `{interface}` already"));
        }
        let taken = fixed(new).find(|address| fixed(other).any(|theirs| theirs == *address));
        if let Some(address) = taken {
            return Err(format!("{address} is the address of endpoint `{name}`"));
        }
    }
    let pool = |address: &IpAddr| host.pools.iter().find(|pool| pool.network.contains(address));
    if !new.is_adopted() {
        let outside = fixed(new).find(|address| pool(address).is_none());
        return outside.map_or(Ok(()), |address| Err(format!("{address} is in no pool")));
    }
    if host.uplinks.iter().any(|uplink| uplink.interface == new.interface()) {
        return Err(format!("`{}` is an uplink, which no endpoint is behind", new.interface()));
    }
    match fixed(new).find_map(|address| Some((address, pool(&address)?))) {
        Some((address, pool)) => {
            let network = pool.network;
            Err(format!("{address} is inside the pool {network}, which is porin's"))
        }
        None => Ok(()),
    }
}

/// `place`: where the new one is. `others`: the endpoints that are in force and stay.
///
/// A fixed address would take an automatic one away; and of two in one place the first by name wins.
pub fn with_attached<'a>(
    new: &Endpoint,
    place: Place,
    others: impl Iterator<Item = &'a snapshot::Endpoint>,
) -> Result<(), String> {
    for other in others {
        let name = &other.name;
        let same_name = other.made().is_none_or(|made| made.interface == new.interface());
        if Place::of(other) == place && same_name {
            return Err(format!("endpoint `{name}` has `{}` there already", new.interface()));
        }
        let theirs = [other.ipv6.map(IpAddr::V6), other.ipv4.map(IpAddr::V4)];
        if let Some(address) = fixed(new).find(|address| theirs.contains(&Some(*address))) {
            return Err(format!("{address} is the address of endpoint `{name}`"));
        }
    }
    Ok(())
}

fn fixed(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> {
    [endpoint.ipv6, endpoint.ipv4].into_iter().filter_map(|wish| match wish {
        AddressWish::Fixed(address) => Some(address),
        AddressWish::Auto | AddressWish::None => None,
    })
}
