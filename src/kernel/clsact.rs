//! Gates as cls_bpf filters in direct-action mode (tc-bpf(8)), on the clsact qdisc.
//!
//! The kernel puts a filter's new program in the place of the old one by one pointer, so no packet is
//! without; unlike with tcx, nobody waits for a grace period.
//! Porin's filters have a handle, a priority and a name of their own; all three must match before one is
//! taken for porin's.

use std::os::fd::{AsRawFd, BorrowedFd};

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};
use rustix::io::Errno;

use super::links::{Hook, Tag};
use super::netlink::{Error, Netlink, Request};

const HANDLE: u32 = 1;
/// "po". Far behind what people write by hand.
const PRIORITY: u16 = 0x706f;
const NAME: &str = "porin";
/// `ETH_P_ALL`, in network order.
const EVERYTHING: u16 = 3u16.to_be();

/// False if the interface has such a qdisc already.
pub fn add_qdisc(netlink: &Netlink, interface: &str, ifindex: u32) -> Result<bool, Error> {
    let mut message = qdisc(ifindex)?;
    message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    let request = Request::create(
        format!("add a clsact qdisc to {interface}"),
        RouteNetlinkMessage::NewQueueDiscipline(message),
    );
    match netlink.socket().one(request) {
        Ok(_) => Ok(true),
        Err(error) if error.is(Errno::EXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Puts porin's filters in their places, of which those that are taken must be porin's.
pub fn replace(
    netlink: &Netlink,
    interface: &str,
    ifindex: u32,
    programs: [BorrowedFd<'_>; 2],
) -> Result<(), Error> {
    for hook in Hook::BOTH {
        let found = filters(netlink, interface, ifindex, hook)?;
        if found.iter().any(|filter| filter.in_our_place && !filter.ours) {
            return Err(Error::new(
                format!("{}: priority {PRIORITY} is another's", attaching(interface, hook)),
                Errno::BUSY,
            ));
        }
    }
    attach(netlink, interface, ifindex, programs)
}

/// As [`replace`], on a qdisc that is new, so that nobody else's can be there.
pub fn attach(
    netlink: &Netlink,
    interface: &str,
    ifindex: u32,
    programs: [BorrowedFd<'_>; 2],
) -> Result<(), Error> {
    let mut requests = Vec::new();
    for (hook, program) in Hook::BOTH.into_iter().zip(programs) {
        let what = attaching(interface, hook);
        let Ok(fd) = u32::try_from(program.as_raw_fd()) else {
            return Err(Error::new(what, Errno::BADF));
        };
        let mut message = filter(ifindex, hook)?;
        message.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
        message.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(fd)),
            TcOption::Bpf(TcFilterBpfOption::ProgName(NAME.to_owned())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
        requests.push(Request::replace(what, RouteNetlinkMessage::NewTrafficFilter(message)));
    }
    netlink.socket().all(requests).map(|_| ())
}

fn attaching(interface: &str, hook: Hook) -> String {
    format!("attach the {} gate to {interface} by clsact", hook.name())
}

/// Removes porin's filters, and the qdisc if `with_qdisc` and nobody else's filter is on it.
pub fn detach(
    netlink: &Netlink,
    interface: &str,
    ifindex: u32,
    with_qdisc: bool,
) -> Result<(), Error> {
    let mut others = false;
    for hook in Hook::BOTH {
        let found = filters(netlink, interface, ifindex, hook)?;
        others |= found.iter().any(|filter| !filter.ours);
        if found.iter().any(|filter| filter.ours) {
            let message = RouteNetlinkMessage::DelTrafficFilter(filter(ifindex, hook)?);
            let what = format!("detach the {} gate from {interface}", hook.name());
            netlink.socket().one(Request::change(what, message).tolerate(&[Errno::NOENT]))?;
        }
    }
    if with_qdisc && !others {
        let message = RouteNetlinkMessage::DelQueueDiscipline(qdisc(ifindex)?);
        let what = format!("remove the clsact qdisc from {interface}");
        let gone = &[Errno::NOENT, Errno::INVAL, Errno::NODEV];
        netlink.socket().one(Request::change(what, message).tolerate(gone))?;
    }
    Ok(())
}

/// The code of porin's filters on each interface, by hook.
pub fn tags(netlink: &Netlink, ifindexes: &[u32]) -> Result<Vec<[Option<Tag>; 2]>, Error> {
    /// No such qdisc, filter or interface.
    const ABSENT: &[Errno] = &[Errno::INVAL, Errno::NOENT, Errno::NODEV];
    /// Answers to so many fit into a socket's buffer.
    const BATCH: usize = 32;
    let mut tags = Vec::with_capacity(ifindexes.len());
    for some in ifindexes.chunks(BATCH) {
        let mut requests = Vec::with_capacity(some.len() * 2);
        for ifindex in some {
            for hook in Hook::BOTH {
                let message = RouteNetlinkMessage::GetTrafficFilter(filter(*ifindex, hook)?);
                let what = format!("read the {} gate of interface {ifindex}", hook.name());
                requests.push(Request::read(what, message).tolerate(ABSENT));
            }
        }
        let mut answers = netlink.socket().each(requests).into_iter();
        let mut next = || -> Result<Option<Tag>, Error> {
            let answers = answers.next().transpose()?.unwrap_or_default();
            let found = answers.iter().filter_map(found).find(|filter| filter.ours);
            Ok(found.and_then(|filter| filter.tag))
        };
        for _ in some {
            tags.push([next()?, next()?]);
        }
    }
    Ok(tags)
}

struct Found {
    ours: bool,
    in_our_place: bool,
    tag: Option<Tag>,
}

/// All filters of a hook; none if there is no such qdisc.
fn filters(
    netlink: &Netlink,
    interface: &str,
    ifindex: u32,
    hook: Hook,
) -> Result<Vec<Found>, Error> {
    let mut query = TcMessage::with_index(index(ifindex)?);
    query.header.parent = parent(hook);
    let what = format!("list the {} filters of {interface}", hook.name());
    let request = Request::dump(what, RouteNetlinkMessage::GetTrafficFilter(query));
    let answers = netlink.socket().one(request.tolerate(&[Errno::INVAL, Errno::NOENT]))?;
    Ok(answers.iter().filter_map(found).collect())
}

fn found(answer: &RouteNetlinkMessage) -> Option<Found> {
    let RouteNetlinkMessage::NewTrafficFilter(message) = answer else { return None };
    // The classifier itself is listed too, without an instance.
    let options = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let in_our_place =
        message.header.handle == HANDLE.into() && message.header.info >> 16 == u32::from(PRIORITY);
    let mut named = false;
    let mut tag = None;
    for option in options {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => named = name == NAME,
            TcOption::Bpf(TcFilterBpfOption::ProgTag(bytes)) => tag = Some(*bytes),
            _ => {}
        }
    }
    Some(Found { ours: in_our_place && named, in_our_place, tag })
}

fn qdisc(ifindex: u32) -> Result<TcMessage, Error> {
    let mut message = TcMessage::with_index(index(ifindex)?);
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: 0xffff, minor: 0 };
    Ok(message)
}

fn filter(ifindex: u32, hook: Hook) -> Result<TcMessage, Error> {
    let mut message = TcMessage::with_index(index(ifindex)?);
    message.header.parent = parent(hook);
    message.header.handle = HANDLE.into();
    message.header.info = u32::from(PRIORITY) << 16 | u32::from(EVERYTHING);
    Ok(message)
}

fn parent(hook: Hook) -> TcHandle {
    let minor = match hook {
        Hook::Ingress => TcHandle::MIN_INGRESS,
        Hook::Egress => TcHandle::MIN_EGRESS,
    };
    TcHandle { major: 0xffff, minor }
}

fn index(ifindex: u32) -> Result<i32, Error> {
    i32::try_from(ifindex).map_err(|_| Error::new("use an interface index", Errno::INVAL))
}
