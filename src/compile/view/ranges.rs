//! Sets of addresses, made once and asked often: one binary search, however many networks there are.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::types::Family;

/// First and last address, as numbers of their family.
type Range = (u128, u128);

/// By family: disjoint, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges([Vec<Range>; 2]);

impl Ranges {
    /// Addresses in any of `networks` and in none of `except`.
    pub fn new(networks: &[IpNet], except: &[IpNet]) -> Self {
        let of = |family| without(merged(networks, family), merged(except, family));
        Ranges(Family::BOTH.map(of))
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let number = number(address);
        self.covers(Family::of(address), (number, number))
    }

    /// Whether every address of the network is in the set.
    pub fn contains_all(&self, network: &IpNet) -> bool {
        self.covers(Family::of(network.network()), range(network))
    }

    /// Whether every address of the family is in the set.
    pub fn is_whole(&self, family: Family) -> bool {
        self.contains_all(&whole(family))
    }

    fn covers(&self, family: Family, (first, last): Range) -> bool {
        let ranges = &self.0[family as usize];
        let after = ranges.partition_point(|(begin, _)| *begin <= first);
        after.checked_sub(1).is_some_and(|at| last <= ranges[at].1)
    }
}

/// The network that has every address of the family.
pub(super) fn whole(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => IpNet::V4(Ipv4Net::default()),
        Family::Ipv6 => IpNet::V6(Ipv6Net::default()),
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn range(network: &IpNet) -> Range {
    (number(network.network()), number(network.broadcast()))
}

fn merged(networks: &[IpNet], family: Family) -> Vec<Range> {
    let of_family = networks.iter().filter(|net| Family::of(net.network()) == family);
    let mut ranges: Vec<Range> = of_family.map(range).collect();
    ranges.sort_unstable();
    ranges.dedup_by(|next, before| {
        let touches = next.0 <= before.1.saturating_add(1);
        if touches {
            before.1 = before.1.max(next.1);
        }
        touches
    });
    ranges
}

/// Both are merged.
fn without(ranges: Vec<Range>, holes: Vec<Range>) -> Vec<Range> {
    if holes.is_empty() {
        return ranges;
    }
    let mut left = Vec::with_capacity(ranges.len());
    let mut holes = holes.into_iter().peekable();
    for (first, last) in ranges {
        while holes.next_if(|hole| hole.1 < first).is_some() {}
        // None: nothing is left behind the last hole.
        let mut first = Some(first);
        while let Some(from) = first
            && let Some(&(begin, end)) = holes.peek()
            && begin <= last
        {
            if begin > from {
                left.push((from, begin - 1));
            }
            // A hole that reaches further may make one in the next range, too.
            first = if end < last { Some(end + 1) } else { None };
            if first.is_some() {
                holes.next();
            }
        }
        left.extend(first.map(|from| (from, last)));
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn every_address_is_in_or_out_as_written() {
        let networks = nets(&["10.0.0.0/29", "10.0.0.8/30", "10.0.0.32/28", "fd00::/126"]);
        let except = nets(&["10.0.0.4/30", "10.0.0.6/31", "10.0.0.32/32", "10.0.0.47/32"]);
        let set = Ranges::new(&networks, &except);
        for last in 0..=255u8 {
            let address = IpAddr::from([10, 0, 0, last]);
            let inside = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
            assert_eq!(set.contains(address), inside(&networks) && !inside(&except), "{address}");
        }
        assert!(set.contains("fd00::3".parse().unwrap()));
        assert!(!set.contains("fd00::4".parse().unwrap()));
        assert!(set.contains_all(&"10.0.0.8/30".parse().unwrap()));
        assert!(!set.contains_all(&"10.0.0.0/29".parse().unwrap()));
    }

    #[test]
    fn families_are_apart_and_a_hole_may_span_ranges() {
        let all = Ranges::new(&nets(&["::/0"]), &[]);
        assert!(all.is_whole(Family::Ipv6) && !all.is_whole(Family::Ipv4));
        assert!(!all.contains("10.0.0.1".parse().unwrap()));
        let halves = Ranges::new(&nets(&["0.0.0.0/1", "128.0.0.0/1"]), &[]);
        assert!(halves.is_whole(Family::Ipv4));
        let spanned = Ranges::new(
            &nets(&["10.0.0.0/30", "10.0.0.8/30", "10.0.0.128/30"]),
            &nets(&["10.0.0.0/25"]),
        );
        assert!(!spanned.contains("10.0.0.9".parse().unwrap()));
        assert!(spanned.contains("10.0.0.129".parse().unwrap()));
        let nothing = Ranges::new(&nets(&["0.0.0.0/0"]), &nets(&["0.0.0.0/0"]));
        assert_eq!(nothing, Ranges::default());
    }
}
