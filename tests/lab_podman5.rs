//! Podman 5 with netavark: the real programs of a newer Debian, the real plugin, the real daemon. `make test-newer`.

mod lab;

use std::net::IpAddr;

use lab::podman5::Podman5;
use lab::shop::{API, Shop, at};
use lab::traffic::{self, ARRIVES, DROPPED};
use lab::{Host, eventually, newer, runtime};
use serde_json::Value;

/// The addresses of the endpoint whose name begins with `container-`, IPv6 first.
fn addresses(host: &Host, container: &str) -> Option<[IpAddr; 2]> {
    let answer = host.porinctl(&["endpoints", "--json"]).json();
    let begins = |one: &&Value| {
        one["name"].as_str().is_some_and(|name| name.starts_with(&format!("{container}-")))
    };
    let endpoint = answer["endpoints"].as_array()?.iter().find(begins)?.clone();
    let address = |key: &str| endpoint[key].as_str().unwrap_or_default().parse().unwrap();
    (endpoint["state"] == "attached").then(|| ["ipv6", "ipv4"].map(address))
}

#[test]
fn podmans_containers_are_endpoints() {
    let Some(root) = newer::root() else {
        eprintln!("not tried: `make test-newer` does");
        return;
    };
    runtime::with_own_processes("podmans_containers_are_endpoints", |world| {
        let shop = Shop::open(world);
        let host = &shop.host;
        let mut daemon = host.porind();
        let podman = Podman5::set_up(host, &root);
        let version = podman.run(&["--version"]).success();
        assert!(version.contains("version 5."), "{version}");
        host.sh(&format!("cp {} /run/netavark/porin", lab::cni::PORIN_CNI));
        let create = |name: &str, options: &[&str]| {
            let create = ["network", "create", "--driver", "porin"];
            podman.run(&[&create[..], options, &[name]].concat())
        };
        create("front", &["--opt", "label.app=front", "--opt", "label.env=prod"]).success();
        create("plain", &[]).success();
        let refused = create("own", &["--subnet", "10.77.0.0/16"]);
        assert!(refused.stderr.contains("pools of porin.toml"), "{refused:?}");

        // Its first packet is judged: allowed by one network's labels, denied by the other's.
        let ask = |more: &[&str], to: IpAddr, port, patience| {
            let question = runtime::question(to, port, patience);
            let asking = ["busybox", "sh", "-c", &question];
            runtime::was_answered(&podman.run(&[&["run", "--rm"], more, &asking].concat()))
        };
        for to in at(API, 8080).map(|to| to.ip()) {
            assert!(ask(&["--network", "front"], to, 8080, 10), "{to}");
            assert!(!ask(&["--network", "plain"], to, 8080, 1), "{to}");
            assert!(!ask(&["--network", "front"], to, 9090, 1), "{to}");
        }
        // By labels of the container's own, as its user writes them, or Podman knows them.
        let own = "plain:label.app=front,label.env=prod";
        assert!(ask(&["--network", own], at(API, 8080)[0].ip(), 8080, 10));
        create("asking", &["--opt", "podman=/run/podman.sock"]).success();
        let service = ["system", "service", "--time", "0", "unix:///run/podman.sock"];
        let _service = host.place().spawn(podman.command(&service));
        eventually(ARRIVES, "the service listens", || {
            host.run_directory().join("podman.sock").exists()
        });
        let labelled = ["--network", "asking", "--label", "app=front", "--label", "env=prod"];
        assert!(ask(&labelled, at(API, 8080)[0].ip(), 8080, 10));
        assert!(!ask(&["--network", "asking"], at(API, 8080)[0].ip(), 8080, 1));

        // It keeps its addresses over a restart, and Podman knows them.
        let run = ["run", "-d", "--name", "web", "--network", "front", "busybox", "sleep", "600"];
        podman.run(&run).success();
        let first = addresses(host, "web").unwrap();
        let settings = podman.inspect("web")["NetworkSettings"].clone();
        let network = &settings["Networks"]["front"];
        assert_eq!(network["GlobalIPv6Address"], first[0].to_string());
        assert_eq!(network["IPAddress"], first[1].to_string());
        let inside = || {
            let settings = podman.inspect("web")["NetworkSettings"].clone();
            let path = settings["SandboxKey"].as_str().unwrap().to_owned();
            host.place().inside("web", std::path::Path::new(&path))
        };
        assert!(traffic::tcp(&inside(), at(API, 8080)[0], ARRIVES));
        daemon.kill();
        daemon.start_again();
        assert!(traffic::tcp(&inside(), at(API, 8080)[1], ARRIVES));
        podman.run(&["restart", "-t", "0", "web"]).success();
        assert_eq!(addresses(host, "web").unwrap(), first);
        assert!(traffic::tcp(&inside(), at(API, 8080)[0], ARRIVES));

        // Disconnected and connected to another network, it is somebody else.
        podman.run(&["network", "disconnect", "front", "web"]).success();
        assert_eq!(addresses(host, "web"), None);
        podman.run(&["network", "connect", "plain", "web"]).success();
        assert!(!traffic::tcp(&inside(), at(API, 8080)[0], DROPPED));
        podman.run(&["rm", "-f", "-t", "0", "web"]).success();
        assert_eq!(addresses(host, "web"), None);

        // Addresses of one's own; what cannot be is said.
        let fixed = "front:ip=10.10.3.3,ip=fd00:10::33";
        let shown = podman.run(&["run", "--rm", "--network", fixed, "busybox", "ip", "addr"]);
        let shown = shown.success();
        assert!(shown.contains("10.10.3.3/32") && shown.contains("fd00:10::33/128"), "{shown}");
        let run = ["run", "--rm", "--network", "front", "-p", "8088:80/sctp", "busybox", "true"];
        let refused = podman.run(&run);
        let what = "ports of sctp cannot be published";
        assert!(!refused.ok() && refused.stderr.contains(what), "{refused:?}");
        let mac = ["--mac-address", "02:00:00:00:00:44", "busybox", "ip", "link"];
        let shown = podman.run(&[&["run", "--rm", "--network", "front"], &mac[..]].concat());
        assert!(shown.success().contains("02:00:00:00:00:44"));

        // A pod's containers share one endpoint.
        let infra = ["--infra-image", "busybox", "--infra-command", "sleep 600"];
        let pod = [&["pod", "create", "--name", "pod", "--network", "front"], &infra[..]].concat();
        podman.run(&pod).success();
        assert!(ask(&["--pod", "pod"], at(API, 8080)[0].ip(), 8080, 10));
        podman.run(&["pod", "rm", "-f", "-t", "0", "pod"]).success();
        assert_eq!(daemon.status()["endpoints"]["attached"], 4);
        podman.run(&["network", "rm", "front"]).success();
    });
}
