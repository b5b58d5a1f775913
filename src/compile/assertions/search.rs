//! The search for a flow that an assertion forbids, or demands and does not get.
//!
//! Whatever lets a flow pass, or stops it, has a cause at each end: a rule, or a default. So each pair of causes is
//! taken in turn: the label sets of both ends are narrowed to those that the causes are about, and then either nothing of
//! the ports is left once all that certainly comes before has taken its part; or an example with as few labels as can be shows
//! that the flow exists; or something that comes before concerns some of the label sets only: then both kinds are
//! looked at apart.

use std::borrow::Cow;

use crate::config::model::Peer;
use crate::types::Direction;

use super::domain::{Domain, Tri};
use super::ends::{End, Ends};
use super::entries::{Bearer, Meanings, Party};
use super::listed::{Concerned, Listed, Root};
use super::region::Region;
use super::walk::{Cause, Side};

/// How many entries may be looked at for one assertion.
pub const BUDGET: usize = 4_000_000;

/// What there was no time to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undecided;

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

/// Both directions' entries, and what is left to spend.
pub struct Search<'a> {
    pub meanings: &'a Meanings<'a>,
    pub egress: &'a Listed<'a>,
    pub ingress: &'a Listed<'a>,
    pub budget: usize,
}

impl<'a> Search<'a> {
    /// Ends with what concerns them in the direction that matters: egress of senders, ingress of receivers. Those that
    /// are no endpoints come last.
    pub fn roots(
        &mut self,
        parties: &[Party<'a>],
        direction: Direction,
    ) -> Result<Vec<Root<'a>>, Undecided> {
        let mut roots = Vec::with_capacity(parties.len());
        for party in parties {
            let concerned = match party.domain() {
                Some(domain) => {
                    let listed = self.listed(direction);
                    self.spend(listed.entries.len())?;
                    Some(listed.concerned(domain))
                }
                None => None,
            };
            roots.push(Root { party: party.clone(), concerned });
        }
        roots.sort_by_key(|root| root.party.domain().is_none());
        Ok(roots)
    }

