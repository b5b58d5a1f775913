//! Endpoints that come, go, or cannot be: the others never notice.

mod lab;

use std::net::SocketAddr;

use lab::daemon::EFFECT;
use lab::shop::{FRONT, Shop, at};
use lab::traffic::{self, ARRIVES, DROPPED, Server};
use lab::{World, config, eventually};

const NEW: u16 = 9;

#[test]
fn an_endpoint_comes_and_goes_while_others_talk() {
    World::run(|world| {
        let shop = Shop::open(world);
        let daemon = shop.host.porind();
        let stream = traffic::Stream::start(shop.front.place(), at(lab::shop::API, 8080)[0]);
        let (front, to) = (shop.front.place(), at(NEW, 80));

        let new = config::add(&shop.host, "new", "app = \"new\"", NEW);
        let server = Server::echo(new.place(), 80);
        for to in to {
            eventually(EFFECT, "the new endpoint answers", || traffic::tcp(front, to, DROPPED));
        }
        stream.must_go_on();
        drop(server);
        shop.host.remove("endpoints.d/new.toml");
        daemon.wait_for("four endpoints", |status| status["endpoints"]["attached"] == 4);
        eventually(EFFECT, "its interface is gone", || new.place().interfaces() == ["lo"]);
        stream.must_go_on();

        // Its address is somebody else's now, in another namespace and with other labels.
        let heir = shop.host.container("heir");
        shop.host.write("endpoints.d/heir.toml", &config::endpoint("heir", "app = \"heir\"", NEW));
        let _server = Server::echo(heir.place(), 80);
        for to in to {
            eventually(EFFECT, "the heir answers", || traffic::tcp(front, to, DROPPED));
        }
        stream.finish().unwrap();
    });
}

#[test]
fn a_namespace_that_is_missing_closes_only_its_endpoint_until_it_appears() {
    World::run(|world| {
        let shop = Shop::open(world);
        shop.host.write("endpoints.d/late.toml", &config::endpoint("late", "app = \"late\"", NEW));
        let daemon = shop.host.porind();
        daemon.wait_for("one is closed and reported", |status| {
            let faults = status["faults"].as_array().cloned().unwrap_or_default();
            status["endpoints"]["closed"] == 1
                && status["endpoints"]["attached"] == 4
                && faults.iter().any(|fault| fault.to_string().contains("/run/netns/late"))
        });
        let front = shop.front.place();
        assert!(traffic::tcp(front, at(lab::shop::API, 8080)[0], ARRIVES), "the others work");

        let late = shop.host.container("late");
        let _server = Server::echo(late.place(), 80);
        daemon.wait_for("all are attached", |status| {
            status["endpoints"]["closed"] == 0 && status["endpoints"]["attached"] == 5
        });
        for to in at(NEW, 80) {
            eventually(EFFECT, "it answers", || traffic::tcp(front, to, DROPPED));
        }
    });
}

/// As systemd-machined does it; `make test-system` has the real one.
#[test]
fn a_machine_is_attached_whenever_it_is_registered() {
    World::run(|world| {
        let shop = Shop::open(world);
        let endpoint = config::endpoint("m", "app = \"m\"", NEW);
        let endpoint = endpoint.replace("namespace = \"/run/netns/m\"", "machine = \"m-1\"");
        shop.host.write("endpoints.d/m.toml", &endpoint);
        let machines = shop.host.run_directory().join("systemd/machines");
        let daemon = shop.host.porind();
        let closed = |why: &str| {
            daemon.wait_for(why, |status| {
                let faults = status["faults"].to_string();
                status["endpoints"]["closed"] == 1
                    && faults.contains("machine m-1: ")
                    && faults.contains(why)
            });
        };
        closed("it is not running");
        std::fs::create_dir_all(&machines).unwrap();
        let registration = machines.join("m-1");
        for run in 1..=2 {
            let machine = shop.host.container(&format!("machine{run}"));
            let _server = Server::echo(machine.place(), 80);
            let leader = machine.spawn(machine.place().command(&["sleep", "1000"]));
            let text = format!(
                "# This is private data. Do not parse.\nNAME=m-1\nLEADER={}\n",
                leader.pid()
            );
            std::fs::write(machines.join(".#m-1"), text).unwrap();
            std::fs::rename(machines.join(".#m-1"), &registration).unwrap();
            for to in at(NEW, 80) {
                let front = shop.front.place();
                eventually(EFFECT, "it answers", || traffic::tcp(front, to, DROPPED));
            }
            std::fs::remove_file(&registration).unwrap();
            closed("it is not running");
            eventually(EFFECT, "its interface is gone", || machine.place().interfaces() == ["lo"]);
        }
        // One that is in the host's own network would cut the host off.
        let own = shop.host.place().command(&["sleep", "1000"]);
        let own = shop.host.place().spawn(own);
        std::fs::write(&registration, format!("LEADER={}\n", own.pid())).unwrap();
        closed("the host's own network namespace");
        std::fs::write(&registration, "LEADER=nobody\n").unwrap();
        closed("which process leads it");
    });
}

