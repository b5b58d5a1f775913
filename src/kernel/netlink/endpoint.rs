//! An endpoint's interface: a veth whose one end is born inside the endpoint's namespace, or on the host for a container
//! runtime to take.
//!
//! Of the former, both ends get their final names in one message, so there is no moment in which the container
//! sees an interface of another name, or the host one that nobody owns.
//!
//! The runtime gives what it takes its address and routes, but no neighbours; and ARP and neighbour discovery are not answered here.
//! So that end has IFF_NOARP, which stays with it in any namespace: what it sends is then addressed to its own MAC
//! (`arp_constructor` in net/ipv4/arp.c, `ndisc_constructor` in net/ipv6/ndisc.c), which the host's end bears too.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use rustix::io::Errno;

use super::message::{self, Link};
use super::{Error, Namespace, Netlink, Request, host};
use crate::desired::snapshot::{self, Endpoint, Made};
use crate::kernel::ops::Sources;
use crate::types::Mac;
use crate::types::addr::{GATEWAY_IPV4, GATEWAY_IPV6};

/// Every interface that porin made is called so, and then the endpoint's name.
pub const ALIAS: &str = "porin:";
/// Every interface that porin makes is born in this group, so that it can be told before it has its alias.
/// "por", and one.
pub const GROUP: u32 = 0x706f_7201;
/// Where interfaces are put that are to be removed together. "pori"
const DOOMED: u32 = 0x706f_7269;
/// The kernel takes so many bytes of an alias (`IFALIASZ`, with its NUL).
const ALIAS_MAX: usize = 255;
const LOOPBACK: u32 = 1;
/// Metrics and tables of routes, in containers, are numbered from here, by interfaces' numbers. "por", and none.
const BESIDE: u32 = 0x706f_7200;

/// Makes the interface, with all that belongs into the namespace. The host side stays down, so that
/// gates can be attached before anything passes. Returns its ifindex.
///
/// `keep` says which of porin's interfaces are in use and must not give way. After a failure nothing
/// is left.
pub fn create(
    netlink: &Netlink,
    endpoint: &Endpoint,
    keep: &dyn Fn(&str) -> bool,
) -> Result<u32, Error> {
    let made = made(endpoint)?;
    let namespace = made.namespace.as_ref().map(|wanted| open(netlink, wanted)).transpose()?;
    let namespace = namespace.as_ref();
    let link = match make(netlink, endpoint, made, namespace) {
        Err(error) if error.is(Errno::EXIST) => {
            make_way(netlink, endpoint, made, namespace, keep)?;
            make(netlink, endpoint, made, namespace)
        }
        made => made,
    }?;
    let furnished = host::sysctls(&link.name).and_then(|()| match namespace {
        Some(namespace) => furnish_inside(netlink, endpoint, made, namespace, link.peer),
        None => Ok(()),
    });
    match furnished {
        Ok(()) => Ok(link.ifindex),
        Err(error) => {
            if let Err(left) = remove(netlink, &link.name) {
                log::warn!("{left}, after a failure");
            }
            Err(error)
        }
    }
}

/// Brings the host side up and sets what may change while it lives: MTU, routes with their sources,
/// neighbours.
pub fn configure(
    netlink: &Netlink,
    endpoint: &Endpoint,
    sources: Sources,
    ifindex: u32,
) -> Result<(), Error> {
    let made = made(endpoint)?;
    let name = &endpoint.host_interface;
    let up = LinkUnspec::new_with_index(ifindex).up().build();
    let query = message::link_query(LinkUnspec::new_with_index(ifindex).build());
    // The host's administrator may have turned forwarding off, everywhere at once.
    host::sysctls(name)?;
    let mut requests = vec![
        Request::change(format!("bring {name} up"), RouteNetlinkMessage::SetLink(up)),
        Request::read(format!("read {name}"), query),
    ];
    for address in addresses(endpoint) {
        let source = sources.of_family(address);
        requests.push(Request::replace(format!("add neighbour {address} to {name}"), {
            RouteNetlinkMessage::NewNeighbour(message::neighbour(ifindex, address, made.mac))
        }));
        requests.push(Request::replace(format!("route {address} to {name}"), {
            RouteNetlinkMessage::NewRoute(message::host_route(ifindex, address, source))
        }));
    }
    let answers = netlink.socket().all(requests)?;
    match answers.iter().find_map(message::link_of) {
        Some(link) if link.mtu != made.mtu => set_mtu(netlink, made, &link),
        _ => Ok(()),
    }
}

