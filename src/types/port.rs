//! Protocols and ports of rules.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::icmp::{self, Codes, Message};
use super::{Invalid, Name};

/// An IP protocol number (IANA "Assigned Internet Protocol Numbers").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Protocol(pub u8);

impl Protocol {
    pub const ICMP: Protocol = Protocol(1);
    pub const TCP: Protocol = Protocol(6);
    pub const UDP: Protocol = Protocol(17);
    pub const DCCP: Protocol = Protocol(33);
    pub const ICMPV6: Protocol = Protocol(58);
    pub const SCTP: Protocol = Protocol(132);
    pub const UDPLITE: Protocol = Protocol(136);

    /// Those that can be written by name.
    pub const NAMES: [(&'static str, Protocol); 11] = [
        ("tcp", Self::TCP),
        ("udp", Self::UDP),
        ("sctp", Self::SCTP),
        ("icmp", Self::ICMP),
        ("icmpv6", Self::ICMPV6),
        ("gre", Protocol(47)),
        ("esp", Protocol(50)),
        ("ah", Protocol(51)),
        ("udplite", Self::UDPLITE),
        ("dccp", Self::DCCP),
        ("igmp", Protocol(2)),
    ];

    pub fn named(name: &str) -> Option<Protocol> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, protocol)| *protocol)
    }

    /// Source and destination ports are its first four bytes.
    pub fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP | Self::UDPLITE | Self::DCCP)
    }

    /// What rules see of the port: an echo request has code 0 to them, whatever is in it, as echoes are told by their
    /// identifiers (RFC 792, RFC 4443 section 4.1: the code is 0).
    pub fn judged_port(self, port: u16) -> u16 {
        match (self, port >> 8) {
            (Self::ICMP, 8) | (Self::ICMPV6, 128) => port & 0xff00,
            _ => port,
        }
    }

    /// ICMP and ICMPv6: what stands for a port is type and code.
    pub fn has_types(self) -> bool {
        matches!(self, Self::ICMP | Self::ICMPV6)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, protocol)| protocol == self) {
            Some((name, _)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

/// Ports `first..=last`; for ICMP and ICMPv6 `type << 8 | code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// With 0, which nobody can write.
    pub const ALL: PortRange = PortRange { first: 0, last: u16::MAX };

    pub fn new(first: u16, last: u16) -> Result<Self, Invalid> {
        if first > last {
            return Err(Invalid::new(format!("the range {first}-{last} is empty"))
                .hint(format!("write {last}-{first}")));
        }
        Ok(PortRange { first, last })
    }

    /// The fewest ranges that are the same ports; sorted.
    pub fn merged(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
        ranges.sort_unstable();
        let mut merged: Vec<PortRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => {
                    last.last = last.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        merged
    }

    pub fn first(self) -> u16 {
        self.first
    }

    pub fn last(self) -> u16 {
        self.last
    }

    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

/// What a rule says of protocol and port; `port_text` has how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PortMatch {
    pub protocol: Protocol,
    pub ports: PortRange,
}

/// What a rule says of ports: numbers, or a name that each receiver gives a number to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortSpec {
    Match(PortMatch),
    /// `NAME/tcp`: the receiver's `ports` entry of this name, if it has that protocol. Who has none has no such port.
    Named {
        name: Name,
        protocol: Protocol,
    },
}

impl From<PortMatch> for PortSpec {
    fn from(ports: PortMatch) -> Self {
        PortSpec::Match(ports)
    }
}

impl PortSpec {
    /// Which ports that is for a receiver with these named ports; none: it has no such port.
    pub fn of(&self, ports: &BTreeMap<Name, PortMatch>) -> Option<PortMatch> {
        match self {
            PortSpec::Match(ports) => Some(*ports),
            PortSpec::Named { name, protocol } => {
                ports.get(name).copied().filter(|ports| ports.protocol == *protocol)
            }
        }
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortSpec::Match(ports) => ports.fmt(f),
            PortSpec::Named { name, protocol } => write!(f, "{name}/{protocol}"),
        }
    }
}

impl PortMatch {
    pub fn matches(self, protocol: Protocol, port: u16) -> bool {
        self.protocol == protocol && self.ports.contains(port)
    }
}

impl PortMatch {
    pub fn whole(protocol: Protocol) -> Self {
        PortMatch { protocol, ports: PortRange::ALL }
    }
}

/// A port number as written: decimal, no sign, no leading zero, not 0 (RFC 6335: reserved).
pub fn port(text: &str) -> Result<u16, Invalid> {
    let digits =
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    match text.parse() {
        Ok(port) if digits => Ok(port),
        _ => Err(Invalid::new(format!("`{text}` is not a port")).hint("ports are 1 to 65535")),
    }
}

/// As [`PortMatch::from_str`](std::str::FromStr::from_str) reads it.
impl fmt::Display for PortMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PortRange { first, last } = self.ports;
        let named = Protocol::NAMES.iter().any(|(_, protocol)| *protocol == self.protocol);
        match (self.protocol, first, last) {
            (protocol, 0, u16::MAX) if named => protocol.fmt(f),
            (protocol, 0, u16::MAX) => write!(f, "protocol/{protocol}"),
            (protocol, first, last) if protocol.has_types() && first >> 8 == last >> 8 => {
                self.fmt_icmp(f)
            }
            (protocol, first, last) if first == last => write!(f, "{first}/{protocol}"),
            (protocol, first, last) => write!(f, "{first}-{last}/{protocol}"),
        }
    }
}

impl PortMatch {
    /// Of one type.
    fn fmt_icmp(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (protocol, [kind, first]) = (self.protocol, self.ports.first.to_be_bytes());
        let [_, last] = self.ports.last.to_be_bytes();
        let known = icmp::of_kind(protocol, kind);
        match (known, first, last) {
            (Some(Message { name, codes: Codes::Zero, .. }), 0, 0)
            | (Some(Message { name, codes: Codes::Named(_), .. }), 0, 255) => {
                write!(f, "{protocol}/{name}")
            }
            (_, 0, 255) => write!(f, "{protocol}/{kind}"),
            (Some(message), first, last) if first == last => {
                match message.code_names().get(usize::from(first)) {
                    Some(code) => write!(f, "{protocol}/{}/{code}", message.name),
                    None => write!(f, "{protocol}/{}/{first}", message.name),
                }
            }
            (None, first, last) if first == last => write!(f, "{protocol}/{kind}/{first}"),
            (_, first, last) => write!(f, "{protocol}/{kind}/{first}-{last}"),
        }
    }
}

/// `80` or `8000-8100`.
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => self.first.fmt(f),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}
