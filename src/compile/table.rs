//! The policy table of one subject, from what the policies that pick it contribute.
//!
//! Normal form: among the entries of one peer, direction and class of source ports, the longest match carries the best rule
//! of all that cover it, and no entry says what the next wider one says. The datapath looks up the peer and "any"
//! apart and takes the better, so rules about any peer need not be repeated for each. That does not hold where a rule
//! passes or is about requests: see [`super::passing`].

use crate::desired::digest;
use crate::types::http::L7;
use crate::types::{Action, Cookie, Direction, Mode, Peer, Protocol, RulesetId, Tier, Verdict};

use super::passing;
use super::plan::{Digest, PolicyKey, PolicyTable, PolicyValue, PortPrefix, SourceClass};
use super::precedence;
use super::resolve::{Contribution, Resolved};
use super::roles::NamedPorts;
use super::rulesets::Rulesets;

use std::sync::Arc;

/// Entries of one table at most.
pub const ENTRIES: usize = 1_000_000;
/// Before what is covered by others is left out; bounds the memory that a refused table takes.
pub(super) const RAW_ENTRIES: usize = 8 * ENTRIES;

/// Why a table does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooLarge {
    #[error("{count} entries, {} more than the {ENTRIES} that fit", count - ENTRIES)]
    Entries { count: usize },
    #[error("{count} rules of one direction, {} more than the {} that fit", count - limit, limit)]
    Rules { count: usize, limit: usize },
    #[error("there are too many different sets of rules about requests, or too much in them")]
    Rulesets,
}

/// What a rule or a default says, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Raw<'a> {
    pub key: PolicyKey,
    pub tier: Tier,
    pub action: Action,
    pub precedence: u32,
    pub cookie: Cookie,
    /// What it allows are requests.
    pub l7: Option<&'a Arc<L7>>,
}

/// `policies`: sorted by name. `shadow`: what would be if those in shadow mode were enforced.
pub(super) fn build(
    policies: &[Arc<Resolved>],
    subject: &NamedPorts,
    shadow: bool,
    rulesets: &mut Rulesets,
) -> Result<PolicyTable, TooLarge> {
    let mut entries = Vec::new();
    for direction in Direction::BOTH {
        let raw = collect(policies, subject, shadow, direction)?;
        let whole = |raw: &Raw<'_>| raw.action == Action::Pass || raw.l7.is_some();
        let settled = match raw.iter().any(whole) {
            true => passing::settle(&raw, direction, rulesets)?,
            false => normalise(raw),
        };
        entries.extend(settled);
        if entries.len() > ENTRIES {
            return Err(TooLarge::Entries { count: entries.len() });
        }
    }
    entries.sort_unstable_by_key(|(key, _)| *key);
    let digest = digest_of(&entries);
    Ok(PolicyTable { entries, digest })
}

type Entry = (PolicyKey, PolicyValue);

/// Of everyone, from any port, to every port.
pub(super) fn everything(direction: Direction) -> PolicyKey {
    PolicyKey { peer: Peer::ANY, direction, source: SourceClass::ANY, ports: PortPrefix::Any }
}

/// All that the policies say of a direction; what decides where none says anything included.
fn collect<'a>(
    policies: &'a [Arc<Resolved>],
    subject: &NamedPorts,
    shadow: bool,
    direction: Direction,
) -> Result<Vec<Raw<'a>>, TooLarge> {
    let spoken = || {
        let in_force = policies.iter().filter(|policy| shadow || policy.mode == Mode::Enforce);
        in_force.filter_map(|policy| Some((policy, policy.direction(direction)?)))
    };
    let key = everything(direction);
    let allow = Raw {
        key,
        tier: Tier::Baseline,
        action: Action::Allow,
        precedence: precedence::DEFAULT,
        cookie: Cookie::NONE,
        l7: None,
    };
    let mut raw = vec![allow];
    for tier in Tier::ALL {
        let mut of_tier = spoken().filter(|(policy, _)| policy.tier == tier);
        // The first of those that say so is the one that is named.
        if let Some(cookie) = of_tier.find_map(|(_, contribution)| contribution.default) {
            let precedence = precedence::of_default(tier);
            raw.push(Raw { key, tier, action: Action::Deny, precedence, cookie, l7: None });
        }
    }
    let count = spoken().map(|(_, contribution)| contribution.rules.len()).sum();
    let limit = precedence::ORDERS as usize;
    if count > limit {
        return Err(TooLarge::Rules { count, limit });
    }
    let mut order = 0;
    for (policy, Contribution { rules, .. }) in spoken() {
        for rule in rules {
            let ports = rule.ports(subject);
            let pairs = rule.peers.len().saturating_mul(ports.len()) + rule.own.len();
            let count = raw.len().saturating_add(pairs.saturating_mul(rule.sources.len()));
            if count > RAW_ENTRIES {
                return Err(TooLarge::Entries { count });
            }
            let (priority, l7) = (policy.priority.into(), rule.l7.as_ref());
            let precedence =
                precedence::of(policy.tier, priority, rule.action, l7.is_some(), order);
            order += 1;
            let product = rule.peers.iter().flat_map(|p| ports.iter().map(move |q| (*p, *q)));
            for (peer, ports) in product.chain(rule.own.iter().copied()) {
                raw.extend(rule.sources.iter().map(|source| Raw {
                    key: PolicyKey { peer, direction, source: *source, ports },
                    tier: policy.tier,
                    action: rule.action,
                    precedence,
                    cookie: rule.cookie,
                    l7,
                }));
            }
        }
    }
    Ok(raw)
}

