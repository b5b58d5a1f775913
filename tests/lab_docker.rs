//! Docker's networks of the driver `porin`: the real dockerd, the real daemon.

mod lab;

use std::collections::BTreeSet;
use std::path::Path;

use lab::shop::{API, HOST4, HOST6, OUTSIDE4, OUTSIDE6, Shop, at, both};
use lab::traffic::{self, ARRIVES, DROPPED, Server};
use lab::{Cgroup, Docker, Host, Place, eventually, runtime};
use serde_json::Value;

/// Without networks of Docker's own.
const PLAIN: &[&str] = &["--bridge=none", "--iptables=false"];

const PROGRAMS: [&str; 3] = ["dockerd", "docker", "busybox"];
const FRONT: [&str; 4] = ["--label", "app=front", "--label", "env=prod"];
const RANGES: &str = "networks = [\"10.10.128.0/17\", \"fd00:10:0:0:8000::/65\"]";
const NETWORK: [&str; 6] = ["network", "create", "-d", "porin", "--ipam-driver", "porin"];

/// The shop's host as Docker's.
fn serve_docker(host: &Host) {
    let config = lab::config::host(&["up0"]);
    host.write("porin.toml", &format!("{config}\n[docker]\ndriver = true\n{RANGES}\n"));
}

/// The endpoint whose name begins with `container-`.
fn endpoint(host: &Host, container: &str) -> Option<Value> {
    let answer = host.porinctl(&["endpoints", "--json"]).json();
    let begins = |one: &&Value| {
        one["name"].as_str().is_some_and(|name| name.starts_with(&format!("{container}-")))
    };
    answer["endpoints"].as_array()?.iter().find(begins).cloned()
}

fn inspect(docker: &Docker, what: &str, of: &str) -> String {
    docker.run(&["inspect", "-f", what, of]).success().trim().to_owned()
}

/// The network namespace of a running container.
fn inside(docker: &Docker, host: &Host, container: &str) -> Place {
    let path = inspect(docker, "{{.NetworkSettings.SandboxKey}}", container);
    host.place().inside(container, Path::new(&path.replace("/var/run/", "/run/")))
}

