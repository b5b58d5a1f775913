//! Values of the plan as the datapath's structs (`abi.h`), and back. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::datapath::abi;
use super::mirror::{Row, UplinkRow};
use crate::compile::plan::{
    Features, PolicyKey, PolicyTable, PolicyValue, PortPrefix, PrefixTable, PrefixValue,
};
use crate::desired::snapshot::Endpoint;
use crate::types::{Direction, Identity, Mac, PolicySlot, Slot, Verdict};

/// Bits of a policy key before protocol and port: peer and direction.
const POLICY_PEER_BITS: u32 = 40;

pub fn features(features: &Features, coarse_clock: bool) -> abi::Features {
    abi::Features {
        ipv4: features.ipv4.into(),
        ipv6: features.ipv6.into(),
        egress_policy: features.egress_policy.into(),
        ingress_policy: features.ingress_policy.into(),
        masquerade: features.masquerade.into(),
        accounting: features.accounting.into(),
        events: features.events.into(),
        coarse_clock: coarse_clock.into(),
        nat_port_first: features.nat_ports.0,
        nat_port_last: features.nat_ports.1,
        event_rate: features.event_rate,
        ..abi::Features::default()
    }
}

pub fn gate(endpoint: &Endpoint, event_rate: u32) -> abi::Gate {
    abi::Gate {
        slot: endpoint.slot.0,
        mac: endpoint.mac.0,
        has4: endpoint.ipv4.is_some().into(),
        has6: endpoint.ipv6.is_some().into(),
        address4: endpoint.ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED).octets(),
        address6: endpoint.ipv6.unwrap_or(Ipv6Addr::UNSPECIFIED).octets(),
        event_rate,
    }
}

pub fn endpoint(row: &Row, ifindex: u32) -> abi::Endpoint {
    let side = |side: Option<(Identity, PolicySlot)>| match side {
        Some((identity, policy)) => abi::EndpointSide { identity: identity.0, policy: policy.0 },
        None => abi::EndpointSide::default(),
    };
    abi::Endpoint {
        address6: row.ipv6.unwrap_or(Ipv6Addr::UNSPECIFIED).octets(),
        address4: row.ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED).octets(),
        ifindex,
        mac: row.mac.0,
        side: row.sides.map(side),
        incarnation: row.incarnation,
        ..abi::Endpoint::default()
    }
}

/// `interface`: the name that goes with its ifindex.
pub fn row(endpoint: &abi::Endpoint, interface: String) -> Row {
    let side = |side: abi::EndpointSide| {
        (side.identity != 0).then_some((Identity(side.identity), PolicySlot(side.policy)))
    };
    Row {
        ipv6: Some(Ipv6Addr::from(endpoint.address6)).filter(|a| !a.is_unspecified()),
        ipv4: Some(Ipv4Addr::from(endpoint.address4)).filter(|a| !a.is_unspecified()),
        mac: Mac(endpoint.mac),
        interface,
        incarnation: endpoint.incarnation,
        sides: endpoint.side.map(side),
    }
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
        direction: match key.direction {
            Direction::Ingress => abi::INGRESS,
            Direction::Egress => abi::EGRESS,
        },
        protocol,
        port: port.to_be(),
    }
}

fn policy_value(value: &PolicyValue) -> abi::PolicyValue {
    abi::PolicyValue {
        precedence: value.precedence,
        cookie: value.cookie.0,
        verdict: match value.verdict {
            Verdict::Allow => abi::VERDICT_ALLOW,
            Verdict::Deny | Verdict::Reject => abi::VERDICT_DENY,
        },
        ..abi::PolicyValue::default()
    }
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
    use crate::types::{Peer, Protocol};

    #[test]
    fn rows_come_back_as_they_were_written() {
        let row = Row {
            ipv6: Some("fd00::1".parse().unwrap()),
            ipv4: None,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            interface: "pn0".to_owned(),
            incarnation: [7; 16],
            sides: [None, Some((Identity(256), PolicySlot(3)))],
        };
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
            source: crate::compile::plan::SourceClass::ANY,
            ports,
        };
        let any = policy_key(&key(PortPrefix::Any));
        assert_eq!((any.prefixlen, any.peer.to_ne_bytes()), (40, [1, 2, 3, 4]));
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
