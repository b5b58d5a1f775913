//! The host's own side: its interfaces, the addresses on `lo`, and the settings that delivery needs.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::LinkMessage;
use rustix::io::Errno;

use super::message::{self, Link};
use super::{Error, Netlink, Request, Socket};

pub const LOOPBACK: u32 = 1;

/// An address of the namespace, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAddress {
    pub address: IpAddr,
    /// What is reached over that link without a router. Of one address on point-to-point links: the peer's.
    pub network: IpNet,
    pub ifindex: u32,
    /// Reaches beyond the link and this host.
    pub global: bool,
}

/// All links of the daemon's namespace.
pub fn links(netlink: &Netlink) -> Result<Vec<Link>, Error> {
    links_in(&netlink.socket())
}

/// All links of a socket's namespace.
pub fn links_in(socket: &Socket<'_>) -> Result<Vec<Link>, Error> {
    let query = message::link_query(LinkMessage::default());
    let answers = socket.one(Request::dump("list interfaces", query))?;
    Ok(answers.iter().filter_map(message::link_of).collect())
}

pub fn link_by_name(socket: &Socket<'_>, name: &str) -> Result<Option<Link>, Error> {
    let query = message::link_query(LinkUnspec::new_with_name(name).build());
    let request = Request::read(format!("read interface {name}"), query);
    let answers = socket.one(request.tolerate(&[Errno::NODEV]))?;
    Ok(answers.iter().find_map(message::link_of))
}

pub fn link_by_index(socket: &Socket<'_>, ifindex: u32) -> Result<Option<Link>, Error> {
    let query = message::link_query(LinkUnspec::new_with_index(ifindex).build());
    let request = Request::read(format!("read interface {ifindex}"), query);
    let answers = socket.one(request.tolerate(&[Errno::NODEV]))?;
    Ok(answers.iter().find_map(message::link_of))
}

/// All addresses of the daemon's namespace.
pub fn addresses(netlink: &Netlink) -> Result<Vec<HostAddress>, Error> {
    addresses_in(&netlink.socket())
}

/// All addresses of a socket's namespace.
pub fn addresses_in(socket: &Socket<'_>) -> Result<Vec<HostAddress>, Error> {
    let query = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let answers = socket.one(Request::dump("list addresses", query))?;
    let parsed = answers.iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewAddress(message) => parse(message),
        _ => None,
    });
    Ok(parsed.collect())
}

/// Puts an address on `lo`. False if the namespace had it there already.
pub fn add_address(netlink: &Netlink, address: IpAddr) -> Result<bool, Error> {
    let message = RouteNetlinkMessage::NewAddress(message::address(LOOPBACK, address));
    match netlink.socket().one(Request::create(format!("add {address} to lo"), message)) {
        Ok(_) => Ok(true),
        Err(error) if error.is(Errno::EXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

pub fn remove_address(netlink: &Netlink, address: IpAddr) -> Result<(), Error> {
    let message = RouteNetlinkMessage::DelAddress(message::address(LOOPBACK, address));
    let request = Request::change(format!("remove {address} from lo"), message);
    netlink.socket().one(request.tolerate(&[Errno::ADDRNOTAVAIL])).map(|_| ())
}

/// `forwarding` lets the datapath ask the routing table on behalf of packets that came in here
/// (`bpf_fib_lookup`); the host as a whole does not become a router by it. Reverse-path filtering, sources that are the
/// host's own (answers to the L7 worker, which speaks in clients' names) and router advertisements are the datapath's to
/// judge.
pub fn sysctls(interface: &str) -> Result<(), Error> {
    for (family, key, value) in SYSCTLS {
        let path = sysctl(family, interface, key);
        if holds(&path, value) {
            continue;
        }
        match std::fs::write(&path, value) {
            Ok(()) => {}
            // A kernel without this family.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::new(format!("write {value} to {path}"), error)),
        }
    }
    Ok(())
}

/// Whether packets that come in here may still be forwarded. Whoever writes `net.ipv4.ip_forward` or
/// `net.ipv6.conf.all.forwarding` writes to all interfaces.
pub fn forwards(interface: &str) -> bool {
    let mut settings = SYSCTLS.into_iter().filter(|(_, key, _)| *key == "forwarding");
    settings.all(|(family, key, value)| {
        let path = sysctl(family, interface, key);
        holds(&path, value) || !std::path::Path::new(&path).exists()
    })
}

const SYSCTLS: [(&str, &str, &str); 5] = [
    ("ipv6", "forwarding", "1"),
    ("ipv6", "accept_ra", "0"),
    ("ipv4", "forwarding", "1"),
    ("ipv4", "rp_filter", "0"),
    ("ipv4", "accept_local", "1"),
];

fn sysctl(family: &str, interface: &str, key: &str) -> String {
    format!("/proc/sys/net/{family}/conf/{interface}/{key}")
}

fn holds(path: &str, value: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|held| held.trim_end() == value)
}

fn parse(message: &AddressMessage) -> Option<HostAddress> {
    use rtnetlink::packet_route::address::AddressScope;
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let peer = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    // IPv6 says Local only on point-to-point links.
    let address = local.or(peer)?;
    let network = IpNet::new(peer.unwrap_or(address), message.header.prefix_len).ok()?.trunc();
    Some(HostAddress {
        address,
        network,
        ifindex: message.header.index,
        global: message.header.scope == AddressScope::Universe,
    })
}
