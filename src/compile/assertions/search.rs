//! The search for a flow that an assertion forbids, or demands and does not get.
//!
//! Whatever lets a flow pass, or stops it, has a cause at each end: a rule, or a default. So each pair of causes is
//! taken in turn: the label sets of both ends are narrowed to those that the causes are about, and then either nothing of
//! the ports is left once all that certainly comes before has taken its part; or an example with as few labels as can be shows
//! that the flow exists; or something that comes before concerns some of the label sets only: then both kinds are
//! looked at apart.

use crate::config::model::Peer;
use crate::types::{Action, Labels, Tier};

use super::domain::{Domain, Tri};
use super::entries::{Entry, Meanings, Party};
use super::region::Region;

/// How many entries may be looked at for one assertion.
pub const BUDGET: usize = 4_000_000;

/// What there was no time to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undecided;

/// What decides at one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Of this index among the direction's entries.
    Entry(usize),
    /// Nobody denies.
    Default,
}

/// Both ends of a flow that there should not be, or should be.
#[derive(Debug)]
pub struct Found {
    pub from: End,
    pub to: End,
    pub region: Region,
    /// What decides, where an end is an endpoint and it matters.
    pub egress: Option<Cause>,
    pub ingress: Option<Cause>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Labels(Labels),
    Outside(String),
}

/// Both directions' entries, and what is left to spend.
pub struct Search<'a> {
    pub meanings: &'a Meanings<'a>,
    pub egress: &'a [Entry<'a>],
    pub ingress: &'a [Entry<'a>],
    pub budget: usize,
}

/// A direction's entries that can concern its two ends, as indices; what is to decide.
#[derive(Clone)]
struct Side {
    concerning: Vec<usize>,
    cause: Cause,
}

#[derive(Clone)]
struct Ends<'a> {
    from: Party<'a>,
    to: Party<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Egress,
    Ingress,
}

impl<'a> Ends<'a> {
    fn subject(&self, direction: Direction) -> Option<&Domain<'a>> {
        match direction {
            Direction::Egress => self.from.domain(),
            Direction::Ingress => self.to.domain(),
        }
    }

    fn peer(&self, direction: Direction) -> &Party<'a> {
        match direction {
            Direction::Egress => &self.to,
            Direction::Ingress => &self.from,
        }
    }

    fn of(direction: Direction, subject: Domain<'a>, peer: Party<'a>) -> Self {
        let subject = Party::Endpoint(subject);
        match direction {
            Direction::Egress => Ends { from: subject, to: peer },
            Direction::Ingress => Ends { from: peer, to: subject },
        }
    }

    /// One of them.
    fn example(&self, meanings: &Meanings<'a>) -> Self {
        let one = |party: &Party<'a>| match party {
            Party::Endpoint(domain) => {
                Party::Endpoint(Domain::only(meanings.filter, &domain.example()))
            }
            Party::Outside(outside) => Party::Outside(outside),
        };
        Ends { from: one(&self.from), to: one(&self.to) }
    }
}

