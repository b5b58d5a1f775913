//! From changes to snapshots.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use porin::config::model::{
    AddressWish, Attachment, Config, Endpoint, Host, LabelFilter, Pool, Uplink,
};
use porin::desired::snapshot::{self, Namespace, Namespaces, Snapshot};
use porin::desired::{Change, Desired, Fault, HostNetwork, Leases, UplinkFact, digest};
use porin::types::{Label, Mac, Name, Origin, PortRange, Slot};

fn origin() -> Origin {
    Origin { file: Arc::from(Path::new("endpoints.d/e.toml")), line: 3, column: 1 }
}

fn endpoint(name: &str, labels: &[(&str, &str)]) -> Endpoint {
    let label = |(key, value): &(&str, &str)| Label {
        key: key.parse().unwrap(),
        value: (*value).to_owned(),
    };
    Endpoint {
        name: name.parse().unwrap(),
        labels: labels.iter().map(label).collect(),
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
        origin: origin(),
    }
}

fn config(pools: &[&str], endpoints: Vec<Endpoint>) -> Config {
    let pool = |network: &&str| Pool {
        name: "pool".parse().unwrap(),
        network: network.parse().unwrap(),
        reserved: Vec::new(),
        origin: origin(),
    };
    let host = Host { pools: pools.iter().map(pool).collect(), ..Host::default() };
    let endpoints = endpoints.into_iter().map(Arc::new).collect();
    Config { host, endpoints, ..Config::default() }
}

fn namespaces(found: &[(&str, u64)]) -> Change {
    let namespace = |(name, inode): &(&str, u64)| {
        let (path, name): (_, Name) = (format!("/run/netns/{name}"), name.parse().unwrap());
        (name, Ok(Namespace { path: path.into(), device: 4, inode: *inode }))
    };
    Change::Namespaces(found.iter().map(namespace).collect())
}

fn take(desired: &mut Desired) -> (Snapshot, Vec<Fault>) {
    let taken = desired.snapshot().unwrap();
    desired.committed();
    taken
}

fn find(snapshot: &Snapshot, name: &str) -> Option<Arc<snapshot::Endpoint>> {
    snapshot.endpoints.values().find(|e| e.name.as_str() == name).cloned()
}

const POOLS: [&str; 2] = ["fd00:1::/64", "10.1.0.0/16"];

#[test]
fn an_endpoint_without_namespace_stays_closed_and_keeps_its_address() {
    let mut desired = Desired::default();
    desired.apply(Change::Config(Arc::new(config(
        &POOLS,
        vec![endpoint("a", &[]), endpoint("b", &[])],
    ))));
    desired.apply(namespaces(&[("a", 1), ("b", 2)]));
    let (before, faults) = take(&mut desired);
    assert_eq!(faults, []);
    let a = find(&before, "a").unwrap();
    let gone = Namespaces::from_iter([
        ("a".parse().unwrap(), Err("No such file or directory".to_owned())),
        (
            "b".parse().unwrap(),
            Ok(find(&before, "b").unwrap().made().unwrap().namespace.clone().unwrap()),
        ),
    ]);
    desired.apply(Change::Namespaces(gone));
    let (without, faults) = take(&mut desired);
    assert!(find(&without, "a").is_none());
    assert!(Arc::ptr_eq(&find(&without, "b").unwrap(), &find(&before, "b").unwrap()));
    assert_eq!(
        faults[0].to_string(),
        "endpoints.d/e.toml:3:1: endpoint `a` cannot be attached and stays closed: \
         /run/netns/a: No such file or directory \
         (create the namespace (ip netns add), or correct `namespace`; it is opened as soon as it is there)"
    );
    assert_eq!(faults[0].endpoint.as_ref().unwrap().as_str(), "a");
    assert_eq!(
        desired.leases().address(&a.name, porin::types::Family::Ipv6),
        a.ipv6.map(IpAddr::V6)
    );
    desired.apply(namespaces(&[("a", 9), ("b", 2)]));
    let (back, faults) = take(&mut desired);
    assert_eq!(faults, []);
    let back = find(&back, "a").unwrap();
    assert_eq!((back.ipv6, back.ipv4), (a.ipv6, a.ipv4));
    assert_ne!(back.incarnation, a.incarnation, "it is another namespace");
    assert_ne!(back.slot, a.slot);
    assert_eq!(back.host_interface, a.host_interface);
}

