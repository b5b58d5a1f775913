//! Values that only configuration has: networks, durations, interface names, paths.
//!
//! From text to valid value or [`Invalid`]; knows nothing of files.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::model::MACHINES;
use crate::types::{Family, Invalid, LabelKey, PortMatch, PortRange, port, port_text};

/// `ADDRESS/LENGTH` without host bits.
pub fn network(text: &str) -> Result<IpNet, Invalid> {
    let network: IpNet = match text.parse() {
        Ok(network) => network,
        Err(_) => {
            let invalid = Invalid::new(format!("`{text}` is not a network"));
            return Err(match text.parse::<IpAddr>() {
                Ok(address) => invalid.hint(format!("write {}", IpNet::from(address))),
                Err(_) => invalid.hint("write ADDRESS/LENGTH, like 10.1.0.0/16 or fd00:1::/64"),
            });
        }
    };
    if network.trunc() != network {
        return Err(Invalid::new(format!("`{text}` has bits set beyond its length"))
            .hint(format!("write {}, or {}", network.trunc(), IpNet::from(network.addr()))));
    }
    if let IpNet::V6(v6) = network
        && v6.prefix_len() >= 96
        && let Some(v4) = v6.addr().to_ipv4_mapped()
    {
        return Err(Invalid::new(format!("`{text}` is IPv4 written as IPv6"))
            .hint(format!("write {v4}/{}", v6.prefix_len() - 96)));
    }
    Ok(network)
}

/// A network, or one address.
pub fn network_or_address(text: &str) -> Result<IpNet, Invalid> {
    match text.parse::<IpAddr>() {
        Ok(address) => network(&IpNet::from(address).to_string()),
        Err(_) => network(text),
    }
}

/// A network that endpoints can have addresses in.
pub fn pool_network(text: &str) -> Result<IpNet, Invalid> {
    const UNUSABLE: [&str; 9] = [
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/3",
        "::/127",
        "::ffff:0:0/96",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    ];
    let network = network(text)?;
    let (shortest, longest) = match network {
        IpNet::V4(_) => (8, 30),
        IpNet::V6(_) => (32, 124),
    };
    if !(shortest..=longest).contains(&network.prefix_len()) {
        let family = Family::of(network.addr());
        return Err(Invalid::new(format!("`{text}` is not a size that a pool can have"))
            .hint(format!("{family} pools are /{shortest} to /{longest}")));
    }
    let unusable = |other: &&&str| other.parse().is_ok_and(|other| overlap(&network, &other));
    if let Some(unusable) = UNUSABLE.iter().find(unusable) {
        return Err(Invalid::new(format!("`{text}` overlaps {unusable}, which nobody can route"))
            .hint(
                "use a private (10.0.0.0/8 ...) or unique-local (fd00::/8) network, or your own",
            ));
    }
    Ok(network)
}

/// Prefixes either nest or are disjoint.
pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// `50ms`, `2s`.
pub fn duration(text: &str) -> Result<Duration, Invalid> {
    let fault = || {
        Invalid::new(format!("`{text}` is not a duration")).hint("write, for example, 50ms or 2s")
    };
    let (digits, unit) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (text.strip_suffix('s').ok_or_else(fault)?, 1000),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(fault());
    }
    let count: u64 = digits.parse().map_err(|_| fault())?;
    let longest = Duration::from_secs(60);
    let duration = Duration::from_millis(count.saturating_mul(unit));
    if duration.is_zero() || duration > longest {
        return Err(
            Invalid::new(format!("`{text}` is out of bounds")).hint("1ms to 60s are allowed")
        );
    }
    Ok(duration)
}

/// `61000-65535`.
pub fn port_range(text: &str) -> Result<PortRange, Invalid> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = PortRange::new(port::port(first.trim())?, port::port(last.trim())?)?;
    if range.first() < 1024 {
        return Err(Invalid::new(format!("`{text}` has ports below 1024"))
            .hint("those belong to the host's own services; write, for example, 61000-65535"));
    }
    Ok(range)
}

