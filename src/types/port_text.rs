//! How protocols and ports are written.
//!
//! ```text
//! ports    = protocols                                      all of them
//!          | ( "*" | PORT | PORT "-" PORT | NAME ) "/" protocols
//!          | ( "icmp" | "icmpv6" ) "/" type [ "/" code ]    by number or name
//!          | "protocol/" NUMBER
//! protocols = protocol *( "+" protocol )                    "any" is tcp+udp+sctp
//! ```
//!
//! What ends in protocols is as many [`PortSpec`]s as there are protocols.

use std::str::FromStr;

use super::icmp::{self, Codes};
use super::port::port;
use super::{Invalid, Name, PortMatch, PortRange, PortSpec, Protocol};

const HINT: &str =
    "write, for example, 80/tcp, 8000-8100/udp, http/tcp, tcp, icmp/echo-request or protocol/47";

impl PortSpec {
    pub fn parse_list(text: &str) -> Result<Vec<PortSpec>, Invalid> {
        let whole = |protocol| PortSpec::from(PortMatch::whole(protocol));
        let Some((ports, protocols)) = text.split_once('/') else {
            return Ok(alone(text)?.into_iter().map(whole).collect());
        };
        match (ports, protocols) {
            ("protocol", number) => return Ok(vec![whole(protocol_number(number)?)]),
            ("icmp" | "icmpv6", message) => {
                let protocol = if ports == "icmp" { Protocol::ICMP } else { Protocol::ICMPV6 };
                return Ok(vec![icmp_message(protocol, message)?.into()]);
            }
            _ => {}
        }
        let protocols = with_ports(text, protocols)?;
        let named = ports.contains(|c: char| c.is_ascii_alphabetic());
        if named {
            let name = port_name(ports)?;
            let spec = |protocol| PortSpec::Named { name: name.clone(), protocol };
            return Ok(protocols.into_iter().map(spec).collect());
        }
        let ports = match ports {
            "*" => PortRange::ALL,
            ports => port_range(ports)?,
        };
        let spec = |protocol| PortSpec::Match(PortMatch { protocol, ports });
        Ok(protocols.into_iter().map(spec).collect())
    }
}

/// One protocol, and no named port.
impl FromStr for PortMatch {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match PortSpec::parse_list(text)?.as_slice() {
            [PortSpec::Match(ports)] => Ok(*ports),
            [PortSpec::Named { .. }] => Err(Invalid::new(format!("`{text}` has no port number"))
                .hint("write, for example, 8080/tcp")),
            _ => Err(Invalid::new(format!("`{text}` is several protocols"))
                .hint("write one, for example 53/udp")),
        }
    }
}

/// `80` or `8000-8100`.
pub fn port_range(text: &str) -> Result<PortRange, Invalid> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    PortRange::new(port(first)?, port(last)?)
}

/// What can be told from a number, a range and a protocol.
pub fn port_name(text: &str) -> Result<Name, Invalid> {
    let hint = "a port's name has letters, digits, `.`, `_`, `-`, and at least one letter";
    let fault = |what: &str| Err(Invalid::new(format!("`{text}` {what}")).hint(hint));
    if !text.contains(|c: char| c.is_ascii_alphabetic()) {
        return fault("cannot be a port's name: it has no letter");
    }
    if text.contains('/') {
        return fault("cannot be a port's name: it has a slash");
    }
    if matches!(text, "icmp" | "icmpv6" | "protocol") {
        return fault("cannot be a port's name: it begins ports of another kind");
    }
    text.parse().map_err(|invalid: Invalid| {
        Invalid::new(format!("`{text}` cannot be a port's name: {}", invalid.what)).hint(hint)
    })
}

/// Without a slash: all of some protocols.
fn alone(text: &str) -> Result<Vec<Protocol>, Invalid> {
    let each = |name: &str| match Protocol::named(name) {
        Some(protocol) => Ok(protocol),
        None if name == "any" => Err(Invalid::new("`any` stands for protocols with ports only")
            .hint("leave `ports` out to mean everything, or write */any")),
        None => {
            let number = name.starts_with(|c: char| c.is_ascii_digit());
            let hint = match number && name.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
                true => format!("write {name}/tcp, {name}/udp or {name}/any"),
                false => HINT.to_owned(),
            };
            Err(Invalid::new(format!("`{name}` names no protocol")).hint(hint))
        }
    };
    text.split('+').map(each).collect()
}

