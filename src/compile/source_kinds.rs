//! Which source ports some rules tell apart: two ports are of one kind if each of the rules' lists has both or neither.

use std::collections::{BTreeSet, HashMap};

use crate::types::PortRange;

/// Kinds that are told apart at most. What is enforced has no more classes than 127, and those that no rule is about.
const MOST: usize = 256;
/// Lists times runs of ports, likewise.
const WORK: usize = 1_000_000;

/// Source ports of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    /// The lowest of them.
    pub port: u16,
    /// How many there are.
    pub size: u32,
}

/// All kinds, by their lowest ports; none: there are too many. 0 is no source port.
pub(super) fn kinds(lists: &BTreeSet<&[PortRange]>) -> Option<Vec<Kind>> {
    // Between two neighbouring edges, every port is in the same lists.
    let mut edges = BTreeSet::from([1u32, 1 << 16]);
    for range in lists.iter().copied().flatten() {
        edges.extend([u32::from(range.first()).max(1), u32::from(range.last()) + 1]);
    }
    let edges: Vec<u32> = edges.into_iter().collect();
    let runs = edges.len() - 1;
    if lists.len().saturating_mul(runs) > WORK {
        return None;
    }
    let place = |edge: u32| edges.partition_point(|other| *other < edge);
    let mut kind_of = vec![0; runs];
    let mut count = 1;
    for list in lists {
        let mut within = vec![false; runs];
        for range in *list {
            let (first, end) = (place(range.first().into()), place(u32::from(range.last()) + 1));
            within[first..end].fill(true);
        }
        let mut numbers: HashMap<(usize, bool), usize> = HashMap::new();
        for (kind, within) in kind_of.iter_mut().zip(within) {
            let next = numbers.len();
            *kind = *numbers.entry((*kind, within)).or_insert(next);
        }
        count = numbers.len();
        if count > MOST {
            return None;
        }
    }
    // Numbered in the order of their lowest ports.
    let mut kinds: Vec<Kind> = Vec::with_capacity(count);
    for (kind, edge) in kind_of.iter().zip(edges.windows(2)) {
        let [first, end] = edge else { continue };
        if kinds.len() == *kind {
            kinds.push(Kind { port: u16::try_from(*first).unwrap_or(u16::MAX), size: 0 });
        }
        kinds[*kind].size += end - first;
    }
    Some(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lists: &[&[(u16, u16)]]) -> Option<Vec<(u16, u32)>> {
        let range = |(first, last): &(u16, u16)| PortRange::new(*first, *last).unwrap();
        let lists: Vec<Vec<PortRange>> =
            lists.iter().map(|list| list.iter().map(range).collect()).collect();
        let told = kinds(&lists.iter().map(Vec::as_slice).collect())?;
        Some(told.iter().map(|kind| (kind.port, kind.size)).collect())
    }

    #[test]
    fn ports_of_one_kind_are_in_the_same_lists() {
        assert_eq!(told(&[]).unwrap(), [(1, 65535)]);
        assert_eq!(told(&[&[(1, 65535)]]).unwrap(), [(1, 65535)]);
        assert_eq!(told(&[&[(0, 65535)]]).unwrap(), [(1, 65535)]);
        assert_eq!(told(&[&[(1, 99), (100, 65535)]]).unwrap(), [(1, 65535)]);
        assert_eq!(told(&[&[(1024, 65535)]]).unwrap(), [(1, 1023), (1024, 64512)]);
        assert_eq!(told(&[&[(53, 53), (123, 123)]]).unwrap(), [(1, 65533), (53, 2)]);
        let both = told(&[&[(10, 20)], &[(15, 30)]]).unwrap();
        assert_eq!(both, [(1, 65514), (10, 5), (15, 6), (21, 10)]);
    }

    #[test]
    fn too_many_are_refused() {
        let singles: Vec<[(u16, u16); 1]> = (1..=300).map(|port| [(port * 3, port * 3)]).collect();
        let lists: Vec<&[(u16, u16)]> = singles.iter().map(|list| &list[..]).collect();
        assert_eq!(told(&lists[..255]).unwrap().len(), 256);
        assert_eq!(told(&lists[..256]), None);
        let one: Vec<(u16, u16)> = singles.iter().flatten().copied().collect();
        assert_eq!(told(&[&one]).unwrap().len(), 2);
    }
}
