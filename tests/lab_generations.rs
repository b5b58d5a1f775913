//! One commit, one instant; and what a thousand endpoints share.

mod lab;

use std::collections::BTreeSet;
use std::path::Path;

use lab::traffic::{self, ARRIVES, DROPPED, Server};
use lab::{Host, World, config, flips};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

/// `make bench ONLY=commit.flips.` makes ten thousand; each waits for an RCU grace period, so that
/// many would take minutes here.
#[test]
fn flips_let_no_mixture_through() {
    let count = std::env::var("PORIN_FLIPS").ok().and_then(|n| n.parse().ok());
    let seen = World::run(|world| flips::run(world, count.unwrap_or(1000)));
    println!("{seen:?}");
    assert_eq!(seen.mixed, 0, "a packet was judged by two generations: {seen:?}");
    assert_eq!(seen.lost, 0, "an allowed packet was lost: {seen:?}");
    assert!(seen.marked > seen.commits, "hardly any load: {seen:?}");
}

#[test]
fn a_thousand_endpoints_share_variants_and_policy_maps() {
    World::run(|world| {
        let host = world.host("alpha");
        host.write("porin.toml", &config::host(&[]));
        let names: Vec<String> = (0..1000).map(|n| format!("c{n}")).collect();
        let containers = host.containers(&names);
        let mut endpoints = String::new();
        for (number, name) in (1..).zip(&names) {
            endpoints += &config::endpoint(name, "app = \"web\"", number);
        }
        host.write("endpoints.d/all.toml", &endpoints);
        host.write(
            "policies.d/web.toml",
            "[[policy]]\nname = \"web\"\nsubject = \"app=web\"\n[[policy.ingress]]\n\
             from = [\"app=web\"]\nports = [\"80/tcp\"]\n[[policy.egress]]\nto = [\"app=web\"]\n",
        );
        let daemon = host.porind();
        assert_eq!(daemon.status()["endpoints"]["attached"], 1000);
        assert_eq!(daemon.status()["identities"], 1);
        // `policies` has spare tables as well; this says which are in use.
        let tables = ids(&host, "policy_tables");
        assert_eq!(tables.len(), 1, "one identity, one policy map: {tables:?}");
        let programs = ids(&host, "programs");
        assert!(programs.len() <= 4, "variants: {programs:?}");

        let _server = Server::echo(containers[999].place(), 80);
        let to = lab::shop::at(1000, 80);
        for to in to {
            assert!(traffic::tcp(containers[0].place(), to, ARRIVES));
            assert!(!traffic::udp(containers[0].place(), to, 10, DROPPED));
        }
    });
}

/// The distinct programs or maps that an array of them holds.
fn ids(host: &Host, map: &str) -> BTreeSet<u32> {
    let path = Path::new("/sys/fs/bpf/porin/v3/maps").join(map);
    let map = host.enter(|| MapHandle::from_pinned_path(&path).map_err(|e| e.to_string()));
    let map = map.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let id = |key: Vec<u8>| map.lookup(&key, MapFlags::ANY).ok().flatten();
    let number = |value: Vec<u8>| u32::from_ne_bytes(value[..4].try_into().expect("four bytes"));
    map.keys().filter_map(id).map(number).filter(|id| *id != 0).collect()
}