/// After ports.
fn with_ports(text: &str, protocols: &str) -> Result<Vec<Protocol>, Invalid> {
    const ANY: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
    const THESE: &str =
        "protocols with ports are: tcp, udp, sctp, udplite, dccp, and any for the first three";
    let ports = text.split('/').next().unwrap_or_default();
    let mut all = Vec::new();
    for name in protocols.split('+') {
        match Protocol::named(name) {
            _ if name == "any" => all.extend(ANY),
            Some(protocol) if protocol.has_ports() => all.push(protocol),
            Some(protocol) if protocol.has_types() => {
                return Err(Invalid::new(format!("`{text}`: ICMP has no ports")).hint(format!(
                    "write {protocol} for all of it, or for example {protocol}/echo-request"
                )));
            }
            Some(protocol) => {
                return Err(Invalid::new(format!("`{text}`: {protocol} has no ports"))
                    .hint(format!("write {protocol}")));
            }
            None if Protocol::named(&name.to_ascii_lowercase()).is_some() => {
                return Err(Invalid::new(format!("unknown protocol `{name}`"))
                    .hint(format!("write {ports}/{}", name.to_ascii_lowercase())));
            }
            // The other way round.
            None if Protocol::named(ports).is_some() && name.parse::<u16>().is_ok() => {
                return Err(Invalid::new(format!("`{name}` is no protocol"))
                    .hint(format!("ports come first: write {name}/{ports}")));
            }
            None if name.parse::<u8>().is_ok() => {
                return Err(Invalid::new(format!("`{text}`: a protocol number has no ports"))
                    .hint(format!("write protocol/{name} for all of it; {THESE}")));
            }
            None => {
                return Err(Invalid::new(format!("unknown protocol `{name}`")).hint(THESE));
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    all.retain(|protocol| seen.insert(*protocol));
    Ok(all)
}

fn protocol_number(text: &str) -> Result<Protocol, Invalid> {
    byte(text).map(Protocol).ok_or_else(|| {
        let invalid = Invalid::new(format!("`{text}` is not a protocol number"));
        match Protocol::named(text) {
            Some(protocol) => invalid.hint(format!("write {protocol}")),
            None => invalid.hint("numbers are 0 to 255"),
        }
    })
}

/// `TYPE` or `TYPE/CODE`.
fn icmp_message(protocol: Protocol, text: &str) -> Result<PortMatch, Invalid> {
    let (kind_text, code_text) = match text.split_once('/') {
        Some((kind, code)) => (kind, Some(code)),
        None => (text, None),
    };
    let named = icmp::named(protocol, kind_text);
    let Some(kind) = named.map(|message| message.kind).or_else(|| byte(kind_text)) else {
        return Err(Invalid::new(format!("`{kind_text}` is not a type of {protocol}"))
            .hint("types are 0 to 255, or names as porin.policy(5) lists them"));
    };
    let (first, last) = match (code_text, named) {
        (Some(code), _) => {
            let code = icmp_code(protocol, kind, code)?;
            (code, code)
        }
        (None, Some(message)) if matches!(message.codes, Codes::Zero) => (0, 0),
        (None, _) => (0, u8::MAX),
    };
    let port = |code| u16::from_be_bytes([kind, code]);
    Ok(PortMatch { protocol, ports: PortRange::new(port(first), port(last))? })
}

fn icmp_code(protocol: Protocol, kind: u8, text: &str) -> Result<u8, Invalid> {
    let names = icmp::of_kind(protocol, kind).map_or(&[][..], |message| message.code_names());
    let named = names.iter().position(|name| *name == text);
    let code = named.and_then(|code| u8::try_from(code).ok()).or_else(|| byte(text));
    code.ok_or_else(|| {
        let hint = match names {
            [] => "codes are 0 to 255".to_owned(),
            names => format!("codes are 0 to 255, or: {}", names.join(", ")),
        };
        Invalid::new(format!("`{text}` is not a code of {protocol} type {kind}")).hint(hint)
    })
}

/// Decimal, without sign and leading zero.
fn byte(text: &str) -> Option<u8> {
    let plain = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs(text: &str) -> Vec<String> {
        let specs = PortSpec::parse_list(text).unwrap_or_else(|e| panic!("{text}: {}", e.what));
        specs.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_form_reads_and_prints() {
        for (text, printed) in [
            ("80/tcp", &["80/tcp"][..]),
            ("8000-8100/udp", &["8000-8100/udp"]),
            ("1-65535/tcp", &["1-65535/tcp"]),
            ("*/tcp", &["tcp"]),
            ("*/any", &["tcp", "udp", "sctp"]),
            ("53/tcp+udp", &["53/tcp", "53/udp"]),
            ("53/udp+udp", &["53/udp"]),
            ("53/any", &["53/tcp", "53/udp", "53/sctp"]),
            ("53/any+dccp", &["53/tcp", "53/udp", "53/sctp", "53/dccp"]),
            ("tcp", &["tcp"]),
            ("tcp+icmpv6", &["tcp", "icmpv6"]),
            ("gre", &["gre"]),
            ("protocol/47", &["gre"]),
            ("protocol/6", &["tcp"]),
            ("protocol/0", &["protocol/0"]),
            ("protocol/89", &["protocol/89"]),
            ("http/tcp", &["http/tcp"]),
            ("dns.v2/any", &["dns.v2/tcp", "dns.v2/udp", "dns.v2/sctp"]),
            ("8x-9/udp", &["8x-9/udp"]),
            ("icmp", &["icmp"]),
            ("icmp/echo-request", &["icmp/echo-request"]),
            ("icmp/8/0", &["icmp/echo-request"]),
            ("icmp/8", &["icmp/8"]),
            ("icmp/8/5", &["icmp/echo-request/5"]),
            ("icmp/3", &["icmp/destination-unreachable"]),
            ("icmp/3/3", &["icmp/destination-unreachable/port-unreachable"]),
            ("icmp/3/99", &["icmp/destination-unreachable/99"]),
            ("icmp/200", &["icmp/200"]),
            ("icmp/200/0", &["icmp/200/0"]),
            ("icmpv6/128", &["icmpv6/128"]),
            ("icmpv6/128/0", &["icmpv6/echo-request"]),
            ("icmpv6/nd-neighbor-solicit", &["icmpv6/nd-neighbor-solicit"]),
            ("icmpv6/1/4", &["icmpv6/destination-unreachable/port-unreachable"]),
            ("icmpv6/packet-too-big", &["icmpv6/packet-too-big"]),
        ] {
            assert_eq!(specs(text), printed, "{text}");
            for one in printed {
                assert_eq!(specs(one), [*one], "{text}");
            }
        }
    }

    #[test]
    fn types_and_codes_are_ports() {
        let ports = |text: &str| {
            let ports = text.parse::<PortMatch>().unwrap().ports;
            (ports.first(), ports.last())
        };
        assert_eq!(ports("icmp/8"), (0x0800, 0x08ff));
        assert_eq!(ports("icmp/echo-request"), (0x0800, 0x0800));
        assert_eq!(ports("icmp/3/3"), (0x0303, 0x0303));
        assert_eq!(ports("icmpv6/255"), (0xff00, 0xffff));
        assert_eq!(ports("icmpv6/echo-reply"), (0x8100, 0x8100));
        assert_eq!(ports("tcp"), (0, 65535));
    }

    #[test]
    fn every_match_of_one_type_reads_back() {
        for protocol in [Protocol::ICMP, Protocol::ICMPV6] {
            for kind in 0..=255u8 {
                let mut all = vec![(0, 255)];
                all.extend((0..=255).map(|code| (code, code)));
                for (first, last) in all {
                    let port = |code| u16::from_be_bytes([kind, code]);
                    let ports = PortRange::new(port(first), port(last)).unwrap();
                    let ports = PortMatch { protocol, ports };
                    assert_eq!(ports.to_string().parse(), Ok(ports));
                }
            }
        }
        for number in 0..=255 {
            let ports = PortMatch::whole(Protocol(number));
            assert_eq!(ports.to_string().parse(), Ok(ports));
        }
    }

    #[test]
    fn faults_name_what_is_wrong() {
        for (text, what) in [
            ("80", "`80` names no protocol"),
            ("http", "`http` names no protocol"),
            ("", "`` names no protocol"),
            ("any", "`any` stands for protocols with ports only"),
            ("tcp+", "`` names no protocol"),
            ("80/", "unknown protocol ``"),
            ("80/tpc", "unknown protocol `tpc`"),
            ("80/tcp+upd", "unknown protocol `upd`"),
            ("80/tcp/udp", "unknown protocol `tcp/udp`"),
            ("80/icmp", "`80/icmp`: ICMP has no ports"),
            ("80/gre", "`80/gre`: gre has no ports"),
            ("80/6", "`80/6`: a protocol number has no ports"),
            ("0/tcp", "`0` is not a port"),
            ("65536/tcp", "`65536` is not a port"),
            ("080/tcp", "`080` is not a port"),
            ("+1/tcp", "`+1` is not a port"),
            ("9-8/tcp", "the range 9-8 is empty"),
            ("/tcp", "`` is not a port"),
            (
                "-http/tcp",
                "`-http` cannot be a port's name: the name begins or ends with punctuation",
            ),
            ("icmp/", "`` is not a type of icmp"),
            ("icmp/256", "`256` is not a type of icmp"),
            ("icmp/08", "`08` is not a type of icmp"),
            ("icmp/nd-neighbor-solicit", "`nd-neighbor-solicit` is not a type of icmp"),
            ("icmp/3/x", "`x` is not a code of icmp type 3"),
            ("icmp/3/3/3", "`3/3` is not a code of icmp type 3"),
            (
                "icmpv6/1/fragmentation-needed",
                "`fragmentation-needed` is not a code of icmpv6 type 1",
            ),
            ("protocol/256", "`256` is not a protocol number"),
            ("protocol/tcp", "`tcp` is not a protocol number"),
        ] {
            let told = PortSpec::parse_list(text).map_err(|invalid| invalid.what);
            assert_eq!(told, Err(what.to_owned()), "{text}");
        }
        for text in ["53/tcp+udp", "53/any", "http/tcp", "tcp+udp"] {
            assert!(text.parse::<PortMatch>().is_err(), "{text}");
        }
        for name in ["80", "1-2", "", "a/b", "icmp", "icmpv6", "protocol", "-a", "é"] {
            assert!(port_name(name).is_err(), "{name}");
        }
    }
}
