//! Takes expired flows out of conntrack, and tells what they were.
//!
//! The datapath treats an expired entry as absent, so nothing here decides what may pass; this
//! frees room and yields the flow log its ends.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::datapath::{Maps, Result, abi, bytes_of};
use crate::types::{Cookie, Generation, Peer, Protocol, Verdict};

/// A flow that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowRecord {
    pub protocol: Protocol,
    /// Who sent the first packet.
    pub source: (IpAddr, u16),
    pub destination: (IpAddr, u16),
    /// From the source, and back.
    pub packets: [u64; 2],
    /// Of L3 and above.
    pub bytes: [u64; 2],
    /// Of the monotonic clock.
    pub first_seen: Duration,
    pub last_seen: Duration,
    /// Identity or address class of source and destination.
    pub peers: [Peer; 2],
    pub egress_cookie: Cookie,
    pub ingress_cookie: Cookie,
    /// In which it was judged last.
    pub generation: Generation,
    pub verdict: Option<Verdict>,
    /// What the outside saw as its source.
    pub masqueraded: Option<(Ipv4Addr, u16)>,
    pub end: FlowEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowEnd {
    /// Both sides were done.
    Closed,
    Reset,
    /// Silent for too long.
    Expired,
}

/// One pass over all flows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    pub ended: usize,
    /// Those that go on.
    pub alive: usize,
    /// Mappings whose flow was gone.
    pub mappings: usize,
}

/// A mapping is made a moment before its flow.
const MAPPING_GRACE: Duration = Duration::from_secs(5);

/// The clock that flows are stamped with.
pub fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // Neither is negative on this clock.
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Removes what has expired by `now`. A packet that revives an entry between the look and the removal
/// makes its flow anew with the next one; the pass looks at few entries at a time to make that rare.
///
/// Each flow that has ended is told to `tell` at once: all together may be many.
pub fn sweep(maps: &Maps, now: Duration, mut tell: impl FnMut(FlowRecord)) -> Result<Swept> {
    let mut swept = Swept::default();
    let mut live = HashSet::new();
    let mut failure = Ok(());
    maps.each_flow4(|key, flow| {
        if !expired(key.protocol, &flow, now) {
            swept.alive += 1;
            if masqueraded(&flow) {
                live.insert(bytes4(&key));
            }
            return;
        }
        let addresses = key.address.map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
        swept.ended += 1;
        note(&mut failure, maps.delete_flow4(&key));
        tell(record(key.protocol, addresses, key.port, &flow));
    })?;
    maps.each_flow6(|key, flow| {
        if !expired(key.protocol, &flow, now) {
            swept.alive += 1;
            return;
        }
        let addresses = key.address.map(|octets| IpAddr::V6(Ipv6Addr::from(octets)));
        swept.ended += 1;
        note(&mut failure, maps.delete_flow6(&key));
        tell(record(key.protocol, addresses, key.port, &flow));
    })?;
    for (key, value) in maps.nat4()? {
        let age = now.saturating_sub(Duration::from_nanos(value.last_seen));
        if age > MAPPING_GRACE && !live.contains(&bytes4(&flow_of(&key, &value))) {
            note(&mut failure, maps.delete_nat4(&key));
            swept.mappings += 1;
        }
    }
    failure.map(|()| swept)
}

/// The first failure is the one to tell; the pass goes on.
fn note(first: &mut Result<()>, result: Result<()>) {
    if first.is_ok() {
        *first = result;
    }
}

/// The address is stored last, so with it the mapping is complete; the flag says nothing yet.
fn masqueraded(flow: &abi::Flow) -> bool {
    flow.nat_address != [0; 4]
}

fn expired(protocol: u8, flow: &abi::Flow, now: Duration) -> bool {
    let age = now.saturating_sub(Duration::from_nanos(flow.last_seen));
    age > timeout(Protocol(protocol), flow.flags)
}

