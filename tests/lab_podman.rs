//! Podman with its CNI backend: the real program, the real plugin, the real daemon.

mod lab;

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::shop::{API, Shop, at};
use lab::traffic::{self, ARRIVES, DROPPED};
use lab::{Host, Output, eventually, runtime};
use serde_json::{Value, json};

struct Podman<'h> {
    host: &'h Host,
}

impl<'h> Podman<'h> {
    fn set_up(host: &'h Host) -> Self {
        host.mount_control_groups();
        let plugins = Path::new(lab::cni::PORIN_CNI).parent().unwrap().display().to_string();
        let config = format!(
            "[containers]\npids_limit = 0\ncgroups = \"disabled\"\ndefault_ulimits = [\"nofile=1024:4096\", \"nproc=4096:4096\"]\n\
             [engine]\nruntime = \"crun\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
             [network]\nnetwork_backend = \"cni\"\nnetwork_config_dir = \"/run/cni/net.d\"\n\
             default_network = \"porin\"\ncni_plugin_dirs = [\"{plugins}\", \"/usr/lib/cni\"]\n"
        );
        let run = host.run_directory();
        std::fs::create_dir_all(run.join("cni/net.d")).unwrap();
        std::fs::write(run.join("containers.conf"), config).unwrap();
        std::fs::write(
            run.join("policy.json"),
            "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}",
        )
        .unwrap();
        let podman = Podman { host };
        podman.network("porin", json!({}));
        let image = host.busybox_image();
        podman.run(&["import", &image.to_string_lossy(), "busybox"]).success();
        podman
    }

