//! Values of the plan as the datapath's structs (`abi.h`), and back. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::datapath::abi;
use super::mirror::{EndpointSide, Row, UplinkRow};
use super::ops::AdoptedGate;
use crate::compile::plan::{
    Features, PolicyKey, PolicyTable, PolicyValue, PortPrefix, PrefixTable, PrefixValue,
    PublishedKey, PublishedPort, SourceTable,
};
use crate::desired::snapshot::{Adopted, Endpoint};
use crate::types::{
    AddressKey, Direction, Identity, Mac, Peer, PolicySlot, Protocol, Side, Slot, Verdict,
};

/// Bits of a policy key before protocol and port: peer and scope.
const POLICY_PEER_BITS: u32 = 40;

pub fn features(features: &Features, coarse_clock: bool) -> abi::Features {
    abi::Features {
        ipv4: features.ipv4.into(),
        ipv6: features.ipv6.into(),
        egress_policy: features.egress_policy.into(),
        ingress_policy: features.ingress_policy.into(),
        source_ports: features.source_ports.into(),
        reject: features.reject.into(),
        shadow: features.shadow.into(),
        masquerade: features.masquerade.into(),
        publishes: features.publishes.into(),
        judges_requests: features.judges_requests.into(),
        adopts: features.adopts.into(),
        adopted: features.adopted.into(),
        accounting: features.accounting.into(),
        events: features.events.into(),
        coarse_clock: coarse_clock.into(),
        nat_port_first: features.nat_ports.0,
        nat_port_last: features.nat_ports.1,
        event_rate: features.event_rate,
        ..abi::Features::default()
    }
}

pub fn adopted_gate(gate: &AdoptedGate, event_rate: u32) -> abi::Gate {
    abi::Gate {
        slot: gate.slot.0,
        has4: gate.ipv4.is_some().into(),
        has6: gate.ipv6.is_some().into(),
        address4: gate.ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED).octets(),
        address6: gate.ipv6.unwrap_or(Ipv6Addr::UNSPECIFIED).octets(),
        event_rate,
        open: gate.open.into(),
        ..abi::Gate::default()
    }
}

pub fn gate(endpoint: &Endpoint, event_rate: u32) -> abi::Gate {
    abi::Gate {
        slot: endpoint.slot.0,
        mac: endpoint.made().map(|made| made.mac).unwrap_or_default().0,
        has4: endpoint.ipv4.is_some().into(),
        has6: endpoint.ipv6.is_some().into(),
        address4: endpoint.ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED).octets(),
        address6: endpoint.ipv6.unwrap_or(Ipv6Addr::UNSPECIFIED).octets(),
        event_rate,
        ..abi::Gate::default()
    }
}

pub fn endpoint(row: &Row, ifindex: u32) -> abi::Endpoint {
    let side = |side: Option<EndpointSide>| match side {
        Some(side) => abi::EndpointSide {
            identity: side.identity.0,
            policy: side.policy.0,
            shadow: side.shadow.map_or(0, |slot| slot.0),
            peer: side.peers.map(|peer| peer.0),
        },
        None => abi::EndpointSide::default(),
    };
    abi::Endpoint {
        address6: row.ipv6.unwrap_or(Ipv6Addr::UNSPECIFIED).octets(),
        address4: row.ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED).octets(),
        ifindex,
        mac: match row.adopted {
            Some(adopted) => via(adopted.via),
            None => row.mac.0,
        },
        adopted: row.adopted.is_some().into(),
        side: row.sides.map(side),
        incarnation: row.incarnation,
        ..abi::Endpoint::default()
    }
}

/// Where others have a MAC: see `struct porin_delivery`.
fn via(ifindex: u32) -> [u8; 6] {
    let [a, b, c, d] = ifindex.to_ne_bytes();
    [0, 0, a, b, c, d]
}

/// `interface`: the name that goes with its ifindex.
pub fn row(endpoint: &abi::Endpoint, interface: String) -> Row {
    let side = |side: abi::EndpointSide| {
        (side.identity != 0).then_some(EndpointSide {
            identity: Identity(side.identity),
            policy: PolicySlot(side.policy),
            shadow: Some(PolicySlot(side.shadow)).filter(|slot| slot.0 != 0),
            peers: side.peer.map(Peer),
        })
    };
    Row {
        ipv6: Some(Ipv6Addr::from(endpoint.address6)).filter(|a| !a.is_unspecified()),
        ipv4: Some(Ipv4Addr::from(endpoint.address4)).filter(|a| !a.is_unspecified()),
        mac: if endpoint.adopted == 0 { Mac(endpoint.mac) } else { Mac::default() },
        interface,
        adopted: (endpoint.adopted != 0).then(|| {
            let [_, _, a, b, c, d] = endpoint.mac;
            Adopted { ifindex: endpoint.ifindex, via: u32::from_ne_bytes([a, b, c, d]) }
        }),
        incarnation: endpoint.incarnation,
        sides: endpoint.side.map(side),
    }
}

