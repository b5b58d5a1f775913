//! Port ranges as the fewest prefixes, and how prefixes nest.

use crate::types::{PortMatch, PortRange, Protocol};

use super::plan::PortPrefix;

const BITS: u8 = 16;

impl PortPrefix {
    /// The prefix of that many bits around a port.
    pub fn around(protocol: Protocol, port: u16, bits: u8) -> Self {
        PortPrefix::Protocol { protocol, bits, port: port & mask(bits) }
    }

    pub fn contains(self, protocol: Protocol, port: u16) -> bool {
        match self {
            PortPrefix::Any => true,
            PortPrefix::Protocol { protocol: own, bits, port: first } => {
                own == protocol && port & mask(bits) == first
            }
        }
    }

    /// The prefixes that contain this one, the narrowest first.
    pub fn wider(self) -> impl Iterator<Item = PortPrefix> {
        let (own, any) = match self {
            PortPrefix::Any => (None, None),
            PortPrefix::Protocol { protocol, bits, port } => {
                (Some((protocol, bits, port)), Some(PortPrefix::Any))
            }
        };
        let of_protocol = own.into_iter().flat_map(|(protocol, bits, port)| {
            (0..bits).rev().map(move |bits| PortPrefix::around(protocol, port, bits))
        });
        of_protocol.chain(any)
    }
}

fn mask(bits: u8) -> u16 {
    u16::MAX.checked_shl(u32::from(BITS - bits.min(BITS))).unwrap_or(0)
}

/// The prefixes that together are a rule's ports; sorted, unique. No ports: every protocol and port.
pub fn prefixes(ports: &[PortMatch]) -> Vec<PortPrefix> {
    if ports.is_empty() {
        return vec![PortPrefix::Any];
    }
    let of = |ports: &PortMatch| {
        let protocol = ports.protocol;
        split(ports.ports).map(move |(port, bits)| PortPrefix::Protocol { protocol, bits, port })
    };
    let mut prefixes: Vec<PortPrefix> = ports.iter().flat_map(of).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}

/// Greedily from below: the widest aligned block that begins at `first` and does not pass the end.
fn split(range: PortRange) -> impl Iterator<Item = (u16, u8)> {
    let mut next = u32::from(range.first());
    let end = u32::from(range.last());
    std::iter::from_fn(move || {
        if next > end {
            return None;
        }
        let aligned = next.trailing_zeros().min(16);
        let fits = (end - next + 1).ilog2();
        let free = aligned.min(fits);
        let first = next;
        next += 1 << free;
        // Both are in range: first <= end <= 65535, free <= 16.
        Some((first as u16, BITS - free as u8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prefixes_are_the_range_and_nothing_else(a: u16, b: u16, probe: u16) {
            let range = PortRange::new(a.min(b), a.max(b)).unwrap();
            let ports = [PortMatch { protocol: Protocol::TCP, ports: range }];
            let prefixes = prefixes(&ports);
            prop_assert!(prefixes.len() <= 30);
            for port in [probe, a, b, a.wrapping_sub(1), b.wrapping_add(1)] {
                let hits = prefixes.iter().filter(|p| p.contains(Protocol::TCP, port)).count();
                prop_assert_eq!(hits, usize::from(range.contains(port)));
                prop_assert!(!prefixes.iter().any(|p| p.contains(Protocol::UDP, port)));
            }
        }
    }

    #[test]
    fn whole_protocols_and_none_are_one_prefix() {
        let whole: PortMatch = "tcp".parse().unwrap();
        let tcp = PortPrefix::Protocol { protocol: Protocol::TCP, bits: 0, port: 0 };
        assert_eq!(prefixes(&[whole]), [tcp]);
        assert_eq!(prefixes(&[]), [PortPrefix::Any]);
    }

    #[test]
    fn wider_prefixes_come_narrowest_first() {
        let wider: Vec<_> = PortPrefix::around(Protocol::UDP, 53, 2).wider().collect();
        let around = |bits| PortPrefix::around(Protocol::UDP, 53, bits);
        assert_eq!(wider, [around(1), around(0), PortPrefix::Any]);
        assert_eq!(PortPrefix::Any.wider().count(), 0);
    }
}
