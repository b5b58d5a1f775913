//! A small generation and its events, for the tests of this module.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use imbl::OrdMap;

use crate::compile::plan::{Class, Plan, PrefixTable, RuleRef, RuleTable};
use crate::desired::snapshot::{Attachment, Endpoint, Made, Namespace, Snapshot, Uplink};
use crate::types::{
    Action, AddressKey, Cookie, Direction, Generation, Identity, Labels, Mac, Mode, Origin, Peer,
    Protocol, Slot, Tier, Verdict,
};

use super::event::{Event, FlowType, Hook};
use super::names::Names;

pub const INTRUDER: Slot = Slot(7);
pub const API: Slot = Slot(3);
pub const UPLINK: Slot = Slot(1);
pub const WORLD: Peer = Peer(Peer::CLASS + 1);
/// Of the intruder's identity.
pub const ROLE: Peer = Peer(0x80_0001);

/// `dev/intruder` (fd00::7, 10.0.0.7), `api` (fd00::3); cookie 11 makes api's ingress default deny,
/// cookie 12 is the second rule of the intruder's egress,
/// cookie 13 the first of a shadow policy of api's ingress.
pub fn names(generation: u32) -> Names {
    let intruder = endpoint("dev/intruder", INTRUDER, 7, "app=intruder,env=dev");
    let api = endpoint("api", API, 3, "app=api,env=prod");
    let all = [intruder, api].map(Arc::new);
    let mut addresses = BTreeMap::new();
    for endpoint in &all {
        addresses.extend(
            endpoint.ipv6.map(|a| (AddressKey::from(std::net::IpAddr::V6(a)), endpoint.slot)),
        );
        addresses.extend(
            endpoint.ipv4.map(|a| (AddressKey::from(std::net::IpAddr::V4(a)), endpoint.slot)),
        );
    }
    let snapshot = Snapshot {
        host: Arc::default(),
        host_addresses: Arc::default(),
        uplinks: Arc::new(vec![uplink()]),
        identities: Arc::new(all.iter().map(|e| (e.identity, e.labels.clone())).collect()),
        endpoints: Arc::new(all.into_iter().map(|e| (e.slot, e)).collect()),
        policies: OrdMap::new(),
        groups: Arc::default(),
        asserts: Arc::default(),
        reserved: Arc::default(),
    };
    let plan = Plan {
        endpoints: OrdMap::new(),
        uplinks: BTreeMap::new(),
        addresses: Arc::new(addresses),
        published: Arc::default(),
        prefixes: Arc::new(PrefixTable { entries: BTreeMap::new(), digest: [0; 16] }),
        policies: OrdMap::new(),
        rules: Arc::new(rules()),
        classes: Arc::new(BTreeMap::from([(
            WORLD,
            Class { kind: "world", cidrs: ["2001:db8::/32".into()].into() },
        )])),
        sources: Arc::default(),
        rulesets: Arc::default(),
        roles: Arc::new(BTreeMap::from([(ROLE, Identity(263))])),
        undecided: Arc::default(),
        host_sources: Vec::new(),
    };
    Names::new(Generation(generation), &snapshot, &plan)
}

/// The intruder's SYN to api, denied by api's ingress.
pub fn denied() -> Event {
    Event {
        time: 1,
        kind: FlowType::Deny,
        reason: 2,
        generation: Generation(41),
        slot: INTRUDER,
        hook: Hook::Ingress,
        length: 80,
        source: "fd00::7".parse().unwrap(),
        destination: "fd00::3".parse().unwrap(),
        source_port: 43210,
        destination_port: 8080,
        protocol: Protocol::TCP,
        verdict: Some(Verdict::Deny),
        tcp_flags: 2,
        source_peer: Peer(263),
        destination_peer: Peer(259),
        egress_cookie: Cookie::NONE,
        ingress_cookie: Cookie(11),
        shadow: None,
        shadow_egress_cookie: Cookie::NONE,
        shadow_ingress_cookie: Cookie::NONE,
    }
}

fn endpoint(name: &str, slot: Slot, number: u16, labels: &str) -> Endpoint {
    let label = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap();
        crate::types::Label { key: key.parse().unwrap(), value: value.to_owned() }
    };
    Endpoint {
        name: name.parse().unwrap(),
        slot,
        labels: Arc::new(labels.split(',').map(label).collect::<Labels>()),
        identity: Identity(256 + u32::from(number)),
        ipv6: Some(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number)),
        ipv4: (number == 7).then_some(std::net::Ipv4Addr::new(10, 0, 0, 7)),
        ports: BTreeMap::new(),
        publish: Vec::new(),
        shut: false,
        attachment: Attachment::Made(Made {
            namespace: Some(Namespace {
                path: "/run/netns/x".into(),
                device: 4,
                inode: number.into(),
            }),
            interface: "eth0".into(),
            mac: Mac::GATEWAY,
            mtu: 1500,
        }),
        host_interface: format!("pn{number:012x}"),
        incarnation: [0; 16],
    }
}

fn uplink() -> Uplink {
    Uplink {
        interface: "ens3".into(),
        ifindex: 2,
        mac: Mac::GATEWAY,
        mtu: 1500,
        slot: UPLINK,
        address4: None,
    }
}

fn rules() -> RuleTable {
    let origin = |line| Origin {
        file: Path::new("/etc/porin/policies.d/shop.toml").into(),
        line,
        column: 1,
    };
    let default = RuleRef {
        policy: "shop-api".parse().unwrap(),
        direction: Direction::Ingress,
        rule: None,
        tier: Tier::Normal,
        mode: Mode::Enforce,
        action: Action::Deny,
        origin: origin(3),
    };
    let rule = RuleRef {
        policy: "dev".parse().unwrap(),
        direction: Direction::Egress,
        rule: Some(1),
        tier: Tier::Normal,
        mode: Mode::Enforce,
        action: Action::Allow,
        origin: origin(17),
    };
    let shadow = RuleRef {
        policy: "tighter".parse().unwrap(),
        direction: Direction::Ingress,
        rule: Some(0),
        tier: Tier::Admin,
        mode: Mode::Shadow,
        action: Action::Reject,
        origin: origin(30),
    };
    let all = [default, rule, shadow].map(Arc::new);
    (11..).map(Cookie).zip(all).collect()
}