pub fn published_key(key: &PublishedKey) -> abi::PublishedKey {
    abi::PublishedKey {
        address: key.address.0,
        port: key.port.to_be(),
        protocol: key.protocol.0,
        loopback: IpAddr::from(key.address).is_loopback().into(),
    }
}

pub fn published_key_of(key: &abi::PublishedKey) -> PublishedKey {
    PublishedKey {
        address: AddressKey(key.address),
        protocol: Protocol(key.protocol),
        port: u16::from_be(key.port),
    }
}

pub fn published(sides: &[Option<PublishedPort>; 2]) -> abi::Published {
    let side = |side: Option<PublishedPort>| match side {
        Some(PublishedPort { slot, port }) => {
            abi::PublishedSide { slot: slot.0, port: port.to_be(), ..Default::default() }
        }
        None => abi::PublishedSide::default(),
    };
    abi::Published { side: sides.map(side) }
}

pub fn published_of(sides: &abi::Published) -> [Option<PublishedPort>; 2] {
    sides.side.map(|side| {
        (side.slot != 0)
            .then(|| PublishedPort { slot: Slot(side.slot), port: u16::from_be(side.port) })
    })
}

pub fn uplink(row: &UplinkRow) -> abi::Uplink {
    abi::Uplink {
        mac: row.mac.0,
        slot: row.slot.0,
        masquerade4: row.masquerade4.unwrap_or(Ipv4Addr::UNSPECIFIED).octets(),
        ..abi::Uplink::default()
    }
}

pub fn uplink_row(uplink: &abi::Uplink, interface: String) -> UplinkRow {
    UplinkRow {
        interface,
        mac: Mac(uplink.mac),
        slot: Slot(uplink.slot),
        masquerade4: Some(Ipv4Addr::from(uplink.masquerade4)).filter(|a| !a.is_unspecified()),
    }
}

pub fn policy(table: &PolicyTable) -> Vec<(abi::PolicyKey, abi::PolicyValue)> {
    table.entries.iter().map(|(key, value)| (policy_key(key), policy_value(value))).collect()
}

fn policy_key(key: &PolicyKey) -> abi::PolicyKey {
    let (bits, protocol, port) = match key.ports {
        PortPrefix::Any => (0, 0, 0),
        PortPrefix::Protocol { protocol, bits, port } => (8 + u32::from(bits), protocol.0, port),
    };
    abi::PolicyKey {
        prefixlen: POLICY_PEER_BITS + bits,
        peer: key.peer.0.to_be(),
        scope: abi::scope(
            match key.direction {
                Direction::Ingress => abi::INGRESS,
                Direction::Egress => abi::EGRESS,
            },
            key.source.0,
        ),
        protocol,
        port: port.to_be(),
    }
}

fn policy_value(value: &PolicyValue) -> abi::PolicyValue {
    abi::PolicyValue {
        precedence: value.precedence,
        cookie: value.cookie.0,
        ruleset: value.ruleset.map_or(0, |ruleset| ruleset.0),
        verdict: match value.verdict {
            Verdict::Allow => abi::VERDICT_ALLOW,
            Verdict::Deny => abi::VERDICT_DENY,
            Verdict::Reject => abi::VERDICT_REJECT,
        },
        ..abi::PolicyValue::default()
    }
}

/// All of one side of `source_classes`.
pub fn sources(table: &SourceTable, side: Side) -> Vec<(u32, abi::SourceBlock)> {
    let mut classes = vec![0; 1 << 16];
    for (at, (first, class)) in table.runs.iter().enumerate() {
        let end = table.runs.get(at + 1).map_or(classes.len(), |(next, _)| usize::from(*next));
        if let Some(run) = classes.get_mut(usize::from(*first)..end) {
            run.fill(class.0);
        }
    }
    let block = |(number, classes): (u32, &[u8])| {
        let mut block = abi::SourceBlock::default();
        block.class.copy_from_slice(classes); // chunks of just that size
        (abi::source_index(number, side.index() as u32), block)
    };
    (0..).zip(classes.chunks_exact(abi::SOURCE_BLOCK)).map(block).collect()
}