/// What the kernel takes as an interface's name (`dev_valid_name`), and is not the loopback.
pub fn interface(text: &str) -> Result<String, Invalid> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':');
    if text.is_empty() || text.len() > 15 || text == "." || text == ".." || text.contains(bad) {
        return Err(Invalid::new(format!("`{text}` cannot be an interface's name"))
            .hint("names have 1 to 15 bytes without `/`, `:` and spaces"));
    }
    if text == "lo" {
        return Err(Invalid::new("`lo` is the loopback interface").hint("name another one"));
    }
    Ok(text.to_owned())
}

/// An interface to the outside: not one that porin makes itself.
pub fn uplink(text: &str) -> Result<String, Invalid> {
    let name = interface(text)?;
    if is_porins(&name) {
        return Err(Invalid::new(format!("`{text}` is an endpoint's interface, not an uplink"))
            .hint("uplinks lead to the outside, like eth0"));
    }
    Ok(name)
}

/// An interface of the host's, to be adopted: not one that porin makes itself.
pub fn foreign_interface(text: &str) -> Result<String, Invalid> {
    let name = interface(text)?;
    if is_porins(&name) {
        return Err(Invalid::new(format!("`{text}` is an interface that porin makes itself"))
            .hint("name one that another program made, like veth5d1a7e"));
    }
    Ok(name)
}

fn is_porins(interface: &str) -> bool {
    let ours = |hex: &str| hex.len() == 12 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    interface.strip_prefix("pn").is_some_and(ours)
}

/// Absolute, without `..`; redundant slashes and dots are removed, so that equal paths compare equal.
pub fn namespace(text: &str) -> Result<PathBuf, Invalid> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(Invalid::new(format!("`{text}` is not an absolute path"))
            .hint("write, for example, /run/netns/NAME or /proc/PID/ns/net"));
    }
    if text.len() > 4095 || text.chars().any(char::is_control) {
        return Err(Invalid::new("the path is too long or has control characters in it"));
    }
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(Invalid::new(format!("`{text}` has `..` in it")).hint("write it without"));
    }
    Ok(path.components().collect())
}

/// A machine's name, as systemd-machined takes it, as the path of its registration: what the endpoint is in.
pub fn machine(text: &str) -> Result<PathBuf, Invalid> {
    let label = |label: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        !label.is_empty()
            && label.chars().all(known)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A host name, 64 bytes at most (machinectl(1), hostname(7)).
    if text.len() > 64 || !text.split('.').all(label) {
        return Err(Invalid::new(format!("`{text}` is not a machine's name"))
            .hint("write it as `machinectl list` does"));
    }
    Ok(Path::new(MACHINES).join(text))
}

/// The path of a Unix socket: absolute, and no longer than such a socket's may be (unix(7)).
pub fn socket(text: &str) -> Result<PathBuf, Invalid> {
    if !text.starts_with('/') {
        return Err(Invalid::new(format!("`{text}` is not an absolute path"))
            .hint("write, for example, /run/docker.sock"));
    }
    if text.len() > 107 || text.chars().any(char::is_control) {
        return Err(Invalid::new(
            "the path is too long for a socket, or has control characters in it",
        )
        .hint("it may have 107 bytes"));
    }
    Ok(PathBuf::from(text))
}

/// A label key, or the beginning of one and `*`.
pub fn label_pattern(text: &str) -> Result<String, Invalid> {
    match text.strip_suffix('*') {
        Some("") => {}
        Some(prefix) if prefix.contains('*') => {
            return Err(Invalid::new("`*` can only stand at the end")
                .hint("write, for example, io.kubernetes.*"));
        }
        Some(prefix) => drop(prefix.parse::<LabelKey>()?),
        None if text.contains('*') => {
            return Err(Invalid::new("`*` can only stand at the end")
                .hint("write, for example, io.kubernetes.*"));
        }
        None => drop(text.parse::<LabelKey>()?),
    }
    Ok(text.to_owned())
}

/// `80` or `8000-8100`: the sender's ports.
pub fn source_ports(text: &str) -> Result<PortRange, Invalid> {
    port_text::port_range(text).map_err(|invalid| match text.split_once('/') {
        Some((ports, _)) if port_text::port_range(ports).is_ok() => {
            Invalid::new(format!("`{text}` names a protocol"))
                .hint(format!("write {ports}; `ports` says of which protocols"))
        }
        _ => invalid,
    })
}

