//! A flow as one line for people.
//!
//! ```text
//! 16:02:11.123 deny  tcp  dev/intruder [fd00::7]:43210 -> api [fd00::3]:8080  ingress default of shop-api (policies.d/shop.toml:3)
//! ```
//!
//! What shadow policies would change comes last:
//!
//! ```text
//! 16:02:11.123 flow  tcp  front [fd00::7]:43210 -> api [fd00::3]:8080  shadow deny ingress rule 1 of tighter (policies.d/shop.toml:30)
//! ```
//!
//! Requests that the L7 worker judged have what was asked after their ends:
//!
//! ```text
//! 16:02:11.123 deny  http/1.1  front [fd00::7]:43210 -> api [fd00::3]:8080  GET shop.example/admin 403  ingress: no rule allows it
//! ```
//!
//! Where that is wider than the terminal, what the names already say is left out:
//!
//! ```text
//! 16:02:11.123 deny  tcp  dev/intruder:43210 -> api:8080  ingress shop.toml:3
//! ```

use std::fmt::Write;
use std::path::Path;

use jiff::tz::TimeZone;

use super::event::FlowType;
use super::flow::{Decision, End, Flow, RuleName};
use super::request::Request;
use super::text::plain;
use crate::types::{Direction, Verdict};

/// The three parts of a line, so that the type can be coloured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub time: String,
    pub kind: FlowType,
    /// What happened, in a word.
    pub word: &'static str,
    pub rest: String,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}{}", self.time, self.word, self.rest)
    }
}

impl Line {
    /// The long form if it fits into `width` columns or there is no limit, else the short one,
    /// however wide.
    pub fn new(flow: &Flow, zone: &TimeZone, width: Option<usize>) -> Self {
        let line = |short| Line {
            time: flow.time.to_zoned(zone.clone()).strftime("%H:%M:%S%.3f").to_string(),
            kind: flow.kind,
            word: match (flow.kind, flow.verdict) {
                (FlowType::Deny, Some(Verdict::Reject)) => "reject",
                (kind, _) => kind.as_str(),
            },
            rest: rest(flow, short),
        };
        let long = line(false);
        match width {
            Some(width) if long.to_string().chars().count() > width => line(true),
            _ => long,
        }
    }
}

fn rest(flow: &Flow, short: bool) -> String {
    let end = |end: &End| if short { short_end(end) } else { long_end(end) };
    let of_request = flow.request.as_ref().map(|request| request.protocol.as_str());
    let protocol = of_request.filter(|name| !name.is_empty()).unwrap_or(&flow.protocol);
    let mut rest =
        format!("  {:<3}  {} -> {}", plain(protocol), end(&flow.source), end(&flow.destination));
    if let Some(request) = &flow.request {
        let _ = write!(rest, "  {}", asked(request));
    }
    let refused = flow.request.as_ref().and_then(|request| request.why.as_deref());
    let why = refused.map_or_else(|| why(flow, short), |why| plain(why).into_owned());
    if !why.is_empty() {
        let _ = write!(rest, "  {why}");
    }
    if let Some(shadow) = shadow(flow, short) {
        let _ = write!(rest, "  {shadow}");
    }
    rest
}

/// Strangers write this: it is made printable, as all of a line.
fn asked(request: &Request) -> String {
    let Request { method, host, path, status, .. } = request;
    let status = status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    let target = format!("{host}{path}");
    let parts = [method.as_str(), target.as_str(), status.as_str()];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).map(plain).collect();
    parts.join(" ")
}

fn long_end(end: &End) -> String {
    let socket = socket(end);
    match end.endpoint.as_ref().or(end.class.as_ref()) {
        Some(name) => format!("{} {socket}", plain(name)),
        None => socket,
    }
}

fn short_end(end: &End) -> String {
    match (&end.endpoint, end.port) {
        (Some(name), Some(port)) => format!("{}:{port}", plain(name)),
        (Some(name), None) => plain(name).into_owned(),
        (None, _) => socket(end),
    }
}

fn socket(end: &End) -> String {
    match end.port {
        Some(port) => std::net::SocketAddr::new(end.address, port).to_string(),
        None => end.address.to_string(),
    }
}

/// What decided: for a denial the direction that denied, for a flow the rules that allowed it, for a
/// drop its reason.
fn why(flow: &Flow, short: bool) -> String {
    let egress = flow.egress.as_ref().map(|decision| ("egress", decision));
    let ingress = flow.ingress.as_ref().map(|decision| ("ingress", decision));
    let reason = flow.reason.as_deref().map(plain).unwrap_or_default();
    let decided: Vec<_> = match flow.kind {
        FlowType::Drop => return reason.into_owned(),
        FlowType::Flow => egress.into_iter().chain(ingress).collect(),
        FlowType::Deny if reason == "policy-egress" => egress.into_iter().collect(),
        FlowType::Deny => ingress.into_iter().collect(),
    };
    let rules: Vec<_> = decided
        .into_iter()
        .filter_map(|(direction, decision)| match decision {
            Decision::Rule(rule) => Some(format!("{direction} {}", rule_text(rule, short))),
            Decision::Default(_) => None,
        })
        .collect();
    if rules.is_empty() { reason.into_owned() } else { rules.join(", ") }
}