/// Of both ends: a veth drops what its other end can't receive. Where one that was handed over is by now, only the runtime knows:
/// it keeps its MTU.
fn set_mtu(netlink: &Netlink, made: &Made, link: &Link) -> Result<(), Error> {
    let Some(wanted) = &made.namespace else { return Ok(()) };
    let mtu = |index: u32, name: &str| {
        let change = LinkUnspec::new_with_index(index).mtu(made.mtu).build();
        let what = format!("set the MTU of {name} to {}", made.mtu);
        Request::change(what, RouteNetlinkMessage::SetLink(change))
    };
    let namespace = open(netlink, wanted)?;
    netlink.socket_in(&namespace)?.one(mtu(link.peer, &made.interface))?;
    netlink.socket().one(mtu(link.ifindex, &link.name)).map(|_| ())
}

/// Removes the host side, and with it the container's. It is fine if there is none.
pub fn remove(netlink: &Netlink, name: &str) -> Result<(), Error> {
    let link = LinkUnspec::new_with_name(name).build();
    let request =
        Request::change(format!("remove interface {name}"), RouteNetlinkMessage::DelLink(link));
    netlink.socket().one(request.tolerate(&[Errno::NODEV])).map(|_| ())
}

/// Removes many at once. One by one, each would wait for grace periods of its own, so they are put into a
/// group that nobody else is in, and the group is removed.
pub fn remove_all(netlink: &Netlink, names: &[String]) -> Result<(), Error> {
    let foreign = |link: &Link| link.group == DOOMED && !is_porins(link);
    if names.len() < 2 || host::links(netlink)?.iter().any(foreign) {
        return names.iter().try_for_each(|name| remove(netlink, name));
    }
    let doom = |name: &String| {
        let link = LinkUnspec::new_with_name(name).link_group(DOOMED).build();
        let what = format!("put interface {name} into a group to remove");
        Request::change(what, RouteNetlinkMessage::SetLink(link)).tolerate(&[Errno::NODEV])
    };
    let socket = netlink.socket();
    socket.all(names.iter().map(doom).collect())?;
    let group = LinkMessageBuilder::<LinkUnspec>::new().link_group(DOOMED).build();
    let what = format!("remove {} interfaces", names.len());
    let request = Request::change(what, RouteNetlinkMessage::DelLink(group));
    socket.one(request.tolerate(&[Errno::NODEV])).map(|_| ())
}

/// Another's interface is never made, configured or removed.
fn made(endpoint: &Endpoint) -> Result<&Made, Error> {
    let what = || format!("change {}, which is not porin's", endpoint.host_interface);
    endpoint.made().ok_or_else(|| Error::new(what(), Errno::PERM))
}

/// The namespace that was meant, still at its path, and not the host's.
fn open(netlink: &Netlink, wanted: &snapshot::Namespace) -> Result<Namespace, Error> {
    let namespace = Namespace::open(&wanted.path)?;
    let what = || format!("use {namespace}");
    if (namespace.device, namespace.inode) != (wanted.device, wanted.inode) {
        let reason = "another namespace has taken its place meanwhile";
        return Err(Error::new(what(), std::io::Error::other(reason)));
    }
    if namespace.is_same(netlink.home()) {
        let reason = "it is the host's own namespace";
        return Err(Error::new(what(), std::io::Error::other(reason)));
    }
    Ok(namespace)
}