/// What an action that decides makes of a packet.
pub(super) fn verdict(action: Action) -> Option<Verdict> {
    match action {
        Action::Allow => Some(Verdict::Allow),
        Action::Deny => Some(Verdict::Deny),
        Action::Reject => Some(Verdict::Reject),
        Action::Pass => None,
    }
}

fn normalise(mut raw: Vec<Raw<'_>>) -> Vec<Entry> {
    // What is wider comes before what it contains; the best of each key comes first and stays.
    raw.sort_unstable_by(|a, b| a.key.cmp(&b.key).then(b.precedence.cmp(&a.precedence)));
    raw.dedup_by_key(|raw| raw.key);
    let mut entries: Vec<Entry> = Vec::with_capacity(raw.len());
    let mut begin = 0;
    for Raw { key, action, precedence, cookie, .. } in raw {
        let Some(verdict) = verdict(action) else { continue };
        if entries.last().is_none_or(|(last, _)| group(last) != group(&key)) {
            begin = entries.len();
        }
        // What stands already is right for all that it covers, so the narrowest of the wider ones is enough.
        let covering = covering(&entries[begin..], key.ports);
        if covering.is_none_or(|outer| precedence > outer.precedence) {
            entries.push((key, PolicyValue { precedence, verdict, cookie, ruleset: None }));
        }
    }
    entries.shrink_to_fit();
    entries
}

/// Who is looked up by one longest match.
pub(super) fn group(key: &PolicyKey) -> (Peer, Direction, SourceClass) {
    (key.peer, key.direction, key.source)
}

/// The value of the narrowest entry of `group` that contains `ports`.
pub(super) fn covering(group: &[Entry], ports: PortPrefix) -> Option<PolicyValue> {
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
    /// What the longest match among the entries of exactly this peer and class says, as one look-up of the datapath does.
    pub fn longest_match(
        &self,
        peer: Peer,
        direction: Direction,
        source: SourceClass,
        protocol: Protocol,
        port: u16,
    ) -> Option<PolicyValue> {
        let wanted = (peer, direction, source);
        let begin = self.entries.partition_point(|(key, _)| group(key) < wanted);
        let rest = &self.entries[begin..];
        let end = rest.partition_point(|(key, _)| group(key) <= wanted);
        let exact = PortPrefix::around(protocol, port, 16);
        let of_group = &rest[..end];
        find(of_group, exact).or_else(|| covering(of_group, exact))
    }

    /// What it asks of requests.
    pub fn rulesets(&self) -> impl Iterator<Item = RulesetId> {
        self.entries.iter().filter_map(|(_, value)| value.ruleset)
    }

    /// Whether anything in it rejects.
    pub fn rejects(&self) -> bool {
        self.entries.iter().any(|(_, value)| value.verdict == Verdict::Reject)
    }
}

fn digest_of(entries: &[Entry]) -> Digest {
    let mut bytes = Vec::with_capacity(entries.len() * 21);
    for (key, value) in entries {
        bytes.extend(key.peer.0.to_be_bytes());
        let (protocol, bits, port) = match key.ports {
            PortPrefix::Any => (0, u8::MAX, 0),
            PortPrefix::Protocol { protocol, bits, port } => (protocol.0, bits, port),
        };
        let (direction, verdict) = (key.direction as u8, value.verdict as u8);
        bytes.extend([direction, key.source.0, protocol, bits, verdict]);
        bytes.extend(port.to_be_bytes());
        bytes.extend(value.precedence.to_be_bytes());
        bytes.extend(value.cookie.0.to_be_bytes());
        bytes.extend(value.ruleset.map_or(0, |ruleset| ruleset.0).to_be_bytes());
    }
    digest::head(digest::digest([b"policy".as_slice(), &bytes]))
}
