//! How packets get to the L7 worker's sockets: what the datapath has marked for them is delivered to the host itself,
//! whatever its destination is (Documentation/networking/tproxy.rst of Linux).

use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteHeader, RouteMessage, RouteScope, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::{Error, Netlink, Request};
use crate::kernel::datapath::abi;
use crate::kernel::netlink::host::LOOPBACK;

/// The table that says so, and nothing else: "por", and the mark's own number, which nobody else has by chance. (In
/// containers there are tables of neighbouring numbers; those are of other namespaces.)
pub const TABLE: u32 = abi::MARK_STEER;
/// Of the rule: behind `local` (0), as what is for the host goes there anyway, and before all others, those of VRFs (1000)
/// among them.
pub const PRIORITY: u32 = 112;

/// Of packets that are led there.
pub const MARK: u32 = abi::MARK_STEER;

/// What is there already stays. Whether a rule was not there.
pub fn add(netlink: &Netlink) -> Result<bool, Error> {
    let mut requests = Vec::new();
    for (name, route, rule) in families() {
        requests.push(
            Request::replace(
                format!("add the {name} route to the L7 worker"),
                RouteNetlinkMessage::NewRoute(route),
            )
            .tolerate(NO_FAMILY),
        );
        requests.push(Request::create(
            format!("add the {name} rule for the L7 worker"),
            RouteNetlinkMessage::NewRule(rule),
        ));
    }
    let mut added = false;
    for (turn, answer) in netlink.socket().each(requests).into_iter().enumerate() {
        match answer {
            // Routes are replaced, which does not say what was there; every second is a rule.
            Ok(_) => added |= turn % 2 == 1,
            Err(error) if IS_SO.iter().any(|errno| error.is(*errno)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(added)
}

/// It is fine if nothing is there.
pub fn remove(netlink: &Netlink) -> Result<(), Error> {
    let mut requests = Vec::new();
    for (name, route, rule) in families() {
        let rule = RouteNetlinkMessage::DelRule(rule);
        let what = format!("remove the {name} rule for the L7 worker");
        requests.push(Request::change(what, rule).tolerate(REMOVED));
        let route = RouteNetlinkMessage::DelRoute(route);
        let what = format!("remove the {name} route to the L7 worker");
        requests.push(Request::change(what, route).tolerate(REMOVED));
    }
    netlink.socket().all(requests).map(|_| ())
}

/// A kernel without IPv6.
const NO_FAMILY: &[Errno] = &[Errno::AFNOSUPPORT, Errno::OPNOTSUPP];
const IS_SO: &[Errno] = &[Errno::EXIST, Errno::AFNOSUPPORT, Errno::OPNOTSUPP];
const REMOVED: &[Errno] = &[Errno::NOENT, Errno::SRCH, Errno::AFNOSUPPORT, Errno::OPNOTSUPP];

fn families() -> [(&'static str, RouteMessage, RuleMessage); 2] {
    let ipv4 = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
        .output_interface(LOOPBACK)
        .kind(RouteType::Local)
        .scope(RouteScope::Host)
        .table_id(TABLE)
        .build();
    let ipv6 = RouteMessageBuilder::<std::net::Ipv6Addr>::new()
        .output_interface(LOOPBACK)
        .kind(RouteType::Local)
        .table_id(TABLE)
        .build();
    [
        ("IPv6", unspecific(ipv6), rule(AddressFamily::Inet6)),
        ("IPv4", unspecific(ipv4), rule(AddressFamily::Inet)),
    ]
}

/// What does not fit into the octet of the header is in the attribute (rtnetlink(7)).
fn unspecific(mut route: RouteMessage) -> RouteMessage {
    route.header.table = RouteHeader::RT_TABLE_UNSPEC;
    route
}

fn rule(family: AddressFamily) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family;
    message.header.action = RuleAction::ToTable;
    message.attributes.extend([
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::FwMark(abi::MARK_STEER),
        RuleAttribute::FwMask(u32::MAX),
        RuleAttribute::Table(TABLE),
    ]);
    message
}
