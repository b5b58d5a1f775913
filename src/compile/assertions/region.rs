//! Sets of protocols and ports.

use crate::types::{PortMatch, PortRange, Protocol};

/// Sorted, disjoint, not adjacent ranges of `protocol << 16 | port`, both ends included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Region(Vec<(u32, u32)>);

impl Region {
    const LAST: u32 = 0xff_ffff;

    pub fn all() -> Self {
        Region(vec![(0, Self::LAST)])
    }

    pub fn of(ports: &[PortMatch]) -> Self {
        let range = |ports: &PortMatch| {
            let base = u32::from(ports.protocol.0) << 16;
            (base | u32::from(ports.ports.first()), base | u32::from(ports.ports.last()))
        };
        let mut ranges: Vec<_> = ports.iter().map(range).collect();
        ranges.sort_unstable();
        Region(merge(ranges))
    }

    /// All ports of the protocols that have any.
    pub fn with_ports() -> Self {
        let has = |number: &u8| Protocol(*number).has_ports();
        let whole = |number| PortMatch { protocol: Protocol(number), ports: PortRange::ALL };
        Region::of(&(0..=u8::MAX).filter(has).map(whole).collect::<Vec<_>>())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn within(&self, other: &Region) -> bool {
        self.without(other).is_empty()
    }

    pub fn and(&self, other: &Region) -> Region {
        let mut both = Vec::new();
        let (mut a, mut b) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some((a_first, a_last)), Some((b_first, b_last))) = (a.peek(), b.peek()) {
            let (first, last) = (*a_first.max(b_first), *a_last.min(b_last));
            if first <= last {
                both.push((first, last));
            }
            if a_last < b_last {
                a.next()
            } else {
                b.next()
            };
        }
        Region(both)
    }

    pub fn or(&self, other: &Region) -> Region {
        let mut ranges: Vec<_> = self.0.iter().chain(&other.0).copied().collect();
        ranges.sort_unstable();
        Region(merge(ranges))
    }

    pub fn without(&self, other: &Region) -> Region {
        let mut left = Vec::new();
        let mut holes = other.0.iter().peekable();
        for (first, last) in &self.0 {
            let mut from = *first;
            while holes.next_if(|(_, hole)| *hole < from).is_some() {}
            let mut within = holes.clone();
            while let Some((begin, end)) = within.next_if(|(begin, _)| begin <= last) {
                if *begin > from {
                    left.push((from, begin - 1));
                }
                from = end.saturating_add(1).max(from);
            }
            if from <= *last {
                left.push((from, *last));
            }
        }
        Region(left)
    }

    /// One of it, for people: of TCP if there is any.
    pub fn example(&self) -> Option<(Protocol, u16)> {
        let tcp = Region::of(&[PortMatch { protocol: Protocol::TCP, ports: PortRange::ALL }]);
        let tcp = self.and(&tcp);
        let range = tcp.0.first().or(self.0.first())?;
        let protocol = Protocol((range.0 >> 16) as u8);
        // Port 0 is nobody's, where there are ports.
        let first = if protocol.has_ports() && range.0 & 0xffff == 0 && range.1 > range.0 {
            range.0 + 1
        } else {
            range.0
        };
        Some((protocol, first as u16))
    }
}

/// `ranges`: sorted.
fn merge(ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn region() -> impl Strategy<Value = Region> {
        proptest::collection::vec((0..40u32, 0..6u32), 0..6).prop_map(|pairs| {
            let mut ranges: Vec<_> = pairs.into_iter().map(|(a, n)| (a, a + n)).collect();
            ranges.sort_unstable();
            Region(merge(ranges))
        })
    }

    fn has(region: &Region, at: u32) -> bool {
        region.0.iter().any(|(first, last)| (*first..=*last).contains(&at))
    }

    proptest! {
        #[test]
        fn operations_are_those_of_sets(a in region(), b in region()) {
            for at in 0..50 {
                let (x, y) = (has(&a, at), has(&b, at));
                prop_assert_eq!(has(&a.and(&b), at), x && y);
                prop_assert_eq!(has(&a.or(&b), at), x || y);
                prop_assert_eq!(has(&a.without(&b), at), x && !y);
            }
        }
    }

    #[test]
    fn an_example_is_of_tcp_if_there_is_any_and_not_port_0() {
        assert_eq!(Region::all().example(), Some((Protocol::TCP, 1)));
        let udp: PortMatch = "53/udp".parse().unwrap();
        assert_eq!(Region::of(&[udp]).example(), Some((Protocol::UDP, 53)));
        assert_eq!(Region::default().example(), None);
    }
}
