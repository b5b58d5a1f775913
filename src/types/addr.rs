//! Addresses as the datapath keys them, and MACs.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Invalid;

/// An address family. IPv6 comes first, everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    Ipv6,
    Ipv4,
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::Ipv6, Family::Ipv4];

    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        }
    }

    /// Length of an address in bits.
    pub fn bits(self) -> u8 {
        match self {
            Family::Ipv4 => 32,
            Family::Ipv6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        })
    }
}

/// An address of either family as 16 bytes in network order, IPv4 as IPv4-mapped
/// (RFC 4291 section 2.5.5.2): the key of the datapath's address tables.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressKey(pub [u8; 16]);

impl From<IpAddr> for AddressKey {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => AddressKey(v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => AddressKey(v6.octets()),
        }
    }
}

impl From<AddressKey> for IpAddr {
    fn from(key: AddressKey) -> Self {
        Ipv6Addr::from(key.0).to_canonical()
    }
}

impl fmt::Debug for AddressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&IpAddr::from(*self), f)
    }
}

impl fmt::Display for AddressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&IpAddr::from(*self), f)
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// What every endpoint sees as its gateway: locally administered, then "porin".
    pub const GATEWAY: Mac = Mac(*b"\x02porin");
}

/// Six octets in hexadecimal, with colons between, of an interface's own: not a group's, and not all zero.
impl FromStr for Mac {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = || {
            Invalid::new(format!("`{text}` is not a MAC address"))
                .hint("write six octets: 02:42:0a:4d:80:02")
        };
        let mut octets = text.split(':');
        let mut mac = [0; 6];
        for octet in &mut mac {
            let digits = octets.next().filter(|digits| {
                digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit())
            });
            *octet = u8::from_str_radix(digits.ok_or_else(bad)?, 16).map_err(|_| bad())?;
        }
        if octets.next().is_some() {
            return Err(bad());
        }
        if mac[0] & 1 == 1 || mac == [0; 6] {
            return Err(Invalid::new(format!(
                "`{text}` is no MAC address that an interface can have"
            ))
            .hint("the first octet is even, and they are not all zero"));
        }
        Ok(Mac(mac))
    }
}

impl TryFrom<String> for Mac {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The next hops that an endpoint routes through. They exist in its neighbour table only.
pub const GATEWAY_IPV6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
pub const GATEWAY_IPV4: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);

/// Refuses addresses that no endpoint can bear.
pub fn check_unicast(address: IpAddr) -> Result<IpAddr, Invalid> {
    let unusable = match address {
        IpAddr::V4(a) => {
            a.is_unspecified()
                || a.is_loopback()
                || a.is_link_local()
                || a.is_multicast()
                || a.is_broadcast()
                || a.octets()[0] >= 240
                || a.octets()[0] == 0
        }
        IpAddr::V6(a) => {
            a.is_unspecified()
                || a.is_loopback()
                || a.is_multicast()
                || a.is_unicast_link_local()
                || a.to_ipv4_mapped().is_some()
        }
    };
    if unusable {
        return Err(Invalid::new(format!("{address} is not a unicast address that can be routed"))
            .hint("use a global, unique-local (fd00::/8) or private (10.0.0.0/8 ...) address"));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_is_mapped_and_comes_back() {
        let v4: IpAddr = "10.1.2.3".parse().unwrap();
        let key = AddressKey::from(v4);
        assert_eq!(key.0[10..], [0xff, 0xff, 10, 1, 2, 3]);
        assert_eq!(IpAddr::from(key), v4);
    }

    #[test]
    fn unusable_addresses_are_refused() {
        for bad in [
            "0.0.0.0",
            "127.0.0.1",
            "169.254.1.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(check_unicast(bad.parse().unwrap()).is_err(), "{bad}");
        }
        for good in ["10.0.0.1", "192.0.2.1", "fd00::1", "2001:db8::1"] {
            assert!(check_unicast(good.parse().unwrap()).is_ok(), "{good}");
        }
    }
}
