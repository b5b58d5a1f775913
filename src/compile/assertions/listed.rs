//! A direction's entries, findable by whom they may concern.

use std::collections::HashMap;

use crate::compile::sets::SetName;
use crate::config::model::Peer;
use crate::types::Tier;

use super::domain::{Domain, Tri};
use super::entries::{Entry, Meanings, Outside, Party};

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
    pub rules: Vec<usize>,
    /// By tier, in the order in which tiers are asked.
    pub defaults: [Vec<usize>; 3],
    /// Whether a tier has a default that certainly concerns all of the subject; in the same order.
    pub certain: [bool; 3],
}

/// An end as it is looked at: with what concerns it, if it is an endpoint.
pub struct Root<'a> {
    pub party: Party<'a>,
    pub concerned: Option<Concerned>,
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

    /// What can concern a subject.
    pub fn concerned(&self, subject: &Domain) -> Concerned {
        let mut concerned = Concerned {
            rules: Vec::new(),
            defaults: Default::default(),
            certain: Default::default(),
        };
        for (at, entry) in self.entries.iter().enumerate() {
            match (subject.picked(&entry.policy.subject), entry.rule) {
                (Tri::No, _) => {}
                (_, Some(_)) => concerned.rules.push(at),
                (picked, None) => {
                    let tier = place(entry.tier);
                    concerned.defaults[tier].push(at);
                    concerned.certain[tier] |= picked == Tri::Yes;
                }
            }
        }
        concerned
    }

    /// The rules that may concern addresses outside, in the order in which they are asked.
    pub fn about(&self, outside: &Outside) -> Vec<usize> {
        let sets = outside.sets.iter().filter_map(|set| self.by_set.get(&**set));
        let mut all: Vec<usize> = sets.flatten().chain(&self.general).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Of a tier among all, in the order in which they are asked.
pub fn place(tier: Tier) -> usize {
    Tier::ALL.len() - 1 - tier as usize
}
