//! Netavark's plugin by itself, as netavark runs it: the real program, the real daemon, real traffic.

mod lab;

use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use lab::cni::PORIN_CNI;
use lab::process::Output;
use lab::shop::{API, HOST4, HOST6, Shop, at, both};
use lab::traffic::{self, ARRIVES, DROPPED, Server};
use lab::{Container, Host, World, eventually};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(90);

fn front() -> Value {
    json!({ "label.app": "front", "label.env": "prod" })
}

/// What netavark says of a container on a network with these options.
fn container(name: &str, options: Value, ips: &[&str]) -> Value {
    json!({
        "container_id": format!("c{name}"), "container_name": name, "port_mappings": null,
        "network": {
            "name": "net", "id": "a87a6a5bc74e", "driver": "porin", "internal": false,
            "dns_enabled": false, "ipv6_enabled": false, "network_interface": null,
            "options": options, "ipam_options": { "driver": "none" }, "subnets": null,
        },
        "network_options": {
            "interface_name": "eth0", "aliases": [name], "static_ips": ips, "static_mac": null,
        },
    })
}

fn run(host: &Host, word: &str, container: &Container, input: &Value) -> Output {
    let path = container.path().to_string_lossy().into_owned();
    let mut command = host.place().command(&[PORIN_CNI, word, &path]);
    command.env_clear().stdin(Stdio::piped());
    Output::of(host.name(), &mut command, Some(&input.to_string()), PATIENCE)
}

fn addresses(status: &Value) -> Vec<IpAddr> {
    let subnets = status["interfaces"]["eth0"]["subnets"].as_array().unwrap();
    let net = |subnet: &Value| subnet["ipnet"].as_str().unwrap().split('/').next().unwrap().parse();
    subnets.iter().map(|subnet| net(subnet).unwrap()).collect()
}

fn reaches_api(container: &Container, patience: Duration) -> bool {
    let answers = at(API, 8080).map(|to| {
        let socket = traffic::udp_socket(container.place(), to);
        traffic::udp_once(&socket, 16, patience).is_ok()
    });
    assert_eq!(answers[0], answers[1], "both families alike");
    answers[0]
}

#[test]
fn a_container_is_judged_from_its_first_packet_on_until_it_goes() {
    World::run(|world| {
        let shop = Shop::open(world);
        let host = &shop.host;
        let mut daemon = host.porind();
        let (good, bad) = (host.container("good"), host.container("bad"));
        let status = run(host, "setup", &good, &container("good", front(), &[])).json();
        assert!(reaches_api(&good, ARRIVES));
        run(host, "setup", &bad, &container("bad", json!({}), &[])).json();
        assert!(!reaches_api(&bad, DROPPED));
        // It is there as the status says.
        let (v6, v4) = good.addresses();
        let there: Vec<IpAddr> = v6.map(Into::into).into_iter().chain(v4.map(Into::into)).collect();
        assert_eq!(addresses(&status), there);
        let link = good.run(&["ip", "-o", "link", "show", "dev", "eth0"]).success();
        let mac = status["interfaces"]["eth0"]["mac_address"].as_str().unwrap();
        assert!(link.contains(mac), "{link}");
        assert_eq!(daemon.status()["endpoints"]["attached"], 6);

        // Twice is refused; what is asked for is given, or refused.
        let again = run(host, "setup", &good, &container("good", front(), &[]));
        assert!(!again.ok() && again.stdout.contains("attached already"), "{again:?}");
        let fixed = host.container("fixed");
        let asked = ["10.10.9.9", "fd00:10::9:9"];
        let status = run(host, "setup", &fixed, &container("fixed", front(), &asked)).json();
        assert_eq!(
            addresses(&status),
            ["fd00:10::9:9", "10.10.9.9"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
        let other = host.container("other");
        let refused = run(host, "setup", &other, &container("other", front(), &["192.0.2.9"]));
        let error: Value = serde_json::from_str(&refused.stdout).unwrap();
        assert_eq!(error, json!({ "error": "192.0.2.9 is in no pool" }));
        assert_eq!(other.place().interfaces(), ["lo"]);

        // Published ports are reached from outside.
        let (web, mut asked) = (host.container("web"), container("web", front(), &[]));
        asked["port_mappings"] = json!([
            { "container_ip": "", "container_port": 80, "host_ip": "", "host_port": 8088, "protocol": "tcp,udp", "range": 1 },
        ]);
        run(host, "setup", &web, &asked).json();
        let _server = Server::echo(web.place(), 80);
        for to in both(HOST6, HOST4, 8088) {
            assert!(traffic::tcp(shop.outside.place(), to, ARRIVES), "{to}");
            assert!(traffic::udp(shop.outside.place(), to, 100, ARRIVES), "{to} by UDP");
        }
        asked["container_id"] = json!("cother");
        let refused = run(host, "setup", &other, &asked);
        assert!(refused.stdout.contains("port 8088/tcp of the host is published"), "{refused:?}");
        asked["container_id"] = json!("cweb");
        run(host, "teardown", &web, &asked).success();
        assert!(!traffic::tcp(shop.outside.place(), both(HOST6, HOST4, 8088)[1], DROPPED));

        // Gone at once, and twice is no harm.
        for _ in 0..2 {
            assert_eq!(
                run(host, "teardown", &bad, &container("bad", json!({}), &[])).success(),
                ""
            );
        }
        assert_eq!(daemon.status()["endpoints"]["attached"], 6);
        eventually(ARRIVES, "its interface is gone", || bad.place().interfaces() == ["lo"]);

        // Without a daemon, and when the namespace is gone.
        daemon.kill();
        assert!(reaches_api(&good, ARRIVES), "enforcement goes on");
        run(host, "teardown", &good, &container("good", front(), &[])).success();
        daemon.start_again();
        assert_eq!(daemon.status()["endpoints"]["attached"], 5);
        host.forget_container("fixed");
        run(host, "teardown", &fixed, &container("fixed", front(), &[])).success();
        assert_eq!(daemon.status()["endpoints"]["attached"], 4);
    });
}
