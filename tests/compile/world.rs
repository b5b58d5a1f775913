//! Worlds to compile, built by hand: no files, no kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use porin::compile::plan::Plan;
use porin::compile::{Memory, compile};
use porin::config::model::{
    self, AddressWish, Attachment, CidrSet, Config, Endpoint, Host, Peer, Policy, Pool, Rule,
};
use porin::desired::snapshot::{Namespace, Snapshot};
use porin::desired::{Change, Desired, UplinkFact};
use porin::types::{Action, Label, Mac, Mode, Name, Origin, PortSpec, Tier};

use crate::reference::Facts;
use crate::worlds::{Draft, UPLINK};

pub const UPLINK_IFINDEX: u32 = 9;
pub const UPLINK_MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

pub fn origin(line: u32) -> Origin {
    Origin { file: Arc::from(Path::new("policies.d/test.toml")), line, column: 1 }
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn pool(name: &str, network: &str) -> Pool {
    let (name, network) = (self::name(name), network.parse().unwrap());
    Pool { name, network, reserved: Vec::new(), origin: origin(1) }
}

/// `labels`: `a=b,c=d`.
pub fn endpoint(name: &str, labels: &str) -> Endpoint {
    let label = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap();
        Label { key: key.parse().unwrap(), value: value.to_owned() }
    };
    Endpoint {
        name: self::name(name),
        labels: labels.split_terminator(',').map(label).collect(),
        attachment: Attachment::Made {
            namespace: format!("/run/netns/{name}").into(),
            interface: "eth0".to_owned(),
        },
        ipv6: AddressWish::Auto,
        ipv4: AddressWish::Auto,
        ports: BTreeMap::new(),
        publish: Vec::new(),
        mac: None,
        shut: false,
        origin: origin(1),
    }
}

/// `selector`, `entity:...`, `group:NAME`, or `cidr:NETWORK[!EXCEPT...]`.
pub fn peer(text: &str) -> Peer {
    if let Some(name) = text.strip_prefix("group:") {
        return Peer::Group(self::name(name));
    }
    if let Some(entity) = text.strip_prefix("entity:") {
        return Peer::Entity(entity.parse().unwrap());
    }
    let Some(cidr) = text.strip_prefix("cidr:") else {
        return Peer::Selector(text.parse().unwrap());
    };
    let mut parts = cidr.split('!').map(|part| part.parse().unwrap());
    let network = parts.next().unwrap();
    let mut except: Vec<_> = parts.collect();
    except.sort();
    Peer::Cidr(CidrSet { network, except })
}

pub fn rule(action: Action, peers: &[&str], ports: &[&str]) -> Rule {
    let mut seen = BTreeSet::new();
    let ports = ports.iter().flat_map(|text| PortSpec::parse_list(text).unwrap());
    Rule {
        action,
        peers: peers.iter().map(|text| peer(text)).collect(),
        ports: ports.filter(|ports| seen.insert(ports.clone())).collect(),
        source_ports: Vec::new(),
        match_endpoints: false,
        l7: Default::default(),
        origin: origin(1),
    }
}

pub fn allow(peers: &[&str], ports: &[&str]) -> Rule {
    rule(Action::Allow, peers, ports)
}

pub fn deny(peers: &[&str], ports: &[&str]) -> Rule {
    rule(Action::Deny, peers, ports)
}

pub fn policy(
    name: &str,
    subject: &str,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
) -> Policy {
    Policy {
        name: self::name(name),
        subject: subject.parse().unwrap(),
        tier: Tier::Normal,
        priority: 0,
        default_deny: true,
        mode: Mode::Enforce,
        ingress,
        egress,
        origin: origin(1),
        ingress_origin: None,
        egress_origin: None,
    }
}

pub fn host() -> Host {
    let pools = vec![pool("six", "fd00:1::/64"), pool("four", "10.1.0.0/16")];
    Host { pools, ..Host::default() }
}

pub fn config(host: Host, endpoints: Vec<Endpoint>, policies: Vec<Policy>) -> Config {
    let mut endpoints: Vec<_> = endpoints.into_iter().map(Arc::new).collect();
    endpoints.sort_by(|a, b| a.name.cmp(&b.name));
    let policies = model::by_name(policies.into_iter().map(Arc::new));
    Config { host, endpoints, policies, ..Config::default() }
}

/// Everything that a daemon would keep, and the plan in force.
#[derive(Default)]
pub struct World {
    pub desired: Desired,
    pub memory: Memory,
}

impl World {
    pub fn new(config: Config, host_addresses: &[&str]) -> Self {
        let mut world = World::default();
        let addresses = host_addresses.iter().map(|text| text.parse().unwrap()).collect();
        world.desired.apply(Change::HostAddresses(addresses));
        world.configure(config);
        world
    }

    /// Every endpoint's namespace exists.
    pub fn configure(&mut self, config: Config) {
        let namespace = |endpoint: &Arc<Endpoint>| {
            let inode = endpoint
                .name
                .as_str()
                .bytes()
                .fold(7, |n: u64, b| n.wrapping_mul(1_000_003).wrapping_add(u64::from(b)));
            let path = endpoint.namespace()?.to_owned();
            Some((endpoint.name.clone(), Ok(Namespace { path, device: 4, inode })))
        };
        let namespaces = config.endpoints.iter().filter_map(namespace).collect();
        self.desired.apply(Change::Namespaces(namespaces));
        self.desired.apply(Change::Config(Arc::new(config)));
    }

    /// As a reload would make it: with its host addresses and its uplink.
    pub fn become_draft(&mut self, draft: &Draft) {
        self.desired.apply(Change::HostAddresses(draft.host.clone()));
        let uplink = UplinkFact {
            interface: UPLINK.to_owned(),
            ifindex: UPLINK_IFINDEX,
            mac: UPLINK_MAC,
            mtu: 1500,
            address4: None,
        };
        self.desired.apply(Change::Uplinks(vec![uplink]));
        self.configure(draft.config.clone());
    }

    pub fn snapshot(&mut self) -> Snapshot {
        let (snapshot, faults) = self.desired.snapshot().unwrap();
        assert_eq!(faults, []);
        snapshot
    }

    /// Who got which addresses.
    pub fn facts(&mut self) -> Facts {
        let snapshot = self.snapshot();
        let of = |endpoint: &Arc<porin::desired::snapshot::Endpoint>| {
            let addresses = [endpoint.ipv6.map(IpAddr::V6), endpoint.ipv4.map(IpAddr::V4)];
            (endpoint.name.clone(), addresses.into_iter().flatten().collect())
        };
        let endpoints = snapshot.endpoints.values().map(of).collect();
        Facts { endpoints, host: snapshot.host_addresses.to_vec() }
    }

    pub fn commit(&mut self) -> Plan {
        let snapshot = self.snapshot();
        let plan = compile(&snapshot, &mut self.memory).unwrap();
        self.desired.committed();
        self.memory.committed();
        plan
    }
}

pub fn address(plan: &Plan, endpoint: &str, ipv6: bool) -> IpAddr {
    let planned = plan.endpoints.values().find(|e| e.endpoint.name.as_str() == endpoint).unwrap();
    match ipv6 {
        true => IpAddr::V6(planned.endpoint.ipv6.unwrap()),
        false => IpAddr::V4(planned.endpoint.ipv4.unwrap()),
    }
}