#[test]
fn dockers_containers_are_endpoints() {
    if !runtime::has(&PROGRAMS) {
        return;
    }
    runtime::with_own_processes("dockers_containers_are_endpoints", |world| {
        let shop = Shop::open(world);
        let host = &shop.host;
        serve_docker(host);
        let _daemon = host.porind();
        let docker = Docker::start(host, PLAIN);
        let subnets = ["--subnet", "10.10.128.0/24", "--subnet", "fd00:10:0:0:8000:1::/96"];
        let create = [&NETWORK[..], &["--ipv6"], &subnets, &["web"]];
        docker.run(&create.concat()).success();

        // Its first packet is judged by its labels.
        let ask = |labels: &[&str], to: &str, port: &str, patience: u8| {
            let question = format!("echo porin | nc -w {patience} {to} {port}");
            let run = [&["run", "--rm", "--network", "web"], labels];
            let run = [&run.concat()[..], &["busybox", "sh", "-c", &question]].concat();
            docker.run(&run).stdout.trim() == "porin"
        };
        for to in at(API, 8080).map(|to| to.ip().to_string()) {
            assert!(ask(&FRONT, &to, "8080", 10), "{to}");
            assert!(!ask(&[], &to, "8080", 1), "{to}");
            assert!(!ask(&FRONT, &to, "9090", 1), "{to}");
        }

        // What is asked for is given: addresses, a MAC, labels; and Docker's own view agrees.
        let run = ["run", "-d", "--name", "one", "--network", "web", "--ip", "10.10.128.40"];
        let fixed = ["--ip6", "fd00:10:0:0:8000:1::40", "--mac-address", "02:00:00:00:00:40"];
        let sleep = ["busybox", "sleep", "600"];
        docker.run(&[&run[..], &fixed, &FRONT, &sleep].concat()).success();
        let one = endpoint(host, "one").unwrap();
        assert_eq!((&one["state"], &one["ipv4"]), (&"attached".into(), &"10.10.128.40".into()));
        assert_eq!(one["ipv6"], "fd00:10::8000:1:0:40");
        assert_eq!(one["labels"]["app"], "front");
        let place = inside(&docker, host, "one");
        let shown = place.run(&["ip", "addr", "show", "eth0"]).success();
        assert!(shown.contains("02:00:00:00:00:40") && shown.contains("NOARP"), "{shown}");
        assert!(shown.contains("10.10.128.40/24") && shown.contains(":8000:1:0:40/96"), "{shown}");
        let twice = ["run", "--rm", "--network", "web", "--ip", "10.10.128.40", "busybox", "true"];
        let refused = docker.run(&twice);
        assert!(!refused.ok() && refused.stderr.contains("10.10.128.40 is in use"), "{refused:?}");

        // Containers of one network, of another one, and the world outside.
        docker.run(&[&NETWORK[..], &["--subnet", "10.10.200.0/25", "back"]].concat()).success();
        docker
            .run(&[&["run", "-d", "--name", "two", "--network", "web"][..], &sleep].concat())
            .success();
        docker
            .run(&[&["run", "-d", "--name", "three", "--network", "back"][..], &sleep].concat())
            .success();
        let address = |container: &str| {
            let row = endpoint(host, container).unwrap();
            row["ipv4"].as_str().unwrap().to_owned()
        };
        let reach = |from: &str, to: &str| {
            let _server = Server::echo(&inside(&docker, host, to), 80);
            let to = format!("{}:80", address(to)).parse().unwrap();
            traffic::tcp(&inside(&docker, host, from), to, ARRIVES)
        };
        assert!(reach("one", "two") && reach("three", "two") && reach("two", "three"));
        // By name, too: Docker's own resolver is inside.
        let listener = Server::echo(&inside(&docker, host, "two"), 80);
        let named = docker.run(&["exec", "one", "sh", "-c", "echo porin | nc -w 10 two 80"]);
        assert_eq!(named.success().trim(), "porin");
        drop(listener);
        for to in both(OUTSIDE6, OUTSIDE4, 80) {
            assert!(traffic::tcp(&place, to, ARRIVES), "{to}");
        }

        // In two networks at once: the second is another endpoint, with the container's labels.
        docker.run(&["network", "connect", "back", "two"]).success();
        let second = || {
            let rows = host.porinctl(&["endpoints", "--json"]).json();
            let rows = rows["endpoints"].as_array().unwrap().clone();
            let its = |row: &Value| row["name"].as_str().unwrap().starts_with("two-");
            rows.into_iter().filter(its).filter(|row| row["state"] == "attached").count()
        };
        eventually(ARRIVES, "both are open", || second() == 2);
        assert!(reach("two", "three"));
        docker.run(&["network", "disconnect", "web", "two"]).success();
        assert_eq!(second(), 1);
        assert!(reach("three", "two"));
        docker.run(&["network", "disconnect", "back", "two"]).success();
        assert_eq!(endpoint(host, "two"), None);

        // It keeps what it asked for over a restart, and is gone when it is.
        docker.run(&["restart", "-t", "0", "one"]).success();
        assert_eq!(address("one"), "10.10.128.40");
        assert!(traffic::tcp(&inside(&docker, host, "one"), at(API, 8080)[0], ARRIVES));
        docker.run(&["rm", "-f", "one", "two", "three"]).success();
        assert_eq!(
            host.porinctl(&["endpoints", "--json"]).json()["endpoints"].as_array().unwrap().len(),
            4
        );
        docker.run(&["network", "rm", "web", "back"]).success();
        let saved = std::fs::read_to_string(host.state().join("docker.toml")).unwrap();
        assert!(!saved.contains("subnet]]"), "{saved}");
    });
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    if !runtime::has(&PROGRAMS) {
        return;
    }
    runtime::with_own_processes("what_cannot_be_is_refused_by_name", |world| {
        let shop = Shop::open(world);
        let host = &shop.host;
        serve_docker(host);
        let _daemon = host.porind();
        let mut docker = Docker::start(host, PLAIN);
        let refused = |arguments: &[&str], why: &str| {
            let output = docker.run(arguments);
            assert!(!output.ok() && output.stderr.contains(why), "{why}: {output:?}");
        };
        let network = |more: &[&str], why: &str| refused(&[&NETWORK[..], more].concat(), why);
        network(&["--subnet", "10.99.0.0/24", "x"], "[docker] of porin.toml has 10.10.128.0/17");
        network(&["--subnet", "10.10.0.0/24", "x"], "is not one of porin's for Docker");
        network(&["--internal", "x"], "porin has no internal networks");
        network(&["-o", "speed=high", "x"], "the driver option `speed` is not known");
        network(&["--ipam-opt", "speed=high", "x"], "the IPAM option `speed` is not known");
        refused(&["network", "create", "-d", "porin", "x"], "--ipam-driver porin");
        docker.run(&[&NETWORK[..], &["web"]].concat()).success();
        network(&["--subnet", "10.10.128.0/25", "x"], "overlaps 10.10.128.0/24");
        let run = ["run", "--rm", "--network", "web"];
        refused(&[&run[..], &["-p", "80", "busybox", "true"]].concat(), "write -p PORT:80");
        let sctp = [&run[..], &["-p", "80:80/sctp", "busybox", "true"]].concat();
        refused(&sctp, "ports of sctp cannot be published");
        // The host's own server is there.
        let taken = [&run[..], &["-p", "9090:80", "busybox", "true"]].concat();
        refused(&taken, "a program of the host has port 9090/tcp");
        let ranged = ["--subnet", "10.10.130.0/24", "--ip-range", "10.10.130.128/25"];
        let ranged = [&NETWORK[..], &ranged, &["--gateway", "10.10.130.254", "ranged"]].concat();
        docker.run(&ranged).success();
        let show = ["run", "--rm", "--network", "ranged", "busybox", "ip", "route"];
        let shown = docker.run(&show).success();
        assert!(shown.contains("default via 10.10.130.254"), "{shown}");
        assert!(shown.contains("src 10.10.130.128"), "{shown}");
        // Without live-restore dockerd takes its containers along; started again they are endpoints again.
        let run = [&["run", "-d", "--name", "back", "--network", "web"], &FRONT[..]].concat();
        docker.run(&[&run[..], &["busybox", "sleep", "600"]].concat()).success();
        assert!(endpoint(host, "back").is_some());
        docker.stop();
        assert_eq!(endpoint(host, "back"), None);
        docker.start_again();
        docker.run(&["start", "back"]).success();
        assert!(traffic::tcp(&inside(&docker, host, "back"), at(API, 8080)[1], ARRIVES));
        docker.run(&["rm", "-f", "back"]).success();
        // Nothing is left of all that.
        let rows = host.porinctl(&["endpoints", "--json"]).json();
        assert_eq!(rows["endpoints"].as_array().unwrap().len(), 4);
    });
}

