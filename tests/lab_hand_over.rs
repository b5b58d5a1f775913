//! Interfaces that porin makes on the host, and that somebody else moves into a namespace and configures.

mod lab;

use lab::daemon::EFFECT;
use lab::shop::{API, HOST4, HOST6, OUTSIDE4, OUTSIDE6, Shop, at, both};
use lab::traffic::{self, ARRIVES, DROPPED, Server};
use lab::{Container, Host, World, config};

const NUMBER: u16 = 9;

/// As a container runtime does it: on-link subnets of its own choice, and a gateway in each that nobody is.
fn take(host: &Host, container: &Container) {
    host.sh("ip link set dev taken netns late name eth5");
    let (ipv6, ipv4) = (config::ipv6(NUMBER), config::ipv4(NUMBER));
    container.place().sh(&format!(
        "ip link set dev lo up; ip addr add {ipv6}/112 dev eth5 nodad; ip addr add {ipv4}/24 dev eth5
         ip link set dev eth5 up
         ip -6 route add default via fd00:10::1:ff dev eth5; ip route add default via 10.10.1.254 dev eth5"
    ));
}

fn file(labels: &str, shut: bool) -> String {
    let (ipv6, ipv4) = (config::ipv6(NUMBER), config::ipv4(NUMBER));
    format!(
        "[[endpoint]]\nname = \"late\"\nhand-over = \"taken\"\nlabels = {{ {labels} }}\n\
         ipv6 = \"{ipv6}\"\nipv4 = \"{ipv4}\"\nmac = \"02:42:0a:0a:01:09\"\nshut = {shut}\n"
    )
}

#[test]
fn what_is_handed_over_is_an_endpoint_like_others() {
    World::run(|world| {
        let shop = Shop::open(world);
        let host = &shop.host;
        let late = host.container("late");
        host.write("endpoints.d/late.toml", &file("", true));
        let mut daemon = host.porind();
        take(host, &late);
        let flags = late.run(&["ip", "-o", "link", "show", "eth5"]).success();
        assert!(flags.contains("NOARP") && flags.contains("02:42:0a:0a:01:09"), "{flags}");
        let _servers = [Server::echo(late.place(), 80)];

        // Shut: nothing passes, in either direction, to or from anybody.
        for to in [at(API, 80), both(HOST6, HOST4, 80), both(OUTSIDE6, OUTSIDE4, 80)].concat() {
            assert!(!traffic::tcp(late.place(), to, DROPPED), "{to}");
        }
        for to in at(NUMBER, 80) {
            assert!(!traffic::tcp(shop.db.place(), to, DROPPED), "{to}");
            assert!(!traffic::tcp(host.place(), to, DROPPED), "{to}");
        }
        let row = host.porinctl(&["endpoints", "--json"]).json();
        let rows = row["endpoints"].as_array().unwrap();
        let row = rows.iter().find(|one| one["name"] == "late").unwrap();
        assert_eq!(row["state"], "shut");

        // Open: by its labels, without being made anew.
        let labels = "app = \"front\", env = \"prod\"";
        daemon.commit(|| host.write("endpoints.d/late.toml", &file(labels, false)));
        let reaches = |daemon: &str| {
            for to in at(API, 8080) {
                assert!(traffic::tcp(late.place(), to, ARRIVES), "{daemon}: {to}");
            }
            for to in at(API, 9090) {
                assert!(!traffic::tcp(late.place(), to, DROPPED), "{daemon}: {to}");
            }
            for to in [both(HOST6, HOST4, 80), both(OUTSIDE6, OUTSIDE4, 80)].concat() {
                assert!(traffic::tcp(late.place(), to, ARRIVES), "{daemon}: {to}");
            }
            for to in at(NUMBER, 80) {
                assert!(traffic::tcp(shop.intruder.place(), to, ARRIVES), "{daemon}: {to}");
                assert!(traffic::tcp(host.place(), to, ARRIVES), "{daemon}: {to}");
            }
        };
        reaches("at first");
        daemon.kill();
        daemon.start_again();
        reaches("after a restart");

        // A name of its own may change; its interface stays.
        let renamed = file(labels, false).replace("\"late\"", "\"web\"");
        daemon.commit(|| host.write("endpoints.d/late.toml", &renamed));
        reaches("renamed");

        // Shut again, and gone.
        daemon.commit(|| host.write("endpoints.d/late.toml", &file(labels, true)));
        for to in at(API, 8080) {
            assert!(!traffic::tcp(late.place(), to, DROPPED), "{to}");
        }
        // If the one end goes, so does the other; of a file by hand the pair is made anew, to be handed over again.
        let there = || host.place().interfaces().iter().any(|name| name == "taken");
        assert!(!there());
        late.run(&["ip", "link", "del", "dev", "eth5"]).success();
        lab::eventually(EFFECT, "it is made again", there);
        take(host, &late);
        daemon.commit(|| host.write("endpoints.d/late.toml", &file(labels, false)));
        reaches("made again");
        daemon.commit(|| host.remove("endpoints.d/late.toml"));
        lab::eventually(ARRIVES, "its interface goes", || {
            late.place().interfaces().iter().all(|name| name != "eth5")
        });
    });
}

#[test]
fn one_that_cannot_be_made_is_closed_and_keeps_no_other_waiting() {
    World::run(|world| {
        let shop = Shop::open(world);
        let host = &shop.host;
        let daemon = host.porind();
        // Somebody else's interface has the name.
        host.sh("ip link add taken type veth peer name taken-peer");
        let other = format!(
            "[[endpoint]]\nname = \"other\"\nhand-over = \"free\"\nipv6 = \"{}\"\n",
            config::ipv6(NUMBER + 1)
        );
        daemon.commit(|| {
            host.write("endpoints.d/late.toml", &file("", false));
            host.write("endpoints.d/other.toml", &other);
        });
        let state = |name: &str| {
            let row = host.porinctl(&["endpoints", "--json"]).json();
            let rows = row["endpoints"].as_array().unwrap();
            let row = rows.iter().find(|one| one["name"] == name);
            row.map_or_else(String::new, |row| row["state"].as_str().unwrap_or_default().to_owned())
        };
        lab::eventually(EFFECT, "the other one is there", || state("other") == "attached");
        let faults = host.porinctl(&["status", "--json"]).stdout;
        assert!(faults.contains("endpoint `late` cannot be made"), "{faults}");
        // It is tried again.
        host.sh("ip link del taken");
        lab::eventually(EFFECT, "it is there, too", || state("late") == "attached");
        daemon.commit(|| {
            host.remove("endpoints.d/late.toml");
            host.remove("endpoints.d/other.toml");
        });
        let gone = || !host.links().iter().any(|link| ["taken", "free"].contains(&link.as_str()));
        lab::eventually(EFFECT, "nothing is left of them", gone);
    });
}
