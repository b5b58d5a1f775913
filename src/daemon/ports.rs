//! Which ports the kernel gives to the host's own sockets: `net.ipv4.ip_local_port_range` without
//! `net.ipv4.ip_local_reserved_ports`.

use std::io;

use crate::types::PortRange;

/// Of the namespace that the daemon runs in.
pub fn local() -> io::Result<Vec<PortRange>> {
    let read = |key: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{key}"));
    let range = match read("ip_local_port_range") {
        // A kernel without IPv4.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        range => range?,
    };
    let reserved = read("ip_local_reserved_ports").unwrap_or_default();
    parse(&range, &reserved)
        .ok_or_else(|| io::Error::other(format!("`{}` is no range of ports", range.trim())))
}

/// `32768 60999` without `40000,50000-50009`.
fn parse(range: &str, reserved: &str) -> Option<Vec<PortRange>> {
    let (first, last) = range.trim().split_once(char::is_whitespace)?;
    let (mut next, last): (u32, u32) = (first.parse().ok()?, last.trim().parse().ok()?);
    let mut taken: Vec<(u32, u32)> = reserved.trim().split(',').filter_map(span).collect();
    taken.sort_unstable();
    let mut free = Vec::new();
    for (from, to) in taken.into_iter().chain([(last.saturating_add(1), last)]) {
        let until = from.min(last.saturating_add(1));
        if next < until {
            let (first, last) = (u16::try_from(next).ok()?, u16::try_from(until - 1).ok()?);
            free.push(PortRange::new(first, last).ok()?);
        }
        next = next.max(to.saturating_add(1));
    }
    Some(free)
}

fn span(text: &str) -> Option<(u32, u32)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(range: &str, reserved: &str) -> Vec<(u16, u16)> {
        let ranges = parse(range, reserved).unwrap();
        ranges.iter().map(|range| (range.first(), range.last())).collect()
    }

    #[test]
    fn reserved_ports_are_nobody_s() {
        assert_eq!(ports("32768\t60999\n", "\n"), [(32768, 60999)]);
        assert_eq!(
            ports("1024 65535", "8080,61000-65535,40000-40009\n"),
            [(1024, 8079), (8081, 39_999), (40_010, 60_999)]
        );
        assert_eq!(ports("1024 2047", "1-1024,2000-3000,5000"), [(1025, 1999)]);
        assert_eq!(ports("1024 2047", "1-9999"), []);
        assert!(parse("", "").is_none() && parse("1 99999", "").is_none());
    }

    #[test]
    fn this_machine_s_can_be_read() {
        assert!(local().is_ok());
    }
}