    /// A network with porin-cni, and what else its configuration has.
    fn network(&self, name: &str, more: Value) {
        let mut plugin = json!({ "type": "porin-cni" });
        for (key, value) in more.as_object().unwrap() {
            plugin[key] = value.clone();
        }
        let list = json!({ "cniVersion": "1.0.0", "name": name, "plugins": [plugin] });
        let file = self.host.run_directory().join(format!("cni/net.d/{name}.conflist"));
        std::fs::write(file, list.to_string()).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.host.slowly(self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let fixed = ["podman", "--root", "/run/storage", "--runroot", "/run/storage-run"];
        let fixed = [&fixed[..], &["--storage-driver", "vfs"], arguments].concat();
        let mut command = self.host.place().command(&fixed);
        command.env("CONTAINERS_CONF", "/run/containers.conf");
        command
    }
}

/// The addresses of the endpoint whose name begins with `container-`, IPv6 first.
fn addresses(host: &Host, container: &str) -> Option<[String; 2]> {
    let answer = host.porinctl(&["endpoints", "--json"]).json();
    let begins = |one: &&Value| {
        one["name"].as_str().is_some_and(|name| name.starts_with(&format!("{container}-")))
    };
    let endpoint = answer["endpoints"].as_array()?.iter().find(begins)?.clone();
    let address = |key: &str| endpoint[key].as_str().unwrap_or_default().to_owned();
    (endpoint["state"] == "attached").then(|| ["ipv6", "ipv4"].map(address))
}

#[test]
fn podmans_containers_are_endpoints() {
    if !runtime::has(&["podman", "crun", "busybox"]) {
        return;
    }
    runtime::with_own_processes("podmans_containers_are_endpoints", |world| {
        let shop = Shop::open(world);
        let host = &shop.host;
        let _daemon = host.porind();
        let podman = Podman::set_up(host);
        podman.network("front", json!({ "labels": { "app": "front", "env": "prod" } }));

        // Its first packet is judged: allowed by one network's labels, denied by the other's.
        let ask = |network: &str, to, port, patience| {
            let question = runtime::question(to, port, patience);
            let run = ["run", "--rm", "--network", network, "busybox", "sh", "-c", &question];
            runtime::was_answered(&podman.run(&run))
        };
        for to in at(API, 8080).map(|to| to.ip()) {
            assert!(ask("front", to, 8080, 10), "{to}");
            assert!(!ask("porin", to, 8080, 1), "{to}");
            assert!(!ask("front", to, 9090, 1), "{to}");
        }

        // It keeps its addresses over a restart, and its name resolves to what it has.
        podman
            .run(&["run", "-d", "--name", "web", "--network", "front", "busybox", "sleep", "600"])
            .success();
        let first = addresses(host, "web").unwrap();
        let networks = podman.run(&["inspect", "-f", "{{json .NetworkSettings.Networks}}", "web"]);
        let networks = networks.json();
        assert_eq!(networks["front"]["GlobalIPv6Address"], first[0].as_str());
        assert_eq!(networks["front"]["IPAddress"], first[1].as_str());
        let sandbox = ["inspect", "-f", "{{.NetworkSettings.SandboxKey}}", "web"];
        let inside = || {
            let path = podman.run(&sandbox).success();
            host.place().inside("web", Path::new(path.trim()))
        };
        assert!(traffic::tcp(&inside(), at(API, 8080)[0], ARRIVES));
        podman.run(&["restart", "-t", "0", "web"]).success();
        assert_eq!(addresses(host, "web").unwrap(), first);
        assert!(traffic::tcp(&inside(), at(API, 8080)[0], ARRIVES));

        // Disconnected and connected to another network, it is somebody else.
        podman.run(&["network", "disconnect", "front", "web"]).success();
        assert_eq!(addresses(host, "web"), None);
        podman.run(&["network", "connect", "porin", "web"]).success();
        assert!(!traffic::tcp(&inside(), at(API, 8080)[0], DROPPED));
        podman.run(&["rm", "-f", "-t", "0", "web"]).success();
        assert_eq!(addresses(host, "web"), None);

        // Addresses of one's own, if the network has the capability.
        podman.network("fixed", json!({ "capabilities": { "ips": true } }));
        let fixed = "fixed:ip=10.10.3.3,ip6=fd00:10::33";
        let shown = podman.run(&["run", "--rm", "--network", fixed, "busybox", "ip", "addr"]);
        let shown = shown.success();
        assert!(shown.contains("10.10.3.3/32") && shown.contains("fd00:10::33/128"), "{shown}");
        let mac = ["run", "--rm", "--mac-address", "02:00:00:00:00:44", "busybox", "ip", "link"];
        let shown = podman.run(&mac).success();
        assert!(shown.contains("02:00:00:00:00:44"), "{shown}");

        // In two networks at once it is somebody else in each.
        let both = ["run", "-d", "--name", "both", "--network", "front,porin", "busybox"];
        podman.run(&[&both[..], &["sleep", "600"]].concat()).success();
        let path = podman.run(&["inspect", "-f", "{{.NetworkSettings.SandboxKey}}", "both"]);
        let inside = host.place().inside("both", Path::new(path.success().trim()));
        assert_eq!(inside.interfaces(), ["lo", "eth0", "eth1"]);
        assert!(traffic::tcp(&inside, at(API, 8080)[0], ARRIVES));
        podman.run(&["rm", "-f", "-t", "0", "both"]).success();
        assert_eq!(addresses(host, "both"), None);

        // A pod's containers share one endpoint.
        let infra = ["--infra-image", "busybox", "--infra-command", "sleep 600"];
        let pod = [&["pod", "create", "--name", "pod", "--network", "front"], &infra[..]].concat();
        podman.run(&pod).success();
        let question = runtime::question(at(API, 8080)[0].ip(), 8080, 10);
        let member = podman.run(&["run", "--rm", "--pod", "pod", "busybox", "sh", "-c", &question]);
        assert!(runtime::was_answered(&member));
        assert!(addresses(host, "pod").is_some());
        podman.run(&["pod", "rm", "-f", "-t", "0", "pod"]).success();
        assert_eq!(addresses(host, "pod"), None);
    });
}

#[test]
fn labels_of_podman_run_are_known_before_the_first_packet() {
    if !runtime::has(&["podman", "crun", "busybox"]) {
        return;
    }
    runtime::with_own_processes(
        "labels_of_podman_run_are_known_before_the_first_packet",
        |world| {
            let shop = Shop::open(world);
            let host = &shop.host;
            let _daemon = host.porind();
            let podman = Podman::set_up(host);
            podman.network("asking", json!({ "podman": "/run/podman.sock" }));
            let service = ["system", "service", "--time", "0", "unix:///run/podman.sock"];
            let _service = host.place().spawn(podman.command(&service));
            eventually(ARRIVES, "the service listens", || {
                host.run_directory().join("podman.sock").exists()
            });
            let to = at(API, 8080)[0].ip();
            let ask = |labels: &[&str], patience: u8| {
                let question = runtime::question(to, 8080, patience);
                let run = ["run", "--rm", "--network", "asking"];
                let asking = ["busybox", "sh", "-c", &question];
                runtime::was_answered(&podman.run(&[&run[..], labels, &asking].concat()))
            };
            assert!(ask(&["--label", "app=front", "--label", "env=prod"], 10));
            assert!(!ask(&["--label", "app=front", "--label", "env=dev"], 1));
            assert!(!ask(&[], 1));
            let labels = ["--label", "app=front", "--label", "env=prod"];
            let create = ["create", "--name", "late", "--network", "asking"];
            podman.run(&[&create[..], &labels, &["busybox", "sleep", "600"]].concat()).success();
            podman.run(&["start", "late"]).success();
            podman.run(&["restart", "-t", "0", "late"]).success();
            assert!(addresses(host, "late").is_some());
            podman.run(&["rm", "-f", "-t", "0", "late"]).success();
        },
    );
}

#[test]
fn ports_are_published_by_porin_or_by_portmap() {
    if !runtime::has(&["podman", "crun", "busybox", "iptables"]) {
        return;
    }
    let name = "ports_are_published_by_porin_or_by_portmap";
    runtime::with_own_processes(name, |world| {
        let shop = Shop::open(world);
        let host = &shop.host;
        let _daemon = host.porind();
        let podman = Podman::set_up(host);
        // By porin itself: nothing is forwarded, and netfilter has no part in it.
        podman.network("own", json!({ "capabilities": { "portMappings": true } }));
        let serve = "echo porin >/tmp/index.html; httpd -f -p 80 -h /tmp";
        let serve = ["busybox", "sh", "-c", serve];
        let run = |network: &str| {
            let run = ["run", "-d", "--name", "web", "--network", network, "-p", "8088:80"];
            podman.run(&[&run[..], &serve].concat()).success()
        };
        let url = format!("http://{}:8088/", lab::shop::HOST4);
        let wget = ["timeout", "3", "busybox", "wget", "-q", "-O", "-", &url];
        let outside = &shop.outside;
        let reached = || outside.run(&wget).stdout.trim() == "porin";
        run("own");
        eventually(ARRIVES, "the world reaches it", reached);
        podman.run(&["rm", "-f", "-t", "0", "web"]).success();
        assert!(!reached());
        let plugins = json!([
            { "type": "porin-cni" },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ]);
        let list = json!({ "cniVersion": "1.0.0", "name": "ports", "plugins": plugins });
        let file = host.run_directory().join("cni/net.d/ports.conflist");
        std::fs::write(file, list.to_string()).unwrap();
        run("ports");
        eventually(ARRIVES, "the host reaches it", || host.run(&wget).stdout.trim() == "porin");
        host.sysctl("net/ipv4/ip_forward", "1");
        eventually(ARRIVES, "so does the world", reached);
        podman.run(&["rm", "-f", "-t", "0", "web"]).success();
    });
}

/// Podman's usual network, with porin behind its bridge: labels by `podman run --label`, published ports as ever.
#[test]
fn podmans_own_bridge_is_judged_by_label() {
    if !runtime::has(&["podman", "crun", "busybox", "iptables"]) {
        return;
    }
    runtime::with_own_processes("podmans_own_bridge_is_judged_by_label", |world| {
        let shop = Shop::open(world);
        let host = &shop.host;
        host.sysctl("net/ipv4/ip_forward", "1");
        host.expect_link("cni0");
        let policies = lab::shop::POLICIES.to_owned()
            + r#"
[[policy]]
name    = "web"
subject = "app=web"
[[policy.ingress]]
from  = ["app=front,env=prod", "cidr:192.0.2.2/32"]
ports = ["80/tcp"]

[[policy]]
name    = "dark"
subject = "app=dark"
ingress = []
"#;
        host.write("policies.d/shop.toml", &policies);
        let _daemon = host.porind();
        let podman = Podman::set_up(host);
        let plugins = json!([
            lab::cni::Chain::bridge(),
            { "type": "porin-cni", "podman": "/run/podman.sock" },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ]);
        let list = json!({ "cniVersion": "1.0.0", "name": "usual", "plugins": plugins });
        let file = host.run_directory().join("cni/net.d/usual.conflist");
        std::fs::write(file, list.to_string()).unwrap();
        let service = ["system", "service", "--time", "0", "unix:///run/podman.sock"];
        let _service = host.place().spawn(podman.command(&service));
        eventually(ARRIVES, "the service listens", || {
            host.run_directory().join("podman.sock").exists()
        });

        let serve = "echo porin >/tmp/index.html; httpd -f -p 80 -h /tmp";
        for (name, port) in [("web", "8088:80"), ("dark", "8089:80")] {
            let label = format!("app={name}");
            let run =
                ["run", "-d", "--name", name, "--label", &label, "--network", "usual", "-p", port];
            podman.run(&[&run[..], &["busybox", "sh", "-c", serve]].concat()).success();
        }
        // By the host's uplink, from another machine.
        let fetched = |port: u16, patience: Duration| {
            let to = SocketAddr::new(lab::shop::HOST4.parse().unwrap(), port);
            let Ok(mut stream) = traffic::connect(shop.outside.place(), to, patience) else {
                return false;
            };
            let mut answer = String::new();
            let asked = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
            asked.and_then(|()| stream.read_to_string(&mut answer)).is_ok()
                && answer.ends_with("porin\n")
        };
        eventually(ARRIVES, "the published port answers", || fetched(8088, ARRIVES));
        assert!(!fetched(8089, DROPPED), "policy says who may");
        // From the bridge, by labels, from the first packet on.
        let to = |name: &str| addresses(host, name).unwrap().map(|ip| ip.parse().unwrap());
        let ask = |labels: &[&str], to, port, patience| {
            let question = runtime::question(to, port, patience);
            let asking = ["busybox", "sh", "-c", &question];
            let run = ["run", "--rm", "--network", "usual"];
            podman.run(&[&run[..], labels, &asking].concat())
        };
        let front = ["--label", "app=front", "--label", "env=prod"];
        for to in at(API, 8080).map(|to| to.ip()) {
            assert!(runtime::was_answered(&ask(&front, to, 8080, 10)), "{to}");
            assert!(!runtime::was_answered(&ask(&["--label", "app=front"], to, 8080, 1)), "{to}");
        }
        for to in to("web") {
            // It is no echo, but it answers.
            let asked = ask(&front, to, 80, 10);
            assert!(
                asked.stdout.contains("HTTP/1") && asked.stdout.contains("ended 0"),
                "{asked:?}"
            );
            assert!(!runtime::was_answered(&ask(&[], to, 80, 1)), "{to}");
        }
        podman.run(&["restart", "-t", "0", "web"]).success();
        eventually(ARRIVES, "the published port answers again", || fetched(8088, ARRIVES));
        podman.run(&["rm", "-f", "-t", "0", "web", "dark"]).success();
        assert_eq!((addresses(host, "web"), addresses(host, "dark")), (None, None));
    });
}
