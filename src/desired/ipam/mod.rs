//! IPAM: who gets which address.
//!
//! A fixed address beats an automatic one. An automatic address stays as long as nothing fixed is in its way; a new one
//! is sought from a place that depends on the endpoint's name alone, so that it would be the same without any memory.
//! An address that somebody had before is given to another only when its pool has none that nobody ever had.

mod leases;
pub mod pool;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::config::model::AddressWish;
use crate::types::addr::check_unicast;
use crate::types::{Family, Name};

pub use leases::{Lease, Leases};
pub use pool::{Space, host_address, host_sources};

use super::digest;

/// What one endpoint wants in one family.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub name: &'a Name,
    pub wish: AddressWish,
    /// False: it may keep what it has, but is given nothing new.
    pub open: bool,
}

/// Why an endpoint gets no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{address} is in no pool")]
    OutsidePools { address: IpAddr },
    #[error("{address} {why}")]
    Special { address: IpAddr, why: &'static str },
    #[error("{address} is already the fixed address of endpoint `{holder}`")]
    Taken { address: IpAddr, holder: Name },
    #[error("no {family} address is left: {}", pools.join(", "))]
    Exhausted { family: Family, pools: Vec<String> },
    #[error("{address} is not an {family} address")]
    OtherFamily { address: IpAddr, family: Family },
}

pub type Answers = BTreeMap<Name, Result<Option<IpAddr>, Refused>>;

/// Answers all requests for one family. `spaces`: its pools in the order written; names are unique and in a deterministic order.
/// Leases of endpoints that do not ask are released.
pub fn assign(
    leases: &mut Leases,
    family: Family,
    spaces: &[Space],
    requests: &[Request],
) -> Answers {
    let mut answers = Answers::new();
    let mut fixed: BTreeMap<IpAddr, &Name> = BTreeMap::new();
    for request in requests {
        let AddressWish::Fixed(address) = request.wish else { continue };
        let answer =
            check_fixed(spaces, family, address).and_then(|()| match fixed.get(&address) {
                Some(holder) => Err(Refused::Taken { address, holder: (*holder).clone() }),
                None => Ok(Some(address)),
            });
        if answer.is_ok() {
            fixed.insert(address, request.name);
        }
        answers.insert(request.name.clone(), answer);
    }
    drop_unwanted(leases, family, spaces, requests, &fixed);
    for (address, name) in &fixed {
        if leases.lease(*address).is_none_or(|l| l.endpoint != **name || l.released.is_some()) {
            leases.hold(name, *address);
        }
    }
    let mut places = Places::new(leases, spaces);
    let automatic = || requests.iter().filter(|r| matches!(r.wish, AddressWish::Auto));
    for request in automatic() {
        if let Some(address) = leases.address(request.name, family) {
            if leases.lease(address).is_some_and(|lease| lease.released.is_some()) {
                leases.hold(request.name, address);
            }
            answers.insert(request.name.clone(), Ok(Some(address)));
        }
    }
    for request in automatic() {
        if answers.contains_key(request.name) {
            continue;
        }
        let answer = if spaces.is_empty() || !request.open {
            Ok(None)
        } else {
            places.take(leases, family, request.name).map(Some)
        };
        answers.insert(request.name.clone(), answer);
    }
    for request in requests.iter().filter(|r| matches!(r.wish, AddressWish::None)) {
        answers.insert(request.name.clone(), Ok(None));
    }
    answers
}

fn check_fixed(spaces: &[Space], family: Family, address: IpAddr) -> Result<(), Refused> {
    if Family::of(address) != family {
        return Err(Refused::OtherFamily { address, family });
    }
    let Some(space) = spaces.iter().find(|space| space.contains(address)) else {
        return Err(Refused::OutsidePools { address });
    };
    if let Some(why) = space.special(address) {
        return Err(Refused::Special { address, why });
    }
    if check_unicast(address).is_err() {
        return Err(Refused::Special {
            address,
            why: "is not a unicast address that can be routed",
        });
    }
    Ok(())
}

/// Forgets leases that nobody can have any more, and releases those of endpoints that are gone.
fn drop_unwanted(
    leases: &mut Leases,
    family: Family,
    spaces: &[Space],
    requests: &[Request],
    fixed: &BTreeMap<IpAddr, &Name>,
) {
    let wanting: BTreeSet<&Name> = requests
        .iter()
        .filter(|request| !matches!(request.wish, AddressWish::None))
        .map(|request| request.name)
        .collect();
    let mut gone = Vec::new();
    let mut left = Vec::new();
    for (address, lease) in leases.iter().filter(|(a, _)| Family::of(*a) == family) {
        let is_fixed = fixed.get(&address).is_some_and(|name| **name == lease.endpoint);
        // What is in use stays in use, though it has come to be reserved.
        let in_use = lease.released.is_none() && wanting.contains(&lease.endpoint);
        let allows = |space: &Space| match in_use {
            true => space.special(address).is_none(),
            false => !space.is_blocked(address),
        };
        let possible = is_fixed
            || !fixed.contains_key(&address)
                && spaces.iter().any(|space| space.contains(address) && allows(space));
        if !possible {
            gone.push(address);
        } else if lease.released.is_none() && !wanting.contains(&lease.endpoint) {
            left.push(address);
        }
    }
    gone.into_iter().for_each(|address| leases.forget(address));
    left.into_iter().for_each(|address| leases.release(address));
}

/// The pools of a family while addresses are taken from them: how many never-used ones each still has.
struct Places<'a> {
    spaces: &'a [Space],
    never_used: Vec<u128>,
}

impl<'a> Places<'a> {
    fn new(leases: &Leases, spaces: &'a [Space]) -> Self {
        let never_used = |space: &Space| {
            let (first, last) = space.bounds();
            let used = leases.between(first, last).filter(|(a, _)| !space.is_blocked(*a)).count();
            space.size().saturating_sub(used as u128)
        };
        Places { spaces, never_used: spaces.iter().map(never_used).collect() }
    }

    fn take(
        &mut self,
        leases: &mut Leases,
        family: Family,
        name: &Name,
    ) -> Result<IpAddr, Refused> {
        let hash: [u8; 16] =
            digest::head(digest::digest([b"address".as_slice(), name.as_str().as_bytes()]));
        let hash = u128::from_be_bytes(hash);
        for (space, never_used) in self.spaces.iter().zip(&mut self.never_used) {
            if *never_used > 0 {
                let found = space.probe(hash, |address| leases.lease(address).is_none());
                if let Some(address) = found {
                    *never_used -= 1;
                    leases.hold(name, address);
                    return Ok(address);
                }
            }
            let in_pool = |address| space.contains(address) && !space.is_blocked(address);
            if let Some(address) = leases.oldest_released(in_pool) {
                leases.hold(name, address);
                return Ok(address);
            }
        }
        let pools = self.spaces.iter().map(|space| describe(space, leases)).collect();
        Err(Refused::Exhausted { family, pools })
    }
}

fn describe(space: &Space, leases: &Leases) -> String {
    let (first, last) = space.bounds();
    let used = leases.between(first, last).count();
    let (name, network, size) = (&space.name, space.network, space.size());
    format!("pool `{name}` ({network}) has {used} in use of {size} that can be given out")
}
