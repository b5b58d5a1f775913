//! Ports of the host that are endpoints': from outside, from other containers, from themselves. Without netfilter, which drops
//! all that is forwarded.

mod lab;

use std::net::SocketAddr;

use lab::shop::{API, FRONT, HOST4, HOST6, OUTSIDE4, Shop, at, both};
use lab::traffic::{self, ARRIVES, DROPPED, Stream};
use lab::{World, config, eventually, runtime};

fn host(port: u16) -> [SocketAddr; 2] {
    both(HOST6, HOST4, port)
}

/// An endpoint's file, with ports that it publishes.
fn publishing(name: &str, labels: &str, number: u16, publish: &[&str]) -> String {
    let endpoint = config::endpoint(name, labels, number);
    format!("{}\npublish = {publish:?}\n", endpoint.trim_end())
}

const FRONT_LABELS: &str = "app = \"front\", env = \"prod\"";

fn front(shop: &Shop, publish: &[&str]) {
    shop.host.write("endpoints.d/front.toml", &publishing("front", FRONT_LABELS, FRONT, publish));
}

fn shop(world: &World) -> Shop {
    let shop = Shop::open(world);
    if runtime::has(&["iptables", "ip6tables"]) {
        shop.host.sh("iptables -w -P FORWARD DROP; ip6tables -w -P FORWARD DROP");
    }
    front(&shop, &["8088:80/tcp", "8088:80/udp"]);
    let api = publishing("api", "app = \"api\", env = \"prod\"", API, &["8089:8080/tcp"]);
    shop.host.write("endpoints.d/api.toml", &api);
    shop
}

#[test]
fn published_ports_are_reached_from_outside() {
    World::run(|world| {
        let shop = shop(world);
        let mut daemon = shop.host.porind();
        let outside = shop.outside.place();
        for to in host(8088) {
            assert!(traffic::tcp(outside, to, ARRIVES), "{to}");
            // In one piece, and in several.
            for size in [100, 3000] {
                assert!(traffic::udp(outside, to, size, ARRIVES), "{to} by UDP, {size} bytes");
            }
            traffic::bulk(outside, to, 4).unwrap_or_else(|e| panic!("{to}: {e}"));
        }
        for to in host(8089) {
            assert!(!traffic::tcp(outside, to, DROPPED), "{to}: api is for front alone");
        }
        // The host's own are its own still.
        for to in host(9090) {
            assert!(traffic::tcp(outside, to, ARRIVES), "{to}");
        }
        let streams = host(8088).map(|to| Stream::start(outside, to));
        daemon.kill();
        for stream in &streams {
            stream.must_go_on();
        }
        for to in host(8088) {
            assert!(traffic::tcp(outside, to, ARRIVES), "{to} without a daemon");
        }
        daemon.start_again();
        for stream in &streams {
            stream.must_go_on();
        }
        // Policy knows the client by its own address, and the port by the container's number.
        let policy = |from: &str, port: &str| {
            format!(
                "[[policy]]\nname = \"front\"\nsubject = \"app=front\"\n\n[[policy.ingress]]\nfrom = [\"cidr:{from}\"]\nports = [\"{port}/tcp\"]\n"
            )
        };
        let edit = |text: String| daemon.commit(|| shop.host.write("policies.d/front.toml", &text));
        let [to6, to4] = host(8088);
        edit(policy("192.0.2.0/24", "80"));
        streams[1].must_go_on();
        assert!(streams[0].stands_still());
        assert!(traffic::tcp(outside, to4, ARRIVES) && !traffic::tcp(outside, to6, DROPPED));
        edit(policy("192.0.2.0/24", "8088"));
        assert!(!traffic::tcp(outside, to4, DROPPED), "policy knows nothing of 8088");
        assert!(streams[1].stands_still());
        edit(policy("192.0.2.0/24", "80"));
        streams[1].must_go_on();
        // Not published any more.
        daemon.commit(|| front(&shop, &["8090:80/tcp"]));
        assert!(streams[1].stands_still());
        assert!(!traffic::tcp(outside, to4, DROPPED));
        assert!(traffic::tcp(outside, host(8090)[1], ARRIVES));
        // Nor any at all.
        daemon.commit(|| {
            front(&shop, &[]);
            let api = config::endpoint("api", "app = \"api\", env = \"prod\"", API);
            shop.host.write("endpoints.d/api.toml", &api);
        });
        assert!(!traffic::tcp(outside, host(8090)[1], DROPPED));
        // What the container begins goes as ever.
        let out = SocketAddr::new(OUTSIDE4.parse().unwrap(), 80);
        eventually(ARRIVES, "front reaches the world", || {
            traffic::tcp(shop.front.place(), out, DROPPED)
        });
    });
}

