//! The datapath's flows, for who has descriptors of their tables and nothing else: the L7 worker asks for each
//! connection what it was judged to.
//!
//! All of it works with no other right than to look up in those tables. (Which generation is in force would be in memory
//! that a program can map, but not without the right to write to it.)

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::datapath::abi;
use super::{sweep, sys};
use crate::types::Protocol;

/// Tables of flows.
#[derive(Debug)]
pub struct Flows {
    flows6: OwnedFd,
    flows4: OwnedFd,
}

/// What the datapath last judged a flow to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    pub allowed: bool,
    /// Neither closed, nor silent for so long that the datapath takes it for gone.
    pub alive: bool,
    /// It is a client's connection whose other end is the worker.
    pub proxied: bool,
    /// The rulesets that judge its requests; 0: none, all are allowed.
    pub ingress: u16,
    pub egress: u16,
}

impl Flows {
    /// The descriptors that [`Maps::for_readers`](super::datapath::Maps::for_readers) gives, in its order. They must be of
    /// these tables: that cannot be seen without the right to ask.
    pub fn new([flows6, flows4]: [OwnedFd; 2]) -> Self {
        Flows { flows6, flows4 }
    }

    /// Of the TCP flow between the two; none: there is none.
    pub fn tcp(&self, one: SocketAddr, other: SocketAddr) -> io::Result<Option<Judged>> {
        /// Who writes an entry does so with a CPU of its own, in less time than this takes.
        const TRIES: usize = 256;
        for _ in 0..TRIES {
            let Some(flow) = self.read(one, other)? else { return Ok(None) };
            // A copy is not made at one instant: what is the same word before and after is of that word.
            let again = self.read(one, other)?.map_or(0, |again| again.judged);
            if flow.judged != 0 && flow.judged == again {
                return Ok(Some(judged(&flow)));
            }
            std::thread::yield_now();
        }
        Err(io::Error::new(io::ErrorKind::WouldBlock, "its entry is being written, without end"))
    }

    fn read(&self, one: SocketAddr, other: SocketAddr) -> io::Result<Option<abi::Flow>> {
        let found = match (one.ip(), other.ip()) {
            (IpAddr::V4(_), IpAddr::V4(_)) => key4(one, other)
                .map_or(Err(Errno::NOENT.into()), |key| {
                    sys::map_look_up(self.flows4.as_fd(), &key)
                }),
            _ => sys::map_look_up(self.flows6.as_fd(), &key6(one, other)),
        };
        match found {
            Ok(flow) => Ok(Some(flow)),
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn judged(flow: &abi::Flow) -> Judged {
    Judged {
        allowed: abi::judged_verdict(flow.judged) == abi::VERDICT_ALLOW,
        alive: sweep::is_alive(flow, sweep::now()),
        proxied: flow.flags & abi::FLOW_PROXIED != 0,
        ingress: flow.ruleset[usize::from(abi::INGRESS)],
        egress: flow.ruleset[usize::from(abi::EGRESS)],
    }
}

/// The key of a TCP flow over IPv4; none if an address is not.
pub fn key4(one: SocketAddr, other: SocketAddr) -> Option<abi::Flow4Key> {
    let (low, high) = order(one, other);
    let (IpAddr::V4(first), IpAddr::V4(second)) = (low.ip(), high.ip()) else { return None };
    Some(abi::Flow4Key {
        address: [first.octets(), second.octets()],
        port: [low.port().to_be(), high.port().to_be()],
        protocol: Protocol::TCP.0,
        ..Default::default()
    })
}

/// Likewise over IPv6.
pub fn key6(one: SocketAddr, other: SocketAddr) -> abi::Flow6Key {
    let (low, high) = order(one, other);
    let octets = |address: SocketAddr| match address.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    abi::Flow6Key {
        address: [octets(low), octets(high)],
        port: [low.port().to_be(), high.port().to_be()],
        protocol: Protocol::TCP.0,
        ..Default::default()
    }
}

/// `struct porin_flow4_key`: the lower (address, port) first. Of one family, as addresses of different ones are ordered
/// by that.
fn order(one: SocketAddr, other: SocketAddr) -> (SocketAddr, SocketAddr) {
    let end = |address: SocketAddr| (address.ip(), address.port());
    if end(one) <= end(other) { (one, other) } else { (other, one) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_lower_end_first() {
        let (a, b) = ("10.0.0.9:80".parse().unwrap(), "10.0.0.10:9".parse().unwrap());
        let key = key4(a, b).unwrap();
        assert_eq!(
            (key.address, key.port),
            ([[10, 0, 0, 9], [10, 0, 0, 10]], [80u16, 9].map(u16::to_be))
        );
        let again = key4(b, a).unwrap();
        assert_eq!((again.address, again.port, again.protocol), (key.address, key.port, 6));
        let (c, d) = ("[fd00::1]:300".parse().unwrap(), "[fd00::1]:2".parse().unwrap());
        assert_eq!(key6(c, d).port, [2u16, 300].map(u16::to_be));
        assert!(key4(a, c).is_none());
    }
}