#[test]
fn leases_and_slots_survive_a_restart() {
    let both = || vec![endpoint("a", &[("app", "x")]), endpoint("b", &[("app", "y")])];
    let mut desired = Desired::default();
    desired.apply(namespaces(&[("a", 1), ("b", 2)]));
    desired.apply(Change::Config(Arc::new(config(&POOLS, both()))));
    let before = take(&mut desired).0;
    let written = desired.leases().write().unwrap();

    let mut again = Desired::default();
    let slots = before.endpoints.values().map(|e| (e.incarnation, Slot(e.slot.0)));
    again.apply(Change::Slots(slots.chain([([9; 16], Slot(3))]).collect()));
    let identities = before.identities.iter().map(|(id, labels)| (*id, Some((**labels).clone())));
    again.apply(Change::Identities(identities.collect()));
    again.apply(Change::Leases(Leases::read(&written).0));
    again.apply(Change::Config(Arc::new(config(&POOLS, both()))));
    again.apply(namespaces(&[("a", 1), ("b", 2)]));
    let (after, faults) = take(&mut again);
    assert_eq!(faults, []);
    assert_eq!(before.endpoints, after.endpoints);
    assert_eq!(before.identities, after.identities);
    // Slot 3 was another's: a new endpoint must not have it yet.
    let mut three = both();
    three.push(endpoint("c", &[]));
    again.apply(Change::Config(Arc::new(config(&POOLS, three))));
    again.apply(namespaces(&[("a", 1), ("b", 2), ("c", 3)]));
    assert_eq!(find(&take(&mut again).0, "c").unwrap().slot, Slot(4));
}

#[test]
fn leases_outside_of_pools_are_dropped() {
    let mut desired = Desired::default();
    let text = "[[lease]]\nendpoint = \"a\"\naddress = \"10.9.0.5\"\n";
    desired.apply(Change::Leases(Leases::read(text).0));
    desired.apply(Change::Config(Arc::new(config(&POOLS, vec![endpoint("a", &[])]))));
    desired.apply(namespaces(&[("a", 1)]));
    let a = find(&take(&mut desired).0, "a").unwrap();
    assert_ne!(a.ipv4, Some("10.9.0.5".parse().unwrap()));
    assert_eq!(desired.leases().iter().count(), 2);
}

#[test]
fn excluded_labels_make_no_identities() {
    let endpoints = vec![
        endpoint("a", &[("app", "x"), ("uid", "1")]),
        endpoint("b", &[("app", "x"), ("uid", "2")]),
    ];
    let mut config = config(&POOLS, endpoints);
    config.host.labels = LabelFilter { include: Vec::new(), exclude: vec!["uid".to_owned()] };
    let mut desired = Desired::default();
    desired.apply(Change::Config(Arc::new(config.clone())));
    desired.apply(namespaces(&[("a", 1), ("b", 2)]));
    let snapshot = take(&mut desired).0;
    assert_eq!(snapshot.identities.len(), 1);
    assert_eq!(find(&snapshot, "a").unwrap().labels.to_string(), "app=x");
    config.host.labels = LabelFilter::default();
    desired.apply(Change::Config(Arc::new(config)));
    let (snapshot, _) = take(&mut desired);
    assert_eq!(snapshot.identities.keys().map(|id| id.0).collect::<Vec<_>>(), [257, 258]);
}

