//! Messages as porin needs them, and what it reads from the kernel's.

use std::net::IpAddr;

use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

use crate::types::Mac;

/// The whole address: /32 or /128.
pub fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// Usable at once: nobody else can have it, so duplicates are not looked for.
pub fn address(ifindex: u32, address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = bits(address);
    message.header.index = ifindex;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    if address.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

/// `address` is at `mac`, for ever.
pub fn neighbour(ifindex: u32, address: IpAddr, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = ifindex;
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::Destination(match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    }));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
}

/// Everything through `gateway`, which no subnet of the interface contains.
pub fn default_route(ifindex: u32, gateway: IpAddr) -> RouteMessage {
    match gateway {
        IpAddr::V4(gateway) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .gateway(gateway)
            .output_interface(ifindex)
            .onlink()
            .build(),
        IpAddr::V6(gateway) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .gateway(gateway)
            .output_interface(ifindex)
            .onlink()
            .build(),
    }
}

/// The same, when no other default route is there any more: what has a lower metric comes first.
pub fn second_default_route(ifindex: u32, gateway: IpAddr, metric: u32) -> RouteMessage {
    let mut route = default_route(ifindex, gateway);
    route.attributes.push(RouteAttribute::Priority(metric));
    route
}

/// The same, in a table of its own (see [`rule`]).
pub fn default_route_in(table: u32, ifindex: u32, gateway: IpAddr) -> RouteMessage {
    let mut route = default_route(ifindex, gateway);
    // What does not fit into the octet of the header is in the attribute (rtnetlink(7)).
    route.header.table = RouteHeader::RT_TABLE_UNSPEC;
    route.attributes.push(RouteAttribute::Table(table));
    route
}

/// A rule about this source, whatever its table.
pub fn any_rule(source: IpAddr) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(source);
    message.header.src_len = bits(source);
    message.header.action = RuleAction::ToTable;
    message.attributes.push(RuleAttribute::Source(source));
    message
}

/// What has the address as its source is routed by that table first.
pub fn rule(source: IpAddr, table: u32) -> RuleMessage {
    let mut message = any_rule(source);
    message.attributes.push(RuleAttribute::Table(table));
    message
}

/// `address` is behind the interface. What the host sends there comes from `source`.
pub fn host_route(ifindex: u32, address: IpAddr, source: Option<IpAddr>) -> RouteMessage {
    match address {
        IpAddr::V4(address) => {
            let route = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(address, 32)
                .output_interface(ifindex)
                .scope(rtnetlink::packet_route::route::RouteScope::Link)
                .protocol(RouteProtocol::Static);
            match source {
                Some(IpAddr::V4(source)) => route.pref_source(source).build(),
                _ => route.build(),
            }
        }
        IpAddr::V6(address) => {
            let route = RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(address, 128)
                .output_interface(ifindex)
                .protocol(RouteProtocol::Static);
            match source {
                Some(IpAddr::V6(source)) => route.pref_source(source).build(),
                _ => route.build(),
            }
        }
    }
}

/// No link-local address of its own: the datapath would drop all that it says.
pub fn without_link_local(link: LinkMessageBuilder<LinkUnspec>) -> LinkMessage {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let spec = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]);
    link.append_extra_attribute(spec).build()
}

/// Asks for links, without statistics.
pub fn link_query(mut message: LinkMessage) -> RouteNetlinkMessage {
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(message)
}

/// What porin wants to know of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    pub ifindex: u32,
    pub name: String,
    pub alias: String,
    pub mac: Option<Mac>,
    pub mtu: u32,
    pub group: u32,
    pub up: bool,
    /// What is sent into it is passed on: see `ready`.
    pub ready: bool,
    /// ifindex of a veth's other end, in that one's namespace.
    pub peer: u32,
    /// Number of the other end's namespace, as the one that was asked counts them; none: it is the same.
    pub peer_namespace: Option<i32>,
    /// What it is, as the kernel calls it: `veth`, `bridge`. Empty: a device.
    pub kind: String,
    /// ifindex of the bridge, or the like, that it is a port of; 0: none.
    pub master: u32,
    /// It has Ethernet frames, and is no loopback.
    pub ethernet: bool,
}

impl Link {
    pub fn parse(message: &LinkMessage) -> Self {
        use rtnetlink::packet_route::link::{LinkFlags, LinkLayerType, State};
        let mut link = Link {
            ifindex: message.header.index,
            up: message.header.flags.contains(LinkFlags::Up),
            ethernet: message.header.link_layer_type == LinkLayerType::Ether,
            ..Link::default()
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Group(group) => link.group = *group,
                LinkAttribute::Link(peer) => link.peer = *peer,
                LinkAttribute::LinkNetNsId(id) => link.peer_namespace = Some(*id),
                LinkAttribute::LinkInfo(infos) => link.kind = kind(infos),
                LinkAttribute::OperState(state) => link.ready = *state == State::Up,
                LinkAttribute::Controller(master) => link.master = *master,
                LinkAttribute::Address(mac) => {
                    link.mac = mac.as_slice().try_into().ok().map(Mac);
                }
                _ => {}
            }
        }
        link
    }
}

fn kind(infos: &[LinkInfo]) -> String {
    let kind = infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    });
    kind.unwrap_or_default()
}

/// The link in an answer, if there is one.
pub fn link_of(message: &RouteNetlinkMessage) -> Option<Link> {
    match message {
        RouteNetlinkMessage::NewLink(link) => Some(Link::parse(link)),
        _ => None,
    }
}
