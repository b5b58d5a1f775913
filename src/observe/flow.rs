//! A flow, a denial or a drop with names: what `porinctl flows` shows and its JSON.
//!
//! The JSON form is an interface: fields are only ever added. Knows names, not where they come from
//! nor where the record goes.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::event::{Event, FlowType, Hook};
use super::names::Names;
use super::reason;
use super::request::Request;
use crate::types::{Cookie, Direction, Generation, Labels, Peer, Verdict};

/// One event, named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    pub time: Timestamp,
    #[serde(rename = "type")]
    pub kind: FlowType,
    /// None: not policy's, but another reason to drop.
    pub verdict: Option<Verdict>,
    /// Drop reason; none for flows.
    pub reason: Option<String>,
    pub source: End,
    pub destination: End,
    /// `tcp`, `udp`, ... or the IP protocol number.
    pub protocol: String,
    /// What the sender's egress policy said; none: it was not asked.
    pub egress: Option<Decision>,
    /// What the receiver's ingress policy said; none: it was not asked.
    pub ingress: Option<Decision>,
    /// The generation that judged; 0: none did.
    pub generation: Generation,
    /// Bytes of the packet from its IP header on.
    pub length: u32,
    /// What would have been decided if shadow policies were enforced; none: they make no difference to either end.
    #[serde(default)]
    pub shadow: Option<Shadow>,
    /// Of a request that the L7 worker judged; then there is no packet, and `length` is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
}

/// A judgement beside the one that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadow {
    pub verdict: Verdict,
    /// As in [`Flow`].
    pub egress: Option<Decision>,
    pub ingress: Option<Decision>,
}

/// One end of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Name of the endpoint; none if it is not one of this host.
    pub endpoint: Option<String>,
    /// Security-relevant labels of the endpoint.
    pub labels: Option<Arc<Labels>>,
    pub address: IpAddr,
    /// None for protocols without ports.
    pub port: Option<u16>,
    /// `host`, `world` or `pool` for an address that is no endpoint's.
    pub class: Option<String>,
    /// The CIDR sets of policies that the address is in.
    pub cidrs: Arc<[Arc<str>]>,
}

/// What decided one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Decision {
    Rule(RuleName),
    Default(DefaultMark),
}

/// No policy speaks of this endpoint and direction: everything passes. JSON: `"default"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DefaultMark {
    Default,
}

/// A rule, or a policy's default deny, by its place in the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleName {
    pub policy: String,
    pub file: String,
    pub line: u32,
    /// Counted from 1 within the policy and direction; none: the policy made the direction default deny.
    pub rule: Option<u32>,
}

impl Decision {
    pub const DEFAULT: Decision = Decision::Default(DefaultMark::Default);
}

impl Flow {
    /// Names `event`, which happened at `time`.
    pub fn new(event: &Event, time: Timestamp, names: &Names) -> Self {
        let ports = event.protocol.has_ports();
        let mut source = End::new(names, event.source, event.source_peer);
        let mut destination = End::new(names, event.destination, event.destination_peer);
        // Who hit the hook is certain; what a dropped packet says of itself may be a lie or a
        // link-local address. Denials are about the flow, whichever way the packet went.
        if event.kind == FlowType::Drop {
            match event.hook {
                Hook::Ingress => source.belongs_to(names, event),
                Hook::Egress => destination.belongs_to(names, event),
            }
        }
        source.port = ports.then_some(event.source_port);
        destination.port = ports.then_some(event.destination_port);
        Flow {
            time,
            kind: event.kind,
            verdict: event.verdict.filter(|_| event.kind != FlowType::Drop),
            reason: (event.kind != FlowType::Flow).then(|| reason::name(event.reason)),
            egress: decision(event, names, event.egress_cookie, egress_judged(event, &source)),
            ingress: decision(
                event,
                names,
                event.ingress_cookie,
                ingress_judged(event, &destination),
            ),
            shadow: shadow(event, names, &source, &destination),
            source,
            destination,
            protocol: event.protocol.to_string(),
            generation: event.generation,
            length: event.length,
            request: None,
        }
    }
}

impl Shadow {
    /// The direction that would have denied. A denial always has a rule or a policy, and the receiver is only
    /// asked what the sender may.
    pub fn denied(&self) -> Option<Direction> {
        if self.verdict == Verdict::Allow {
            return None;
        }
        let rule = |decision: &Option<Decision>| matches!(decision, Some(Decision::Rule(_)));
        Some(if rule(&self.ingress) { Direction::Ingress } else { Direction::Egress })
    }
}

