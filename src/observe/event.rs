//! Ring-buffer records of the datapath (`struct porin_event`): bytes to values.
//!
//! A pure function with checked lengths. Knows the layout in `bpf/include/porin/abi.h` and nothing
//! of names.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::types::{AddressKey, Cookie, Generation, Peer, Protocol, Slot, Verdict};

/// `sizeof(struct porin_event)`.
pub const EVENT_SIZE: usize = 96;

/// What the datapath saw, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    pub kind: FlowType,
    /// `enum porin_drop_reason`; 0 unless dropped.
    pub reason: u32,
    /// The generation that judged; none if the packet did not get that far.
    pub generation: Generation,
    /// Whose hook saw it.
    pub slot: Slot,
    pub hook: Hook,
    /// Bytes of L3 and above.
    pub length: u32,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: Protocol,
    /// None: not judged.
    pub verdict: Option<Verdict>,
    pub tcp_flags: u8,
    pub source_peer: Peer,
    pub destination_peer: Peer,
    pub egress_cookie: Cookie,
    pub ingress_cookie: Cookie,
    /// What it would be if shadow policies were enforced. None: they make no difference to either end.
    pub shadow: Option<Verdict>,
    pub shadow_egress_cookie: Cookie,
    pub shadow_ingress_cookie: Cookie,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowType {
    /// A flow was judged for the first time, and allowed.
    Flow,
    /// Policy denied, or rejected.
    Deny,
    /// Dropped for another reason.
    Drop,
}

impl FlowType {
    pub fn as_str(self) -> &'static str {
        match self {
            FlowType::Flow => "flow",
            FlowType::Deny => "deny",
            FlowType::Drop => "drop",
        }
    }
}

/// A hook as the kernel names it: ingress is what comes in from the device, so for an endpoint what
/// its container sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    Ingress,
    Egress,
}

impl Hook {
    /// `PORIN_HOOK_INGRESS`, `PORIN_HOOK_EGRESS`.
    pub fn from_number(number: u32) -> Option<Hook> {
        match number {
            0 => Some(Hook::Ingress),
            1 => Some(Hook::Egress),
            _ => None,
        }
    }
}

/// A record that this version of porin does not understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    #[error("the record has {0} bytes instead of {EVENT_SIZE}")]
    Length(usize),
    #[error("{0} is no event type")]
    Type(u32),
    #[error("{0} is no hook")]
    Hook(u32),
    #[error("{0} is no verdict")]
    Verdict(u8),
}

/// Reads one record.
pub fn decode(bytes: &[u8]) -> Result<Event, Undecodable> {
    let record: &[u8; EVENT_SIZE] =
        bytes.try_into().map_err(|_| Undecodable::Length(bytes.len()))?;
    let mut fields = Fields { record, at: 0 };
    // In the order of the struct: native order but for addresses and ports.
    let time = u64::from_ne_bytes(fields.take());
    let kind = flow_type(fields.u32())?;
    let reason = fields.u32();
    let generation = Generation(fields.u32());
    let slot = Slot(fields.u32());
    let hook = fields.u32();
    let hook = Hook::from_number(hook).ok_or(Undecodable::Hook(hook))?;
    let length = fields.u32();
    let source = AddressKey(fields.take()).into();
    let destination = AddressKey(fields.take()).into();
    let source_port = u16::from_be_bytes(fields.take());
    let destination_port = u16::from_be_bytes(fields.take());
    let [protocol, verdict, tcp_flags, shadow] = fields.take();
    Ok(Event {
        time,
        kind,
        reason,
        generation,
        slot,
        hook,
        length,
        source,
        destination,
        source_port,
        destination_port,
        protocol: Protocol(protocol),
        verdict: decode_verdict(verdict)?,
        tcp_flags,
        source_peer: Peer(fields.u32()),
        destination_peer: Peer(fields.u32()),
        egress_cookie: Cookie(fields.u32()),
        ingress_cookie: Cookie(fields.u32()),
        shadow: decode_verdict(shadow)?,
        shadow_egress_cookie: Cookie(fields.u32()),
        shadow_ingress_cookie: Cookie(fields.u32()),
    })
}