impl<'a> Search<'a> {
    /// A flow that passes at both ends.
    pub fn passing(
        &mut self,
        from: &Party<'a>,
        to: &Party<'a>,
        region: &Region,
    ) -> Result<Option<Found>, Undecided> {
        let ends = Ends { from: from.clone(), to: to.clone() };
        let out = self.sides(Direction::Egress, &ends, region, true)?;
        for (out_ends, out, region) in out {
            let into = self.sides(Direction::Ingress, &out_ends, &region, true)?;
            for (ends, into, region) in into {
                let found = self.refine(
                    ends,
                    &[(Direction::Egress, &out), (Direction::Ingress, &into)],
                    &region,
                )?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    /// A flow that is stopped at either end.
    pub fn stopped(
        &mut self,
        from: &Party<'a>,
        to: &Party<'a>,
        region: &Region,
    ) -> Result<Option<Found>, Undecided> {
        let ends = Ends { from: from.clone(), to: to.clone() };
        for direction in [Direction::Egress, Direction::Ingress] {
            if ends.subject(direction).is_none() {
                continue;
            }
            for (ends, side, region) in self.sides(direction, &ends, region, false)? {
                let found = self.refine(ends, &[(direction, &side)], &region)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    /// Each cause of a direction that could decide, with the ends that it is about and the ports it may decide. Where the
    /// subject is no endpoint: one without a cause.
    #[allow(clippy::type_complexity)]
    fn sides(
        &mut self,
        direction: Direction,
        ends: &Ends<'a>,
        region: &Region,
        passes: bool,
    ) -> Result<Vec<(Ends<'a>, Option<Side>, Region)>, Undecided> {
        let Some(subject) = ends.subject(direction) else {
            return Ok(vec![(ends.clone(), None, region.clone())]);
        };
        let entries = self.entries(direction);
        self.spend(entries.len())?;
        let concerns = |at: &usize| {
            let peer = ends.peer(direction);
            self.meanings.concerns(&entries[*at], subject, peer) != Tri::No
        };
        let concerning: Vec<usize> = (0..entries.len()).filter(concerns).collect();
        let causes = self.causes(direction, &concerning, ends, region, passes)?;
        let mut sides = Vec::new();
        for cause in causes {
            let mut side = Side { concerning: concerning.clone(), cause };
            for ends in self.narrowed(direction, ends, cause) {
                let left = self.decided(direction, &side, &ends, region)?;
                if left.is_empty() {
                    continue;
                }
                let subject = ends.subject(direction);
                let still = |at: &usize| {
                    let concerns =
                        |s| self.meanings.concerns(&entries[*at], s, ends.peer(direction));
                    subject.map(concerns) != Some(Tri::No)
                };
                side.concerning.retain(still);
                sides.push((ends, Some(side.clone()), left));
                side.concerning.clone_from(&concerning);
            }
        }
        Ok(sides)
    }

    /// What could decide anything of the ports, once all that certainly comes before has taken its part.
    fn causes(
        &mut self,
        direction: Direction,
        concerning: &[usize],
        ends: &Ends<'a>,
        region: &Region,
        passes: bool,
    ) -> Result<Vec<Cause>, Undecided> {
        let Some(subject) = ends.subject(direction) else { return Ok(Vec::new()) };
        self.spend(concerning.len())?;
        let entries = self.entries(direction);
        let mut causes = Vec::new();
        let mut all = concerning.iter().map(|at| (*at, &entries[*at])).peekable();
        let mut left = region.clone();
        for tier in Tier::ALL {
            let mut passed = Region::default();
            while let Some((at, entry)) = all.next_if(|(_, entry)| entry.tier == tier) {
                let hit = entry.region.and(&left);
                if hit.is_empty() {
                    continue;
                }
                match entry.action {
                    Action::Pass => passed = passed.or(&hit),
                    action if (action == Action::Allow) == passes => causes.push(Cause::Entry(at)),
                    _ => {}
                }
                if self.meanings.concerns(entry, subject, ends.peer(direction)) == Tri::Yes {
                    left = left.without(&hit);
                }
            }
            left = left.or(&passed);
        }
        if passes && !left.is_empty() {
            causes.insert(0, Cause::Default);
        }
        Ok(causes)
    }

    fn entries(&self, direction: Direction) -> &'a [Entry<'a>] {
        match direction {
            Direction::Egress => self.egress,
            Direction::Ingress => self.ingress,
        }
    }

    /// The ends that a cause is about, by its peers.
    fn narrowed(&self, direction: Direction, ends: &Ends<'a>, cause: Cause) -> Vec<Ends<'a>> {
        let Cause::Entry(at) = cause else { return vec![ends.clone()] };
        let entry = &self.entries(direction)[at];
        let Some(subject) = ends.subject(direction).and_then(|s| s.with(&entry.policy.subject))
        else {
            return Vec::new();
        };
        let peer = ends.peer(direction);
        let of = |peer: Party<'a>| Ends::of(direction, subject.clone(), peer);
        let Some(rule) = entry.rule else { return vec![of(peer.clone())] };
        let Party::Endpoint(domain) = peer else { return vec![of(peer.clone())] };
        if self.meanings.any(&rule.peers, rule.match_endpoints, peer) == Tri::Yes {
            return vec![of(peer.clone())];
        }
        let mut all = Vec::new();
        for written in &rule.peers {
            if self.meanings.is(written, rule.match_endpoints, peer) == Tri::No {
                continue;
            }
            let group;
            let selectors = match written {
                Peer::Selector(selector) => std::slice::from_ref(selector),
                Peer::Group(name) => {
                    group = self.meanings.groups.get(name);
                    group.map(|group| group.selectors.as_slice()).unwrap_or_default()
                }
                Peer::Entity(_) | Peer::Cidr(_) => &[],
            };
            all.extend(
                selectors.iter().filter_map(|s| domain.with(s)).map(|d| of(Party::Endpoint(d))),
            );
            if selectors.is_empty() || rule.match_endpoints {
                all.push(of(peer.clone()));
            }
        }
        all
    }

    /// Looks for one of the ends of which all sides' causes decide something of the ports.
    fn refine(
        &mut self,
        ends: Ends<'a>,
        sides: &[(Direction, &Option<Side>)],
        region: &Region,
    ) -> Result<Option<Found>, Undecided> {
        let mut open = vec![ends];
        while let Some(ends) = open.pop() {
            let left = self.all_decided(sides, &ends, region)?;
            if left.is_empty() {
                continue;
            }
            let example = ends.example(self.meanings);
            let shown = self.all_decided(sides, &example, region)?;
            if !shown.is_empty() {
                return Ok(Some(found(&example, sides, shown)));
            }
            open.extend(self.split(sides, &ends, &left));
        }
        Ok(None)
    }

    fn all_decided(
        &mut self,
        sides: &[(Direction, &Option<Side>)],
        ends: &Ends<'a>,
        region: &Region,
    ) -> Result<Region, Undecided> {
        let mut left = region.clone();
        for (direction, side) in sides {
            if let Some(side) = side {
                left = self.decided(*direction, side, ends, &left)?;
            }
        }
        Ok(left)
    }

    /// The ports that the side's cause decides, at the most: what certainly comes before it takes its part, what only
    /// may come before does not.
    fn decided(
        &mut self,
        direction: Direction,
        side: &Side,
        ends: &Ends<'a>,
        region: &Region,
    ) -> Result<Region, Undecided> {
        let Some(subject) = ends.subject(direction) else { return Ok(region.clone()) };
        self.spend(side.concerning.len())?;
        let peer = ends.peer(direction);
        let entries = self.entries(direction);
        let mut all = side.concerning.iter().map(|at| (*at, &entries[*at])).peekable();
        let mut left = region.clone();
        for tier in Tier::ALL {
            let mut passed = Region::default();
            while let Some((at, entry)) = all.next_if(|(_, entry)| entry.tier == tier) {
                let hit = entry.region.and(&left);
                if hit.is_empty() {
                    continue;
                }
                let concerns = self.meanings.concerns(entry, subject, peer);
                if concerns == Tri::No {
                    continue;
                }
                if side.cause == Cause::Entry(at) {
                    return Ok(hit);
                }
                if concerns == Tri::Yes {
                    left = left.without(&hit);
                }
                if entry.action == Action::Pass {
                    passed = passed.or(&hit);
                }
            }
            left = left.or(&passed);
        }
        Ok(if side.cause == Cause::Default { left } else { Region::default() })
    }

    /// Two kinds of ends, by a requirement of something that comes before a cause and takes part of the ports.
    fn split(
        &self,
        sides: &[(Direction, &Option<Side>)],
        ends: &Ends<'a>,
        region: &Region,
    ) -> Vec<Ends<'a>> {
        for (direction, side) in sides {
            let (Some(side), Some(subject)) = (side, ends.subject(*direction)) else { continue };
            let entries = self.entries(*direction);
            for at in &side.concerning {
                if side.cause == Cause::Entry(*at) {
                    break;
                }
                let entry = &entries[*at];
                let peer = ends.peer(*direction);
                if entry.region.and(region).is_empty()
                    || self.meanings.concerns(entry, subject, peer) != Tri::Maybe
                {
                    continue;
                }
                let of = |subject, peer| Ends::of(*direction, subject, peer);
                let requirements = entry.policy.subject.requirements();
                if let Some(open) =
                    requirements.into_iter().find(|r| subject.meets(r) == Tri::Maybe)
                {
                    let both = [true, false].map(|met| subject.and(open, met));
                    return both.into_iter().flatten().map(|s| of(s, peer.clone())).collect();
                }
                let (Some(rule), Party::Endpoint(domain)) = (entry.rule, peer) else { continue };
                for selector in self.selectors(&rule.peers) {
                    if domain.picked(selector) == Tri::No {
                        continue;
                    }
                    let mut requirements = selector.requirements();
                    if let Some(open) = requirements.find(|r| domain.meets(r) == Tri::Maybe) {
                        let both = [true, false].map(|met| domain.and(open, met));
                        let peers = both.into_iter().flatten().map(Party::Endpoint);
                        return peers.map(|peer| of(subject.clone(), peer)).collect();
                    }
                }
            }
        }
        Vec::new()
    }

    fn selectors(&self, peers: &'a [Peer]) -> impl Iterator<Item = &'a crate::types::Selector> {
        peers.iter().flat_map(|peer| match peer {
            Peer::Selector(selector) => std::slice::from_ref(selector),
            Peer::Group(name) => {
                let group = self.meanings.groups.get(name);
                group.map(|group| group.selectors.as_slice()).unwrap_or_default()
            }
            Peer::Entity(_) | Peer::Cidr(_) => &[],
        })
    }

    fn spend(&mut self, entries: usize) -> Result<(), Undecided> {
        self.budget = self.budget.checked_sub(entries + 1).ok_or(Undecided)?;
        Ok(())
    }
}

fn found(ends: &Ends, sides: &[(Direction, &Option<Side>)], region: Region) -> Found {
    let end = |party: &Party| match party {
        Party::Endpoint(domain) => End::Labels(domain.example()),
        Party::Outside(outside) => End::Outside(outside.written()),
    };
    let cause = |wanted| {
        let side = sides.iter().find(|(direction, _)| *direction == wanted);
        side.and_then(|(_, side)| side.as_ref()).map(|side| side.cause)
    };
    Found {
        from: end(&ends.from),
        to: end(&ends.to),
        region,
        egress: cause(Direction::Egress),
        ingress: cause(Direction::Ingress),
    }
}
