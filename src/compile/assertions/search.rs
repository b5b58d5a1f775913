//! The search for a flow that an assertion forbids, or demands and does not get.
//!
//! Whatever lets a flow pass, or stops it, has a cause at each end: a rule, or a default. So each pair of causes is
//! taken in turn: the label sets of both ends are narrowed to those that the causes are about, and then either nothing of
//! the ports is left once all that certainly comes before has taken its part; or an example with as few labels as can be shows
//! that the flow exists; or something that comes before concerns some of the label sets only: then both kinds are
//! looked at apart.

use std::collections::HashMap;

use crate::compile::sets::SetName;
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

/// A direction's entries, findable by whom they may concern.
pub struct Listed<'a> {
    pub entries: &'a [Entry<'a>],
    /// Rules that may concern addresses outside, whatever sets those are in.
    general: Vec<usize>,
    /// Rules that name a set.
    by_set: HashMap<SetName, Vec<usize>>,
}

/// What of a direction's entries can concern a subject; found once, for all peers.
pub struct Concerned {
    rules: Vec<usize>,
    /// By tier, in the order in which tiers are asked.
    defaults: [Vec<usize>; 3],
    /// Whether a tier has a default that certainly concerns all of the subject; in the same order.
    certain: [bool; 3],
}

/// An end as it is looked at: with what concerns it, if it is an endpoint.
pub struct Root<'a> {
    pub party: Party<'a>,
    concerned: Option<Concerned>,
}

/// Both directions' entries, and what is left to spend.
pub struct Search<'a> {
    pub meanings: &'a Meanings<'a>,
    pub egress: &'a Listed<'a>,
    pub ingress: &'a Listed<'a>,
    pub budget: usize,
}

/// A direction's entries that can concern its two ends, as indices; what is to decide.
#[derive(Clone)]
struct Side<'r> {
    rules: Vec<usize>,
    defaults: &'r [Vec<usize>; 3],
    /// Of a subject that was not narrowed.
    certain: Option<[bool; 3]>,
    cause: Cause,
}

#[derive(Clone)]
struct Ends<'a> {
    from: Party<'a>,
    to: Party<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Egress,
    Ingress,
}

impl<'a> Listed<'a> {
    pub fn new(meanings: &Meanings, entries: &'a [Entry<'a>]) -> Self {
        let (mut general, mut by_set) = (Vec::new(), HashMap::<SetName, Vec<usize>>::new());
        for (at, rule) in entries.iter().enumerate().filter_map(|(at, e)| Some((at, e.rule?))) {
            if rule.peers.is_empty() {
                general.push(at);
            }
            for peer in &rule.peers {
                let set = match peer {
                    Peer::Selector(_) => continue,
                    Peer::Entity(_) => {
                        general.push(at);
                        continue;
                    }
                    Peer::Cidr(cidr) => SetName::Cidr(cidr.clone()),
                    Peer::Group(name) => {
                        if meanings.groups.get(name).is_some_and(|g| !g.entities.is_empty()) {
                            general.push(at);
                        }
                        SetName::Group(name.clone())
                    }
                };
                by_set.entry(set).or_default().push(at);
            }
        }
        general.dedup();
        Listed { entries, general, by_set }
    }
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
                Some(domain) => Some(self.concerned(direction, domain)?),
                None => None,
            };
            roots.push(Root { party: party.clone(), concerned });
        }
        roots.sort_by_key(|root| root.party.domain().is_none());
        Ok(roots)
    }

    fn concerned(
        &mut self,
        direction: Direction,
        subject: &Domain<'a>,
    ) -> Result<Concerned, Undecided> {
        let entries = self.listed(direction).entries;
        self.spend(entries.len())?;
        let mut concerned = Concerned {
            rules: Vec::new(),
            defaults: Default::default(),
            certain: Default::default(),
        };
        for (at, entry) in entries.iter().enumerate() {
            let picked = subject.picked(&entry.policy.subject);
            match (picked, entry.rule) {
                (Tri::No, _) => {}
                (_, Some(_)) => concerned.rules.push(at),
                (picked, None) => {
                    let tier = Tier::ALL.iter().position(|tier| *tier == entry.tier);
                    let tier = tier.unwrap_or_default();
                    concerned.defaults[tier].push(at);
                    concerned.certain[tier] |= picked == Tri::Yes;
                }
            }
        }
        Ok(concerned)
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
        let of_sets;
        let candidates = match peer {
            Party::Endpoint(_) => &concerned.rules,
            Party::Outside(outside) => {
                let sets = outside.sets.iter().filter_map(|set| listed.by_set.get(&**set));
                let mut all: Vec<usize> = sets.flatten().chain(&listed.general).copied().collect();
                all.sort_unstable();
                all.dedup();
                of_sets = all;
                &of_sets
            }
        };
        self.spend(candidates.iter().map(|at| listed.entries[*at].cost).sum())?;
        let concerns =
            |at: &usize| self.meanings.concerns(&listed.entries[*at], subject, peer) != Tri::No;
        Ok(candidates.iter().copied().filter(concerns).collect())
    }

    /// What could decide anything of the ports, once all that certainly comes before has taken its part.
    fn causes(
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
    fn decided(
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
    fn walk(
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
                let hit = entry.region.and(&left);
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
            let known = side.certain.map(|certain| certain[Tier::ALL.len() - 1 - tier as usize]);
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

    fn listed(&self, direction: Direction) -> &'a Listed<'a> {
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
                if let Some(labels) = self.meanings.unlike(entry, subject, peer) {
                    let only = |labels| Domain::only(self.meanings.filter, labels);
                    let ends = |labels| match *direction {
                        Direction::Egress => of(subject.clone(), Party::Endpoint(only(labels))),
                        Direction::Ingress => of(only(labels), peer.clone()),
                    };
                    return labels.into_iter().map(|labels| ends(labels)).collect();
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

    fn spend(&mut self, entries: usize) -> Result<(), Undecided> {
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