fn flow_type(number: u32) -> Result<FlowType, Undecodable> {
    match number {
        1 => Ok(FlowType::Flow),
        2 => Ok(FlowType::Deny),
        3 => Ok(FlowType::Drop),
        other => Err(Undecodable::Type(other)),
    }
}

fn decode_verdict(number: u8) -> Result<Option<Verdict>, Undecodable> {
    match number {
        0 => Ok(None),
        1 => Ok(Some(Verdict::Allow)),
        2 => Ok(Some(Verdict::Deny)),
        3 => Ok(Some(Verdict::Reject)),
        other => Err(Undecodable::Verdict(other)),
    }
}

/// A cursor. Past the end it reads zeros; `decode` takes exactly `EVENT_SIZE` bytes, which a test checks.
struct Fields<'a> {
    record: &'a [u8; EVENT_SIZE],
    at: usize,
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut field = [0; N];
        if let Some(bytes) = self.record.get(self.at..self.at + N) {
            field.copy_from_slice(bytes);
        }
        self.at += N;
        field
    }

    fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record with a different value in every field.
    fn record() -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(7_000_000_001_u64.to_ne_bytes());
        for word in [2_u32, 2, 41, 9, 1, 60] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend("fd00::7".parse::<std::net::Ipv6Addr>().unwrap().octets());
        bytes.extend("::ffff:10.0.0.3".parse::<std::net::Ipv6Addr>().unwrap().octets());
        bytes.extend(43210_u16.to_be_bytes());
        bytes.extend(8080_u16.to_be_bytes());
        bytes.extend([6, 2, 0x12, 3]);
        for word in [256_u32, 257, 11, 12, 13, 14] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn every_field_is_read_from_its_place() {
        let expected = Event {
            time: 7_000_000_001,
            kind: FlowType::Deny,
            reason: 2,
            generation: Generation(41),
            slot: Slot(9),
            hook: Hook::Egress,
            length: 60,
            source: "fd00::7".parse().unwrap(),
            destination: "10.0.0.3".parse().unwrap(),
            source_port: 43210,
            destination_port: 8080,
            protocol: Protocol::TCP,
            verdict: Some(Verdict::Deny),
            tcp_flags: 0x12,
            source_peer: Peer(256),
            destination_peer: Peer(257),
            egress_cookie: Cookie(11),
            ingress_cookie: Cookie(12),
            shadow: Some(Verdict::Reject),
            shadow_egress_cookie: Cookie(13),
            shadow_ingress_cookie: Cookie(14),
        };
        assert_eq!(decode(&record()), Ok(expected));
    }

    #[test]
    fn other_records_are_refused() {
        let record = record();
        for length in [0, 1, 88, 95] {
            assert_eq!(decode(&record[..length]), Err(Undecodable::Length(length)));
        }
        assert_eq!(decode(&[0; 97]), Err(Undecodable::Length(97)));
        let with = |at: usize, value: u8| {
            let mut bytes = record.clone();
            bytes[at] = value;
            decode(&bytes)
        };
        assert_eq!(with(8, 0), Err(Undecodable::Type(0)));
        assert_eq!(with(8, 4), Err(Undecodable::Type(4)));
        assert_eq!(with(24, 2), Err(Undecodable::Hook(2)));
        assert_eq!(with(69, 4), Err(Undecodable::Verdict(4)));
        assert_eq!(with(71, 4), Err(Undecodable::Verdict(4)));
    }

    #[test]
    fn the_size_is_the_header_s() {
        let header = include_str!("../../bpf/include/porin/abi.h");
        let asserted = format!("_Static_assert(sizeof(struct porin_event) == {EVENT_SIZE},");
        assert!(header.contains(&asserted));
    }
}
