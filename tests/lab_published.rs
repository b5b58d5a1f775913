//! What the host's own stack forwards from the world to an endpoint, translated or not, is answered the same way.

mod lab;

use std::net::SocketAddr;

use lab::shop::{API, FRONT, HOST4, HOST6, OUTSIDE4, Shop, at};
use lab::traffic::{self, ARRIVES, DROPPED, Stream};
use lab::{World, config, eventually, runtime};

fn published(port: u16) -> [SocketAddr; 2] {
    [HOST6, HOST4].map(|host| SocketAddr::new(host.parse().unwrap(), port))
}

#[test]
fn ports_that_netfilter_publishes_are_reached_from_outside() {
    if !runtime::has(&["iptables", "ip6tables"]) {
        return;
    }
    World::run(|world| {
        let shop = Shop::open(world);
        let host = &shop.host;
        host.sysctl("net/ipv4/ip_forward", "1");
        host.sysctl("net/ipv6/conf/all/forwarding", "1");
        let publish = |protocol: &str, port: u16, to: [SocketAddr; 2]| {
            for (tables, to) in [("ip6tables", to[0]), ("iptables", to[1])] {
                host.sh(&format!(
                    "{tables} -w -t nat -A PREROUTING -i up0 -p {protocol} --dport {port} -j DNAT --to-destination {to}"
                ));
            }
        };
        publish("tcp", 8088, at(FRONT, 80));
        publish("udp", 8088, at(FRONT, 80));
        publish("tcp", 8089, at(API, 8080));
        let daemon = host.porind();
        let outside = shop.outside.place();
        for to in published(8088) {
            assert!(traffic::tcp(outside, to, ARRIVES), "{to}");
            assert!(traffic::udp(outside, to, 100, ARRIVES), "{to} by UDP");
        }
        // Policy has the last word: api is for front alone.
        for to in published(8089) {
            assert!(!traffic::tcp(outside, to, DROPPED), "{to} is let in");
        }
        // Judged anew by another generation, a flow still has its way back.
        let streams = published(8088).map(|to| Stream::start(outside, to));
        for stream in &streams {
            stream.must_go_on();
        }
        let front = "[[policy]]\nname = \"front\"\nsubject = \"app=front\"\n\n[[policy.ingress]]\nfrom = [\"entity:world\"]\nports = [\"80/tcp\"]\n";
        daemon.commit(|| host.write("policies.d/front.toml", front));
        for stream in &streams {
            stream.must_go_on();
        }
        for to in published(8088) {
            assert!(traffic::tcp(outside, to, ARRIVES), "{to} after the edit");
            assert!(!traffic::udp(outside, to, 100, DROPPED), "{to} by UDP after the edit");
        }
        // Denied from now on, and the flows that were allowed with it.
        daemon.commit(|| host.write("policies.d/front.toml", &front.replace("80/tcp", "81/tcp")));
        for stream in &streams {
            assert!(stream.stands_still());
        }
        // What endpoints begin themselves goes as ever.
        let [_, outside4] = [OUTSIDE4, OUTSIDE4].map(|a| SocketAddr::new(a.parse().unwrap(), 80));
        eventually(ARRIVES, "front reaches the world", || {
            traffic::tcp(shop.front.place(), outside4, DROPPED)
        });
    });
}

#[test]
fn who_comes_by_an_interface_that_is_no_uplink_is_answered_there() {
    World::run(|world| {
        let shop = Shop::open(world);
        let host = &shop.host;
        let vpn = world.host("vpn");
        host.link_to(
            &vpn,
            "vpn0 fd00:b::1/64 198.51.100.1/24",
            "vpn0 fd00:b::2/64 198.51.100.2/24",
        );
        host.sysctl("net/ipv4/ip_forward", "1");
        host.sysctl("net/ipv6/conf/all/forwarding", "1");
        vpn.sh(&format!(
            "ip -6 route add {} via fd00:b::1; ip route add {} via 198.51.100.1",
            config::POOL6,
            config::POOL4
        ));
        let _daemon = host.porind();
        for to in at(FRONT, 80) {
            assert!(traffic::tcp(vpn.place(), to, ARRIVES), "{to}");
        }
        for to in at(API, 8080) {
            assert!(!traffic::tcp(vpn.place(), to, DROPPED), "{to} is let in");
        }
    });
}
