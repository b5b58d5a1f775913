//! Veths that another program made: which of the host's interfaces leads to which container's.

use std::os::fd::{AsFd, AsRawFd};

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};

use super::endpoint::is_porins;
use super::message::Link;
use super::{Error, Namespace, Netlink, Request, host};
use crate::types::Mac;

/// A veth between the host and a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Veth {
    /// Of the end on the host.
    pub name: String,
    pub ifindex: u32,
    /// Of the end inside.
    pub mac: Option<Mac>,
}

/// Why there is no such veth. `Display` is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum NoVeth {
    #[error("there is no interface `{0}` in the {1}")]
    NoInterface(String, String),
    #[error("`{0}` is a {1} interface, no veth: the host has no interface that leads to it alone")]
    OtherKind(String, String),
    #[error("the other end of `{0}` is not in the host's network namespace")]
    Elsewhere(String),
    #[error("`{0}` is porin's own already")]
    IsPorins(String),
    #[error("the {0} is the host's own")]
    IsHost(String),
    #[error(transparent)]
    Failed(#[from] Error),
}

/// The veth whose end in `namespace` is called `inside`.
pub fn to(netlink: &Netlink, namespace: &Namespace, inside: &str) -> Result<Veth, NoVeth> {
    if namespace.is_same(netlink.home()) {
        return Err(NoVeth::IsHost(namespace.to_string()));
    }
    let Some(near) = host::link_by_name(&netlink.socket_in(namespace)?, inside)? else {
        return Err(NoVeth::NoInterface(inside.to_owned(), namespace.to_string()));
    };
    if near.kind != "veth" {
        let kind = if near.kind.is_empty() { "hardware".to_owned() } else { near.kind };
        return Err(NoVeth::OtherKind(inside.to_owned(), kind));
    }
    let Some(far) = host_end(netlink, namespace, &near)? else {
        return Err(NoVeth::Elsewhere(inside.to_owned()));
    };
    if is_porins(&far) {
        return Err(NoVeth::IsPorins(inside.to_owned()));
    }
    Ok(Veth { name: far.name, ifindex: far.ifindex, mac: near.mac })
}

/// The other end, on the host, of the veth `near` in `namespace`; none: it is no veth, or leads elsewhere. Numbers of
/// interfaces mean nothing without their namespace, and the same ones are in each: so both ends must say that the other is the other.
pub fn host_end(
    netlink: &Netlink,
    namespace: &Namespace,
    near: &Link,
) -> Result<Option<Link>, Error> {
    if near.kind != "veth" || near.peer_namespace.is_none() {
        return Ok(None);
    }
    // Older kernels do not say the other end's number if it is this one's.
    let number_of = |other: u32, own: u32| if other == 0 { own } else { other };
    let peer = number_of(near.peer, near.ifindex);
    let Some(far) = host::link_by_index(&netlink.socket(), peer)? else { return Ok(None) };
    let mutual = far.kind == "veth" && number_of(far.peer, far.ifindex) == near.ifindex;
    if !mutual || far.peer_namespace.is_none() {
        return Ok(None);
    }
    // Asked for last: to tell of the link above, the kernel gives a number to a namespace that had none.
    let known = number(netlink, namespace)?;
    Ok(Some(far).filter(|far| far.peer_namespace == known))
}

/// What the host's namespace calls another; none: nothing yet (rtnetlink(7), RTM_GETNSID).
fn number(netlink: &Netlink, namespace: &Namespace) -> Result<Option<i32>, Error> {
    let mut query = NsidMessage::default();
    let fd = namespace.as_fd().as_raw_fd();
    query.attributes.push(NsidAttribute::Fd(fd.unsigned_abs()));
    let what = format!("ask for the number of the {namespace}");
    let answers = netlink.socket().one(Request::read(what, RouteNetlinkMessage::GetNsId(query)))?;
    Ok(answers.iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewNsId(message) => message.attributes.iter().find_map(|a| match a {
            NsidAttribute::Id(id) if *id >= 0 => Some(*id),
            _ => None,
        }),
        _ => None,
    }))
}