#[test]
fn ports_are_published_without_netfilter() {
    if !runtime::has(&PROGRAMS) {
        return;
    }
    runtime::with_own_processes("ports_are_published_without_netfilter", |world| {
        let shop = Shop::open(world);
        let (host, outside) = (&shop.host, shop.outside.place());
        serve_docker(host);
        let cgroup = Cgroup::enter(host);
        let mut daemon = host.porind_with(&["--cgroup", &cgroup.path()]);
        let docker = Docker::start(host, PLAIN);
        if runtime::has(&["iptables", "ip6tables"]) {
            host.sh("iptables -w -P FORWARD DROP; ip6tables -w -P FORWARD DROP");
        }
        let subnets = ["--subnet", "10.10.128.0/24", "--subnet", "fd00:10:0:0:8000:1::/96"];
        docker.run(&[&NETWORK[..], &["--ipv6"], &subnets, &["web"]].concat()).success();
        docker.run(&[&NETWORK[..], &["back"]].concat()).success();
        let run = |name: &str, ports: &[&str]| {
            let run = ["run", "-d", "--name", name, "--network", "web"];
            docker.run(&[&run[..], ports, &FRONT, &["busybox", "sleep", "600"]].concat())
        };
        let ports = ["-p", "8088:80", "-p", "8088:80/udp", "-p", &format!("{HOST4}:8443:5432")];
        run("one", &ports).success();
        assert_eq!(
            endpoint(host, "one").unwrap()["publish"],
            serde_json::json!(["8088:80/tcp", "8088:80/udp", "192.0.2.1:8443:5432/tcp"])
        );
        let servers =
            |name: &str| [80, 5432].map(|port| Server::echo(&inside(&docker, host, name), port));
        let listening = servers("one");
        let [to6, to4] = both(HOST6, HOST4, 8088);
        for to in [to6, to4] {
            assert!(traffic::tcp(outside, to, ARRIVES), "{to}");
            assert!(traffic::udp(outside, to, 3000, ARRIVES), "{to} by UDP");
            assert!(traffic::tcp(shop.intruder.place(), to, ARRIVES), "{to} from a container");
        }
        let [at6, at4] = both(HOST6, HOST4, 8443);
        assert!(traffic::tcp(outside, at4, ARRIVES) && !traffic::tcp(outside, at6, DROPPED));
        // By the host itself, too, which everybody tries first.
        let localhost = both("::1", "127.0.0.1", 8088);
        for to in localhost.into_iter().chain([to6, to4]) {
            assert!(traffic::tcp(host.place(), to, ARRIVES), "{to} from the host itself");
        }
        let own = ["-p", "127.0.0.1:8090:80"];
        run("two", &own).success();
        let for_host = servers("two");
        let [_, own] = both("::1", "127.0.0.1", 8090);
        assert!(traffic::tcp(host.place(), own, ARRIVES), "{own}");
        for other in both(HOST6, HOST4, 8090) {
            assert!(!traffic::tcp(outside, other, DROPPED), "{other} is for the host alone");
        }
        drop(for_host);
        docker.run(&["rm", "-f", "two"]).success();
        // Taken by a container, or by the host itself, it is nobody else's.
        for taken in ["8088:81", "9090:80"] {
            let refused = run("two", &["-p", taken]);
            assert!(!refused.ok() && refused.stderr.contains("port"), "{refused:?}");
            docker.run(&["rm", "-f", "two"]).success();
        }
        // Another daemon knows of them, and so does Docker after a restart of the container.
        daemon.kill();
        assert!(traffic::tcp(outside, to4, ARRIVES));
        daemon.start_again();
        assert!(traffic::tcp(outside, to4, ARRIVES));
        drop(listening);
        docker.run(&["restart", "-t", "0", "one"]).success();
        let listening = servers("one");
        eventually(ARRIVES, "it is reached again", || traffic::tcp(outside, to4, DROPPED));
        // In two networks, it is reached by one of its endpoints at a time.
        docker.run(&["network", "connect", "back", "one"]).success();
        eventually(ARRIVES, "still", || traffic::tcp(outside, to4, DROPPED));
        docker.run(&["network", "disconnect", "web", "one"]).success();
        eventually(ARRIVES, "by the other network", || traffic::tcp(outside, to4, DROPPED));
        assert!(!traffic::tcp(outside, to6, DROPPED), "which has no IPv6");
        drop(listening);
        docker.run(&["rm", "-f", "one"]).success();
        assert!(!traffic::tcp(outside, to4, DROPPED));
        run("two", &["-p", "8088:80"]).success();
        let _listening = servers("two");
        assert!(traffic::tcp(outside, to4, ARRIVES));
    });
    lab::cgroup::sweep();
}

