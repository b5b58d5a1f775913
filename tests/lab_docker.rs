//! Docker's networks of the driver `porin`: the real dockerd, the real daemon.

mod lab;

use std::path::Path;

use lab::shop::{API, Shop, at};
use lab::traffic::{self, ARRIVES, DROPPED};
use lab::{Docker, Host, Place, eventually, runtime};
use serde_json::Value;

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
        let docker = Docker::start(host, &[]);
        let create = [&NETWORK[..], &["--ipv6", "--subnet", "fd00:10:0:0:8000:1::/96", "web"]];
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
    });
}
