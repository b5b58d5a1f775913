//! The daemon dies, stops, starts again, is removed: what it enforced goes on until teardown.

mod lab;

use std::collections::BTreeSet;

use lab::daemon::EFFECT;
use lab::generation::GenerationWatch;
use lab::shop::{self, API, DB, FRONT, Shop, at};
use lab::traffic::{self, ARRIVES, DROPPED, Stream};
use lab::{Host, World, eventually};

fn streams(shop: &Shop) -> Vec<Stream> {
    let outside = shop::both(shop::OUTSIDE6, shop::OUTSIDE4, 80);
    let tos = [at(API, 8080), outside].concat();
    tos.into_iter().map(|to| Stream::start(shop.front.place(), to)).collect()
}

fn must_enforce(shop: &Shop) {
    for to in at(API, 8080) {
        assert!(traffic::tcp(shop.front.place(), to, ARRIVES), "{to}");
    }
    for (from, to) in [(&shop.front, at(API, 9090)), (&shop.intruder, at(DB, 5432))] {
        assert!(!traffic::tcp(from.place(), to[0], DROPPED), "{} -> {}", from.name(), to[0]);
        assert!(!traffic::tcp(from.place(), to[1], DROPPED), "{} -> {}", from.name(), to[1]);
    }
}

#[test]
fn killed_and_started_again_without_a_lost_connection() {
    World::run(|world| {
        let shop = Shop::open(world);
        let mut daemon = shop.host.porind();
        let watch = GenerationWatch::open(&shop.host);
        let streams = streams(&shop);
        let mut generation = watch.now();
        for _ in 0..3 {
            daemon.kill();
            streams.iter().for_each(Stream::must_go_on);
            must_enforce(&shop);
            assert_eq!(watch.now(), generation, "nobody commits while the daemon is dead");
            daemon.start_again();
            streams.iter().for_each(Stream::must_go_on);
            must_enforce(&shop);
            assert!(watch.now() >= generation, "generations go on");
            generation = watch.now();
        }
        // What was edited while it was dead counts from its start.
        daemon.kill();
        shop.host.write(
            "policies.d/shop.toml",
            &shop::POLICIES
                .replace("9090/tcp", "9091/tcp")
                .replace("\"8080/tcp\"", "\"8080/tcp\", \"9090/tcp\""),
        );
        daemon.start_again();
        assert!(watch.now() > generation);
        assert!(traffic::tcp(shop.front.place(), at(API, 9090)[0], ARRIVES));
        for stream in streams {
            stream.must_go_on();
            stream.finish().unwrap();
        }
    });
}

#[test]
fn stopped_by_sigterm_it_leaves_everything_in_force() {
    World::run(|world| {
        let shop = Shop::open(world);
        let mut daemon = shop.host.porind();
        let streams = streams(&shop);
        assert!(daemon.stop().success(), "{}", shop.host.log());
        streams.iter().for_each(Stream::must_go_on);
        must_enforce(&shop);
        daemon.start_again();
        must_enforce(&shop);
        for stream in streams {
            stream.finish().unwrap();
        }
    });
}

#[test]
fn killed_at_any_moment_of_many_commits_it_resumes() {
    World::run(|world| {
        let shop = Shop::open(world);
        let mut daemon = shop.host.porind();
        let stream = Stream::start(shop.front.place(), at(API, 8080)[1]);
        let wide = shop::POLICIES.replace("\"8080/tcp\"", "\"8080/tcp\", \"80/tcp\"");
        for n in 0..16 {
            let text = if n % 2 == 0 { &wide } else { shop::POLICIES };
            shop.host.write("policies.d/shop.toml", text);
            // From the middle of the quiet time to well after the commit.
            let moment = std::time::Duration::from_millis(45 + 2 * n);
            std::thread::park_timeout(moment);
            daemon.kill();
            daemon.start_again();
            let patience = if n % 2 == 0 { ARRIVES } else { DROPPED };
            let open = traffic::tcp(shop.front.place(), at(API, 80)[0], patience);
            assert_eq!(open, n % 2 == 0, "round {n}");
        }
        stream.finish().unwrap();
    });
}

#[test]
fn a_permission_that_is_taken_away_stops_a_running_connection_and_giving_it_back_resumes_it() {
    World::run(|world| {
        let shop = Shop::open(world);
        let _daemon = shop.host.porind();
        let streams: Vec<_> =
            at(API, 8080).map(|to| Stream::start(shop.front.place(), to)).into_iter().collect();
        shop.host.write("policies.d/shop.toml", &shop::POLICIES.replace("8080/tcp", "8081/tcp"));
        for stream in &streams {
            assert!(stream.stands_still(), "the next packet is denied");
        }
        shop.host.write("policies.d/shop.toml", shop::POLICIES);
        for stream in streams {
            stream.must_go_on();
            stream.finish().unwrap();
        }
    });
}

#[test]
fn the_same_by_clsact() {
    World::run(|world| {
        let shop = Shop::open(world);
        let mut daemon = shop.host.porind_with(&["--attach", "clsact"]);
        assert_eq!(daemon.status()["kernel"]["attach"], "clsact");
        let streams = streams(&shop);
        must_enforce(&shop);
        assert!(traffic::udp(shop.front.place(), at(API, 8080)[0], 4000, ARRIVES));
        daemon.kill();
        streams.iter().for_each(Stream::must_go_on);
        must_enforce(&shop);
        daemon.start_again();
        must_enforce(&shop);
        for stream in streams {
            stream.must_go_on();
            stream.finish().unwrap();
        }
        daemon.kill();
        shop.host.porind_once(&["--attach", "clsact", "--teardown"]).success();
        assert!(!shop.host.sh("tc qdisc show dev up0").contains("clsact"));
    });
}

/// What a host has of what porin could have made or changed.
fn traces(host: &Host) -> BTreeSet<String> {
    let listings = [
        "ip -o link | sed 's/^[0-9]*: //; s/@.*//; s/:.*//'",
        "ip -6 -o route show table all; ip -o route show table all",
        "find /sys/fs/bpf -mindepth 1",
        "tc qdisc show",
        "ip -o rule; ip -6 -o rule",
    ];
    listings
        .iter()
        .flat_map(|script| host.sh(script).lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[test]
fn teardown_removes_all_that_porin_made_and_nothing_else() {
    World::run(|world| {
        let shop = Shop::open(world);
        // Somebody else's things.
        shop.host.sh("mkdir /sys/fs/bpf/other; ip link add pnother type veth peer name pnpeer
             tc qdisc add dev pnother clsact");
        let before = traces(&shop.host);
        let mut daemon = shop.host.porind();
        assert_ne!(traces(&shop.host), before);
        must_enforce(&shop);
        daemon.stop();
        shop.host.porind_once(&["--teardown"]).success();
        assert_eq!(traces(&shop.host), before);
        for container in [&shop.front, &shop.api, &shop.db, &shop.intruder] {
            assert_eq!(container.place().interfaces(), ["lo"]);
        }
        // Twice is no harm, and it can begin anew.
        shop.host.porind_once(&["--teardown"]).success();
        daemon.start_again();
        eventually(EFFECT, "all is back", || {
            traffic::tcp(shop.front.place(), at(API, 8080)[0], ARRIVES)
        });
        must_enforce(&shop);
        assert!(!traffic::tcp(shop.api.place(), at(FRONT, 80)[0], DROPPED));
    });
}
