//! Tables of directions in which a rule passes, or is about requests.
//!
//! Passing takes a packet out of its tier, whatever else the tier has to say of it: about this peer or about any, from
//! this class of source ports or from any. Then the better of what several look-ups find is not the answer: a pass for
//! any must beat a lower deny of the peer's, and leave the rest to a lower tier. So here each peer that
//! is named, from each class that is named, gets entries that carry the whole answer, rules about any included, and a
//! precedence that makes its entries win over the wider ones.
//!
//! So it is with requests: those pass that any of the rules allows, about this peer or about any, so the answer is not that
//! of one of them. It is a ruleset of all that hold, unless one allows whatever is in the connection.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::http::{L7, Side, SideRule};
use crate::types::{Action, Cookie, Direction, Peer, Tier, Verdict};

use super::plan::{PolicyKey, PolicyValue, PortPrefix, SourceClass};
use super::precedence;
use super::rulesets::Rulesets;
use super::table::{RAW_ENTRIES, Raw, TooLarge, covering, verdict};

type Entry = (PolicyKey, PolicyValue);

/// `raw`: all that is said of the direction, in any order.
pub(super) fn settle(
    raw: &[Raw<'_>],
    direction: Direction,
    rulesets: &mut Rulesets,
) -> Result<Vec<Entry>, TooLarge> {
    let mut groups: BTreeMap<(Peer, SourceClass), Vec<&Raw<'_>>> = BTreeMap::new();
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
            let mut about: Vec<&Raw<'_>> = Vec::new();
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
            let precedence = precedence::settled(*peer, *source);
            settle_one(about, precedence, key, rulesets, &mut entries)?;
        }
    }
    Ok(entries)
}

/// The entries of one peer and class.
fn settle_one(
    about: Vec<&Raw<'_>>,
    precedence: u32,
    key: impl Fn(PortPrefix) -> PolicyKey,
    rulesets: &mut Rulesets,
    entries: &mut Vec<Entry>,
) -> Result<(), TooLarge> {
    let mut by_ports: BTreeMap<PortPrefix, Vec<&Raw<'_>>> = BTreeMap::new();
    for one in about {
        by_ports.entry(one.key.ports).or_default().push(one);
    }
    by_ports.values_mut().for_each(foremost);
    let begin = entries.len();
    // What is wider comes first.
    for ports in by_ports.keys() {
        let covers = std::iter::once(*ports).chain(ports.wider());
        let mut said: Vec<&Raw<'_>> =
            covers.filter_map(|wide| by_ports.get(&wide)).flatten().copied().collect();
        said.sort_unstable_by_key(|one| std::cmp::Reverse(one.precedence));
        let Decided { verdict, cookie, requests } = decide(&said);
        let ruleset = match requests.is_empty() {
            true => None,
            false => Some(rulesets.number(side(&requests)).ok_or(TooLarge::Rulesets)?),
        };
        let value = PolicyValue { precedence, verdict, cookie, ruleset };
        if covering(&entries[begin..], *ports) != Some(value) {
            entries.push((key(*ports), value));
        }
    }
    Ok(())
}

/// The rules by their cookies: in whatever order they are found, they are the same.
fn side(requests: &[&Raw<'_>]) -> Side {
    let rules: BTreeMap<Cookie, &L7> =
        requests.iter().filter_map(|one| Some((one.cookie, &**one.l7?))).collect();
    let rule = |(cookie, l7): (Cookie, &L7)| SideRule { cookie: cookie.0, l7: l7.clone() };
    Side { rules: rules.into_iter().map(rule).collect() }
}

/// Leaves what can matter: of each tier the best that decides and the best that passes, and all about requests.
fn foremost(said: &mut Vec<&Raw<'_>>) {
    said.sort_unstable_by_key(|one| std::cmp::Reverse(one.precedence));
    let mut seen = BTreeSet::new();
    said.retain(|one| {
        let default = one.precedence == precedence::DEFAULT;
        one.l7.is_some() || seen.insert((default, one.tier, one.action == Action::Pass))
    });
}

struct Decided<'a> {
    verdict: Verdict,
    cookie: Cookie,
    /// The rules that say which requests are allowed; none: all are.
    requests: Vec<&'a Raw<'a>>,
}

/// `said`: all that holds, the highest precedence first; the last of all is the default, which never passes.
fn decide<'a>(said: &[&'a Raw<'a>]) -> Decided<'a> {
    let mut passed: Option<Tier> = None;
    for one in said {
        // What is left to the next tier is not this tier's any more.
        let skipped = passed
            .is_some_and(|passed| one.precedence != precedence::DEFAULT && one.tier >= passed);
        match verdict(one.action) {
            _ if skipped => {}
            Some(verdict) => {
                // Below all others of their tier, so that there are but more of them.
                let of_these = |other: &&&Raw<'_>| other.l7.is_some() && other.tier == one.tier;
                let requests = match one.l7 {
                    Some(_) => said.iter().filter(of_these).copied().collect(),
                    None => Vec::new(),
                };
                return Decided { verdict, cookie: one.cookie, requests };
            }
            None => {
                debug_assert_eq!(one.action, Action::Pass);
                passed = Some(one.tier);
            }
        }
    }
    Decided { verdict: Verdict::Allow, cookie: Cookie::NONE, requests: Vec::new() }
}
