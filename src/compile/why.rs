//! Why a flow is allowed or not: the rules of both ends, asked one after another as a person would who reads the files.
//!
//! Like the datapath's judgement it knows of policy alone: routes, spoofing and replies are not asked here.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::source_kinds;
use super::view::{Fit, Party, Ranked, Subject, View};
use crate::config::model::Rule;
use crate::types::{Action, Direction, Family, Mode, PortSpec, Protocol, Tier, Verdict};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub verdict: Verdict,
    pub outcome: Outcome,
    /// Of the packet that was judged. Another one of the same question may be of the other.
    pub family: Family,
    /// Of the sender's policies, if it is an endpoint and the outcome is [`Outcome::Judged`].
    pub egress: Option<Decision>,
    /// Of the receiver's, likewise.
    pub ingress: Option<Decision>,
    /// Rules that would have allowed it if one thing were different; the nearest first, at most [`ALMOST`].
    pub almost: Vec<Almost>,
    /// What would be if shadow policies were enforced; none: the same.
    pub shadow: Option<Shadow>,
    /// Over this family the verdict is another.
    pub other_family: Option<(Family, Verdict)>,
    /// Some rule tells source ports apart, and none was said.
    pub source: Option<Source>,
    /// Some rule asked for the address of an endpoint that is not known. Such rules are taken not to match.
    pub unknown_address: bool,
}

/// Of source ports that rules tell apart, those that are allowed least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// This one was judged.
    Port {
        port: u16,
        /// What others get, if that is another verdict.
        other: Option<Verdict>,
    },
    /// They are too many to try: nothing was found out.
    TooMany,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Judged,
    /// One address is in a pool, but no endpoint's: dropped unjudged.
    NoEndpoint,
    /// Neither is an endpoint: none of porin's business.
    NotOurs,
}

/// What one end's policies say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    /// None: no policy decides, which allows.
    pub by: Option<Ranked>,
    /// The last rule that passed it on to the next tier.
    pub passed: Option<Ranked>,
    /// Of its requests, those are allowed that one of these rules allows; empty: all are.
    pub requests: Vec<Ranked>,
    /// Whether any policy speaks of the direction.
    pub asked: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Almost {
    pub rule: Ranked,
    pub differs: Differs,
}

/// What keeps a rule from matching. Ordered by how near that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Differs {
    SourcePort,
    Port,
    Peer,
}