#[test]
fn nothing_is_half_applied_and_what_is_equal_stays_the_same() {
    let mut desired = Desired::default();
    desired.apply(Change::Config(Arc::new(config(&POOLS, vec![endpoint("a", &[])]))));
    desired.apply(namespaces(&[("a", 1)]));
    let before = take(&mut desired).0;
    let mut tried = desired.clone();
    tried.apply(Change::Config(Arc::new(config(&["10.7.0.0/24"], vec![]))));
    take(&mut tried);
    let (after, _) = desired.snapshot().unwrap();
    assert!(Arc::ptr_eq(&before.endpoints, &after.endpoints));
    desired.apply(Change::Config(Arc::new(config(&POOLS, vec![endpoint("a", &[])]))));
    let (reread, _) = desired.snapshot().unwrap();
    assert!(Arc::ptr_eq(&before.endpoints, &reread.endpoints));
    assert!(before.policies.ptr_eq(&reread.policies));
    assert!(Arc::ptr_eq(&before.host, &reread.host));
}

#[test]
fn too_many_endpoints_refuse_the_whole_and_say_by_how_much() {
    let names: Vec<String> = (0..16_390).map(|i| format!("e{i}")).collect();
    let found: Vec<(&str, u64)> = names.iter().map(String::as_str).zip(1..).collect();
    let endpoints = names.iter().map(|name| endpoint(name, &[])).collect();
    let mut desired = Desired::default();
    let mut config = config(&POOLS, endpoints);
    config.host.uplinks.push(Uplink { interface: "up0".to_owned(), origin: origin() });
    desired.apply(Change::Config(Arc::new(config)));
    desired.apply(namespaces(&found));
    let uplink = UplinkFact {
        interface: "up0".to_owned(),
        ifindex: 2,
        mac: Mac([2, 0, 0, 0, 0, 9]),
        mtu: 1500,
        address4: None,
    };
    desired.apply(Change::Uplinks(vec![uplink]));
    let faults = desired.snapshot().unwrap_err();
    assert_eq!(faults[0].what, "16390 endpoints and 1 uplinks are 8 more than the 16383 that fit");
}

#[test]
fn endpoints_that_wait_for_a_slot_are_told_and_get_one_in_the_end() {
    let generation =
        |prefix: &str| -> Vec<String> { (0..10_000).map(|i| format!("{prefix}{i}")).collect() };
    let mut desired = Desired::default();
    let set = |desired: &mut Desired, prefix, first: u64| {
        let names = generation(prefix);
        let endpoints = names.iter().map(|name| endpoint(name, &[])).collect();
        let found: Vec<(&str, u64)> = names.iter().map(String::as_str).zip(first..).collect();
        desired.apply(Change::Config(Arc::new(config(&POOLS, endpoints))));
        desired.apply(namespaces(&found));
    };
    set(&mut desired, "a", 1);
    assert_eq!(take(&mut desired).0.endpoints.len(), 10_000);
    set(&mut desired, "b", 20_000);
    let (snapshot, faults) = take(&mut desired);
    assert_eq!(snapshot.endpoints.len(), 6_383);
    assert_eq!(faults.len(), 10_000 - 6_383);
    assert!(faults.iter().all(|fault| fault.passing && fault.endpoint.is_some()));
    let mut commits = 0;
    while take(&mut desired).0.endpoints.len() < 10_000 {
        commits += 1;
        assert!(commits < 5);
    }
}

#[test]
fn uplinks_count_when_they_are_configured_and_there() {
    let fact = |interface: &str, mtu| UplinkFact {
        interface: interface.to_owned(),
        ifindex: 2,
        mac: Mac([2, 0, 0, 0, 0, 9]),
        mtu,
        address4: None,
    };
    let mut config = config(&POOLS, vec![endpoint("a", &[])]);
    for interface in ["up0", "up1"] {
        config.host.uplinks.push(Uplink { interface: interface.to_owned(), origin: origin() });
    }
    let mut desired = Desired::default();
    desired.apply(Change::Config(Arc::new(config)));
    desired.apply(namespaces(&[("a", 1)]));
    desired.apply(Change::Uplinks(vec![fact("up1", 1400), fact("other", 1300)]));
    let (snapshot, faults) = take(&mut desired);
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].what, "uplink `up0` does not exist: endpoints reach nothing through it");
    assert_eq!(snapshot.uplinks.len(), 1);
    assert_eq!(find(&snapshot, "a").unwrap().made().unwrap().mtu, 1400);
    let slot = snapshot.uplinks[0].slot;
    assert_ne!(slot, find(&snapshot, "a").unwrap().slot);
    desired.apply(Change::Uplinks(vec![fact("up1", 9000), fact("up0", 1500)]));
    let (snapshot, faults) = take(&mut desired);
    assert_eq!(faults, []);
    assert_eq!(snapshot.uplinks[1].slot, slot);
    assert_eq!(find(&snapshot, "a").unwrap().made().unwrap().mtu, 1500);
}

