//! Containers that Docker or Podman has put on bridge networks of its own: the real programs, and porind finds them by
//! itself. What runs is judged by label, in place; its network goes on as it was, before, while and after porin is there.

mod lab;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use lab::daemon::{Daemon, EFFECT};
use lab::docker::Docker;
use lab::traffic::{self, ARRIVES, DROPPED, Server, Stream};
use lab::{Host, Place, Process, config, eventually, runtime};
use serde_json::{Value, json};

const POLICIES: &str = r#"[[policy]]
name    = "db"
subject = "app=db"

[[policy.ingress]]
from  = ["app=web"]
ports = ["5432/tcp"]
"#;

fn settings(host: &Host, adopt: &[&str], socket: &str) {
    let docker = format!("\n[docker]\nsocket = \"{socket}\"\nadopt = {adopt:?}\n");
    host.write("porin.toml", &(config::host(&[]) + &docker));
}

/// The endpoint of this name, if it is attached.
fn endpoint(host: &Host, name: &str) -> Option<Value> {
    let answer = host.porinctl(&["endpoints", "--json"]).json();
    let found = answer["endpoints"].as_array()?.iter().find(|one| one["name"] == name)?.clone();
    (found["state"] == "attached").then_some(found)
}

#[track_caller]
fn attached(host: &Host, names: &[&str]) {
    eventually(EFFECT, &format!("{names:?} are attached, and no others"), || {
        let answer = host.porinctl(&["endpoints", "--json"]).json();
        let all = answer["endpoints"].as_array().cloned().unwrap_or_default();
        let is =
            |name: &&str| all.iter().any(|one| one["name"] == **name && one["state"] == "attached");
        all.len() == names.len() && names.iter().all(is)
    });
}

fn faults(daemon: &Daemon) -> String {
    daemon.status()["faults"].to_string()
}

/// A container's network namespace, and what it listens to.
fn inside(host: &Host, docker: &Docker, name: &str) -> Place {
    let pid = docker.inspect(name, "{{.State.Pid}}");
    host.place().inside(name, Path::new(&format!("/proc/{pid}/ns/net")))
}

fn at(docker: &Docker, name: &str, network: &str, port: u16) -> SocketAddr {
    let template = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
    SocketAddr::new(docker.inspect(name, &template).parse().unwrap(), port)
}

fn run(docker: &Docker, name: &str, network: &str, more: &[&str]) {
    let fixed = ["run", "-d", "--name", name, "--network", network];
    docker.run(&[&fixed[..], more, &["busybox", "sleep", "600"]].concat()).success();
}