/// What shadow policies would change; none: nothing.
fn shadow(flow: &Flow, short: bool) -> Option<String> {
    let shadow = flow.shadow.as_ref()?;
    let denied = shadow.denied();
    let both = [
        (Direction::Egress, &shadow.egress, &flow.egress),
        (Direction::Ingress, &shadow.ingress, &flow.ingress),
    ];
    let others: Vec<_> = both
        .into_iter()
        .filter(|(direction, would, is)| denied.is_none_or(|d| d == *direction) && would != is)
        .filter_map(|(direction, would, _)| match would {
            Some(Decision::Rule(rule)) => Some(format!("{direction} {}", rule_text(rule, short))),
            _ => None,
        })
        .collect();
    if others.is_empty() && flow.verdict == Some(shadow.verdict) {
        return None;
    }
    let verdict = format!("shadow {}", shadow.verdict);
    Some(if others.is_empty() { verdict } else { format!("{verdict} {}", others.join(", ")) })
}

fn rule_text(rule: &RuleName, short: bool) -> String {
    let path = Path::new(&rule.file);
    let line = rule.line;
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    if short {
        return format!("{}:{line}", plain(&file));
    }
    let which = match rule.rule {
        Some(number) => format!("rule {number}"),
        None => "default".to_owned(),
    };
    // A file masks those of the same name elsewhere, so folder and name tell which it is.
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let slash = if folder.is_empty() { "" } else { "/" };
    format!("{which} of {} ({}{slash}{}:{line})", plain(&rule.policy), plain(&folder), plain(&file))
}

#[cfg(test)]
mod tests {
    use proptest::strategy::Strategy;

    use super::*;
    use crate::observe::event::Hook;
    use crate::observe::fixture;
    use crate::types::{Cookie, Protocol};

    /// Mostly of the right length, with type, hook and verdict as they can be.
    fn record() -> impl Strategy<Value = Vec<u8>> {
        let bytes = proptest::collection::vec(proptest::num::u8::ANY, 95..=97);
        (bytes, 1..=3_u32, 0..=1_u32, 0..=3_u8, 0..=3_u8).prop_map(
            |(mut bytes, kind, hook, verdict, shadow)| {
                bytes[8..12].copy_from_slice(&kind.to_ne_bytes());
                bytes[24..28].copy_from_slice(&hook.to_ne_bytes());
                bytes[69] = verdict;
                bytes[71] = shadow;
                bytes
            },
        )
    }

    fn lines(event: &crate::observe::event::Event) -> [String; 2] {
        let time = "2026-11-23T16:02:11.1234Z".parse().unwrap();
        let flow = Flow::new(event, time, &fixture::names(41));
        [None, Some(80)].map(|width| Line::new(&flow, &TimeZone::UTC, width).to_string())
    }

    #[test]
    fn requests() {
        use crate::observe::request::{Asked, Outcome};
        let time = "2026-11-23T16:02:11.1234Z".parse().unwrap();
        let line = |outcome, why: Option<&str>, path: &str| {
            let request = Request {
                protocol: "http/1.1".to_owned(),
                method: "GET".to_owned(),
                host: "shop.example".to_owned(),
                path: path.to_owned(),
                status: Some(if why.is_some() { 403 } else { 200 }),
                why: why.map(ToOwned::to_owned),
            };
            let asked = Asked {
                client: "10.0.0.7:43210".parse().unwrap(),
                server: "[fd00::3]:8080".parse().unwrap(),
                outcome,
                egress: None,
                ingress: why.is_none().then_some(Cookie(12)),
                request,
            };
            let flow = Flow::of_request(asked, time, &fixture::names(41));
            let json = serde_json::to_string(&flow).unwrap();
            assert_eq!(serde_json::from_str::<Flow>(&json).unwrap(), flow);
            Line::new(&flow, &TimeZone::UTC, None).to_string()
        };
        let ends = "dev/intruder 10.0.0.7:43210 -> api [fd00::3]:8080";
        let why = "ingress: no rule allows it";
        assert_eq!(
            line(Outcome::Denied(Direction::Ingress), Some(why), "/a\u{1b}"),
            format!("16:02:11.123 deny  http/1.1  {ends}  GET shop.example/a\\u{{1b}} 403  {why}")
        );
        assert_eq!(
            line(Outcome::Refused, Some("a dot segment"), "/.."),
            format!("16:02:11.123 drop  http/1.1  {ends}  GET shop.example/.. 403  a dot segment")
        );
        let allowed = line(Outcome::Allowed, None, "/");
        let rule = "ingress rule 2 of dev (policies.d/shop.toml:17)";
        assert_eq!(
            allowed,
            format!("16:02:11.123 flow  http/1.1  {ends}  GET shop.example/ 200  {rule}")
        );
    }

