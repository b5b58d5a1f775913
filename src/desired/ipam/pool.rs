//! A pool as a span of numbers: what is in it, and what of it is nobody's to have.
//!
//! Addresses are counted in 128 bits for both families, so that a /64 and a /28 are handled by the same code.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::config::model::Pool;
use crate::types::{Family, Name};

pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address of that number; IPv4 takes the low 32 bits.
pub fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
        Family::Ipv6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

fn span(network: &IpNet) -> (u128, u128) {
    (number(network.network()), number(network.broadcast()))
}

/// The host's own address in a pool: the lowest that is neither the network's nor reserved. A pool of one address has none.
pub fn host_address(pool: &Pool) -> Option<IpAddr> {
    let (first, last) = span(&pool.network);
    if first == last {
        return None;
    }
    let mut own = first.checked_add(1)?;
    let top = if has_broadcast(&pool.network) { last - 1 } else { last };
    let mut reserved: Vec<(u128, u128)> = pool.reserved.iter().map(span).collect();
    reserved.sort_unstable();
    for (from, to) in reserved {
        if (from..=to).contains(&own) {
            own = to.checked_add(1)?;
        }
    }
    (own <= top).then(|| address(Family::of(pool.network.addr()), own))
}

/// What porin gives the host to send from: its own address in the first pool of each family that has one.
pub fn host_sources(pools: &[Pool]) -> impl Iterator<Item = IpAddr> {
    Family::BOTH.into_iter().filter_map(|family| {
        let mut own = pools.iter().filter_map(host_address);
        own.find(|address| Family::of(*address) == family)
    })
}

/// IPv4 networks have one, but for point-to-point ones (RFC 3021).
fn has_broadcast(network: &IpNet) -> bool {
    matches!(network, IpNet::V4(v4) if v4.prefix_len() < 31)
}

/// One pool, as the allocator sees it.
#[derive(Debug, Clone)]
pub struct Space {
    pub name: Name,
    pub network: IpNet,
    pub family: Family,
    first: u128,
    last: u128,
    /// Never anybody's, and why.
    special: Vec<(u128, &'static str)>,
    /// Never given out automatically: special or reserved. Sorted, apart from each other.
    blocked: Vec<(u128, u128)>,
}

impl Space {
    pub fn new(pool: &Pool, host_addresses: &[IpAddr]) -> Self {
        let (first, last) = span(&pool.network);
        let mut special = Vec::new();
        if let Some(own) = host_address(pool) {
            special.push((number(own), "is the host's own in that pool"));
        }
        // The network's number is the subnet-router anycast address in IPv6 (RFC 4291 section 2.6.1);
        // networks of two addresses use both (RFC 3021, RFC 6164).
        if last - first > 1 {
            special.push((first, "is the pool's network address"));
        }
        if has_broadcast(&pool.network) && last > first {
            special.push((last, "is the pool's broadcast address"));
        }
        for host in host_addresses.iter().filter(|host| pool.network.contains(*host)) {
            special.push((number(*host), "is an address of this host"));
        }
        let reserved = pool.reserved.iter().map(span);
        let blocked = merged(special.iter().map(|(n, _)| (*n, *n)).chain(reserved).collect());
        Space {
            name: pool.name.clone(),
            network: pool.network,
            family: Family::of(pool.network.addr()),
            first,
            last,
            special,
            blocked,
        }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.network.contains(&address)
    }

    /// Lowest and highest address.
    pub fn bounds(&self) -> (IpAddr, IpAddr) {
        (address(self.family, self.first), address(self.family, self.last))
    }

    /// Why nobody can have that address, not even by asking for it.
    pub fn special(&self, address: IpAddr) -> Option<&'static str> {
        let wanted = number(address);
        self.special.iter().find(|(special, _)| *special == wanted).map(|(_, why)| *why)
    }

    /// Not to be given out automatically.
    pub fn is_blocked(&self, address: IpAddr) -> bool {
        self.blocked_until(number(address)).is_some()
    }

    /// How many addresses can be given out automatically. All of `::/0` count as one less.
    pub fn size(&self) -> u128 {
        let all = (self.last - self.first).saturating_add(1);
        self.blocked
            .iter()
            .fold(all, |size, (from, to)| size.saturating_sub((to - from).saturating_add(1)))
    }

    /// The first address at or after position `hash` (round the end) that is not blocked and that `free` accepts.
    /// Ends only if there is one: ask for what is known to have it.
    pub fn probe(&self, hash: u128, mut free: impl FnMut(IpAddr) -> bool) -> Option<IpAddr> {
        let all = (self.last - self.first).saturating_add(1);
        let start = self.first + hash % all;
        let mut at = start;
        let mut wrapped = false;
        loop {
            let next = match self.blocked_until(at) {
                Some(end) => end,
                None if free(address(self.family, at)) => {
                    return Some(address(self.family, at));
                }
                None => at,
            };
            if next >= self.last {
                if wrapped {
                    return None;
                }
                wrapped = true;
                at = self.first;
            } else {
                at = next + 1;
            }
            if wrapped && at > start {
                return None;
            }
        }
    }

    /// The end of the blocked span that a number is in.
    fn blocked_until(&self, number: u128) -> Option<u128> {
        let after = self.blocked.partition_point(|(from, _)| *from <= number);
        let (_, to) = self.blocked.get(after.checked_sub(1)?)?;
        (number <= *to).then_some(*to)
    }
}

/// Sorted, with those that touch or overlap made one.
fn merged(mut spans: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    spans.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(spans.len());
    for (from, to) in spans {
        match merged.last_mut() {
            Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}