#[test]
fn adopts_what_runs_and_follows_it() {
    if !runtime::has(&["dockerd", "busybox", "iptables"]) {
        return;
    }
    runtime::with_own_processes("adopts_what_runs_and_follows_it", |world| {
        let (host, outside) = (world.host("alpha"), world.host("outside"));
        host.link_to(&outside, "up0 192.0.2.1/24", "eth0 192.0.2.2/24");
        let mut docker = Docker::start(&host, &["--live-restore"]);
        docker.run(&["network", "create", "shop"]).success();
        run(&docker, "web", "bridge", &["--label", "app=web", "-p", "8080:80"]);
        run(&docker, "db", "bridge", &["--label", "app=db", "-p", "5432:5432"]);
        run(&docker, "other", "bridge", &["--label", "app=other"]);
        run(&docker, "joined", "container:web", &["--label", "app=joined"]);
        run(&docker, "alone", "none", &[]);
        run(&docker, "hosts", "host", &[]);
        let [web, db, other] = ["web", "db", "other"].map(|name| inside(&host, &docker, name));
        let _servers = [Server::echo(&db, 5432), Server::echo(&db, 9090), Server::echo(&web, 80)];
        let [allowed, denied] = [5432, 9090].map(|port| at(&docker, "db", "bridge", port));
        let published = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let stream = Stream::start(&web, allowed);
        let doomed = Stream::start(&other, allowed);

        settings(&host, &["bridge", "shop"], "/run/docker.sock");
        let mut daemon = host.porind();
        attached(&host, &["bridge/web", "bridge/db", "bridge/other"]);
        stream.must_go_on();
        doomed.must_go_on();
        assert!(traffic::tcp(&other, denied, ARRIVES), "without policies");
        assert!(traffic::tcp(outside.place(), published(5432), ARRIVES), "without policies");
        daemon.commit(|| host.write("policies.d/shop.toml", POLICIES));
        stream.must_go_on();
        assert!(doomed.stands_still(), "its next packet is denied");
        let judged = |web: &Place, other: &Place| {
            assert!(traffic::tcp(web, allowed, ARRIVES));
            assert!(!traffic::tcp(web, denied, DROPPED));
            assert!(!traffic::tcp(other, allowed, DROPPED));
        };
        judged(&web, &other);
        assert_eq!(faults(&daemon), "[]");
        assert!(traffic::tcp(outside.place(), published(8080), ARRIVES), "a published port");
        assert!(!traffic::tcp(outside.place(), published(5432), DROPPED), "one that is denied");

        // Killed and started again, also while Docker is away: what is adopted stays so.
        daemon.kill();
        stream.must_go_on();
        docker.stop();
        daemon.start_again();
        daemon.wait_for("it is told that Docker does not answer", |status| {
            status["faults"].to_string().contains("/run/docker.sock")
        });
        judged(&web, &other);
        stream.must_go_on();
        docker.start_again();
        daemon.wait_for("Docker answers", |status| status["faults"] == json!([]));
        judged(&web, &other);

        // One that comes, with the label; one that gets another name; one that is gone.
        run(&docker, "web2", "bridge", &["--label", "app=web"]);
        attached(&host, &["bridge/web", "bridge/web2", "bridge/db", "bridge/other"]);
        assert!(traffic::tcp(&inside(&host, &docker, "web2"), allowed, ARRIVES));
        docker.run(&["rename", "web", "front"]).success();
        attached(&host, &["bridge/front", "bridge/web2", "bridge/db", "bridge/other"]);
        stream.must_go_on();
        docker.run(&["rm", "-f", "web2"]).success();
        attached(&host, &["bridge/front", "bridge/db", "bridge/other"]);

        // In another network as well, and out of it.
        docker.run(&["network", "connect", "shop", "front"]).success();
        docker.run(&["network", "connect", "shop", "db"]).success();
        attached(&host, &["bridge/front", "shop/front", "bridge/db", "shop/db", "bridge/other"]);
        let there = [5432, 9090].map(|port| at(&docker, "db", "shop", port));
        assert!(traffic::tcp(&web, there[0], ARRIVES));
        assert!(!traffic::tcp(&web, there[1], DROPPED));
        docker.run(&["network", "disconnect", "shop", "front"]).success();
        docker.run(&["network", "disconnect", "shop", "db"]).success();
        attached(&host, &["bridge/front", "bridge/db", "bridge/other"]);
        stream.must_go_on();

        // Restarted, it is behind another interface.
        let before = endpoint(&host, "bridge/other").unwrap()["host_interface"].clone();
        docker.run(&["restart", "-t", "0", "other"]).success();
        eventually(EFFECT, "other is behind another interface", || {
            endpoint(&host, "bridge/other").is_some_and(|now| now["host_interface"] != before)
        });
        judged(&web, &inside(&host, &docker, "other"));

        // The list edited: let go, and taken again.
        settings(&host, &["shop"], "/run/docker.sock");
        attached(&host, &[]);
        assert!(traffic::tcp(&web, denied, ARRIVES));
        settings(&host, &["bridge"], "/run/docker.sock");
        attached(&host, &["bridge/front", "bridge/db", "bridge/other"]);
        judged(&web, &inside(&host, &docker, "other"));
        settings(&host, &["bridge", "brigde"], "/run/docker.sock");
        daemon.wait_for("a network that is not there is told of", |status| {
            status["faults"].to_string().contains("`brigde` cannot be adopted")
        });
        settings(&host, &[], "/run/docker.sock");
        attached(&host, &[]);
        settings(&host, &["bridge"], "/run/docker.sock");
        attached(&host, &["bridge/front", "bridge/db", "bridge/other"]);
        stream.must_go_on();

        // Gone while no daemon ran.
        daemon.stop();
        docker.run(&["rm", "-f", "other"]).success();
        daemon.start_again();
        attached(&host, &["bridge/front", "bridge/db"]);
        assert_eq!(faults(&daemon), "[]");

        // Taken away, porin leaves everything running.
        daemon.stop();
        host.porind_once(&["--teardown"]).success();
        stream.must_go_on();
        assert!(traffic::tcp(&web, denied, ARRIVES));
        stream.finish().unwrap();
        host.expect_links();
    });
}

/// Podman with bridge networks of the reference CNI plugins, and its API on a socket.
struct Podman<'h> {
    host: &'h Host,
}