#[test]
fn one_place_has_one_endpoint() {
    let mut desired = Desired::default();
    let attachment =
        Attachment::Made { namespace: "/run/netns/c".into(), interface: "eth1".to_owned() };
    let elsewhere = Endpoint { attachment, ..endpoint("c", &[]) };
    let endpoints = vec![endpoint("a", &[]), endpoint("b", &[]), elsewhere];
    desired.apply(Change::Config(Arc::new(config(&POOLS, endpoints))));
    desired.apply(namespaces(&[("a", 1), ("b", 1), ("c", 1)]));
    let (snapshot, faults) = take(&mut desired);
    assert!(find(&snapshot, "a").is_some() && find(&snapshot, "c").is_some());
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].endpoint.as_ref().unwrap().as_str(), "b");
}

#[test]
fn derived_names_fit_and_differ() {
    let names: Vec<Name> = (0..2000).map(|i| format!("e{i}").parse().unwrap()).collect();
    let interfaces: std::collections::BTreeSet<_> =
        names.iter().map(digest::host_interface).collect();
    assert_eq!(interfaces.len(), names.len());
    for interface in &interfaces {
        assert!(interface.len() == 14 && interface.starts_with("pn"), "{interface}");
    }
    for name in &names {
        let mac = digest::mac(name.as_str(), &[0; 16]);
        assert_eq!(mac.0[0] & 3, 2, "locally administered, unicast");
        assert_ne!(mac, Mac::GATEWAY);
    }
}

#[test]
fn a_pool_that_overlaps_a_network_of_the_host_refuses_the_whole_and_names_both() {
    let network = |interface: &str, network: &str| HostNetwork {
        interface: interface.to_owned(),
        network: network.parse().unwrap(),
    };
    let mut desired = Desired::default();
    desired.apply(Change::Config(Arc::new(config(&POOLS, vec![endpoint("a", &[])]))));
    desired.apply(namespaces(&[("a", 1)]));
    let others = vec![network("lan0", "10.2.0.0/16"), network("lan0", "fd00:2::/64")];
    desired.apply(Change::HostNetworks(others));
    take(&mut desired);
    // Wider, inside, and the same.
    for (interface, prefix, pool) in [
        ("lan0", "10.0.0.0/8", "10.1.0.0/16"),
        ("docker0", "10.1.7.0/24", "10.1.0.0/16"),
        ("lan6", "fd00:1::/64", "fd00:1::/64"),
    ] {
        desired.apply(Change::HostNetworks(vec![network(interface, prefix)]));
        let faults = desired.snapshot().unwrap_err();
        assert_eq!(faults.len(), 1);
        assert_eq!(
            faults[0].to_string(),
            format!(
                "endpoints.d/e.toml:3:1: the pool {pool} overlaps {prefix}, which this host reaches \
                 over `{interface}` (take a network that nobody else has, or the host is cut off from its own)"
            )
        );
    }
    desired.apply(Change::HostNetworks(vec![]));
    assert!(desired.snapshot().is_ok());
}

