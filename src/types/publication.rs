//! Published ports: which of the host's ports are an endpoint's.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::addr::check_unicast;
use super::port_text::port_range;
use super::{Family, Invalid, PortRange, Protocol};

/// What is sent to ports of the host is for as many ports of an endpoint.
///
/// ```text
/// publication = [ address ":" ] ports ":" ports "/" ( "tcp" | "udp" )
/// address     = IPV4 | "[" IPV6 "]"        0.0.0.0 and [::] are all of their family
/// ports       = PORT | PORT "-" PORT
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Publication {
    at: At,
    /// TCP or UDP.
    protocol: Protocol,
    ports: PortRange,
    /// As many.
    to: PortRange,
}

/// Which of the host's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum At {
    /// All.
    Everywhere,
    /// All of one family.
    Every(Family),
    /// A unicast address that can be routed; or a loopback one, which is for programs of the host itself.
    One(IpAddr),
}

impl At {
    /// # Errors
    /// It is no address that anybody reaches the host by.
    pub fn address(address: IpAddr) -> Result<Self, Invalid> {
        if address.is_unspecified() {
            return Ok(At::Every(Family::of(address)));
        }
        if address.is_loopback() {
            return Ok(At::One(address));
        }
        check_unicast(address).map(At::One)
    }

    /// For programs of the host itself, and nobody else.
    pub fn is_loopback(self) -> bool {
        matches!(self, At::One(address) if address.is_loopback())
    }

    pub fn covers(self, address: IpAddr) -> bool {
        match self {
            At::Everywhere => true,
            At::Every(family) => family == Family::of(address),
            At::One(one) => one == address,
        }
    }

    /// Whether any address of the family is meant.
    pub fn is_of(self, family: Family) -> bool {
        match self {
            At::Everywhere => true,
            At::Every(every) => every == family,
            At::One(one) => Family::of(one) == family,
        }
    }

    fn meets(self, other: At) -> bool {
        match (self, other) {
            (At::One(one), at) | (at, At::One(one)) => at.covers(one),
            (At::Every(one), At::Every(other)) => one == other,
            (At::Everywhere, _) | (_, At::Everywhere) => true,
        }
    }
}

impl Publication {
    /// # Errors
    /// There are not as many of the endpoint's ports as of the host's, or the protocol has no such ports.
    pub fn new(
        at: At,
        protocol: Protocol,
        ports: PortRange,
        to: PortRange,
    ) -> Result<Self, Invalid> {
        if !matches!(protocol, Protocol::TCP | Protocol::UDP) {
            let what = format!("ports of {protocol} cannot be published");
            return Err(Invalid::new(what).hint(
                "tcp and udp can; for others, clients reach the endpoint by its own address",
            ));
        }
        if count(ports) != count(to) {
            let what = format!("{ports} are {} ports, and {to} are {}", count(ports), count(to));
            return Err(Invalid::new(what).hint("publish each port at one of the host's"));
        }
        Ok(Publication { at, protocol, ports, to })
    }

    pub fn at(self) -> At {
        self.at
    }

    pub fn protocol(self) -> Protocol {
        self.protocol
    }

    /// The host's.
    pub fn ports(self) -> PortRange {
        self.ports
    }

    /// As much of it as is for an endpoint that has these families; none: nothing.
    pub fn within(self, has: impl Fn(Family) -> bool) -> Option<Self> {
        let at = match self.at {
            At::Everywhere => match (has(Family::Ipv6), has(Family::Ipv4)) {
                (true, true) => At::Everywhere,
                (true, false) => At::Every(Family::Ipv6),
                (false, true) => At::Every(Family::Ipv4),
                (false, false) => return None,
            },
            At::Every(family) if !has(family) => return None,
            At::One(address) if !has(Family::of(address)) => return None,
            at => at,
        };
        Some(Publication { at, ..self })
    }

    /// How many ports.
    pub fn count(self) -> usize {
        count(self.ports)
    }

    /// The host's ports, with the endpoint's that each is.
    pub fn pairs(self) -> impl Iterator<Item = (u16, u16)> {
        let to = self.to.first()..=self.to.last();
        (self.ports.first()..=self.ports.last()).zip(to)
    }

    /// Whether some packet would be for both.
    pub fn meets(self, other: Publication) -> bool {
        self.protocol == other.protocol
            && self.ports.first() <= other.ports.last()
            && other.ports.first() <= self.ports.last()
            && self.at.meets(other.at)
    }
}

fn count(ports: PortRange) -> usize {
    usize::from(ports.last() - ports.first()) + 1
}

const HINT: &str =
    "write, for example, 8080:80/tcp, 192.0.2.1:53:53/udp or [2001:db8::1]:8000-8010:8000-8010/tcp";