/// Whether a TCP flow goes on.
pub fn is_alive(flow: &abi::Flow, now: Duration) -> bool {
    end(flow.flags) == FlowEnd::Expired && !expired(Protocol::TCP.0, flow, now)
}

/// As `flow_timeout` in `bpf/lib/conntrack.h`.
fn timeout(protocol: Protocol, flags: u32) -> Duration {
    const UDPLITE: Protocol = Protocol(136);
    let seconds = match protocol {
        Protocol::TCP if end(flags) != FlowEnd::Expired => abi::TIMEOUT_TCP_CLOSING,
        Protocol::TCP if flags & abi::FLOW_ESTABLISHED != 0 => abi::TIMEOUT_TCP_ESTABLISHED,
        Protocol::TCP => abi::TIMEOUT_TCP_SYN,
        Protocol::UDP | UDPLITE if flags & abi::FLOW_SEEN_REPLY != 0 => abi::TIMEOUT_UDP_REPLIED,
        Protocol::UDP | UDPLITE => abi::TIMEOUT_UDP,
        Protocol::ICMP | Protocol::ICMPV6 => abi::TIMEOUT_ICMP,
        _ => abi::TIMEOUT_OTHER,
    };
    Duration::from_secs(seconds)
}

fn end(flags: u32) -> FlowEnd {
    let both = abi::FLOW_FIN_ORIGINAL | abi::FLOW_FIN_REPLY;
    if flags & abi::FLOW_RST != 0 {
        FlowEnd::Reset
    } else if flags & both == both {
        FlowEnd::Closed
    } else {
        FlowEnd::Expired
    }
}

fn record(protocol: u8, addresses: [IpAddr; 2], ports: [u16; 2], flow: &abi::Flow) -> FlowRecord {
    let ends = [0, 1].map(|i| (addresses[i], u16::from_be(ports[i])));
    let low_originates = flow.flags & abi::FLOW_LOW_ORIGINATES != 0;
    let [source, destination] = if low_originates { ends } else { [ends[1], ends[0]] };
    FlowRecord {
        protocol: Protocol(protocol),
        source,
        destination,
        packets: flow.packets,
        bytes: flow.bytes,
        first_seen: Duration::from_nanos(flow.first_seen),
        last_seen: Duration::from_nanos(flow.last_seen),
        peers: flow.identity.map(Peer),
        egress_cookie: Cookie(flow.egress_cookie),
        ingress_cookie: Cookie(flow.ingress_cookie),
        generation: Generation(abi::judged_generation(flow.judged)),
        verdict: match abi::judged_verdict(flow.judged) {
            abi::VERDICT_ALLOW => Some(Verdict::Allow),
            abi::VERDICT_DENY => Some(Verdict::Deny),
            abi::VERDICT_REJECT => Some(Verdict::Reject),
            _ => None,
        },
        masqueraded: masqueraded(flow)
            .then(|| (Ipv4Addr::from(flow.nat_address), u16::from_be(flow.nat_port))),
        end: end(flow.flags),
    }
}

/// The key of the flow that a mapping belongs to: the lower (address, port) first.
fn flow_of(key: &abi::NatKey, value: &abi::NatValue) -> abi::Flow4Key {
    // Echo has the identifier for both ports, and no remote one in the mapping.
    let echo = key.protocol == Protocol::ICMP.0;
    let remote = (key.remote_address, if echo { value.port } else { key.remote_port });
    let own = (value.address, value.port);
    let order = |(address, port): ([u8; 4], u16)| (address, u16::from_be(port));
    let [low, high] = if order(own) <= order(remote) { [own, remote] } else { [remote, own] };
    abi::Flow4Key {
        address: [low.0, high.0],
        port: [low.1, high.1],
        protocol: key.protocol,
        ..abi::Flow4Key::default()
    }
}

fn bytes4(key: &abi::Flow4Key) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(bytes_of(key)); // the size is asserted in abi.rs
    bytes
}