fn make(
    netlink: &Netlink,
    endpoint: &Endpoint,
    made: &Made,
    namespace: Option<&Namespace>,
) -> Result<Link, Error> {
    let name = &endpoint.host_interface;
    let peer =
        LinkUnspec::new_with_name(&made.interface).mtu(made.mtu).address(made.mac.0.to_vec());
    let peer = match namespace {
        Some(namespace) => peer.setns_by_fd(namespace.as_fd().as_raw_fd()),
        None => peer.arp(false),
    }
    .build();
    let veth = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(name.as_str())
        .link_group(GROUP)
        .mtu(made.mtu)
        .address(made.host_mac().0.to_vec())
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    let inside = namespace.map_or_else(String::new, |namespace| format!(" in {namespace}"));
    let create = format!("create {}{inside}, with {name} on the host", made.interface);
    let socket = netlink.socket();
    socket.one(Request::create(create, RouteNetlinkMessage::NewLink(veth)))?;

    let quiet = message::without_link_local(LinkUnspec::new_with_name(name));
    let mut alias = format!("{ALIAS}{}", endpoint.name);
    alias.truncate(ALIAS_MAX); // names are ASCII
    let named = LinkUnspec::new_with_name(name).alias(alias).build();
    let query = message::link_query(LinkUnspec::new_with_name(name).build());
    let made = socket.all(vec![
        Request::change(format!("keep {name} without link-local address"), {
            RouteNetlinkMessage::SetLink(quiet)
        })
        .tolerate(&[Errno::AFNOSUPPORT]),
        Request::change(format!("name {name} as porin's"), RouteNetlinkMessage::SetLink(named)),
        Request::read(format!("read {name}"), query),
    ]);
    let link = made.and_then(|answers| {
        let link = answers.iter().find_map(message::link_of);
        link.ok_or_else(|| Error::new(format!("read {name}"), Errno::NODEV))
    });
    if link.is_err() {
        remove(netlink, name)?;
    }
    link
}

/// Something bears one of the names. If it is porin's and nobody needs it, it goes.
fn make_way(
    netlink: &Netlink,
    endpoint: &Endpoint,
    made: &Made,
    namespace: Option<&Namespace>,
    keep: &dyn Fn(&str) -> bool,
) -> Result<(), Error> {
    let name = &endpoint.host_interface;
    let taken = |what: String| Error::new(what, Errno::EXIST);
    if let Some(link) = host::link_by_name(&netlink.socket(), name)? {
        if !is_porins(&link) {
            return Err(taken(format!("create {name}, which exists and is not porin's")));
        }
        return remove(netlink, name);
    }
    let inside = &made.interface;
    let socket = namespace.map_or_else(|| Ok(netlink.socket()), |one| netlink.socket_in(one))?;
    let Some(there) = host::link_by_name(&socket, inside)? else {
        return Ok(());
    };
    let place = namespace.map_or_else(|| "on the host".to_owned(), |one| format!("in {one}"));
    let query = message::link_query(LinkUnspec::new_with_index(there.peer).build());
    let read = Request::read(format!("read the peer of {inside}"), query);
    let found = netlink.socket().one(read.tolerate(&[Errno::NODEV, Errno::INVAL]))?;
    let ours = found
        .first()
        .and_then(message::link_of)
        .filter(|link| link.peer == there.ifindex && is_porins(link));
    match ours {
        Some(link) if keep(&link.name) => {
            let owner = link.alias.strip_prefix(ALIAS).unwrap_or(&link.name);
            Err(taken(format!("create {inside} {place}, which endpoint {owner} has there")))
        }
        Some(link) => remove(netlink, &link.name),
        None => Err(taken(format!(
            "create {inside} {place}: an interface of that name is there and is not porin's"
        ))),
    }
}