/// What a named port of an endpoint stands for: one port.
pub fn named_port(text: &str) -> Result<PortMatch, Invalid> {
    let port: PortMatch = text.parse()?;
    let single = port.ports.first() == port.ports.last();
    if single && port.protocol.has_ports() {
        return Ok(port);
    }
    Err(Invalid::new(format!("`{text}` is not one port")).hint("write, for example, 8080/tcp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_without_host_bits() {
        assert!(network("10.0.0.0/8").is_ok() && network("::/0").is_ok());
        assert_eq!(
            network("10.0.0.1/8").unwrap_err().hint.unwrap(),
            "write 10.0.0.0/8, or 10.0.0.1/32"
        );
        assert_eq!(network("10.0.0.1").unwrap_err().hint.unwrap(), "write 10.0.0.1/32");
        assert_eq!(network("::ffff:10.0.0.0/104").unwrap_err().hint.unwrap(), "write 10.0.0.0/8");
        assert_eq!(network_or_address("fd00::1").unwrap().prefix_len(), 128);
    }

    #[test]
    fn pools_that_nobody_can_route_are_refused() {
        for bad in [
            "127.0.0.0/8",
            "169.0.0.0/8",
            "224.0.0.0/8",
            "0.0.0.0/8",
            "10.0.0.0/7",
            "10.0.0.0/31",
            "fd00::/31",
            "fd00::/125",
            "fe80::/64",
            "ff00::/32",
            "::/32",
        ] {
            assert!(pool_network(bad).is_err(), "{bad}");
        }
        for good in ["10.0.0.0/8", "10.0.0.0/30", "fd00::/32", "fd00::/124", "2001:db8::/64"] {
            assert!(pool_network(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("50ms").unwrap(), Duration::from_millis(50));
        assert_eq!(duration("2s").unwrap(), Duration::from_secs(2));
        for bad in ["", "5", "s", "ms", "-1s", "+1s", "0ms", "61s", "1.5s", "99999999999999999999s"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn interfaces() {
        for bad in ["", "a/b", "a b", "0123456789abcdef", ".", "lo", "eth0:1", "e\u{7}"] {
            assert!(interface(bad).is_err(), "{bad}");
        }
        assert!(interface("0123456789abcde").is_ok() && uplink("pn0").is_ok());
        assert!(uplink("pn0123456789ab").is_err());
    }

    #[test]
    fn machines() {
        for bad in
            ["", ".", "..", "a/b", "a..b", ".a", "a.", "-a", "a-", "a b", "é", &"a".repeat(65)]
        {
            assert!(machine(bad).is_err(), "{bad}");
        }
        for good in ["web", "web-1.example_x", "A9", &"a".repeat(64)] {
            assert_eq!(machine(good).unwrap(), Path::new(MACHINES).join(good));
        }
    }

    #[test]
    fn namespaces() {
        for bad in ["", "run/netns/a", "/run/../a", "/a\nb"] {
            assert!(namespace(bad).is_err(), "{bad}");
        }
        assert_eq!(namespace("/run//netns/./a/").unwrap(), Path::new("/run/netns/a"));
    }

    #[test]
    fn ports_of_one_side() {
        for bad in ["80-81/tcp", "icmp", "icmp/echo-request", "*/tcp", "53/any", "http/tcp", "gre"]
        {
            assert!(named_port(bad).is_err(), "{bad}");
        }
        assert!(named_port("80/tcp").is_ok() && named_port("5000/sctp").is_ok());
        assert_eq!(source_ports("1024-65535").unwrap().to_string(), "1024-65535");
        assert_eq!(
            source_ports("53/udp").unwrap_err().hint.unwrap(),
            "write 53; `ports` says of which protocols"
        );
        for bad in ["", "0", "*", "2-1", "x/tcp", "1-65536"] {
            assert!(source_ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns() {
        for bad in ["", "a*b", "a**", "a b", "*a"] {
            assert!(label_pattern(bad).is_err(), "{bad}");
        }
        assert!(label_pattern("*").is_ok() && label_pattern("io.kubernetes.*").is_ok());
    }
}