impl<'h> Podman<'h> {
    fn set_up(host: &'h Host) -> Self {
        host.mount_control_groups();
        let config = "[containers]\npids_limit = 0\ncgroups = \"disabled\"\n\
             default_ulimits = [\"nofile=1024:4096\", \"nproc=4096:4096\"]\n\
             [engine]\nruntime = \"crun\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
             [network]\nnetwork_backend = \"cni\"\nnetwork_config_dir = \"/run/cni/net.d\"\n\
             cni_plugin_dirs = [\"/usr/lib/cni\"]\n";
        let run = host.run_directory();
        std::fs::create_dir_all(run.join("cni/net.d")).unwrap();
        std::fs::write(run.join("containers.conf"), config).unwrap();
        let policy = "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}";
        std::fs::write(run.join("policy.json"), policy).unwrap();
        let podman = Podman { host };
        podman.run(&["import", &host.busybox_image().to_string_lossy(), "busybox"]);
        podman
    }

    fn serve(&self) -> Process {
        let socket = self.host.run_directory().join("podman.sock");
        let _ = std::fs::remove_file(&socket);
        let service = ["system", "service", "--time", "0", "unix:///run/podman.sock"];
        let service = self.host.place().spawn(self.command(&service));
        eventually(ARRIVES, "the service listens", || socket.exists());
        service
    }

    fn run(&self, arguments: &[&str]) -> String {
        self.host.slowly(self.command(arguments)).success()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let fixed = ["podman", "--root", "/run/storage", "--runroot", "/run/storage-run"];
        let fixed = [&fixed[..], &["--storage-driver", "vfs"], arguments].concat();
        let mut command = self.host.place().command(&fixed);
        command.env("CONTAINERS_CONF", "/run/containers.conf");
        command
    }

    fn inspect(&self, name: &str, template: &str) -> String {
        self.run(&["inspect", "--format", template, name]).trim().to_owned()
    }
}

#[test]
fn adopts_what_podman_runs() {
    if !runtime::has(&["podman", "crun", "busybox", "iptables"]) {
        return;
    }
    runtime::with_own_processes("adopts_what_podman_runs", |world| {
        let host = world.host("alpha");
        let podman = Podman::set_up(&host);
        let run = |name: &str, label: &str| {
            let fixed = ["run", "-d", "--name", name, "--network", "podman", "--label", label];
            podman.run(&[&fixed[..], &["busybox", "sleep", "600"]].concat());
        };
        run("web", "app=web");
        run("db", "app=db");
        let inside = |name: &str| {
            let pid = podman.inspect(name, "{{.State.Pid}}");
            host.place().inside(name, Path::new(&format!("/proc/{pid}/ns/net")))
        };
        let address = podman.inspect("db", "{{.NetworkSettings.Networks.podman.IPAddress}}");
        let [allowed, denied] =
            [5432, 9090].map(|port| SocketAddr::new(address.parse().unwrap(), port));
        let (web, db) = (inside("web"), inside("db"));
        let _servers = [Server::echo(&db, 5432), Server::echo(&db, 9090)];
        let stream = Stream::start(&web, allowed);
        settings(&host, &["podman"], "/run/podman.sock");
        host.write("policies.d/shop.toml", POLICIES);
        let daemon = host.porind();
        daemon.wait_for("it is told that there is no socket", |status| {
            status["faults"].to_string().contains("/run/podman.sock")
        });
        let service = podman.serve();
        attached(&host, &["podman/web", "podman/db"]);
        daemon.wait_for("all is well", |status| status["faults"] == json!([]));
        stream.must_go_on();
        assert!(!traffic::tcp(&web, denied, DROPPED));

        // What comes, goes and is renamed, while the service listens, and while it does not.
        run("other", "app=other");
        attached(&host, &["podman/web", "podman/db", "podman/other"]);
        assert!(!traffic::tcp(&inside("other"), allowed, DROPPED));
        podman.run(&["rename", "other", "more"]);
        podman.run(&["network", "create", "shop"]);
        podman.run(&["network", "connect", "shop", "more"]);
        attached(&host, &["podman/web", "podman/db", "podman/more"]);
        settings(&host, &["podman", "shop"], "/run/podman.sock");
        attached(&host, &["podman/web", "podman/db", "podman/more", "shop/more"]);
        podman.run(&["network", "disconnect", "podman", "more"]);
        attached(&host, &["podman/web", "podman/db", "shop/more"]);
        drop(service);
        podman.run(&["rm", "-f", "-t", "0", "more"]);
        run("late", "app=web");
        let _service = podman.serve();
        attached(&host, &["podman/web", "podman/db", "podman/late"]);
        assert!(traffic::tcp(&inside("late"), allowed, ARRIVES));
        podman.run(&["restart", "-t", "0", "late"]);
        attached(&host, &["podman/web", "podman/db", "podman/late"]);
        stream.must_go_on();
        stream.finish().unwrap();
        host.expect_links();
    });
}