/// Addresses, gateways and routes in the namespace. Requests are carried out in order.
fn furnish_inside(
    netlink: &Netlink,
    endpoint: &Endpoint,
    made: &Made,
    namespace: &Namespace,
    ifindex: u32,
) -> Result<(), Error> {
    let name = &made.interface;
    let quiet = message::without_link_local(LinkUnspec::new_with_index(ifindex));
    let up =
        |index: u32| RouteNetlinkMessage::SetLink(LinkUnspec::new_with_index(index).up().build());
    let mut requests = vec![
        Request::change(format!("bring lo up in {namespace}"), up(LOOPBACK)),
        Request::change(format!("keep {name} without link-local address in {namespace}"), {
            RouteNetlinkMessage::SetLink(quiet)
        })
        .tolerate(&[Errno::AFNOSUPPORT]),
        Request::change(format!("bring {name} up in {namespace}"), up(ifindex)),
    ];
    let mut defaults = Vec::new();
    for address in addresses(endpoint) {
        let gateway = gateway(address);
        requests.push(Request::replace(format!("add {address} to {name} in {namespace}"), {
            RouteNetlinkMessage::NewAddress(message::address(ifindex, address))
        }));
        requests.push(Request::replace(format!("add neighbour {gateway} in {namespace}"), {
            RouteNetlinkMessage::NewNeighbour(message::neighbour(ifindex, gateway, Mac::GATEWAY))
        }));
        // An earlier interface with the address may have left it, for a table that is empty by now.
        let stale = format!("remove an old rule about {address} in {namespace}");
        requests.push(
            Request::change(stale, RouteNetlinkMessage::DelRule(message::any_rule(address)))
                .tolerate(const { &[Errno::NOENT, Errno::AFNOSUPPORT, Errno::OPNOTSUPP] }),
        );
        defaults.push(Request::create(format!("add the route via {gateway} in {namespace}"), {
            RouteNetlinkMessage::NewRoute(message::default_route(ifindex, gateway))
        }));
    }
    let socket = netlink.socket_in(namespace)?;
    socket.all(requests)?;
    let mut beside = Vec::new();
    for (address, added) in addresses(endpoint).zip(socket.each(defaults)) {
        match added {
            Err(error) if error.is(Errno::EXIST) => {
                beside.extend(routes_beside(address, name, namespace, ifindex));
            }
            added => _ = added?,
        }
    }
    socket.all(beside).map(|_| ())
}

/// Another interface of the container has the default route. What has this one's address leaves by this one all the same: its
/// gate would let no other pass, nor the other's gate this. And it takes over when the other one is gone.
fn routes_beside(address: IpAddr, name: &str, namespace: &Namespace, ifindex: u32) -> [Request; 3] {
    let number = BESIDE.saturating_add(ifindex);
    let gateway = gateway(address);
    let route = |what: &str, message| {
        let what = format!("add {what} via {gateway} by {name} in {namespace}");
        Request::create(what, RouteNetlinkMessage::NewRoute(message))
    };
    let rule = format!("route what {address} sends by {name} in {namespace}");
    let rule = Request::create(rule, RouteNetlinkMessage::NewRule(message::rule(address, number)));
    [
        route("a second route", message::second_default_route(ifindex, gateway, number)),
        route("a route", message::default_route_in(number, ifindex, gateway)),
        // An earlier interface of the same number and address may have left it.
        rule.tolerate(&[Errno::EXIST]),
    ]
}

fn gateway(of: IpAddr) -> IpAddr {
    match of {
        IpAddr::V4(_) => IpAddr::V4(GATEWAY_IPV4),
        IpAddr::V6(_) => IpAddr::V6(GATEWAY_IPV6),
    }
}

pub(super) fn addresses(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> {
    let ipv6 = endpoint.ipv6.map(IpAddr::V6);
    ipv6.into_iter().chain(endpoint.ipv4.map(IpAddr::V4))
}

/// Whether an interface is an endpoint's: by its name, and by its alias or, if it was never finished, its group.
pub fn is_porins(link: &Link) -> bool {
    let marked = link.alias.starts_with(ALIAS) || matches!(link.group, GROUP | DOOMED);
    is_own_name(&link.name) && marked
}

/// Whether an endpoint's interface may be called so.
pub fn is_own_name(name: &str) -> bool {
    let digits = name.strip_prefix("pn");
    digits.is_some_and(|d| d.len() == 12 && d.bytes().all(|b| b.is_ascii_hexdigit()))
}