#[test]
fn a_namespace_that_vanishes_closes_only_its_endpoint() {
    World::run(|world| {
        let shop = Shop::open(world);
        let daemon = shop.host.porind();
        let stream = traffic::Stream::start(shop.front.place(), at(lab::shop::API, 8080)[0]);
        let Shop { host, front, intruder, .. } = shop;
        let new = config::add(&host, "brief", "app = \"brief\"", NEW);
        daemon.wait_for("five endpoints", |status| status["endpoints"]["attached"] == 5);
        host.forget_container("brief");
        drop(new);
        daemon.wait_for("one is closed", |status| {
            status["endpoints"]["closed"] == 1 && status["endpoints"]["attached"] == 4
        });
        stream.must_go_on();
        // A container that is started again has another namespace of the same name.
        let again = host.container("brief");
        let _server = Server::echo(again.place(), 80);
        for to in at(NEW, 80) {
            eventually(EFFECT, "it is back", || traffic::tcp(front.place(), to, DROPPED));
        }
        assert!(traffic::tcp(intruder.place(), at(FRONT, 80)[0], ARRIVES));
        stream.finish().unwrap();
    });
}

#[test]
fn automatic_addresses_stay_with_their_names() {
    World::run(|world| {
        let host = world.host("alpha");
        host.write("porin.toml", &config::host(&[]));
        let auto = |name: &str| {
            format!("[[endpoint]]\nname = \"{name}\"\nnamespace = \"/run/netns/{name}\"\n")
        };
        let (a, b) = (host.container("a"), host.container("b"));
        for name in ["a", "b"] {
            host.write(&format!("endpoints.d/{name}.toml"), &auto(name));
        }
        let mut daemon = host.porind();
        let given = [a.addresses(), b.addresses()];
        for (v6, v4) in given {
            assert!(v6.is_some() && v4.is_some(), "dual stack: {given:?}");
        }
        assert_ne!(given[0], given[1]);
        // Away and back, over a restart, with another that comes in between.
        host.remove("endpoints.d/a.toml");
        daemon.wait_for("one endpoint", |status| status["endpoints"]["attached"] == 1);
        daemon.kill();
        let _c = host.container("c");
        host.write("endpoints.d/c.toml", &auto("c"));
        daemon.start_again();
        host.write("endpoints.d/a.toml", &auto("a"));
        daemon.wait_for("three endpoints", |status| status["endpoints"]["attached"] == 3);
        assert_eq!([a.addresses(), b.addresses()], given);
    });
}

#[test]
fn an_endpoint_can_have_one_family_only() {
    World::run(|world| {
        let host = world.host("alpha");
        host.write("porin.toml", &config::host(&[]));
        for (name, v6, v4) in [("six", "auto", "none"), ("four", "none", "auto")] {
            let text = format!(
                "[[endpoint]]\nname = \"{name}\"\nnamespace = \"/run/netns/{name}\"\n\
                 ipv6 = \"{v6}\"\nipv4 = \"{v4}\"\n"
            );
            host.write(&format!("endpoints.d/{name}.toml"), &text);
        }
        let (six, four) = (host.container("six"), host.container("four"));
        let both = config::add(&host, "both", "app = \"both\"", NEW);
        let _daemon = host.porind();
        let _server = Server::echo(both.place(), 80);
        let [v6, v4] = at(NEW, 80);
        assert!(traffic::tcp(six.place(), v6, ARRIVES));
        assert!(traffic::tcp(four.place(), v4, ARRIVES));
        let reaches = |place: &lab::Place, to: SocketAddr| traffic::tcp(place, to, DROPPED);
        assert!(!reaches(six.place(), v4) && !reaches(four.place(), v6));
    });
}
