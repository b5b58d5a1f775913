//! Published ports: at which addresses of the host, for which endpoints, and what a change of either makes of it.

use porin::compile::compile;
use porin::config::model::{AddressWish, Endpoint};
use porin::config::published::MOST;
use porin::desired::Change;
use porin::types::Protocol;

use crate::world::{World, config, endpoint, host};

fn publishing(name: &str, publish: &[&str]) -> Endpoint {
    let publish = publish.iter().map(|text| text.parse().unwrap()).collect();
    Endpoint { publish, ..endpoint(name, "app=web") }
}

/// `ADDRESS PORT/PROTOCOL -> ENDPOINT:PORT`, and whether programs can do it.
fn planned(world: &mut World) -> (Vec<String>, bool) {
    let (snapshot, _) = world.desired.snapshot().unwrap();
    let plan = compile(&snapshot, &mut world.memory).unwrap();
    world.desired.committed();
    world.memory.committed();
    let mut all: Vec<_> = plan
        .published
        .iter()
        .map(|(key, to)| {
            let name = &plan.endpoints[&to.slot].endpoint.name;
            format!("{} {}/{} -> {name}:{}", key.address, key.port, key.protocol, to.port)
        })
        .collect();
    all.sort();
    let can = plan.endpoints.values().all(|planned| planned.features.publishes);
    (all, can)
}

#[test]
fn each_address_of_the_host_that_others_reach_has_its_key() {
    let four = Endpoint { ipv6: AddressWish::None, ..publishing("four", &["81:80/tcp"]) };
    let shut = Endpoint { shut: true, ..publishing("shut", &["82:80/tcp"]) };
    let endpoints = vec![
        publishing("web", &["8080:80/tcp", "203.0.113.9:53-54:1053-1054/udp"]),
        four,
        shut,
        endpoint("none", ""),
    ];
    let addresses = ["127.0.0.1", "::1", "fe80::1", "192.0.2.1", "2001:db8::1"];
    let mut world = World::new(config(host(), endpoints, vec![]), &addresses);
    // The pools' first addresses are the host's, too.
    let mut want = vec![
        "10.1.0.1 8080/tcp -> web:80",
        "10.1.0.1 81/tcp -> four:80",
        // Which the host's own programs use.
        "127.0.0.1 8080/tcp -> web:80",
        "127.0.0.1 81/tcp -> four:80",
        "192.0.2.1 8080/tcp -> web:80",
        "192.0.2.1 81/tcp -> four:80",
        "2001:db8::1 8080/tcp -> web:80",
        "::1 8080/tcp -> web:80",
        "fd00:1::1 8080/tcp -> web:80",
    ];
    // What is sent to an address that is not the host's is to go there.
    assert_eq!(planned(&mut world), (want.iter().map(ToString::to_string).collect(), true));
    // Other addresses of the host, and none of the two before.
    let addresses = ["198.51.100.1", "203.0.113.9"].map(|address| address.parse().unwrap());
    world.desired.apply(Change::HostAddresses(addresses.into()));
    want.retain(|line| !line.starts_with("192.0.2.1") && !line.starts_with("2001:"));
    want.extend(["198.51.100.1 8080/tcp -> web:80", "198.51.100.1 81/tcp -> four:80"]);
    want.extend(["203.0.113.9 53/udp -> web:1053", "203.0.113.9 54/udp -> web:1054"]);
    want.extend(["203.0.113.9 8080/tcp -> web:80", "203.0.113.9 81/tcp -> four:80"]);
    want.sort_unstable();
    assert_eq!(planned(&mut world), (want.iter().map(ToString::to_string).collect(), true));
    world.configure(config(host(), vec![endpoint("web", "app=web")], vec![]));
    assert_eq!(planned(&mut world), (vec![], false));
}

/// For programs of the host alone: no packet is looked up for it.
#[test]
fn a_loopback_address_has_its_key_if_it_is_named() {
    let publish = ["127.0.0.1:8080:80/tcp", "127.0.0.53:53:1053/udp", "[::1]:8081:81/tcp"];
    let four = Endpoint {
        ipv6: AddressWish::None,
        ..publishing("four", &["[::1]:82:82/tcp", "127.0.0.1:82:82/tcp"])
    };
    let endpoints = vec![publishing("web", &publish), four];
    let addresses = ["127.0.0.1", "127.0.0.9", "::1", "192.0.2.1"];
    let mut world = World::new(config(host(), endpoints, vec![]), &addresses);
    let want = [
        "127.0.0.1 8080/tcp -> web:80",
        "127.0.0.1 82/tcp -> four:82",
        "127.0.0.53 53/udp -> web:1053",
        "::1 8081/tcp -> web:81",
    ];
    assert_eq!(planned(&mut world), (want.map(str::to_owned).to_vec(), false));
}

#[test]
fn more_than_fit_are_refused() {
    let publish = ["1-5000:1-5000/tcp", "1-5000:1-5000/udp"];
    let all = config(host(), vec![publishing("web", &publish)], vec![]);
    let mut world = World::new(all, &["192.0.2.1"]);
    let (snapshot, _) = world.desired.snapshot().unwrap();
    let faults = compile(&snapshot, &mut world.memory).unwrap_err();
    let what = format!("more than the {MOST} that fit");
    assert!(faults[0].to_string().contains(&what), "{}", faults[0]);
    let one = publish.map(|text| format!("192.0.2.1:{text}"));
    let one = publishing("web", &one.each_ref().map(String::as_str));
    world.configure(config(host(), vec![one], vec![]));
    let (snapshot, _) = world.desired.snapshot().unwrap();
    let plan = compile(&snapshot, &mut world.memory).unwrap();
    assert_eq!(plan.published.len(), 10_000);
    assert!(plan.published.keys().any(|key| key.protocol == Protocol::UDP && key.port == 5000));
}