fn shadow(event: &Event, names: &Names, source: &End, destination: &End) -> Option<Shadow> {
    let verdict = event.shadow.filter(|_| event.kind != FlowType::Drop)?;
    // The same verdict by the same rules is no difference.
    let same = event.verdict == Some(verdict)
        && event.shadow_egress_cookie == event.egress_cookie
        && event.shadow_ingress_cookie == event.ingress_cookie;
    if same {
        return None;
    }
    let asked = verdict == Verdict::Allow || event.shadow_ingress_cookie != Cookie::NONE;
    let ingress = asked && destination.endpoint.is_some();
    Some(Shadow {
        verdict,
        egress: decision(event, names, event.shadow_egress_cookie, source.endpoint.is_some()),
        ingress: decision(event, names, event.shadow_ingress_cookie, ingress),
    })
}

impl End {
    pub(super) fn new(names: &Names, address: IpAddr, peer: Peer) -> Self {
        let endpoint = names.endpoint_of(address);
        let class = names.class(peer).filter(|_| endpoint.is_none());
        End {
            endpoint: endpoint.map(|endpoint| endpoint.name.to_string()),
            labels: endpoint
                .map(|endpoint| endpoint.labels.clone())
                .or_else(|| names.labels(peer).cloned()),
            address,
            port: None,
            class: class.map(|class| class.kind.to_owned()),
            cidrs: class.map(|class| class.cidrs.clone()).unwrap_or_default(),
        }
    }

    /// Makes the hook's endpoint this end's; an uplink's hook says nothing of ends.
    fn belongs_to(&mut self, names: &Names, event: &Event) {
        if let Some(endpoint) = names.endpoint(event.slot) {
            self.endpoint = Some(endpoint.name.to_string());
            self.labels = Some(endpoint.labels.clone());
            self.class = None;
            self.cidrs = Arc::default();
        }
    }
}

/// `PORIN_DROP_POLICY_EGRESS`: the receiver was not asked any more.
const POLICY_EGRESS: u32 = 1;

fn egress_judged(event: &Event, source: &End) -> bool {
    event.kind != FlowType::Drop && source.endpoint.is_some()
}

fn ingress_judged(event: &Event, destination: &End) -> bool {
    let asked = match event.kind {
        FlowType::Flow => true,
        FlowType::Deny => event.reason != POLICY_EGRESS,
        FlowType::Drop => false,
    };
    asked && destination.endpoint.is_some()
}

fn decision(event: &Event, names: &Names, cookie: Cookie, judged: bool) -> Option<Decision> {
    if cookie == Cookie::NONE {
        return judged.then_some(Decision::DEFAULT);
    }
    let found = named(names, cookie);
    if found.is_none() {
        log::debug!("event of generation {} has unknown cookie {cookie}", event.generation);
    }
    found
}

