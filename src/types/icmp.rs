//! Names of ICMP and ICMPv6 messages (IANA "ICMP Parameters" and "ICMPv6 Parameters"), as nft(8) and
//! iptables(8) write them.

use super::Protocol;

/// One type.
#[derive(Debug)]
pub struct Message {
    pub name: &'static str,
    pub kind: u8,
    pub codes: Codes,
}

#[derive(Debug, Clone, Copy)]
pub enum Codes {
    /// Only code 0: the name alone means it.
    Zero,
    /// These names for 0, 1, ...; the message's name alone means every code. Empty: no code has a name.
    Named(&'static [&'static str]),
}

/// How the datapath takes a type (`bpf/lib/packet.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// Judged as any packet.
    Judged,
    /// It tells of a packet, and follows that packet's flow.
    Error,
    /// An echo reply: it follows its request's flow, and begins none.
    Reply,
    /// An echo request, which is judged as one of code 0 whatever is in it ([`Protocol::judged_port`]): no rule about
    /// another code is asked.
    OtherCode,
    /// Between neighbours: it never leaves its link.
    Link,
}

/// `code`: the lowest that is meant.
pub fn nature(protocol: Protocol, kind: u8, code: u8) -> Nature {
    match (protocol, kind) {
        (Protocol::ICMP, 0) | (Protocol::ICMPV6, 129) => Nature::Reply,
        (Protocol::ICMP, 8) | (Protocol::ICMPV6, 128) if code != 0 => Nature::OtherCode,
        (Protocol::ICMP, 3 | 4 | 11 | 12) | (Protocol::ICMPV6, 0..128) => Nature::Error,
        (Protocol::ICMP, 5 | 9 | 10) => Nature::Link,
        (Protocol::ICMPV6, 130..=137 | 143 | 151..=153) => Nature::Link,
        _ => Nature::Judged,
    }
}

const fn message(kind: u8, name: &'static str, codes: Codes) -> Message {
    Message { name, kind, codes }
}

use Codes::{Named, Zero};

const ICMP: &[Message] = &[
    message(0, "echo-reply", Zero),
    message(
        3,
        "destination-unreachable",
        Named(&[
            "network-unreachable",
            "host-unreachable",
            "protocol-unreachable",
            "port-unreachable",
            "fragmentation-needed",
            "source-route-failed",
            "network-unknown",
            "host-unknown",
            "host-isolated",
            "network-prohibited",
            "host-prohibited",
            "tos-network-unreachable",
            "tos-host-unreachable",
            "communication-prohibited",
            "host-precedence-violation",
            "precedence-cutoff",
        ]),
    ),
    message(4, "source-quench", Zero),
    message(
        5,
        "redirect",
        Named(&["network-redirect", "host-redirect", "tos-network-redirect", "tos-host-redirect"]),
    ),
    message(8, "echo-request", Zero),
    message(9, "router-advertisement", Named(&[])),
    message(10, "router-solicitation", Zero),
    message(11, "time-exceeded", Named(&["ttl-zero-during-transit", "ttl-zero-during-reassembly"])),
    message(
        12,
        "parameter-problem",
        Named(&["ip-header-bad", "required-option-missing", "bad-length"]),
    ),
    message(13, "timestamp-request", Zero),
    message(14, "timestamp-reply", Zero),
    message(15, "information-request", Zero),
    message(16, "information-reply", Zero),
    message(17, "address-mask-request", Zero),
    message(18, "address-mask-reply", Zero),
    message(42, "extended-echo-request", Zero),
    message(43, "extended-echo-reply", Named(EXTENDED_REPLY)),
];

const ICMPV6: &[Message] = &[
    message(
        1,
        "destination-unreachable",
        Named(&[
            "no-route",
            "communication-prohibited",
            "beyond-scope",
            "address-unreachable",
            "port-unreachable",
            "failed-policy",
            "reject-route",
            "source-route-failed",
        ]),
    ),
    message(2, "packet-too-big", Zero),
    message(3, "time-exceeded", Named(&["ttl-zero-during-transit", "ttl-zero-during-reassembly"])),
    message(
        4,
        "parameter-problem",
        Named(&["bad-header", "unknown-header-type", "unknown-option"]),
    ),
    message(128, "echo-request", Zero),
    message(129, "echo-reply", Zero),
    message(130, "mld-listener-query", Zero),
    message(131, "mld-listener-report", Zero),
    message(132, "mld-listener-done", Zero),
    message(133, "nd-router-solicit", Zero),
    message(134, "nd-router-advert", Zero),
    message(135, "nd-neighbor-solicit", Zero),
    message(136, "nd-neighbor-advert", Zero),
    message(137, "nd-redirect", Zero),
    message(143, "mld2-listener-report", Zero),
    message(160, "extended-echo-request", Zero),
    message(161, "extended-echo-reply", Named(EXTENDED_REPLY)),
];

/// RFC 8335 section 3.
const EXTENDED_REPLY: &[&str] = &[
    "no-error",
    "malformed-query",
    "no-such-interface",
    "no-such-table-entry",
    "multiple-interfaces",
];

/// The messages of ICMP or ICMPv6 that have names; none for other protocols.
pub fn messages(protocol: Protocol) -> &'static [Message] {
    match protocol {
        Protocol::ICMP => ICMP,
        Protocol::ICMPV6 => ICMPV6,
        _ => &[],
    }
}

pub fn named(protocol: Protocol, name: &str) -> Option<&'static Message> {
    messages(protocol).iter().find(|message| message.name == name)
}

pub fn of_kind(protocol: Protocol, kind: u8) -> Option<&'static Message> {
    messages(protocol).iter().find(|message| message.kind == kind)
}

impl Message {
    pub fn code_names(&self) -> &'static [&'static str] {
        match self.codes {
            Zero => &[],
            Named(names) => names,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echoes_are_judged_by_their_requests_alone() {
        for (protocol, request, reply) in [(Protocol::ICMP, 8, 0), (Protocol::ICMPV6, 128, 129)] {
            assert_eq!(nature(protocol, request, 0), Nature::Judged);
            assert_eq!(nature(protocol, request, 5), Nature::OtherCode);
            assert_eq!(protocol.judged_port(u16::from_be_bytes([request, 5])) & 0xff, 0);
            assert_eq!(nature(protocol, reply, 0), Nature::Reply);
        }
        assert_eq!(nature(Protocol::ICMPV6, 0, 0), Nature::Error);
        assert_eq!(nature(Protocol::ICMP, 128, 1), Nature::Judged);
        assert_eq!(nature(Protocol::TCP, 0, 0), Nature::Judged);
    }

    #[test]
    fn names_and_numbers_are_unique() {
        for protocol in [Protocol::ICMP, Protocol::ICMPV6] {
            let messages = messages(protocol);
            for (i, message) in messages.iter().enumerate() {
                assert!(messages[..i].iter().all(|other| other.kind < message.kind));
                assert!(messages[..i].iter().all(|other| other.name != message.name));
                let codes = message.code_names();
                for (code, name) in codes.iter().enumerate() {
                    assert!(!codes[..code].contains(name), "{name}");
                }
            }
        }
    }
}
