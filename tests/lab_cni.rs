//! Containers by CNI: the real plugin, the real daemon, real traffic.

mod lab;

use std::net::{IpAddr, SocketAddr, UdpSocket};

use lab::cni::{Network, address};
use lab::ping::ping;
use lab::shop::{API, FRONT, Shop, at};
use lab::traffic::{self, ARRIVES, DROPPED};
use lab::{Host, Place, World, config, eventually};
use serde_json::{Value, json};

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
        assert!(reaches_api(good.place()));
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

fn attached(status: &Value) -> u64 {
    status["endpoints"]["attached"].as_u64().unwrap()
}

/// Endpoints' files that were made on request.
fn files(host: &Host) -> usize {
    let files = std::fs::read_dir(host.run_directory().join("porin/endpoints.d"));
    files.map_or(0, |files| files.filter(|file| is_one(file.as_ref().unwrap())).count())
}

fn is_one(file: &std::fs::DirEntry) -> bool {
    file.file_name().to_string_lossy().ends_with(".toml")
}

/// By one datagram of each family, which nobody sends again.
fn reaches_api(place: &Place) -> bool {
    at(API, 8080).into_iter().all(|to| {
        let socket = traffic::udp_socket(place, to);
        traffic::udp_once(&socket, 16, ARRIVES).is_ok()
    })
}

#[test]
fn every_version_works_and_dns_passes_through() {
    World::run(|world| {
        let shop = Shop::open(world);
        let _daemon = shop.host.porind();
        for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let dns = json!({ "nameservers": ["fd00::53"] });
            let network = Network::new(version)
                .labels(json!({ "app": "front", "env": "prod" }))
                .with("dns", dns.clone());
            let container = shop.host.container(&format!("v{version}"));
            let added = network.add(&shop.host, &container).result();
            assert_eq!((&added["cniVersion"], &added["dns"]), (&version.into(), &dns));
            assert!(reaches_api(container.place()), "{version}");
            network.del(&shop.host, container.name()).nothing();
        }
    });
}

#[test]
fn addresses_that_are_asked_for_are_given_or_refused_and_nothing_is_left_of_what_is_refused() {
    World::run(|world| {
        let shop = Shop::open(world);
        let daemon = shop.host.porind();
        let (a, b) = (shop.host.container("a"), shop.host.container("b"));
        let asking = |ips: Value| front().with("args", json!({ "cni": { "ips": ips } }));
        let added = asking(json!(["10.10.9.9", "fd00:10::9:9"])).add(&shop.host, &a).result();
        assert_eq!(address(&added, true), Some("fd00:10::9:9".parse().unwrap()));
        assert_eq!(address(&added, false), Some("10.10.9.9".parse().unwrap()));
        assert!(reaches_api(a.place()));
        let automatic = front().add(&shop.host, &b).result();
        let c = shop.host.container("c");
        for (ip, why) in [
            ("10.10.9.9", "is the address of endpoint `a-"),
            (&config::ipv4(API), "is the address of endpoint `api`"),
            ("192.0.2.9", "is in no pool"),
            ("10.10.0.0", "cannot have an address"),
            // Nobody's automatic address is taken away.
            (&address(&automatic, false).unwrap().to_string(), "is the address of endpoint `b-"),
        ] {
            let (code, what) = asking(json!([ip])).add(&shop.host, &c).error();
            assert_eq!(code, 100, "{what}");
            assert!(what.contains(why), "{what}");
        }
        assert_eq!((attached(&daemon.status()), files(&shop.host)), (6, 2));
        assert_eq!(c.place().interfaces(), ["lo"]);
        front().add(&shop.host, &c).result();
    });
}

#[test]
fn twice_the_same_is_refused_and_so_is_anothers_place() {
    World::run(|world| {
        let shop = Shop::open(world);
        let daemon = shop.host.porind();
        let container = shop.host.container("c");
        front().add(&shop.host, &container).result();
        assert_eq!(front().add(&shop.host, &container).error().0, 101);
        // By another id, and by another path.
        let again = |path: &str| {
            let command = front().command(&shop.host, "ADD", "another", path);
            front().run(&shop.host, command).error()
        };
        assert!(again("/run/netns/c").1.contains("has `eth0` in /run/netns/c already"));
        let inside = container.spawn(container.place().command(&["sleep", "60"]));
        let (_, what) = again(&format!("/proc/{}/ns/net", inside.pid()));
        assert!(what.contains("has `eth0` there already"), "{what}");
        // The same elsewhere: what is in force stays where it is.
        let other = shop.host.container("other");
        for path in [&*other.path().to_string_lossy(), "/etc/hostname"] {
            let command = front().command(&shop.host, "ADD", "c", path);
            assert_eq!(front().run(&shop.host, command).error().0, 101, "{path}");
        }
        assert_eq!(other.place().interfaces(), ["lo"]);
        assert!(again("/run/netns/api").1.contains("endpoint `api`"));
        assert_eq!(again("/etc/hostname").0, 100);
        assert_eq!(again("run/netns/c").0, 100);
        assert!(again("/run/netns/none").1.contains("no network namespace"));
        assert!(reaches_api(container.place()));
        // An interface that is not ours stays as it is.
        let foreign = shop.host.container("foreign");
        foreign.place().sh("ip link add eth0 type veth peer name x0");
        let (code, what) = front().add(&shop.host, &foreign).error();
        assert_eq!(code, 100, "{what}");
        assert!(what.contains("is there and is not porin's"), "{what}");
        assert_eq!(foreign.place().interfaces().len(), 3);
        // Nor does porin's own host.
        let (_, what) = again(&format!("/proc/{}/ns/net", daemon.pid()));
        assert!(what.contains("the host's own network namespace"), "{what}");
        assert_eq!((attached(&daemon.status()), files(&shop.host)), (5, 1));
    });
}