impl Differs {
    pub fn as_str(self) -> &'static str {
        match self {
            Differs::SourcePort => "source-port",
            Differs::Port => "port",
            Differs::Peer => "peer",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadow {
    pub verdict: Verdict,
    pub egress: Option<Decision>,
    pub ingress: Option<Decision>,
}

/// Rules in [`Explanation::almost`] at most.
pub const ALMOST: usize = 5;

/// The first packet of a flow, but for who it is from and to.
#[derive(Clone, Copy)]
struct Packet {
    family: Family,
    protocol: Protocol,
    port: u16,
    source_port: Option<u16>,
}

impl View {
    /// `port`: the receiver's; for ICMP and ICMPv6 `type << 8 | code`; 0 for protocols without ports.
    /// `source_port`: none if there is none, or to be told of those that are allowed least.
    pub fn judge(
        &self,
        from: &Party,
        to: &Party,
        protocol: Protocol,
        port: u16,
        source_port: Option<u16>,
    ) -> Explanation {
        let port = protocol.judged_port(port);
        let packet = |family| Packet { family, protocol, port, source_port };
        let families = families(from, to, protocol);
        let explanation = Case { view: self, from, to, packet: packet(families[0]) }.explain();
        let at_large = |party: &Party| matches!(party, Party::Entity(_));
        let may_differ = self.has_match_endpoints() || at_large(from) || at_large(to);
        if families[0] == families[1] || !may_differ {
            return explanation;
        }
        let other = Case { view: self, from, to, packet: packet(families[1]) }.explain();
        let (mut told, rest) = match (explanation.verdict, other.verdict) {
            (Verdict::Allow, Verdict::Deny | Verdict::Reject) => (other, explanation),
            _ => (explanation, other),
        };
        if told.verdict != rest.verdict {
            told.other_family = Some((rest.family, rest.verdict));
        }
        told.unknown_address |= rest.unknown_address;
        told
    }
}

/// Which families a packet between them can be of, as far as that is known; twice the same if only one.
fn families(from: &Party, to: &Party, protocol: Protocol) -> [Family; 2] {
    let only = |family| [family, family];
    if let Some(family) = from.family().or(to.family()) {
        return only(family);
    }
    match protocol {
        Protocol::ICMP => return only(Family::Ipv4),
        Protocol::ICMPV6 => return only(Family::Ipv6),
        _ => {}
    }
    let can = |family| from.may_have(family) && to.may_have(family);
    match Family::BOTH.map(can) {
        [true, false] => only(Family::Ipv6),
        [false, true] => only(Family::Ipv4),
        // If neither can be, what policy says is still worth knowing.
        _ => Family::BOTH,
    }
}

#[derive(Clone, Copy)]
struct Case<'a> {
    view: &'a View,
    from: &'a Party,
    to: &'a Party,
    packet: Packet,
}

/// One end of a case, with what is about it.
struct End {
    direction: Direction,
    subject: Arc<Subject>,
}

impl Case<'_> {
    fn explain(&self) -> Explanation {
        let mut explanation = Explanation {
            verdict: Verdict::Allow,
            outcome: Outcome::Judged,
            family: self.packet.family,
            egress: None,
            ingress: None,
            almost: Vec::new(),
            shadow: None,
            other_family: None,
            source: None,
            unknown_address: false,
        };
        let unassigned = |party: &Party| matches!(party, Party::Unassigned(_));
        if unassigned(self.from) || unassigned(self.to) {
            explanation.outcome = Outcome::NoEndpoint;
            explanation.verdict = Verdict::Deny;
            return explanation;
        }
        let (sender, receiver) = self.ends();
        if sender.is_none() && receiver.is_none() {
            explanation.outcome = Outcome::NotOurs;
            return explanation;
        }
        explanation.source = self.least_source(&sender, &receiver);
        match explanation.source {
            Some(Source::Port { port, .. }) => self.at(port).judge(explanation, sender, receiver),
            Some(Source::TooMany) => Explanation { verdict: Verdict::Deny, ..explanation },
            None => self.judge(explanation, sender, receiver),
        }
    }

    fn at(self, source_port: u16) -> Self {
        Case { packet: Packet { source_port: Some(source_port), ..self.packet }, ..self }
    }

    /// What is not known of the source port by now is asked by no rule that could match.
    fn judge(
        &self,
        mut explanation: Explanation,
        sender: Option<End>,
        receiver: Option<End>,
    ) -> Explanation {
        let unknown = &mut explanation.unknown_address;
        let mut decide =
            |end: &Option<End>, shadow| end.as_ref().map(|end| self.decide(end, shadow, unknown));
        let (egress, ingress) = (decide(&sender, false), decide(&receiver, false));
        let verdict = both(&egress, &ingress);
        if has_shadow(&sender, &receiver) {
            let shadow_egress = decide(&sender, true);
            let shadow_ingress = decide(&receiver, true);
            let verdicts = |one: &Option<Decision>| one.as_ref().map(|one| one.verdict);
            let same = verdicts(&shadow_egress) == verdicts(&egress)
                && verdicts(&shadow_ingress) == verdicts(&ingress);
            explanation.shadow = (!same).then(|| Shadow {
                verdict: both(&shadow_egress, &shadow_ingress),
                egress: shadow_egress,
                ingress: shadow_ingress,
            });
        }
        let denying = |end: Option<End>, decision: &Option<Decision>| {
            end.filter(|_| decision.as_ref().is_some_and(|one| one.verdict != Verdict::Allow))
        };
        let ends = [denying(sender, &egress), denying(receiver, &ingress)];
        let mut almost: Vec<_> = ends.iter().flatten().flat_map(|end| self.almost(end)).collect();
        almost.sort_by_key(|(_, differs)| *differs);
        almost.truncate(ALMOST);
        let almost = almost.into_iter();
        explanation.almost =
            almost.map(|(rule, differs)| Almost { rule: rule.clone(), differs }).collect();
        (explanation.verdict, explanation.egress, explanation.ingress) = (verdict, egress, ingress);
        explanation
    }