    /// A flow that passes at both ends.
    pub fn passing(
        &mut self,
        from: &Root<'a>,
        to: &Root<'a>,
        region: &Region,
    ) -> Result<Option<Found>, Undecided> {
        let ends = Ends { from: from.party.clone(), to: to.party.clone() };
        let out =
            self.sides(Direction::Egress, from.concerned.as_ref(), &ends, true, region, true)?;
        for (out_ends, out, region) in out {
            let whole = out.as_ref().is_none_or(|side| side.cause == Cause::Default);
            let concerned = to.concerned.as_ref();
            let into =
                self.sides(Direction::Ingress, concerned, &out_ends, whole, &region, true)?;
            for (ends, into, region) in into {
                let sides = [(Direction::Egress, &out), (Direction::Ingress, &into)];
                let found = self.refine(ends, &sides, &region)?;
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
        from: &Root<'a>,
        to: &Root<'a>,
        region: &Region,
    ) -> Result<Option<Found>, Undecided> {
        let ends = Ends { from: from.party.clone(), to: to.party.clone() };
        for (direction, concerned) in [
            (Direction::Egress, from.concerned.as_ref()),
            (Direction::Ingress, to.concerned.as_ref()),
        ] {
            if concerned.is_none() {
                continue;
            }
            for (ends, side, region) in
                self.sides(direction, concerned, &ends, true, region, false)?
            {
                let found = self.refine(ends, &[(direction, &side)], &region)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    /// Each cause of a direction that could decide, with the ends that it is about and the ports it may decide. Where the
    /// subject is no endpoint: one without a cause. `whole`: the subject was not narrowed since `concerned` was found.
    #[allow(clippy::type_complexity)]
    fn sides<'r>(
        &mut self,
        direction: Direction,
        concerned: Option<&'r Concerned>,
        ends: &Ends<'a>,
        whole: bool,
        region: &Region,
        passes: bool,
    ) -> Result<Vec<(Ends<'a>, Option<Side<'r>>, Region)>, Undecided> {
        let (Some(subject), Some(concerned)) = (ends.subject(direction), concerned) else {
            return Ok(vec![(ends.clone(), None, region.clone())]);
        };
        let rules = self.rules(direction, concerned, ends, subject)?;
        let certain = whole.then_some(concerned.certain);
        let mut side =
            Side { rules, defaults: &concerned.defaults, certain, cause: Cause::Default };
        let causes = self.causes(direction, &side, ends, region, passes)?;
        let mut sides = Vec::new();
        for cause in causes {
            side.cause = cause;
            side.certain = certain.filter(|_| cause == Cause::Default);
            for ends in self.narrowed(direction, ends, cause) {
                let left = self.decided(direction, &side, &ends, region)?;
                if !left.is_empty() {
                    sides.push((ends, Some(Side { certain: None, ..side.clone() }), left));
                }
            }
        }
        Ok(sides)
    }

    /// The rules that can concern both ends.
    fn rules(
        &mut self,
        direction: Direction,
        concerned: &Concerned,
        ends: &Ends<'a>,
        subject: &Domain<'a>,
    ) -> Result<Vec<usize>, Undecided> {
        let listed = self.listed(direction);
        let peer = ends.peer(direction);
        let candidates = match peer {
            Party::Endpoint(_) => Cow::Borrowed(concerned.rules.as_slice()),
            Party::Outside(outside) => Cow::Owned(listed.about(outside)),
        };
        self.spend(candidates.iter().map(|at| listed.entries[*at].cost).sum())?;
        let concerns =
            |at: &usize| self.meanings.concerns(&listed.entries[*at], subject, peer) != Tri::No;
        Ok(candidates.iter().copied().filter(concerns).collect())
    }

    pub(super) fn listed(&self, direction: Direction) -> &'a Listed<'a> {
        match direction {
            Direction::Egress => self.egress,
            Direction::Ingress => self.ingress,
        }
    }

    /// The ends that a cause is about, by its peers.
    fn narrowed(&self, direction: Direction, ends: &Ends<'a>, cause: Cause) -> Vec<Ends<'a>> {
        let Cause::Entry(at) = cause else { return vec![ends.clone()] };
        let entry = &self.listed(direction).entries[at];
        let Some(subject) = ends.subject(direction).and_then(|s| s.with(&entry.policy.subject))
        else {
            return Vec::new();
        };
        let peer = ends.peer(direction);
        let of = |peer: Party<'a>| Ends::of(direction, subject.clone(), peer);
        let Some(rule) = entry.rule else { return vec![of(peer.clone())] };
        let Party::Endpoint(domain) = peer else { return vec![of(peer.clone())] };
        if self.meanings.is_peer(entry, peer) == Tri::Yes {
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
        sides: &[(Direction, &Option<Side<'_>>)],
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
        sides: &[(Direction, &Option<Side<'_>>)],
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

    /// Two kinds of ends, by a requirement of something that comes before a cause and takes part of the ports.
    fn split(
        &self,
        sides: &[(Direction, &Option<Side<'_>>)],
        ends: &Ends<'a>,
        region: &Region,
    ) -> Vec<Ends<'a>> {
        for (direction, side) in sides {
            let (Some(side), Some(subject)) = (side, ends.subject(*direction)) else { continue };
            let entries = self.listed(*direction).entries;
            // In the order in which they are asked.
            let mut before: Vec<usize> =
                side.rules.iter().chain(side.defaults.iter().flatten()).copied().collect();
            before.sort_unstable();
            for at in before {
                if side.cause == Cause::Entry(at) {
                    break;
                }
                let entry = &entries[at];
                let peer = ends.peer(*direction);
                if entry.region.and(region).is_empty()
                    || self.meanings.concerns(entry, subject, peer) != Tri::Maybe
                {
                    continue;
                }
                let of = |subject, peer| Ends::of(*direction, subject, peer);
                if let Some(bearers) = self.meanings.unlike(entry, subject, peer) {
                    let endpoint = |(labels, ports): &'a Bearer| {
                        let domain = Domain::endpoint(self.meanings.filter, labels, ports);
                        match *direction {
                            Direction::Egress => of(subject.clone(), Party::Endpoint(domain)),
                            Direction::Ingress => of(domain, peer.clone()),
                        }
                    };
                    return bearers.map(endpoint).collect();
                }
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

    pub(super) fn spend(&mut self, entries: usize) -> Result<(), Undecided> {
        self.budget = self.budget.checked_sub(entries + 1).ok_or(Undecided)?;
        Ok(())
    }
}

fn found(ends: &Ends, sides: &[(Direction, &Option<Side<'_>>)], region: Region) -> Found {
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
