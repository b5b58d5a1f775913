//! Source-port classes: ports that are in the same rules' `source-ports`. A list of ranges is then a set of classes, so that
//! tables need one small number for the sender's port, and none where no rule asks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::desired::{Fault, digest};
use crate::types::PortRange;

use super::plan::{SourceClass, SourceTable};

/// Lists times runs of ports.
const MOST: usize = 10_000_000;

#[derive(Debug, Clone, Default)]
pub(super) struct Sources {
    lists: Arc<BTreeSet<Vec<PortRange>>>,
    table: Arc<SourceTable>,
    classes: Arc<BTreeMap<Vec<PortRange>, Vec<SourceClass>>>,
}

impl Sources {
    pub fn table(&self) -> &Arc<SourceTable> {
        &self.table
    }

    /// The classes that a rule's `source-ports` are. Sorted; any, if it has none.
    pub fn classes(&self, ranges: &[PortRange]) -> &[SourceClass] {
        if ranges.is_empty() {
            return &[SourceClass::ANY];
        }
        self.classes.get(ranges).map_or(&[], Vec::as_slice)
    }

    /// `lists`: the `source-ports` of all rules that matter. True if classes may mean something else than before.
    pub fn update(&mut self, lists: BTreeSet<Vec<PortRange>>) -> Result<bool, Vec<Fault>> {
        if *self.lists == lists {
            return Ok(false);
        }
        // Where lists begin (true) and end.
        let mut edges: BTreeMap<u32, Vec<(usize, bool)>> = BTreeMap::from([(0, Vec::new())]);
        for (index, list) in lists.iter().enumerate() {
            for range in PortRange::merged(list.clone()) {
                edges.entry(range.first().into()).or_default().push((index, true));
                edges.entry(u32::from(range.last()) + 1).or_default().push((index, false));
            }
        }
        if lists.len().saturating_mul(edges.len()) > MOST {
            let what = format!(
                "{} different `source-ports` with {} different bounds are too many: {MOST} is the most of one times the other",
                lists.len(),
                edges.len()
            );
            return Err(vec![Fault::whole(what).hint("use the same ranges in more rules")]);
        }
        let all: Vec<&Vec<PortRange>> = lists.iter().collect();
        let mut numbers: BTreeMap<BTreeSet<usize>, SourceClass> = BTreeMap::new();
        let mut classes: BTreeMap<Vec<PortRange>, Vec<SourceClass>> = BTreeMap::new();
        let mut runs: Vec<(u16, SourceClass)> = Vec::new();
        let mut within: BTreeSet<usize> = BTreeSet::new();
        let mut over = 0usize;
        for (first, changes) in edges {
            for (index, begins) in changes {
                if begins {
                    within.insert(index);
                } else {
                    within.remove(&index);
                }
            }
            let Ok(first) = u16::try_from(first) else { break };
            let class = match numbers.get(&within) {
                _ if within.is_empty() => SourceClass::ANY,
                Some(class) => *class,
                None => {
                    let next = numbers.len() + 1 - over;
                    let class = u8::try_from(next).ok().filter(|next| *next <= SourceClass::LAST);
                    over += usize::from(class.is_none());
                    let class = SourceClass(class.unwrap_or(SourceClass::LAST));
                    for index in &within {
                        classes.entry(all[*index].clone()).or_default().push(class);
                    }
                    numbers.insert(within.clone(), class);
                    class
                }
            };
            if runs.last().is_none_or(|(_, last)| *last != class) {
                runs.push((first, class));
            }
        }
        if over > 0 {
            let what = format!(
                "the `source-ports` of all rules split each other into {} classes of ports, {over} more than the {} \
                 that fit",
                numbers.len(),
                SourceClass::LAST
            );
            return Err(vec![Fault::whole(what).hint("use the same ranges in more rules")]);
        }
        classes.values_mut().for_each(|classes| classes.sort_unstable());
        let nothing = runs.iter().all(|(_, class)| *class == SourceClass::ANY);
        let runs = if nothing { Vec::new() } else { runs };
        let bytes: Vec<u8> = runs
            .iter()
            .flat_map(|(first, class)| first.to_be_bytes().into_iter().chain([class.0]))
            .collect();
        let digest = match nothing {
            true => [0; 16],
            false => digest::head(digest::digest([b"sources".as_slice(), &bytes])),
        };
        self.table = Arc::new(SourceTable { runs, digest });
        self.classes = Arc::new(classes);
        self.lists = Arc::new(lists);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u16, last: u16) -> PortRange {
        PortRange::new(first, last).unwrap()
    }

    #[test]
    fn a_list_is_its_classes_and_nothing_else() {
        let lists = [
            vec![range(1024, 65535)],
            vec![range(53, 53), range(2000, 3000)],
            vec![range(1, 65535)],
            vec![range(0, 65535)],
        ];
        let mut sources = Sources::default();
        assert!(sources.update(lists.iter().cloned().collect()).unwrap());
        assert!(!sources.update(lists.iter().cloned().collect()).unwrap());
        for port in [0, 1, 52, 53, 54, 1023, 1024, 1999, 2000, 3000, 3001, 65535] {
            let class = sources.table().class(port);
            for list in &lists {
                let within = list.iter().any(|range| range.contains(port));
                assert_eq!(sources.classes(list).contains(&class), within, "{port} {list:?}");
            }
        }
        assert_eq!(sources.classes(&[]), [SourceClass::ANY]);
        assert!(sources.update(BTreeSet::new()).unwrap());
        assert_eq!(*sources.table().clone(), SourceTable::default());
    }

    #[test]
    fn too_many_classes_are_refused_with_how_many() {
        let lists = (0..130).map(|i| vec![range(i * 2, i * 2)]);
        let faults = Sources::default().update(lists.collect()).unwrap_err();
        assert_eq!(
            faults[0].to_string(),
            "the `source-ports` of all rules split each other into 130 classes of ports, 3 more than the 127 that fit \
             (use the same ranges in more rules)"
        );
    }
}
