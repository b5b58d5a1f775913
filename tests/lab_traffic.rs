//! What passes and what does not: between containers, the host and the world, both families.

mod lab;

use std::net::{IpAddr, SocketAddr, TcpListener};

use lab::flows::{FlowStream, denied_by, goes_to};
use lab::shop::{self, API, DB, FRONT, INTRUDER, Shop, at, line_of};
use lab::traffic::{self, ARRIVES, DROPPED, Server};
use lab::{Place, World, config, eventually, ping};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Tcp,
    Udp,
    Ping,
}
use Kind::{Ping, Tcp, Udp};

/// One thing that is tried in both families.
struct Try<'a> {
    from: &'a Place,
    to: [SocketAddr; 2],
    kind: Kind,
    passes: bool,
}

fn attempt(from: &Place, to: SocketAddr, kind: Kind, passes: bool) -> bool {
    let patience = if passes { ARRIVES } else { DROPPED };
    match kind {
        Tcp => traffic::tcp(from, to, patience),
        Udp => traffic::udp(from, to, 100, patience),
        Ping => ping::ping(from, to.ip(), 56, patience),
    }
}

/// All at once: what is dropped takes its time to be seen so.
fn try_all(tries: &[Try<'_>]) {
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let each = tries.iter().flat_map(|t| t.to.map(|to| (t, to)));
        let threads: Vec<_> = each
            .map(|(t, to)| {
                scope.spawn(move || {
                    let passed = attempt(t.from, to, t.kind, t.passes);
                    let what = if passed { "passed" } else { "did not pass" };
                    (passed != t.passes)
                        .then(|| format!("{:?} {} -> {to} {what}", t.kind, t.from.name()))
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn containers_reach_what_policy_says_and_nothing_else() {
    World::run(|world| {
        let shop = Shop::open(world);
        let daemon = shop.host.porind();
        let flows = daemon.flows();
        let [front, api, db, intruder] =
            [&shop.front, &shop.api, &shop.db, &shop.intruder].map(lab::Container::place);
        let tries = [
            (front, API, 8080, Tcp, true),
            (front, API, 8080, Udp, true),
            (front, API, 0, Ping, true),
            (front, API, 9090, Tcp, false),
            (front, API, 9090, Udp, false),
            (front, API, 5432, Tcp, false),
            (front, DB, 5432, Tcp, false),
            (front, DB, 0, Ping, false),
            (front, INTRUDER, 80, Tcp, true),
            (intruder, FRONT, 80, Tcp, true),
            (intruder, FRONT, 80, Udp, true),
            (intruder, FRONT, 0, Ping, true),
            (intruder, API, 8080, Tcp, false),
            (intruder, API, 0, Ping, false),
            (intruder, DB, 5432, Tcp, false),
            (api, DB, 5432, Tcp, true),
            (api, DB, 5432, Udp, false),
            (api, DB, 0, Ping, false),
            (api, FRONT, 80, Tcp, false),
            (db, API, 8080, Tcp, false),
            (db, FRONT, 80, Tcp, false),
        ];
        let tries = tries.map(|(from, to, port, kind, passes)| Try {
            from,
            to: at(to, port),
            kind,
            passes,
        });
        try_all(&tries);

        // Every denial names the end, the file and the line that denied.
        let file = "/etc/porin/policies.d/shop.toml";
        let ingress = |nth| line_of(shop::POLICIES, "[[policy.ingress]]", nth);
        let egress = line_of(shop::POLICIES, "[[policy.egress]]", 0);
        let nothing = line_of(shop::POLICIES, "egress  = []", 0);
        for (to, port, source, side, line) in [
            (API, 9090, FRONT, "ingress", ingress(1)),
            (API, 8080, INTRUDER, "ingress", ingress(0)),
            (DB, 5432, FRONT, "ingress", ingress(2)),
            (FRONT, 80, API, "egress", egress),
            (FRONT, 80, DB, "egress", nothing),
        ] {
            for (address, from) in at(to, port).iter().zip(at(source, 0)) {
                let event = denial(&flows, from.ip(), *address);
                let by = denied_by(&event);
                assert_eq!(by, Some((side, file.to_owned(), line)), "{event:#}");
            }
        }
    });
}

fn denial(flows: &FlowStream, from: IpAddr, to: SocketAddr) -> serde_json::Value {
    let wanted = |event: &serde_json::Value| {
        event["type"] == "deny"
            && event["source"]["address"] == from.to_string()
            && goes_to(event, &to.ip().to_string(), to.port(), "tcp")
    };
    flows.find(ARRIVES, wanted).unwrap_or_else(|| panic!("{from} -> {to}: {:#?}", flows.events()))
}

#[test]
fn the_world_sees_the_uplink_s_ipv4_and_the_endpoint_s_ipv6_address() {
    World::run(|world| {
        let shop = Shop::open(world);
        let _daemon = shop.host.porind();
        let listen = || TcpListener::bind("[::]:7777").unwrap();
        let listener = shop.outside.enter(listen);
        let to = shop::both(shop::OUTSIDE6, shop::OUTSIDE4, 7777);
        let expected = [config::ipv6(FRONT), shop::HOST4.to_owned()];
        for (to, expected) in to.into_iter().zip(expected) {
            let _stream = traffic::connect(shop.front.place(), to, ARRIVES).unwrap();
            let (_, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip().to_canonical().to_string(), expected);
        }
    });
}

#[test]
fn the_world_out_and_in() {
    World::run(|world| {
        let shop = Shop::open(world);
        let _daemon = shop.host.porind();
        let outside = |port| shop::both(shop::OUTSIDE6, shop::OUTSIDE4, port);
        let (front, api, db) = (shop.front.place(), shop.api.place(), shop.db.place());
        let only6 = |number, port| [at(number, port)[0]; 2];
        try_all(&[
            Try { from: front, to: outside(80), kind: Tcp, passes: true },
            Try { from: front, to: outside(80), kind: Udp, passes: true },
            Try { from: front, to: outside(0), kind: Ping, passes: true },
            Try { from: api, to: outside(80), kind: Tcp, passes: false },
            Try { from: db, to: outside(80), kind: Udp, passes: false },
            Try { from: shop.outside.place(), to: only6(FRONT, 80), kind: Tcp, passes: true },
            Try { from: shop.outside.place(), to: only6(FRONT, 80), kind: Udp, passes: true },
            Try { from: shop.outside.place(), to: only6(FRONT, 0), kind: Ping, passes: true },
            Try { from: shop.outside.place(), to: only6(API, 8080), kind: Tcp, passes: false },
        ]);
        // Connections of many endpoints to one place share the uplink's address without mixing.
        for _ in 0..200 {
            assert!(traffic::tcp(front, outside(80)[1], ARRIVES));
            assert!(traffic::tcp(shop.intruder.place(), outside(80)[1], ARRIVES));
        }
    });
}

#[test]
fn the_host_and_its_endpoints() {
    World::run(|world| {
        let shop = Shop::open(world);
        let _daemon = shop.host.porind();
        let host = shop.host.place();
        let own = |port| shop::both(shop::HOST6, shop::HOST4, port);
        try_all(&[
            Try { from: host, to: at(FRONT, 80), kind: Tcp, passes: true },
            Try { from: host, to: at(FRONT, 80), kind: Udp, passes: true },
            Try { from: host, to: at(FRONT, 0), kind: Ping, passes: true },
            Try { from: host, to: at(API, 8080), kind: Tcp, passes: false },
            Try { from: shop.front.place(), to: own(80), kind: Tcp, passes: true },
            Try { from: shop.front.place(), to: own(0), kind: Ping, passes: true },
            Try { from: shop.api.place(), to: own(80), kind: Tcp, passes: false },
        ]);
        // Named in a rule, the host is let in.
        shop.host.write(
            "policies.d/host.toml",
            "[[policy]]\nname = \"host\"\nsubject = \"app=api\"\n[[policy.ingress]]\n\
             from = [\"entity:host\"]\nports = [\"8080/tcp\"]\n",
        );
        for to in at(API, 8080) {
            eventually(lab::daemon::EFFECT, "the host is let in", || {
                traffic::tcp(host, to, DROPPED)
            });
        }
    });
}

#[test]
fn large_packets_find_the_path_s_mtu() {
    World::run(|world| {
        let shop = Shop::open(world);
        // outside -- far: narrower than what is before it.
        let far = world.host("far");
        shop.outside.link_to(
            &far,
            "down0 fd00:b::1/64 198.51.100.1/24",
            "up0 fd00:b::2/64 198.51.100.2/24",
        );
        shop.outside.sh("ip link set dev down0 mtu 1300");
        far.sh("ip link set dev up0 mtu 1300
             ip -6 route add default via fd00:b::1; ip route add default via 198.51.100.1");
        shop.outside.sysctl("net/ipv6/conf/all/forwarding", "1");
        shop.outside.sysctl("net/ipv4/ip_forward", "1");
        let _daemon = shop.host.porind();
        let _server = Server::echo(far.place(), 7);
        let _back = Server::echo(shop.front.place(), 7);
        let to = shop::both("fd00:b::2", "198.51.100.2", 7);
        for to in to {
            assert!(traffic::tcp(shop.front.place(), to, ARRIVES), "{to}: small");
            traffic::bulk(shop.front.place(), to, 4).unwrap_or_else(|e| panic!("{to}: {e}"));
            assert!(traffic::udp(shop.front.place(), to, 1400, ARRIVES), "{to}: udp 1400");
            assert!(traffic::udp(shop.front.place(), to, 4000, ARRIVES), "{to}: udp 4000");
        }
        let inward = SocketAddr::new(config::ipv6(FRONT).parse().unwrap(), 7);
        traffic::bulk(far.place(), inward, 4).unwrap();
    });
}

#[test]
fn later_fragments_follow_the_first() {
    World::run(|world| {
        let shop = Shop::open(world);
        let _daemon = shop.host.porind();
        let outside = shop::both(shop::OUTSIDE6, shop::OUTSIDE4, 80);
        for to in [at(API, 8080), at(INTRUDER, 80), outside].concat() {
            assert!(traffic::udp(shop.front.place(), to, 4000, ARRIVES), "{to}");
        }
        let front = at(FRONT, 80)[0];
        assert!(traffic::udp(shop.outside.place(), front, 4000, ARRIVES));
        for to in at(API, 8080) {
            assert!(ping::ping(shop.front.place(), to.ip(), 4000, ARRIVES), "{to}");
            assert!(!traffic::udp(shop.intruder.place(), to, 4000, DROPPED), "{to}");
        }
    });
}

#[test]
fn nobody_sends_from_an_address_that_is_not_its_own() {
    World::run(|world| {
        let shop = Shop::open(world);
        let daemon = shop.host.porind();
        let flows = daemon.flows();
        // The intruder takes front's addresses as well.
        let (v6, v4) = (config::ipv6(FRONT), config::ipv4(FRONT));
        shop.intruder.place().sh(&format!(
            "ip addr add {v6}/128 dev eth0 nodad preferred_lft 0; ip addr add {v4}/32 dev eth0"
        ));
        for (from, to) in [v6, v4].iter().zip(at(API, 8080)) {
            let from: IpAddr = from.parse().unwrap();
            let socket = shop.intruder.place().enter(|| {
                let socket = std::net::UdpSocket::bind((from, 0))?;
                socket.connect(to).map(|()| socket)
            });
            assert!(traffic::udp_once(&socket.unwrap(), 10, DROPPED).is_err());
            let spoofed = |event: &serde_json::Value| {
                event["reason"] == "spoofed-address"
                    && event["source"]["address"] == from.to_string()
            };
            assert!(flows.find(ARRIVES, spoofed).is_some(), "{:#?}", flows.events());
        }
        // What is its own still passes.
        assert!(traffic::tcp(shop.intruder.place(), at(FRONT, 80)[0], ARRIVES));
    });
}