/// The rule of that cookie.
pub(super) fn named(names: &Names, cookie: Cookie) -> Option<Decision> {
    let rule = names.rule(cookie)?;
    Some(Decision::Rule(RuleName {
        policy: rule.policy.to_string(),
        file: rule.origin.file.display().to_string(),
        line: rule.origin.line,
        rule: rule.rule.map(|index| index.saturating_add(1)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::fixture;
    use crate::types::{Protocol, Slot};

    fn named(event: &Event) -> Flow {
        let time = "2026-11-23T16:02:11.123456Z".parse().unwrap();
        Flow::new(event, time, &fixture::names(41))
    }

    fn rule(policy: &str, line: u32, rule: Option<u32>) -> Decision {
        let file = "/etc/porin/policies.d/shop.toml".into();
        Decision::Rule(RuleName { policy: policy.into(), file, line, rule })
    }

    #[test]
    fn a_denial_names_both_ends_and_the_line_that_denied() {
        let flow = named(&fixture::denied());
        assert_eq!(flow.source.endpoint.as_deref(), Some("dev/intruder"));
        assert_eq!(flow.destination.endpoint.as_deref(), Some("api"));
        assert_eq!(flow.reason.as_deref(), Some("policy-ingress"));
        assert_eq!(flow.egress, Some(Decision::DEFAULT));
        assert_eq!(flow.ingress, Some(rule("shop-api", 3, None)));
    }

    #[test]
    fn what_was_not_asked_says_nothing() {
        let mut event = fixture::denied();
        event.reason = POLICY_EGRESS;
        event.egress_cookie = Cookie(12);
        event.ingress_cookie = Cookie::NONE;
        let flow = named(&event);
        assert_eq!(flow.egress, Some(rule("dev", 17, Some(2))));
        assert_eq!(flow.ingress, None);

        event.kind = FlowType::Flow;
        event.reason = 0;
        event.destination = "2001:db8::1".parse().unwrap();
        event.destination_peer = fixture::WORLD;
        let flow = named(&event);
        assert_eq!((flow.reason.as_deref(), &flow.ingress), (None, &None));
        assert_eq!(flow.destination.endpoint, None);
        assert_eq!(flow.destination.class.as_deref(), Some("world"));
        assert_eq!(*flow.destination.cidrs, ["2001:db8::/32".into()]);
        // A class may be in thousands: no event copies them.
        let names = fixture::names(41);
        let flow = Flow::new(&event, flow.time, &names);
        let class = names.class(fixture::WORLD).unwrap();
        assert!(Arc::ptr_eq(&flow.destination.cidrs, &class.cidrs));
    }

    #[test]
    fn what_shadow_policies_would_do_stands_beside() {
        let mut event = fixture::denied();
        assert_eq!(named(&event).shadow, None);
        event.kind = FlowType::Flow;
        event.verdict = Some(Verdict::Allow);
        event.reason = 0;
        event.ingress_cookie = Cookie::NONE;
        event.shadow = Some(Verdict::Reject);
        event.shadow_ingress_cookie = Cookie(13);
        let flow = named(&event);
        let shadow = flow.shadow.clone().unwrap();
        assert_eq!((flow.verdict, &flow.ingress), (Some(Verdict::Allow), &Some(Decision::DEFAULT)));
        assert_eq!(shadow.verdict, Verdict::Reject);
        assert_eq!(shadow.egress, Some(Decision::DEFAULT));
        assert_eq!(shadow.ingress, Some(rule("tighter", 30, Some(1))));
        assert_eq!(shadow.denied(), Some(Direction::Ingress));
        let json = serde_json::to_string(&flow).unwrap();
        assert!(json.contains(r#""shadow":{"verdict":"reject","egress":"default","#), "{json}");
        assert_eq!(serde_json::from_str::<Flow>(&json).unwrap(), flow);

        // Denied by the sender's: the receiver's is not asked.
        event.shadow_egress_cookie = Cookie(12);
        event.shadow_ingress_cookie = Cookie::NONE;
        let shadow = named(&event).shadow.unwrap();
        assert_eq!((shadow.ingress.clone(), shadow.denied()), (None, Some(Direction::Egress)));
    }

    /// A spoofed packet is its sender's, not its victim's.
    #[test]
    fn a_drop_is_blamed_on_whoever_hit_the_hook() {
        let mut event = fixture::denied();
        event.kind = FlowType::Drop;
        event.reason = 5;
        event.ingress_cookie = Cookie::NONE;
        event.source = "fd00::3".parse().unwrap();
        let flow = named(&event);
        assert_eq!(flow.source.endpoint.as_deref(), Some("dev/intruder"));
        assert_eq!(flow.source.address.to_string(), "fd00::3");
        assert_eq!(flow.reason.as_deref(), Some("spoofed-address"));
        assert_eq!((flow.verdict, flow.egress, flow.ingress), (None, None, None));

        event.slot = fixture::UPLINK;
        assert_eq!(named(&event).source.endpoint.as_deref(), Some("api"));
    }

    #[test]
    fn protocols_without_ports_have_none() {
        let mut event = fixture::denied();
        for (protocol, text) in
            [(Protocol::ICMPV6, "icmpv6"), (Protocol(47), "gre"), (Protocol(200), "200")]
        {
            event.protocol = protocol;
            let flow = named(&event);
            assert_eq!((flow.protocol.as_str(), flow.source.port), (text, None));
        }
    }

    #[test]
    fn unknown_numbers_are_no_obstacle() {
        let mut event = fixture::denied();
        event.generation = Generation(u32::MAX);
        event.slot = Slot(u32::MAX);
        event.reason = u32::MAX;
        event.ingress_cookie = Cookie(u32::MAX);
        event.source_peer = Peer(u32::MAX);
        event.source = "::".parse().unwrap();
        let flow = named(&event);
        assert_eq!((flow.ingress, flow.source.labels), (None, None));
    }

    #[test]
    fn json_reads_back() {
        let flow = named(&fixture::denied());
        let json = serde_json::to_string(&flow).unwrap();
        assert_eq!(serde_json::from_str::<Flow>(&json).unwrap(), flow);
        assert!(
            json.starts_with(r#"{"time":"2026-11-23T16:02:11.123456Z","type":"deny","#),
            "{json}"
        );
        assert!(json.contains(r#""egress":"default""#), "{json}");
    }
}