    #[test]
    fn a_denial() {
        assert_eq!(
            lines(&fixture::denied()),
            [
                "16:02:11.123 deny  tcp  dev/intruder [fd00::7]:43210 -> api [fd00::3]:8080  \
                 ingress default of shop-api (policies.d/shop.toml:3)",
                "16:02:11.123 deny  tcp  dev/intruder:43210 -> api:8080  ingress shop.toml:3",
            ]
        );
    }

    #[test]
    fn a_rejection_and_what_shadow_policies_would_change() {
        let mut event = fixture::denied();
        event.verdict = Some(Verdict::Reject);
        let [line, _] = lines(&event);
        assert!(
            line.starts_with("16:02:11.123 reject  tcp  dev/intruder [fd00::7]:43210"),
            "{line}"
        );

        event.kind = FlowType::Flow;
        event.verdict = Some(Verdict::Allow);
        event.ingress_cookie = Cookie::NONE;
        event.egress_cookie = Cookie(12);
        event.shadow = Some(Verdict::Deny);
        event.shadow_egress_cookie = Cookie(12);
        event.shadow_ingress_cookie = Cookie(13);
        assert_eq!(
            lines(&event),
            [
                "16:02:11.123 flow  tcp  dev/intruder [fd00::7]:43210 -> api [fd00::3]:8080  \
                 egress rule 2 of dev (policies.d/shop.toml:17)  \
                 shadow deny ingress rule 1 of tighter (policies.d/shop.toml:30)",
                "16:02:11.123 flow  tcp  dev/intruder:43210 -> api:8080  egress shop.toml:17  \
                 shadow deny ingress shop.toml:30",
            ]
        );
        // The same in the shadow: nothing to say of it.
        event.shadow = Some(Verdict::Allow);
        event.shadow_ingress_cookie = Cookie::NONE;
        assert!(!lines(&event)[0].contains("shadow"), "{:?}", lines(&event));
        // The other way round: what is denied would pass.
        let mut event = fixture::denied();
        event.shadow = Some(Verdict::Allow);
        assert!(lines(&event)[0].ends_with("(policies.d/shop.toml:3)  shadow allow"));
    }

    #[test]
    fn a_flow_to_the_world() {
        let mut event = fixture::denied();
        event.kind = FlowType::Flow;
        event.source = "10.0.0.7".parse().unwrap();
        event.destination = "192.0.2.1".parse().unwrap();
        event.destination_peer = fixture::WORLD;
        event.egress_cookie = Cookie(12);
        event.ingress_cookie = Cookie::NONE;
        assert_eq!(
            lines(&event),
            [
                "16:02:11.123 flow  tcp  dev/intruder 10.0.0.7:43210 -> world 192.0.2.1:8080  \
                 egress rule 2 of dev (policies.d/shop.toml:17)",
                "16:02:11.123 flow  tcp  dev/intruder:43210 -> 192.0.2.1:8080  egress shop.toml:17",
            ]
        );
    }

    #[test]
    fn a_drop_without_ports_fits() {
        let mut event = fixture::denied();
        event.kind = FlowType::Drop;
        event.reason = 7;
        event.protocol = Protocol::ICMPV6;
        event.source = "fe80::1".parse().unwrap();
        event.destination = "ff02::2".parse().unwrap();
        event.hook = Hook::Ingress;
        event.ingress_cookie = Cookie::NONE;
        let line = "16:02:11.123 drop  icmpv6  dev/intruder fe80::1 -> ff02::2  link-local";
        assert_eq!(lines(&event), [line, line]);
    }

    #[test]
    fn nothing_reaches_the_terminal_raw() {
        let time = "2026-11-23T16:02:11Z".parse().unwrap();
        let mut flow = Flow::new(&fixture::denied(), time, &fixture::names(41));
        let evil = "\u{1b}]0;x\u{7}\n\u{202e}".to_owned();
        flow.protocol.clone_from(&evil);
        flow.source.endpoint = Some(evil.clone());
        flow.reason = Some(evil.clone());
        let file = format!("/{evil}/{evil}");
        flow.ingress = Some(Decision::Rule(RuleName { policy: evil, file, line: 1, rule: None }));
        for width in [None, Some(1)] {
            let line = Line::new(&flow, &TimeZone::UTC, width).to_string();
            assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
        }
    }

    proptest::proptest! {
        /// Whatever the ring buffer holds: no panic, and what is named reads back.
        #[test]
        fn any_record_can_be_named_and_shown(record in record()) {
            let Ok(event) = crate::observe::event::decode(&record) else { return Ok(()) };
            let time = crate::observe::clock::Clock::now().time_of(event.time);
            let flow = Flow::new(&event, time, &fixture::names(41));
            let _ = Line::new(&flow, &TimeZone::UTC, Some(80)).to_string();
            let json = serde_json::to_string(&flow).unwrap();
            proptest::prop_assert_eq!(serde_json::from_str::<Flow>(&json).unwrap(), flow);
        }
    }
}