#[test]
fn nothing_is_interrupted_and_nothing_is_left_when_daemons_restart() {
    if !runtime::has(&PROGRAMS) {
        return;
    }
    let name = "nothing_is_interrupted_and_nothing_is_left_when_daemons_restart";
    runtime::with_own_processes(name, |world| {
        let shop = Shop::open(world);
        let host = &shop.host;
        serve_docker(host);
        let mut daemon = host.porind();
        let mut docker = Docker::start(host, &[PLAIN, &["--live-restore"]].concat());
        docker.run(&[&NETWORK[..], &["web"]].concat()).success();
        let sleep = |name| {
            [
                &["run", "-d", "--name", name, "--network", "web"],
                &FRONT[..],
                &["busybox", "sleep", "600"],
            ]
            .concat()
        };
        docker.run(&sleep("one")).success();
        docker.run(&sleep("two")).success();
        let place = inside(&docker, host, "one");
        let to = at(API, 8080)[1];
        assert!(traffic::tcp(&place, to, ARRIVES));

        // dockerd dies and comes back.
        docker.kill();
        assert!(traffic::tcp(&place, to, ARRIVES));
        docker.start_again();
        assert!(traffic::tcp(&place, to, ARRIVES));
        assert_eq!(endpoint(host, "one").unwrap()["state"], "attached");

        // porind dies; a container that goes meanwhile is forgotten, the other one stays.
        daemon.kill();
        assert!(traffic::tcp(&place, to, ARRIVES));
        let mut removing = host.place().spawn(docker.command(&["rm", "-f", "two"]));
        daemon.start_again();
        assert!(removing.wait(ARRIVES * 6).success());
        eventually(ARRIVES, "what is removed is gone", || endpoint(host, "two").is_none());
        assert!(traffic::tcp(&place, to, ARRIVES));
        docker.run(&sleep("three")).success();
        assert_ne!(
            endpoint(host, "three").unwrap()["ipv4"],
            endpoint(host, "one").unwrap()["ipv4"]
        );

        // dockerd forgets everything: so does the next porind.
        docker.kill();
        docker.start_afresh();
        daemon.kill();
        daemon.start_again();
        eventually(ARRIVES, "leftovers go", || {
            endpoint(host, "one").is_none() && endpoint(host, "three").is_none()
        });
        assert!(!traffic::tcp(&place, to, DROPPED));
        let saved = || std::fs::read_to_string(host.state().join("docker.toml")).unwrap();
        eventually(ARRIVES, "its subnets are free", || !saved().contains("subnet]]"));
        docker.run(&["import", "/run/image.tar", "busybox"]).success();
        docker.run(&[&NETWORK[..], &["web"]].concat()).success();
        docker.run(&sleep("again")).success();
        assert!(traffic::tcp(&inside(&docker, host, "again"), to, ARRIVES));
    });
}