    /// None: no rule that could match tells source ports apart, or one was said.
    fn least_source(&self, sender: &Option<End>, receiver: &Option<End>) -> Option<Source> {
        let Packet { protocol, source_port: None, family, .. } = self.packet else { return None };
        let telling = |end: &&End| protocol.has_ports() && end.subject.sources;
        let mut lists = BTreeSet::new();
        for end in [sender, receiver].into_iter().flatten().filter(telling) {
            for entry in end.subject.ranked(end.direction) {
                let Some(rule) = entry.rule().filter(|rule| !rule.source_ports.is_empty()) else {
                    continue;
                };
                let peer = || self.view.peer_matches(rule, self.peer(end.direction), family);
                if self.port_matches(rule) && peer() != Fit::No {
                    lists.insert(rule.source_ports.as_slice());
                }
            }
        }
        if lists.is_empty() {
            return None;
        }
        let Some(kinds) = source_kinds::kinds(&lists) else { return Some(Source::TooMany) };
        let verdict = |port, shadow| {
            let mut unknown = false;
            let mut decide = |end: &Option<End>| {
                end.as_ref().map(|end| self.at(port).decide(end, shadow, &mut unknown))
            };
            both(&decide(sender), &decide(receiver))
        };
        let shadow = has_shadow(sender, receiver);
        let mut least: Option<((bool, bool, u32), u16, Verdict)> = None;
        let mut verdicts = Vec::with_capacity(kinds.len());
        for source_kinds::Kind { port, size } in kinds {
            let is = verdict(port, false);
            let would = if shadow { verdict(port, true) } else { is };
            verdicts.push(is);
            // Of those alike, what most ports get.
            let rank = (is != Verdict::Allow, would != Verdict::Allow, size);
            if least.is_none_or(|(best, ..)| rank > best) {
                least = Some((rank, port, is));
            }
        }
        let (_, port, is) = least?;
        let other = verdicts.into_iter().find(|verdict| *verdict != is);
        Some(Source::Port { port, other })
    }

    fn ends(&self) -> (Option<End>, Option<End>) {
        let end = |party: &Party, direction| {
            let member = party.member()?;
            Some(End { direction, subject: self.view.subject(member) })
        };
        (end(self.from, Direction::Egress), end(self.to, Direction::Ingress))
    }

    fn peer(&self, direction: Direction) -> &Party {
        match direction {
            Direction::Egress => self.to,
            Direction::Ingress => self.from,
        }
    }

    fn decide(&self, end: &End, shadow: bool, unknown_address: &mut bool) -> Decision {
        let counts = |entry: &&Ranked| shadow || entry.mode == Mode::Enforce;
        let ranked = || end.subject.ranked(end.direction).iter().filter(counts);
        let mut passed: Option<&Ranked> = None;
        for entry in ranked() {
            if passed.is_some_and(|pass| pass.tier == entry.tier)
                || !self.matches(entry, unknown_address)
            {
                continue;
            }
            let verdict = match entry.action {
                Action::Allow => Verdict::Allow,
                Action::Deny => Verdict::Deny,
                Action::Reject => Verdict::Reject,
                Action::Pass => {
                    passed = Some(entry);
                    continue;
                }
            };
            let (by, passed) = (Some(entry.clone()), passed.cloned());
            let about = |entry: &Ranked| {
                entry.action == Action::Allow && entry.rule().is_some_and(|r| !r.l7.is_empty())
            };
            let of_these = |other: &&Ranked| {
                other.tier == entry.tier && about(other) && self.matches(other, unknown_address)
            };
            let requests = match about(entry) {
                true => ranked().filter(of_these).cloned().collect(),
                false => Vec::new(),
            };
            return Decision { verdict, by, passed, requests, asked: true };
        }
        let asked = end.subject.ranked(end.direction).iter().any(|entry| counts(&entry));
        let (passed, requests) = (passed.cloned(), Vec::new());
        Decision { verdict: Verdict::Allow, by: None, passed, requests, asked }
    }