#[test]
fn at_some_addresses_only() {
    World::run(|world| {
        let shop = Shop::open(world);
        shop.host.sh("ip addr add 192.0.2.77/24 dev up0");
        front(&shop, &["192.0.2.77:9090:80/tcp", "[::]:8088:80/tcp"]);
        let daemon = shop.host.porind();
        let outside = shop.outside.place();
        let second = |port| SocketAddr::new("192.0.2.77".parse().unwrap(), port);
        let [to6, to4] = host(8088);
        assert!(traffic::tcp(outside, to6, ARRIVES) && !traffic::tcp(outside, to4, DROPPED));
        assert!(traffic::tcp(outside, second(9090), ARRIVES));
        assert!(!traffic::tcp(outside, second(8088), DROPPED));
        // An address that comes later is the host's, too.
        daemon.commit(|| front(&shop, &["8088:80/tcp"]));
        assert!(traffic::tcp(outside, second(8088), ARRIVES));
        shop.host.sh("ip addr add 192.0.2.78/24 dev up0");
        let third = SocketAddr::new("192.0.2.78".parse().unwrap(), 8088);
        eventually(ARRIVES, "the new address", || traffic::tcp(outside, third, DROPPED));
    });
}

#[test]
fn containers_reach_published_ports() {
    World::run(|world| {
        let shop = shop(world);
        let daemon = shop.host.porind();
        for to in host(8088).into_iter().chain(at(FRONT, 80)) {
            assert!(!traffic::tcp(shop.db.place(), to, DROPPED), "db sends nothing: {to}");
            assert!(traffic::tcp(shop.intruder.place(), to, ARRIVES), "{to}");
        }
        for to in host(8088) {
            assert!(traffic::udp(shop.intruder.place(), to, 3000, ARRIVES), "{to} by UDP");
            // Itself, too.
            assert!(traffic::tcp(shop.front.place(), to, ARRIVES), "{to} from front itself");
            assert!(traffic::udp(shop.front.place(), to, 3000, ARRIVES), "{to} from itself by UDP");
            traffic::bulk(shop.front.place(), to, 2).unwrap_or_else(|e| panic!("{to}: {e}"));
        }
        // By labels, as if they spoke to it directly.
        for to in host(8089) {
            assert!(traffic::tcp(shop.front.place(), to, ARRIVES), "{to}");
            assert!(!traffic::tcp(shop.intruder.place(), to, DROPPED), "{to} from the intruder");
        }
        let streams = host(8088).map(|to| Stream::start(shop.intruder.place(), to));
        let own = host(8088).map(|to| Stream::start(shop.front.place(), to));
        daemon.commit(|| {
            shop.host.write("policies.d/db.toml", "[[policy]]\nname = \"x\"\nsubject = \"app=x\"\n")
        });
        for stream in streams.iter().chain(&own) {
            stream.must_go_on();
        }
        daemon.commit(|| front(&shop, &[]));
        for stream in streams.iter().chain(&own) {
            assert!(stream.stands_still());
        }
    });
}