/// One interface in each network, each with labels of its own; what has the address of one leaves by that one.
#[test]
fn a_container_is_in_two_networks() {
    World::run(|world| {
        let shop = Shop::open(world);
        let daemon = shop.host.porind();
        let second = Network::new("1.1.0").with("name", json!("second"));
        let container = shop.host.container("c");
        let say = |network: &Network, operation: &str, interface: &str| {
            let mut command = network.command(&shop.host, operation, "c", "/run/netns/c");
            command.env("CNI_IFNAME", interface);
            network.run(&shop.host, command)
        };
        let first = say(&front(), "ADD", "eth0").result();
        let other = say(&second, "ADD", "eth1").result();
        assert_eq!(attached(&daemon.status()), 6);
        assert_eq!(container.place().interfaces(), ["lo", "eth0", "eth1"]);
        let of = |added: &Value| [true, false].map(|v6| address(added, v6).unwrap());
        // By the first one is where all goes that says nothing else.
        assert!(reaches_api(container.place()));
        let from = |source: IpAddr, to: SocketAddr, patience| {
            let socket = container.place().enter(|| UdpSocket::bind((source, 0)).unwrap());
            socket.connect(to).unwrap();
            traffic::udp_once(&socket, 16, patience).is_ok()
        };
        for ((first, other), api) in of(&first).into_iter().zip(of(&other)).zip(at(API, 8080)) {
            assert!(from(first, api, ARRIVES), "{first}");
            assert!(!from(other, api, DROPPED), "{other} has no label that lets it");
            // Both are reached, and answer by the interface that was asked.
            for own in [first, other] {
                assert!(ping(shop.front.place(), own, 16, ARRIVES), "{own}");
            }
        }
        // What is left takes the way of what is gone.
        say(&front(), "DEL", "eth0").nothing();
        eventually(ARRIVES, "eth0 is gone", || container.place().interfaces() == ["lo", "eth1"]);
        for to in at(FRONT, 8080) {
            assert!(ping(container.place(), to.ip(), 16, ARRIVES), "{to}");
        }
        say(&front(), "ADD", "eth0").result();
        assert!(reaches_api(container.place()));
        for own in of(&other) {
            assert!(ping(shop.front.place(), own, 16, ARRIVES), "{own}");
        }
        say(&second, "DEL", "eth1").nothing();
        assert!(reaches_api(container.place()));
    });
}

#[test]
fn what_went_while_nobody_looked_is_caught_up_with() {
    World::run(|world| {
        let shop = Shop::open(world);
        let mut daemon = shop.host.porind();
        let add = |name: &str| {
            let container = shop.host.container(name);
            front().add(&shop.host, &container).result();
            container
        };
        let (a, b, c, stays) = (add("a"), add("b"), add("c"), add("stays"));
        assert_eq!(attached(&daemon.status()), 8);
        // The namespace goes first: DEL has nothing to look at.
        shop.host.forget_container("a");
        drop(a);
        front().del(&shop.host, "a").nothing();
        assert_eq!(attached(&daemon.status()), 7);
        // Or DEL never comes.
        shop.host.forget_container("b");
        drop(b);
        eventually(lab::daemon::EFFECT, "b is gone", || files(&shop.host) == 2);
        daemon.wait_for("6 endpoints", |status| attached(status) == 6);
        // Or comes when there is no daemon; then the namespace of another goes.
        daemon.kill();
        front().del(&shop.host, "c").nothing();
        drop(c);
        assert!(reaches_api(stays.place()), "enforcement goes on");
        assert_eq!(files(&shop.host), 1);
        daemon.start_again();
        assert_eq!(attached(&daemon.status()), 5);
        daemon.kill();
        shop.host.forget_container("stays");
        drop(stays);
        daemon.start_again();
        daemon.wait_for("4 endpoints", |status| attached(status) == 4);
        assert_eq!(files(&shop.host), 0);
        assert!(daemon.status()["faults"].as_array().unwrap().is_empty());
    });
}