#[test]
fn masqueraded_ports_that_the_host_s_own_sockets_may_have_refuse_the_whole() {
    let range = |first, last| PortRange::new(first, last).unwrap();
    let mut masquerading = config(&POOLS, vec![]);
    masquerading.host.uplinks.push(Uplink { interface: "up0".to_owned(), origin: origin() });
    let mut desired = Desired::default();
    desired.apply(Change::Config(Arc::new(masquerading.clone())));
    desired.apply(Change::LocalPorts(vec![range(32_768, 60_999)]));
    take(&mut desired);
    desired.apply(Change::LocalPorts(vec![range(1024, 7999), range(8001, 61_000)]));
    let faults = desired.snapshot().unwrap_err();
    assert_eq!(
        faults[0].to_string(),
        "the ports 61000-65535 of [masquerade] overlap 8001-61000, which the kernel gives to the host's own \
         sockets (set `ports` to others, or sysctl net.ipv4.ip_local_reserved_ports=61000-65535)"
    );
    // Where nothing is masqueraded, they do not matter.
    let mut without = masquerading.clone();
    without.host.masquerade.enabled = false;
    for config in [without, config(&POOLS, vec![]), config(&POOLS[..1], vec![])] {
        desired.apply(Change::Config(Arc::new(config)));
        assert!(desired.snapshot().is_ok());
    }
}

#[test]
fn an_adopted_endpoint_has_its_own_addresses_as_long_as_its_interface_is_there() {
    let adopted = |name: &str, interface: &str, ipv4: &str| Endpoint {
        attachment: Attachment::Adopted { interface: interface.to_owned() },
        ipv6: AddressWish::None,
        ipv4: AddressWish::Fixed(ipv4.parse().unwrap()),
        ..endpoint(name, &[])
    };
    let endpoints = vec![
        endpoint("a", &[]),
        adopted("b", "veth1", "172.17.0.5"),
        adopted("c", "veth2", "172.17.0.6"),
        adopted("d", "veth3", "172.17.0.1"),
    ];
    let mut desired = Desired::default();
    desired.apply(Change::Config(Arc::new(config(&POOLS, endpoints))));
    desired.apply(Change::HostAddresses(vec!["172.17.0.1".parse().unwrap()]));
    desired.apply(namespaces(&[("a", 1)]));
    let found = |ifindex, via| Ok(snapshot::Adopted { ifindex, via });
    let interfaces = |b, d| {
        let missing = Err("there is no interface `veth2`".to_owned());
        let found = [("b", b), ("c", missing), ("d", d)];
        Change::Interfaces(
            found.map(|(name, found)| (name.parse().unwrap(), found)).into_iter().collect(),
        )
    };
    desired.apply(interfaces(found(7, 3), found(9, 3)));
    let (snapshot, faults) = take(&mut desired);
    assert_eq!(snapshot.endpoints.len(), 2);
    let b = find(&snapshot, "b").unwrap();
    assert_eq!((b.ipv6, b.ipv4), (None, Some("172.17.0.5".parse().unwrap())));
    assert_eq!((b.host_interface.as_str(), b.made()), ("veth1", None));
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "endpoints.d/e.toml:3:1: endpoint `c` cannot be adopted and stays closed: there is no interface \
             `veth2` (start what makes the interface, or correct `interface`; it is adopted as soon as it is there)",
            "endpoints.d/e.toml:3:1: endpoint `d` cannot be adopted and stays closed: 172.17.0.1 is an address of \
             this host (state the addresses that are behind the interface, not the host's own on it)",
        ]
    );
    let reserved = ["172.17.0.1", "172.17.0.5", "172.17.0.6"];
    let reserved: Vec<IpAddr> = reserved.iter().map(|a| a.parse().unwrap()).collect();
    assert_eq!(*snapshot.reserved, reserved, "nobody else's, closed or not");
    assert_eq!(desired.leases().iter().count(), 2, "those of `a`");
    // Made anew, or put to another bridge, it is another.
    for (ifindex, via) in [(8, 3), (8, 4)] {
        let before = find(&desired.snapshot().unwrap().0, "b").unwrap();
        desired.apply(interfaces(found(ifindex, via), found(9, 3)));
        let after = find(&take(&mut desired).0, "b").unwrap();
        assert_ne!((after.slot, after.incarnation), (before.slot, before.incarnation));
    }
}
