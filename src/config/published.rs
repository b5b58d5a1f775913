//! Published ports of all endpoints: no two for the same packets, and none that is another's already.

use std::collections::HashMap;
use std::net::IpAddr;

use super::check::{In, first_host};
use super::endpoint::WrittenEndpoint;
use super::fault::{Fault, Faults};
use super::model::Host;
use crate::types::publication::At;
use crate::types::{Family, Protocol, Publication};

/// Ports that all endpoints together may publish: as many as a side of the datapath's table has room for.
pub const MOST: usize = 32_768;

/// `host`: none if it is not known because of faults.
pub(super) fn check(endpoints: &[In<WrittenEndpoint>], host: Option<&Host>, faults: &mut Faults) {
    let mut taken = Taken::default();
    let mut count = 0;
    for (at, (source, written)) in endpoints.iter().enumerate() {
        for (nth, (one, span)) in written.endpoint.publish.iter().zip(&written.publish).enumerate()
        {
            count += one.count();
            if count > MOST {
                let what = format!("more than the {MOST} ports that fit are published");
                let fault = Fault::error(source.place(span), what);
                faults.push(
                    fault.hint(
                        "publish fewer, or let clients reach endpoints by their own addresses",
                    ),
                );
                return;
            }
            if let Some((what, hint)) = host.and_then(|host| misplaced(*one, host)) {
                faults.push(Fault::error(source.place(span), what).hint(hint));
            }
            let Some(within) = one.within(|family| written.endpoint.may_have(family)) else {
                continue;
            };
            if let Err((port, other)) = taken.take(within, (at, nth)) {
                let what = format!("port {port}/{} is published twice", one.protocol());
                let fault = Fault::error(source.place(span), what);
                let (other_source, other_written) = endpoints[other.0];
                let place = other_source.place(&other_written.publish[other.1]);
                faults.push(fault.related(place, "the other one"));
            }
        }
    }
}

/// Why the host has no such port to give, and what to do.
pub fn misplaced(publication: Publication, host: &Host) -> Option<(String, String)> {
    let (at, ports) = (publication.at(), publication.ports());
    if let At::One(address) = at
        && let Some(pool) = host.pools.iter().find(|pool| pool.network.contains(&address))
        && address != first_host(pool.network)
    {
        let what =
            format!("{address} is inside the pool {}, and no address of the host", pool.network);
        let hint = "publish at an address of the host, or leave the address out".to_owned();
        return Some((what, hint));
    }
    let own = host.masquerade.ports;
    let meet = ports.first() <= own.last() && own.first() <= ports.last();
    if host.masquerade.enabled && !at.is_loopback() && at.is_of(Family::Ipv4) && meet {
        let what =
            format!("{ports}: the ports {own} are those of [masquerade], for what endpoints begin");
        let hint = "publish at another port, or set `ports` of [masquerade] to others".to_owned();
        return Some((what, hint));
    }
    None
}

/// Which publication: of which endpoint, and which of its.
type Whose = (usize, usize);

/// Who has which ports.
#[derive(Default)]
struct Taken {
    by_port: HashMap<(Protocol, u16), Port>,
}

#[derive(Default)]
struct Port {
    one: HashMap<IpAddr, Whose>,
    /// By family: the first that has some address, and who has all.
    some: [Option<Whose>; 2],
    every: [Option<Whose>; 2],
}

impl Taken {
    /// # Errors
    /// The first port that is another's, and whose. Those before it are taken.
    fn take(&mut self, publication: Publication, whose: Whose) -> Result<(), (u16, Whose)> {
        for (port, _) in publication.pairs() {
            let known = self.by_port.entry((publication.protocol(), port)).or_default();
            known.take(publication.at(), whose).map_err(|other| (port, other))?;
        }
        Ok(())
    }
}

impl Port {
    fn take(&mut self, at: At, whose: Whose) -> Result<(), Whose> {
        for family in Family::BOTH.into_iter().filter(|family| at.is_of(*family)) {
            let index = family as usize;
            let other = match at {
                At::One(address) => self.one.get(&address).copied(),
                At::Everywhere | At::Every(_) => self.some[index],
            };
            if let Some(other) = other.or(self.every[index]) {
                return Err(other);
            }
            self.some[index] = Some(whose);
            match at {
                At::One(address) => _ = self.one.insert(address, whose),
                At::Everywhere | At::Every(_) => self.every[index] = Some(whose),
            }
        }
        Ok(())
    }
}