    fn matches(&self, entry: &Ranked, unknown_address: &mut bool) -> bool {
        let Some(rule) = entry.rule() else { return true };
        if !self.port_matches(rule) {
            return false;
        }
        let source = self.source_port_matches(rule);
        if source == Fit::No {
            return false;
        }
        let peer = self.view.peer_matches(rule, self.peer(entry.direction), self.packet.family);
        if peer == Fit::No {
            return false;
        }
        *unknown_address |= peer == Fit::Unknown;
        source == Fit::Yes && peer == Fit::Yes
    }

    /// Named ports are the receiver's, whoever's rule it is.
    fn port_matches(&self, rule: &Rule) -> bool {
        let Packet { protocol, port, .. } = self.packet;
        let none = Default::default();
        let named = self.to.member().map_or(&none, |member| &*member.ports);
        let matches =
            |spec: &PortSpec| spec.of(named).is_some_and(|ports| ports.matches(protocol, port));
        rule.ports.is_empty() || rule.ports.iter().any(matches)
    }

    fn source_port_matches(&self, rule: &Rule) -> Fit {
        if rule.source_ports.is_empty() {
            return Fit::Yes;
        }
        if !self.packet.protocol.has_ports() {
            return Fit::No;
        }
        match self.packet.source_port {
            Some(port) => rule.source_ports.iter().any(|ports| ports.contains(port)).into(),
            None if rule
                .source_ports
                .iter()
                .any(|ports| ports.first() <= 1 && ports.last() == u16::MAX) =>
            {
                Fit::Yes
            }
            None => Fit::Unknown,
        }
    }

    /// Rules above what decided that would have allowed it but for one thing.
    fn almost<'e>(&self, end: &'e End) -> Vec<(&'e Ranked, Differs)> {
        let mut almost = Vec::new();
        let mut skipped: Option<Tier> = None;
        let mut unknown = false;
        let enforced = end.subject.ranked(end.direction).iter();
        for entry in enforced.filter(|entry| entry.mode == Mode::Enforce) {
            if skipped == Some(entry.tier) {
                continue;
            }
            if entry.action == Action::Allow {
                let differs = entry.rule().and_then(|rule| self.differs(rule, entry.direction));
                almost.extend(differs.map(|differs| (entry, differs)));
            } else if self.matches(entry, &mut unknown) {
                if entry.action != Action::Pass {
                    break;
                }
                skipped = Some(entry.tier);
            }
        }
        almost
    }

    /// The one thing that keeps a rule from matching; none if there are more.
    fn differs(&self, rule: &Rule, direction: Direction) -> Option<Differs> {
        let port = self.port_matches(rule);
        let source = self.source_port_matches(rule) == Fit::Yes;
        if !port && !source {
            return None;
        }
        let family = self.packet.family;
        let peer = self.view.peer_matches(rule, self.peer(direction), family) == Fit::Yes;
        match (port, source, peer) {
            (false, true, true) => Some(Differs::Port),
            (true, false, true) => Some(Differs::SourcePort),
            (true, true, false) => Some(Differs::Peer),
            _ => None,
        }
    }
}

fn has_shadow(sender: &Option<End>, receiver: &Option<End>) -> bool {
    [sender, receiver].into_iter().flatten().any(|end| end.subject.shadow)
}

/// Both must allow; the sender's is asked first.
fn both(egress: &Option<Decision>, ingress: &Option<Decision>) -> Verdict {
    let verdicts = [egress, ingress].into_iter().flatten().map(|decision| decision.verdict);
    verdicts.into_iter().find(|verdict| *verdict != Verdict::Allow).unwrap_or(Verdict::Allow)
}

#[cfg(test)]
#[path = "why_tests.rs"]
mod tests;
