//! The sockets that the L7 worker accepts connections from: one for each family, the daemon's, so that they and what
//! waits in them outlive a worker.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::AddressFamily;
use socket2::{Domain, Protocol, Socket, Type};

use crate::kernel::datapath::{Maps, abi};

/// Connections that wait to be accepted; the kernel has its own bound (`net.core.somaxconn`).
const BACKLOG: i32 = 8192;
/// Addresses that nothing is at and nothing is routed to: the dummy address of RFC 7600, and one of the prefix that is to
/// be discarded (RFC 6666). It is the datapath that leads connections here, whatever they are to.
const NOWHERE: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8)),
];

/// Listening sockets, by `PORIN_FAMILY_*`.
#[derive(Debug)]
pub struct Sockets(Vec<(u32, OwnedFd)>);

impl Sockets {
    /// Makes them. A kernel without IPv6 has one.
    pub fn make() -> io::Result<Self> {
        let mut sockets = Vec::new();
        for (address, family) in NOWHERE.into_iter().zip([abi::FAMILY_IPV6, abi::FAMILY_IPV4]) {
            match make(address) {
                Ok(socket) => sockets.push((family as u32, socket)),
                Err(error) if lacks_family(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Sockets(sockets))
    }

    /// Those that an earlier daemon made; none if there are none that listen.
    pub fn of(kept: Vec<OwnedFd>) -> Option<Self> {
        let family = |socket: OwnedFd| {
            let listens = rustix::net::sockopt::socket_acceptconn(&socket).unwrap_or(false);
            let domain = rustix::net::sockopt::socket_domain(&socket).ok().filter(|_| listens)?;
            match domain {
                AddressFamily::INET6 => Some((abi::FAMILY_IPV6 as u32, socket)),
                AddressFamily::INET => Some((abi::FAMILY_IPV4 as u32, socket)),
                _ => None,
            }
        };
        let sockets: Vec<_> = kept.into_iter().filter_map(family).collect();
        (!sockets.is_empty()).then_some(Sockets(sockets))
    }

    /// From now on the datapath hands connections to these.
    pub fn put(&self, maps: &Maps) -> Result<(), String> {
        for (family, socket) in &self.0 {
            maps.set_worker(*family, socket.as_fd()).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|(_, socket)| socket.as_fd())
    }
}

fn make(address: IpAddr) -> io::Result<OwnedFd> {
    let address = SocketAddr::new(address, 0);
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    // Connections inherit both: they have any address as their own, and the datapath knows what they send.
    match address {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_ip_transparent_v6(true)?;
        }
    }
    socket.set_mark(abi::MARK_WORKER)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn lacks_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}