pub fn prefixes(table: &PrefixTable) -> Vec<(abi::PrefixKey, abi::PrefixValue)> {
    table.entries.iter().map(|(net, value)| (prefix_key(*net), prefix_value(*value))).collect()
}

/// IPv4 is mapped, so its prefixes are 96 bits longer.
fn prefix_key(net: IpNet) -> abi::PrefixKey {
    match net {
        IpNet::V4(net) => abi::PrefixKey {
            prefixlen: 96 + u32::from(net.prefix_len()),
            address: net.network().to_ipv6_mapped().octets(),
        },
        IpNet::V6(net) => abi::PrefixKey {
            prefixlen: u32::from(net.prefix_len()),
            address: net.network().octets(),
        },
    }
}

fn prefix_value(value: PrefixValue) -> abi::PrefixValue {
    let host = if value.host { abi::PREFIX_HOST } else { 0 };
    let pool = if value.pool { abi::PREFIX_POOL } else { 0 };
    abi::PrefixValue { peer: value.peer.0, flags: host | pool }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::plan::SourceClass;
    use crate::types::Protocol;

    #[test]
    fn every_port_has_its_class_and_the_last_one_is_what_the_datapath_has_room_for() {
        assert_eq!(u32::from(SourceClass::LAST) + 1, abi::SOURCE_CLASSES);
        let runs = [(0, 0), (53, 1), (54, 0), (1024, 2), (65535, 3)];
        let runs = runs.map(|(first, class)| (first, SourceClass(class))).to_vec();
        let table = SourceTable { runs, digest: [1; 16] };
        let blocks = sources(&table, Side::BOTH[1]);
        assert_eq!(blocks.len(), abi::SOURCE_BLOCKS as usize);
        for (index, block) in blocks {
            assert_eq!(index & 1, 1);
            for (port, class) in ((index >> 1) * 64..).zip(block.class) {
                assert_eq!(class, table.class(u16::try_from(port).unwrap()).0, "port {port}");
            }
        }
        let none = sources(&SourceTable::default(), Side::BOTH[0]);
        assert!(none.iter().all(|(_, block)| block.class == [0; 64]));
        // Whatever the order of runs: no panic.
        let runs = vec![(9, SourceClass(1)), (3, SourceClass(2))];
        sources(&SourceTable { runs, digest: [1; 16] }, Side::BOTH[0]);
    }

    #[test]
    fn rows_come_back_as_they_were_written() {
        let side = EndpointSide {
            identity: Identity(256),
            policy: PolicySlot(3),
            shadow: Some(PolicySlot(4)),
            peers: [Peer(256), Peer(0x80_0001)],
        };
        let row = Row {
            ipv6: Some("fd00::1".parse().unwrap()),
            ipv4: None,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            interface: "pn0".to_owned(),
            adopted: None,
            incarnation: [7; 16],
            sides: [None, Some(side)],
        };
        assert_eq!(super::row(&endpoint(&row, 9), "pn0".to_owned()), row);
        let adopted = Some(Adopted { ifindex: 9, via: 0x0102_0304 });
        let row = Row { mac: Mac::default(), adopted, ..row };
        assert_eq!(super::row(&endpoint(&row, 9), "pn0".to_owned()), row);
        let row = UplinkRow {
            interface: "wan0".to_owned(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            slot: Slot(5),
            masquerade4: Some("192.0.2.1".parse().unwrap()),
        };
        assert_eq!(uplink_row(&uplink(&row), "wan0".to_owned()), row);
    }

    #[test]
    fn policy_keys_count_their_bits_and_are_in_network_order() {
        let key = |ports| PolicyKey {
            peer: Peer(0x0102_0304),
            direction: Direction::Egress,
            source: SourceClass(SourceClass::LAST),
            ports,
        };
        let any = policy_key(&key(PortPrefix::Any));
        assert_eq!((any.prefixlen, any.peer.to_ne_bytes()), (40, [1, 2, 3, 4]));
        assert_eq!(any.scope, 0xff);
        let tcp = PortPrefix::Protocol { protocol: Protocol::TCP, bits: 16, port: 8080 };
        let tcp = policy_key(&key(tcp));
        assert_eq!((tcp.prefixlen, tcp.protocol, tcp.port.to_ne_bytes()), (64, 6, [0x1f, 0x90]));
    }

    #[test]
    fn ipv4_prefixes_are_mapped() {
        let key = prefix_key("10.1.0.0/16".parse().unwrap());
        assert_eq!(key.prefixlen, 112);
        assert_eq!(key.address[10..], [0xff, 0xff, 10, 1, 0, 0]);
    }
}