#[test]
fn garbage_is_collected_network_by_network() {
    World::run(|world| {
        let shop = Shop::open(world);
        let daemon = shop.host.porind();
        let other = front().with("name", json!("other"));
        for (network, name) in [(&front(), "a"), (&front(), "b"), (&other, "c")] {
            network.add(&shop.host, &shop.host.container(name)).result();
        }
        let valid = json!([{ "containerID": "a", "ifname": "eth0" }]);
        front().with("cni.dev/valid-attachments", valid).of_all(&shop.host, "GC").nothing();
        assert_eq!((attached(&daemon.status()), files(&shop.host)), (6, 2));
        other.with("cni.dev/valid-attachments", json!([])).of_all(&shop.host, "GC").nothing();
        assert_eq!((attached(&daemon.status()), files(&shop.host)), (5, 1));
    });
}

#[test]
fn containers_come_and_go_though_the_operators_files_are_wrong() {
    World::run(|world| {
        let shop = Shop::open(world);
        let daemon = shop.host.porind();
        let before = shop.host.container("before");
        front().add(&shop.host, &before).result();
        shop.host.write("policies.d/wrong.toml", "[[policy]]\nnaem = \"x\"\n");
        daemon.wait_for("the fault is told", |status| status["in_force"] == false);
        let container = shop.host.container("c");
        front().add(&shop.host, &container).result();
        assert!(reaches_api(container.place()));
        front().del(&shop.host, "before").nothing();
        assert_eq!(attached(&daemon.status()), 5);
        assert_eq!(daemon.status()["in_force"], false);
        shop.host.remove("policies.d/wrong.toml");
        daemon.wait_for("all is well", |status| status["in_force"] == true);
        assert_eq!(attached(&daemon.status()), 5);
        assert!(reaches_api(container.place()));
        front().of_all(&shop.host, "STATUS").nothing();
    });
}

/// Files that load, and say what cannot be.
#[test]
fn containers_come_and_go_though_what_the_files_say_cannot_be() {
    World::run(|world| {
        let shop = Shop::open(world);
        let mut daemon = shop.host.porind();
        let before = shop.host.container("before");
        front().add(&shop.host, &before).result();
        let assertion = "[[assert]]\nnever = { from = \"app=front\", to = \"app=api\" }\n";
        shop.host.write("policies.d/wrong.toml", assertion);
        daemon.wait_for("it is refused", |status| {
            status["in_force"] == false && !status["faults"].as_array().unwrap().is_empty()
        });
        let container = shop.host.container("c");
        front().add(&shop.host, &container).result();
        assert!(reaches_api(container.place()));
        front().del(&shop.host, "before").nothing();
        assert_eq!(attached(&daemon.status()), 5);
        assert_eq!(daemon.status()["in_force"], false);
        // A daemon that has put nothing in force has no endpoints to add to, and says so.
        daemon.kill();
        daemon.start_again();
        let c2 = shop.host.container("c2");
        assert_eq!(front().of_all(&shop.host, "STATUS").error().0, 50);
        assert_eq!(front().add(&shop.host, &c2).error().0, 11);
        assert!(reaches_api(container.place()), "enforcement goes on");
        shop.host.remove("policies.d/wrong.toml");
        daemon.wait_for("all is well", |status| status["in_force"] == true);
        front().of_all(&shop.host, "STATUS").nothing();
        front().add(&shop.host, &c2).result();
        assert_eq!(attached(&daemon.status()), 6);
    });
}

/// A file that is linked to makes the daemon look at all of them, but not while somebody writes one.
#[test]
fn an_edit_that_is_not_done_is_not_read_for_a_containers_sake() {
    World::run(|world| {
        let shop = Shop::open(world);
        let host = config::host(&["up0"]);
        shop.host
            .write("porin.toml", &format!("{host}[reload]\nquiet = \"60s\"\nat-most = \"60s\"\n"));
        shop.host.write("elsewhere", "");
        shop.host.link("policies.d/linked.toml", "../elsewhere");
        let daemon = shop.host.porind();
        let policies = daemon.status()["policies"].clone();
        assert_ne!(policies, 0);
        shop.host.write("policies.d/shop.toml", "");
        daemon.wait_for("the edit is seen", |status| status["in_force"] == false);
        let container = shop.host.container("c");
        front().add(&shop.host, &container).result();
        assert!(reaches_api(container.place()));
        front().del(&shop.host, "c").nothing();
        assert_eq!(daemon.status()["policies"], policies);
        assert_eq!(daemon.status()["in_force"], false);
    });
}
