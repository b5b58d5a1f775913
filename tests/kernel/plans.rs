//! Plans for tests: endpoints that may all talk to each other, or not.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use porin::compile::plan::{
    Features, Plan, PlannedEndpoint, PlannedUplink, PolicyKey, PolicyTable, PolicyValue,
    PortPrefix, PrefixTable, PrefixValue, RuleRef, SourceClass,
};
use porin::desired::snapshot::{Endpoint, Uplink};
use porin::types::{
    Action, AddressKey, Cookie, Direction, Mode, Origin, Peer, PolicySlot, Slot, Tier, Verdict,
};

const HOST_CLASS: Peer = Peer(Peer::CLASS);
const WORLD_CLASS: Peer = Peer(Peer::CLASS + 1);
pub const POLICY: PolicySlot = PolicySlot(1);

pub fn features() -> Features {
    Features {
        ipv4: true,
        ipv6: true,
        egress_policy: true,
        ingress_policy: true,
        source_ports: false,
        reject: true,
        shadow: false,
        masquerade: true,
        publishes: false,
        judges_requests: false,
        adopts: false,
        adopted: false,
        accounting: true,
        events: true,
        nat_ports: (61000, 65535),
        event_rate: 1000,
    }
}

/// Both directions as `verdict` says, to all peers.
pub fn policy(verdict: Verdict) -> Arc<PolicyTable> {
    let entry = |direction| {
        let (peer, source, ports) = (Peer::ANY, SourceClass::ANY, PortPrefix::Any);
        let key = PolicyKey { peer, direction, source, ports };
        (key, PolicyValue { precedence: 1, verdict, cookie: Cookie(7), ruleset: None })
    };
    let digest = match verdict {
        Verdict::Allow => [1; 16],
        Verdict::Deny => [2; 16],
        Verdict::Reject => [3; 16],
    };
    Arc::new(PolicyTable { entries: Direction::BOTH.map(entry).to_vec(), digest })
}

/// Something for a cookie to mean.
pub fn a_rule() -> RuleRef {
    RuleRef {
        policy: "p".parse().unwrap(),
        tier: Tier::Normal,
        mode: Mode::Enforce,
        direction: Direction::Egress,
        rule: Some(0),
        action: Action::Allow,
        origin: Origin { file: Path::new("/p.toml").into(), line: 1, column: 1 },
    }
}

/// These endpoints, with one policy for all.
pub fn plan(endpoints: &[Arc<Endpoint>], verdict: Verdict) -> Plan {
    let sources: Vec<IpAddr> = vec!["fd00::ff".parse().unwrap(), "10.0.255.254".parse().unwrap()];
    let mut addresses = BTreeMap::new();
    for endpoint in endpoints {
        let ipv6 = endpoint.ipv6.map(IpAddr::V6);
        for address in ipv6.into_iter().chain(endpoint.ipv4.map(IpAddr::V4)) {
            addresses.insert(AddressKey::from(address), endpoint.slot);
        }
    }
    let outside = PrefixValue { peer: WORLD_CLASS, host: false, pool: false };
    let host = PrefixValue { peer: HOST_CLASS, host: true, pool: false };
    let mut prefixes = BTreeMap::from([
        ("::/0".parse().unwrap(), outside),
        ("0.0.0.0/0".parse().unwrap(), outside),
    ]);
    prefixes.extend(sources.iter().map(|address| ((*address).into(), host)));
    Plan {
        endpoints: endpoints.iter().map(|e| (e.slot, planned(e))).collect(),
        uplinks: BTreeMap::new(),
        addresses: Arc::new(addresses),
        published: Arc::default(),
        prefixes: Arc::new(PrefixTable { entries: prefixes, digest: [3; 16] }),
        policies: [(POLICY, policy(verdict))].into_iter().collect(),
        rules: Arc::default(),
        classes: Arc::default(),
        sources: Arc::default(),
        rulesets: Arc::default(),
        undecided: Arc::default(),
        roles: Arc::default(),
        host_sources: sources,
    }
}

fn planned(endpoint: &Arc<Endpoint>) -> PlannedEndpoint {
    let peers = [Peer::from(endpoint.identity); 2];
    let endpoint = endpoint.clone();
    PlannedEndpoint { endpoint, policy: POLICY, shadow: None, peers, features: features() }
}

pub fn with_uplink(mut plan: Plan, uplink: Uplink) -> Plan {
    let planned = PlannedUplink { uplink, features: features() };
    plan.uplinks.insert(Slot(planned.uplink.slot.0), planned);
    plan
}
