//! Going through what concerns both ends in the order in which it is asked.

use crate::types::{Action, Direction, Tier};

use super::domain::Tri;
use super::ends::Ends;
use super::entries::Entry;
use super::listed::place;
use super::region::Region;
use super::search::{Search, Undecided};

/// What decides at one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Of this index among the direction's entries.
    Entry(usize),
    /// Nobody denies.
    Default,
}

/// A direction's entries that can concern its two ends, as indices; what is to decide.
#[derive(Clone)]
pub(super) struct Side<'r> {
    pub rules: Vec<usize>,
    pub defaults: &'r [Vec<usize>; 3],
    /// Of a subject that was not narrowed.
    pub certain: Option<[bool; 3]>,
    pub cause: Cause,
}

impl<'a> Search<'a> {
    /// What could decide anything of the ports, once all that certainly comes before has taken its part.
    pub(super) fn causes(
        &mut self,
        direction: Direction,
        side: &Side,
        ends: &Ends<'a>,
        region: &Region,
        passes: bool,
    ) -> Result<Vec<Cause>, Undecided> {
        let mut causes = Vec::new();
        let left = self.walk(direction, side, ends, region, !passes, |at, entry, hit| {
            let wanted = (entry.action == Action::Allow) == passes && entry.action != Action::Pass;
            if wanted && !hit.is_empty() {
                causes.push(Cause::Entry(at));
            }
            false
        })?;
        if passes && !left.is_empty() {
            causes.insert(0, Cause::Default);
        }
        Ok(causes)
    }

    /// The ports that the side's cause decides, at the most: what certainly comes before it takes its part, what only
    /// may come before does not.
    pub(super) fn decided(
        &mut self,
        direction: Direction,
        side: &Side,
        ends: &Ends<'a>,
        region: &Region,
    ) -> Result<Region, Undecided> {
        let mut decided = Region::default();
        let entries = self.listed(direction).entries;
        let by_default = matches!(side.cause, Cause::Entry(at) if entries[at].rule.is_none());
        let left = self.walk(direction, side, ends, region, by_default, |at, _, hit| {
            let found = side.cause == Cause::Entry(at);
            if found {
                decided = hit.clone();
            }
            found
        })?;
        Ok(if side.cause == Cause::Default { left } else { decided })
    }

    /// Goes through what concerns the ends in the order in which it is asked, and tells `visit` of each with the ports that
    /// may be left for it, until that says that it is enough; of defaults only if they matter. Returns the ports that may
    /// be left at the end.
    pub(super) fn walk(
        &mut self,
        direction: Direction,
        side: &Side,
        ends: &Ends<'a>,
        region: &Region,
        by_default: bool,
        mut visit: impl FnMut(usize, &Entry<'a>, &Region) -> bool,
    ) -> Result<Region, Undecided> {
        let Some(subject) = ends.subject(direction) else { return Ok(region.clone()) };
        let entries = self.listed(direction).entries;
        let peer = ends.peer(direction);
        let mut rules = side.rules.iter().map(|at| (*at, &entries[*at])).peekable();
        let mut left = region.clone();
        for (tier, defaults) in Tier::ALL.into_iter().zip(side.defaults) {
            let mut passed = Region::default();
            while let Some((at, entry)) = rules.next_if(|(_, entry)| entry.tier == tier) {
                let hit = self.meanings.ports(entry, subject, peer).and(&left);
                self.spend(if hit.is_empty() { 1 } else { entry.cost })?;
                if hit.is_empty() {
                    continue;
                }
                let concerns = self.meanings.concerns(entry, subject, peer);
                if concerns == Tri::No {
                    continue;
                }
                if visit(at, entry, &hit) {
                    return Ok(left);
                }
                if concerns == Tri::Yes {
                    left = left.without(&hit);
                }
                if entry.action == Action::Pass {
                    passed = passed.or(&hit);
                }
            }
            let known = side.certain.map(|certain| certain[place(tier)]);
            let mut denied = known == Some(true);
            if !left.is_empty() && (known.is_none() || by_default) {
                self.spend(defaults.len())?;
                for at in defaults {
                    let entry = &entries[*at];
                    if by_default && visit(*at, entry, &left) {
                        return Ok(left);
                    }
                    denied = denied
                        || known.is_none() && subject.picked(&entry.policy.subject) == Tri::Yes;
                }
            }
            if denied {
                left = Region::default();
            }
            left = left.or(&passed);
        }
        Ok(left)
    }
}