#[test]
fn many_at_once_and_daemons_that_die_meanwhile() {
    if !runtime::has(&PROGRAMS) {
        return;
    }
    runtime::with_own_processes("many_at_once_and_daemons_that_die_meanwhile", |world| {
        let shop = Shop::open(world);
        let host = &shop.host;
        serve_docker(host);
        let mut daemon = host.porind();
        let docker = Docker::start(host, PLAIN);
        docker.run(&[&NETWORK[..], &["web"]].concat()).success();
        let run = |number: usize| {
            let name = format!("c{number}");
            let run = ["run", "-d", "--name", &name, "--network", "web"];
            let all = [&run[..], &FRONT, &["busybox", "sleep", "600"]].concat();
            host.place().spawn(docker.command(&all))
        };
        let running: Vec<_> = (0..20).map(run).collect();
        for mut one in running {
            assert!(one.wait(ARRIVES * 6).success());
        }
        let rows = || {
            let rows = host.porinctl(&["endpoints", "--json"]).json();
            let rows = rows["endpoints"].as_array().unwrap().clone();
            rows.into_iter()
                .filter(|row| row["file"].as_str().unwrap().contains("/docker-"))
                .collect::<Vec<_>>()
        };
        let addresses: BTreeSet<String> =
            rows().iter().map(|row| row["ipv4"].to_string()).collect();
        assert_eq!((rows().len(), addresses.len()), (20, 20));
        assert!(
            rows().iter().all(|row| row["state"] == "attached" && row["labels"]["app"] == "front")
        );
        for number in [0, 7, 19] {
            let place = inside(&docker, host, &format!("c{number}"));
            assert!(traffic::tcp(&place, at(API, 8080)[1], ARRIVES), "{number}");
        }

        // Killed while they are being started, with porind dying in between: those that run are right, the others are gone.
        let all: Vec<String> = (0..20).map(|number| format!("c{number}")).collect();
        let remove =
            [&["rm", "-f"][..], &all.iter().map(String::as_str).collect::<Vec<_>>()].concat();
        docker.run(&remove).success();
        assert_eq!(rows().len(), 0);
        let mut started: Vec<_> = (0..8).map(run).collect();
        eventually(ARRIVES, "some are there", || !rows().is_empty());
        daemon.kill();
        daemon.start_again();
        let removing = host.place().spawn(docker.command(&["rm", "-f", "c0", "c1"]));
        for one in started.iter_mut().chain([removing].iter_mut()) {
            one.wait(ARRIVES * 9);
        }
        let there = docker.run(&["ps", "-q"]).success().lines().count();
        eventually(ARRIVES, "what runs is attached, and nothing else", || {
            let rows = rows();
            rows.len() == there && rows.iter().all(|row| row["state"] == "attached")
        });
        let all = docker.run(&["ps", "-qa"]).success();
        let remove = [&["rm", "-f"][..], &all.lines().collect::<Vec<_>>()].concat();
        docker.run(&remove).success();
        assert_eq!(rows().len(), 0);
        docker.run(&["network", "rm", "web"]).success();
    });
}
