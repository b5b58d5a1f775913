//! The policy table of one identity, from what the policies that pick it contribute.
//!
//! Normal form: among the entries of one peer and direction, the longest match carries the best rule of all that cover it,
//! and no entry says what the next wider one says. The datapath looks up the peer and "any" apart and takes the
//! better, so rules about any peer need not be repeated for each.

use std::sync::Arc;

use crate::desired::digest;
use crate::types::{Action, Cookie, Direction, Peer, Tier, Verdict};

use super::plan::{Digest, PolicyKey, PolicyTable, PolicyValue, PortPrefix, SourceClass};
use super::precedence;
use super::resolve::Resolved;

/// Entries of one table at most.
pub const ENTRIES: usize = 1_000_000;
/// Before what is covered by others is left out; bounds the memory that a refused table takes.
const RAW_ENTRIES: usize = 8 * ENTRIES;

/// Why a table does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooLarge {
    #[error("{count} entries, {} more than the {ENTRIES} that fit", count - ENTRIES)]
    Entries { count: usize },
    #[error("{count} rules of one direction, {} more than the {} that fit", count - limit, limit)]
    Rules { count: usize, limit: usize },
}

/// `policies`: sorted by name.
pub(super) fn build(policies: &[Arc<Resolved>]) -> Result<PolicyTable, TooLarge> {
    let mut raw = Vec::new();
    for direction in Direction::BOTH {
        collect(policies, direction, &mut raw)?;
    }
    // The best of each key comes first and stays.
    raw.sort_unstable_by(|(a, a_value), (b, b_value)| {
        a.cmp(b).then(b_value.precedence.cmp(&a_value.precedence))
    });
    raw.dedup_by_key(|(key, _)| *key);
    let entries = normalise(raw);
    if entries.len() > ENTRIES {
        return Err(TooLarge::Entries { count: entries.len() });
    }
    let digest = digest_of(&entries);
    Ok(PolicyTable { entries, digest })
}

type Entry = (PolicyKey, PolicyValue);

fn collect(
    policies: &[Arc<Resolved>],
    direction: Direction,
    raw: &mut Vec<Entry>,
) -> Result<(), TooLarge> {
    let contributions = || policies.iter().filter_map(|policy| policy.direction(direction));
    let default = match contributions().next() {
        Some(first) => (Verdict::Deny, first.default),
        None => (Verdict::Allow, Cookie::NONE),
    };
    let (verdict, cookie) = default;
    raw.push((
        PolicyKey { peer: Peer::ANY, direction, source: SourceClass::ANY, ports: PortPrefix::Any },
        PolicyValue { precedence: precedence::DEFAULT, verdict, cookie },
    ));
    let rules = || contributions().flat_map(|contribution| &contribution.rules);
    let (count, limit) = (rules().count(), precedence::ORDERS as usize);
    if count > limit {
        return Err(TooLarge::Rules { count, limit });
    }
    let more = rules().map(|rule| rule.peers.len().saturating_mul(rule.ports.len()));
    let count = more.fold(raw.len(), usize::saturating_add);
    if count > RAW_ENTRIES {
        return Err(TooLarge::Entries { count });
    }
    raw.reserve(count - raw.len());
    for (order, rule) in (0..).zip(rules()) {
        let verdict = match rule.action {
            Action::Allow => Verdict::Allow,
            Action::Deny => Verdict::Deny,
            Action::Reject => Verdict::Reject,
            Action::Pass => continue,
        };
        let precedence = precedence::of(Tier::Normal, 0, rule.action, order);
        let value = PolicyValue { precedence, verdict, cookie: rule.cookie };
        for peer in &rule.peers {
            for ports in &rule.ports {
                let source = SourceClass::ANY;
                raw.push((PolicyKey { peer: *peer, direction, source, ports: *ports }, value));
            }
        }
    }
    Ok(())
}

/// `raw` is sorted, so what is wider comes before what it contains.
fn normalise(raw: Vec<Entry>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::with_capacity(raw.len());
    let mut begin = 0;
    for (key, value) in raw {
        let group = |key: &PolicyKey| (key.peer, key.direction);
        if entries.last().is_none_or(|(last, _)| group(last) != group(&key)) {
            begin = entries.len();
        }
        // What stands already is right for all that it covers, so the narrowest of the wider ones is enough.
        let covering = covering(&entries[begin..], key.ports);
        if covering.is_none_or(|outer| value.precedence > outer.precedence) {
            entries.push((key, value));
        }
    }
    entries.shrink_to_fit();
    entries
}

/// The value of the narrowest entry of `group` that contains `ports`.
fn covering(group: &[Entry], ports: PortPrefix) -> Option<PolicyValue> {
    if group.is_empty() {
        return None;
    }
    ports.wider().find_map(|wider| find(group, wider))
}

fn find(group: &[Entry], ports: PortPrefix) -> Option<PolicyValue> {
    let at = group.binary_search_by(|(key, _)| key.ports.cmp(&ports)).ok()?;
    Some(group[at].1)
}

impl PolicyTable {
    /// What the longest match among the entries of exactly this peer says, as one look-up of the datapath does.
    pub fn longest_match(
        &self,
        peer: Peer,
        direction: Direction,
        protocol: crate::types::Protocol,
        port: u16,
    ) -> Option<PolicyValue> {
        let begin =
            self.entries.partition_point(|(key, _)| (key.peer, key.direction) < (peer, direction));
        let rest = &self.entries[begin..];
        let end = rest.partition_point(|(key, _)| (key.peer, key.direction) <= (peer, direction));
        let exact = PortPrefix::around(protocol, port, 16);
        let group = &rest[..end];
        find(group, exact).or_else(|| covering(group, exact))
    }
}

fn digest_of(entries: &[Entry]) -> Digest {
    let mut bytes = Vec::with_capacity(entries.len() * 20);
    for (key, value) in entries {
        bytes.extend(key.peer.0.to_be_bytes());
        let (protocol, bits, port) = match key.ports {
            PortPrefix::Any => (0, u8::MAX, 0),
            PortPrefix::Protocol { protocol, bits, port } => (protocol.0, bits, port),
        };
        bytes.extend([key.direction as u8, protocol, bits, value.verdict as u8]);
        bytes.extend(port.to_be_bytes());
        bytes.extend(value.precedence.to_be_bytes());
        bytes.extend(value.cookie.0.to_be_bytes());
    }
    digest::head(digest::digest([b"policy".as_slice(), &bytes]))
}
