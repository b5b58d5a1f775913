//! Tables of directions in which a rule passes.
//!
//! Passing takes a packet out of its tier, whatever else the tier has to say of it: about this peer or about any, from
//! this class of source ports or from any. Then the better of what several look-ups find is not the answer: a pass for
//! any must beat a lower deny of the peer's, and leave the rest to a lower tier. So here each peer that
//! is named, from each class that is named, gets entries that carry the whole answer, rules about any included, and a
//! precedence that makes its entries win over the wider ones.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::{Action, Cookie, Direction, Peer, Tier, Verdict};

use super::plan::{PolicyKey, PolicyValue, PortPrefix, SourceClass};
use super::precedence;
use super::table::{RAW_ENTRIES, Raw, TooLarge, covering, verdict};

type Entry = (PolicyKey, PolicyValue);

/// `raw`: all that is said of the direction, in any order.
pub(super) fn settle(raw: &[Raw], direction: Direction) -> Result<Vec<Entry>, TooLarge> {
    let mut groups: BTreeMap<(Peer, SourceClass), Vec<&Raw>> = BTreeMap::new();
    for one in raw {
        groups.entry((one.key.peer, one.key.source)).or_default().push(one);
    }
    let peers: BTreeSet<Peer> = groups.keys().map(|(peer, _)| *peer).chain([Peer::ANY]).collect();
    let sources: BTreeSet<SourceClass> =
        groups.keys().map(|(_, source)| *source).chain([SourceClass::ANY]).collect();
    let of = |peer, source| groups.get(&(peer, source)).map(Vec::as_slice).unwrap_or_default();
    let mut entries = Vec::new();
    let mut work = 0usize;
    for peer in &peers {
        for source in &sources {
            let mut about: Vec<&Raw> = Vec::new();
            for peer in BTreeSet::from([*peer, Peer::ANY]) {
                for source in BTreeSet::from([*source, SourceClass::ANY]) {
                    about.extend(of(peer, source));
                }
            }
            work = work.saturating_add(about.len());
            if work > RAW_ENTRIES {
                return Err(TooLarge::Entries { count: work });
            }
            let key = |ports| PolicyKey { peer: *peer, direction, source: *source, ports };
            settle_one(about, precedence::settled(*peer, *source), key, &mut entries);
        }
    }
    Ok(entries)
}

/// The entries of one peer and class.
fn settle_one(
    about: Vec<&Raw>,
    precedence: u32,
    key: impl Fn(PortPrefix) -> PolicyKey,
    entries: &mut Vec<Entry>,
) {
    let mut by_ports: BTreeMap<PortPrefix, Vec<&Raw>> = BTreeMap::new();
    for one in about {
        by_ports.entry(one.key.ports).or_default().push(one);
    }
    by_ports.values_mut().for_each(foremost);
    let begin = entries.len();
    // What is wider comes first.
    for ports in by_ports.keys() {
        let covers = std::iter::once(*ports).chain(ports.wider());
        let mut said: Vec<&Raw> =
            covers.filter_map(|wide| by_ports.get(&wide)).flatten().copied().collect();
        said.sort_unstable_by_key(|one| std::cmp::Reverse(one.precedence));
        let (verdict, cookie) = decide(&said);
        let outer = covering(&entries[begin..], *ports);
        if outer.is_none_or(|outer| (outer.verdict, outer.cookie) != (verdict, cookie)) {
            entries.push((key(*ports), PolicyValue { precedence, verdict, cookie, ruleset: None }));
        }
    }
}

/// Leaves what can matter: of each tier the best that decides and the best that passes.
fn foremost(said: &mut Vec<&Raw>) {
    said.sort_unstable_by_key(|one| std::cmp::Reverse(one.precedence));
    let mut seen = BTreeSet::new();
    said.retain(|one| {
        let default = one.precedence == precedence::DEFAULT;
        seen.insert((default, one.tier, one.action == Action::Pass))
    });
}

/// `said`: all that holds, the highest precedence first; the last of all is the default, which never passes.
fn decide(said: &[&Raw]) -> (Verdict, Cookie) {
    let mut passed: Option<Tier> = None;
    for one in said {
        // What is left to the next tier is not this tier's any more.
        let skipped = passed
            .is_some_and(|passed| one.precedence != precedence::DEFAULT && one.tier >= passed);
        match verdict(one.action) {
            _ if skipped => {}
            Some(verdict) => return (verdict, one.cookie),
            None => {
                debug_assert_eq!(one.action, Action::Pass);
                passed = Some(one.tier);
            }
        }
    }
    (Verdict::Allow, Cookie::NONE)
}
