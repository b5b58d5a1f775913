//! Containers by CNI: the real plugin, the real daemon, real traffic.

mod lab;

use std::net::SocketAddr;
use std::time::Duration;

use lab::cni::{Network, address};
use lab::shop::{API, Shop, at};
use lab::traffic::{self, ARRIVES, DROPPED};
use lab::{World, eventually};
use serde_json::json;

/// Before a lost SYN is sent again (RFC 6298: 1 s): who connects within this did so by its first packet.
const FIRST_PACKET: Duration = Duration::from_millis(900);

fn front() -> Network {
    Network::new("1.1.0").labels(json!({ "app": "front", "env": "prod" }))
}

#[test]
fn a_container_is_judged_from_its_first_packet_on_until_it_goes() {
    World::run(|world| {
        let shop = Shop::open(world);
        let daemon = shop.host.porind();
        let (front, stranger) = (front(), Network::new("1.1.0"));
        let (good, bad) = (shop.host.container("good"), shop.host.container("bad"));
        let added = front.add(&shop.host, &good).result();
        for to in at(API, 8080) {
            assert!(traffic::tcp(good.place(), to, FIRST_PACKET), "{to}");
        }
        stranger.add(&shop.host, &bad).result();
        for to in at(API, 8080) {
            assert!(!traffic::tcp(bad.place(), to, DROPPED), "{to}");
        }
        // It is there as the result says, and as a file that says so.
        let (v6, v4) = good.addresses();
        assert_eq!(address(&added, true), v6.map(Into::into));
        assert_eq!(address(&added, false), v4.map(Into::into));
        assert_eq!(added["interfaces"][1]["name"], "eth0");
        assert_eq!(added["interfaces"][1]["sandbox"], "/run/netns/good");
        let link = good.run(&["ip", "-o", "link", "show", "dev", "eth0"]).success();
        assert!(link.contains(added["interfaces"][1]["mac"].as_str().unwrap()), "{link}");
        let files = shop.host.run_directory().join("porin/endpoints.d");
        assert_eq!(std::fs::read_dir(&files).unwrap().count(), 2);

        front.check(&shop.host, &good, &added).nothing();
        let mut other = added.clone();
        other["ips"] = json!([]);
        assert_eq!(front.check(&shop.host, &good, &other).error().0, 100);
        front.of_all(&shop.host, "STATUS").nothing();

        // Gone at once, and twice is no harm; nor is it for what never was.
        front.del(&shop.host, "good").nothing();
        let v6 = SocketAddr::new(v6.unwrap().into(), 8080);
        assert!(!traffic::tcp(shop.front.place(), v6, DROPPED));
        front.del(&shop.host, "good").nothing();
        front.del(&shop.host, "never").nothing();
        assert_eq!(front.check(&shop.host, &good, &added).error().0, 3);
        stranger.del(&shop.host, "bad").nothing();
        assert_eq!(std::fs::read_dir(&files).unwrap().count(), 0);
        assert_eq!(daemon.status()["endpoints"]["attached"], 4);
        eventually(ARRIVES, "its interface is gone", || good.place().interfaces() == ["lo"]);
    });
}
