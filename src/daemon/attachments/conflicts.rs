//! What would make the files as a whole wrong, or another endpoint pay for a new one: refused before anything is written.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::model::{AddressWish, Endpoint, Pool};
use crate::desired::snapshot;

/// `others`: the endpoints that there are to be besides.
pub fn with_written<'a>(
    new: &Endpoint,
    others: impl Iterator<Item = &'a Arc<Endpoint>>,
    pools: &[Pool],
) -> Result<(), String> {
    for other in others {
        let name = &other.name;
        if *name == new.name {
            return Err(format!("there is an endpoint `{name}` already"));
        }
        if let Some(path) = new.namespace().filter(|path| other.namespace() == Some(*path)) {
            let path = path.display();
            return Err(format!("endpoint `{name}` is in the namespace {path} already"));
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
    let outside =
        fixed(new).find(|address| !pools.iter().any(|pool| pool.network.contains(address)));
    outside.map_or(Ok(()), |address| Err(format!("{address} is in no pool")))
}

/// `namespace`: device and inode of the new one's, if it is put into one. `others`: the endpoints that are in force and stay.
///
/// A fixed address would take an automatic one away; and of two in one place the first by name wins.
pub fn with_attached<'a>(
    new: &Endpoint,
    namespace: Option<(u64, u64)>,
    others: impl Iterator<Item = &'a snapshot::Endpoint>,
) -> Result<(), String> {
    for other in others {
        let name = &other.name;
        let there = other.made().is_some_and(|made| {
            let place = made.namespace.as_ref().map(|there| (there.device, there.inode));
            place == namespace && made.interface == new.interface()
        });
        if there {
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
