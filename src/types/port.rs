//! Protocols and ports of rules.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Invalid, Name};

/// An IP protocol number (IANA "Assigned Internet Protocol Numbers").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Protocol(pub u8);

impl Protocol {
    pub const ICMP: Protocol = Protocol(1);
    pub const TCP: Protocol = Protocol(6);
    pub const UDP: Protocol = Protocol(17);
    pub const ICMPV6: Protocol = Protocol(58);
    pub const SCTP: Protocol = Protocol(132);

    const NAMES: [(&'static str, Protocol); 5] = [
        ("tcp", Self::TCP),
        ("udp", Self::UDP),
        ("icmp", Self::ICMP),
        ("icmpv6", Self::ICMPV6),
        ("sctp", Self::SCTP),
    ];

    pub fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP)
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
    pub const ALL: PortRange = PortRange { first: 0, last: u16::MAX };

    pub fn new(first: u16, last: u16) -> Result<Self, Invalid> {
        if first > last {
            return Err(Invalid::new(format!("the range {first}-{last} is empty"))
                .hint(format!("write {last}-{first}")));
        }
        Ok(PortRange { first, last })
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

/// What a rule says of protocol and port. Written `8080/tcp`, `8000-8100/udp`, `*/tcp`, `icmp/echo-request`,
/// `icmpv6/echo-request`, `icmp`, `icmpv6`, `tcp`, `udp`.
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

const HINT: &str = "write PORT/tcp, FIRST-LAST/udp, tcp, udp, icmp, icmpv6, icmp/echo-request or icmpv6/echo-request";

impl FromStr for PortMatch {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "tcp" => return Ok(Self::whole(Protocol::TCP)),
            "udp" => return Ok(Self::whole(Protocol::UDP)),
            "icmp" => return Ok(Self::whole(Protocol::ICMP)),
            "icmpv6" => return Ok(Self::whole(Protocol::ICMPV6)),
            "icmp/echo-request" => return Ok(Self::icmp(Protocol::ICMP, 8)),
            "icmpv6/echo-request" => return Ok(Self::icmp(Protocol::ICMPV6, 128)),
            _ => {}
        }
        let Some((ports, protocol)) = text.split_once('/') else {
            return Err(Invalid::new(format!("`{text}` names no protocol")).hint(HINT));
        };
        let protocol = match protocol {
            "tcp" => Protocol::TCP,
            "udp" => Protocol::UDP,
            other => {
                return Err(Invalid::new(format!("unknown protocol `{other}`")).hint(HINT));
            }
        };
        let ports = if ports == "*" {
            PortRange::ALL
        } else if let Some((first, last)) = ports.split_once('-') {
            PortRange::new(port(first)?, port(last)?)?
        } else {
            let port = port(ports)?;
            PortRange::new(port, port)?
        };
        Ok(PortMatch { protocol, ports })
    }
}

impl PortMatch {
    fn whole(protocol: Protocol) -> Self {
        PortMatch { protocol, ports: PortRange::ALL }
    }

    /// One ICMP type with code 0, the only code that echo has (RFC 792, RFC 4443 section 4.1).
    fn icmp(protocol: Protocol, kind: u8) -> Self {
        let port = u16::from(kind) << 8;
        PortMatch { protocol, ports: PortRange { first: port, last: port } }
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

impl fmt::Display for PortMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PortRange { first, last } = self.ports;
        match (self.protocol, first, last) {
            (protocol, 0, u16::MAX) => protocol.fmt(f),
            (Protocol::ICMP, 0x0800, 0x0800) => f.write_str("icmp/echo-request"),
            (Protocol::ICMPV6, 0x8000, 0x8000) => f.write_str("icmpv6/echo-request"),
            (protocol, first, last) if first == last => write!(f, "{first}/{protocol}"),
            (protocol, first, last) => write!(f, "{first}-{last}/{protocol}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back() {
        for text in [
            "80/tcp",
            "8000-8100/udp",
            "tcp",
            "icmp",
            "icmpv6",
            "icmp/echo-request",
            "icmpv6/echo-request",
            "1-65535/tcp",
        ] {
            let parsed: PortMatch = text.parse().unwrap();
            assert_eq!(parsed.to_string(), text);
        }
        assert_eq!("*/tcp".parse::<PortMatch>().unwrap(), "tcp".parse().unwrap());
    }

    #[test]
    fn faults_name_what_is_wrong() {
        for (text, what) in [
            ("80", "`80` names no protocol"),
            ("80/tpc", "unknown protocol `tpc`"),
            ("0/tcp", "`0` is not a port"),
            ("65536/tcp", "`65536` is not a port"),
            ("+1/tcp", "`+1` is not a port"),
            ("9-8/tcp", "the range 9-8 is empty"),
            ("/tcp", "`` is not a port"),
        ] {
            assert_eq!(text.parse::<PortMatch>().unwrap_err().what, what);
        }
    }
}