impl FromStr for Publication {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = || Invalid::new(format!("`{text}` does not say what is published")).hint(HINT);
        let Some((rest, protocol)) = text.rsplit_once('/') else {
            return Err(Invalid::new(format!("`{text}` has no protocol")).hint(HINT));
        };
        let protocol = Protocol::named(protocol)
            .ok_or_else(|| Invalid::new(format!("`{protocol}` names no protocol")).hint(HINT))?;
        let (rest, to) = rest.rsplit_once(':').ok_or_else(bad)?;
        let (at, ports) = match rest.rsplit_once(':') {
            None => (At::Everywhere, rest),
            Some((address, ports)) => (at(address).ok_or_else(bad)??, ports),
        };
        Publication::new(at, protocol, port_range(ports)?, port_range(to)?)
    }
}

/// None: it is no address, or an IPv6 address without its brackets.
fn at(text: &str) -> Option<Result<At, Invalid>> {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match inner {
        Some(inner) => IpAddr::V6(inner.parse().ok()?),
        None => IpAddr::V4(text.parse().ok()?),
    };
    Some(At::address(address))
}

/// As it is written.
impl fmt::Display for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            At::Everywhere => {}
            At::Every(Family::Ipv4) => f.write_str("0.0.0.0:")?,
            At::Every(Family::Ipv6) => f.write_str("[::]:")?,
            At::One(IpAddr::V4(address)) => write!(f, "{address}:")?,
            At::One(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
        }
        write!(f, "{}:{}/{}", self.ports, self.to, self.protocol)
    }
}

impl TryFrom<String> for Publication {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Publication> for String {
    fn from(publication: Publication) -> String {
        publication.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(text: &str) -> Publication {
        text.parse().unwrap_or_else(|invalid: Invalid| panic!("{text}: {invalid}"))
    }

    #[test]
    fn what_is_written_reads_back() {
        for text in [
            "8080:80/tcp",
            "0.0.0.0:8080:80/tcp",
            "[::]:53:53/udp",
            "192.0.2.1:8443:443/tcp",
            "[2001:db8::1]:8000-8010:9000-9010/tcp",
            "1-65535:1-65535/udp",
            "127.0.0.1:8080:80/tcp",
            "127.0.0.53:53:53/udp",
            "[::1]:8080:80/tcp",
        ] {
            assert_eq!(publication(text).to_string(), text);
        }
        let pairs: Vec<_> = publication("8000-8002:80-82/tcp").pairs().collect();
        assert_eq!(pairs, [(8000, 80), (8001, 81), (8002, 82)]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (bad, what) in [
            ("", "has no protocol"),
            ("8080:80", "has no protocol"),
            ("80/tcp", "does not say what is published"),
            ("8080:80/sctp", "ports of sctp cannot be published"),
            ("8080:80/tpc", "`tpc` names no protocol"),
            ("0:80/tcp", "`0` is not a port"),
            ("8080:65536/tcp", "`65536` is not a port"),
            ("8000-8001:80/tcp", "8000-8001 are 2 ports, and 80 are 1"),
            ("8001-8000:80-81/tcp", "the range 8001-8000 is empty"),
            ("2001:db8::1:80:80/tcp", "does not say what is published"),
            ("[192.0.2.1]:80:80/tcp", "does not say what is published"),
            ("eth0:80:80/tcp", "does not say what is published"),
            ("[::ffff:127.0.0.1]:80:80/tcp", "is not a unicast address"),
            ("[fe80::1]:80:80/tcp", "fe80::1 is not a unicast address"),
            ("224.0.0.1:80:80/udp", "224.0.0.1 is not a unicast address"),
        ] {
            let invalid = bad.parse::<Publication>().unwrap_err();
            assert!(invalid.what.contains(what), "{bad}: {invalid}");
            assert!(invalid.hint.is_some(), "{bad}");
        }
    }

    #[test]
    fn who_publishes_the_same_port_meets() {
        let meets = |a: &str, b: &str| {
            let (a, b) = (publication(a), publication(b));
            assert_eq!(a.meets(b), b.meets(a), "{a} {b}");
            a.meets(b)
        };
        assert!(meets("8080:80/tcp", "8080:81/tcp"));
        assert!(meets("8080:80/tcp", "192.0.2.1:8080:80/tcp"));
        assert!(meets("8080:80/tcp", "[::]:8080:80/tcp"));
        assert!(meets("0.0.0.0:8080:80/tcp", "192.0.2.1:8080:80/tcp"));
        assert!(meets("127.0.0.1:8080:80/tcp", "8080:80/tcp"));
        assert!(!meets("127.0.0.1:8080:80/tcp", "192.0.2.1:8080:80/tcp"));
        assert!(meets("8000-8080:8000-8080/tcp", "8080-8081:80-81/tcp"));
        assert!(!meets("8080:80/tcp", "8080:80/udp"));
        assert!(!meets("8080:80/tcp", "8081:80/tcp"));
        assert!(!meets("0.0.0.0:8080:80/tcp", "[::]:8080:80/tcp"));
        assert!(!meets("0.0.0.0:8080:80/tcp", "[2001:db8::1]:8080:80/tcp"));
        assert!(!meets("192.0.2.1:8080:80/tcp", "192.0.2.2:8080:80/tcp"));
    }
}
