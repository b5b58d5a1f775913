//! Containers by CNI, many at once, and daemons and containers that die in between.

mod lab;

use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lab::cni::{Network, Said, address};
use lab::shop::{API, Shop, at};
use lab::traffic::{self, ARRIVES, DROPPED};
use lab::{Container, Host, World};
use serde_json::{Value, json};

fn front() -> Network {
    Network::new("1.1.0").labels(json!({ "app": "front", "env": "prod" }))
}

/// Runs them at the same time; what each said, and how long it took.
fn all(host: &Host, network: &Network, commands: Vec<Command>) -> Vec<(Said, Duration)> {
    let input = network.config.to_string();
    let name = host.name().to_owned();
    let run = |mut command: Command| {
        let (input, name) = (input.clone(), name.clone());
        std::thread::spawn(move || {
            let begun = Instant::now();
            let deadline = Duration::from_secs(90);
            let output = lab::Output::of(&name, &mut command, Some(&input), deadline);
            (Said { output }, begun.elapsed())
        })
    };
    let running: Vec<JoinHandle<_>> = commands.into_iter().map(run).collect();
    running.into_iter().map(|thread| thread.join().expect("a runtime")).collect()
}

fn commands(host: &Host, operation: &str, containers: &[Container]) -> Vec<Command> {
    let path = |container: &Container| container.path().to_string_lossy().into_owned();
    let command = |c: &Container| front().command(host, operation, c.name(), &path(c));
    containers.iter().map(command).collect()
}

fn report(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |share: usize| took[(took.len() - 1) * share / 100].as_secs_f64() * 1e3;
    println!("{what}: {} of them, p50 {:.0} ms, p99 {:.0} ms", took.len(), at(50), at(99));
}

#[test]
fn a_hundred_at_once_are_each_right() {
    World::run(|world| {
        let shop = Shop::open(world);
        let daemon = shop.host.porind();
        let names: Vec<String> = (0..100).map(|n| format!("c{n}")).collect();
        let containers = shop.host.containers(&names);
        let before = daemon.generation();
        let added = all(&shop.host, &front(), commands(&shop.host, "ADD", &containers));
        let commits = daemon.generation() - before;
        report("ADD", added.iter().map(|(_, took)| *took).collect());
        println!("in {commits} commits");
        assert!(commits < 90, "they share commits: {commits}");
        let mut seen = std::collections::BTreeSet::new();
        for ((said, _), container) in added.into_iter().zip(&containers) {
            let result = said.result();
            let (v6, v4) = (address(&result, true).unwrap(), address(&result, false).unwrap());
            assert_eq!(container.addresses(), (as_v6(v6), as_v4(v4)));
            assert!(seen.insert(v6) && seen.insert(v4), "{v6} or {v4} is somebody else's");
        }
        assert_eq!(daemon.status()["endpoints"]["attached"], 104);
        for container in containers.iter().step_by(10) {
            assert!(traffic::tcp(container.place(), at(API, 8080)[0], ARRIVES));
            assert!(!traffic::tcp(container.place(), at(API, 9090)[0], DROPPED));
        }
        let gone = all(&shop.host, &front(), commands(&shop.host, "DEL", &containers));
        report("DEL", gone.iter().map(|(_, took)| *took).collect());
        gone.into_iter().for_each(|(said, _)| said.nothing());
        assert_eq!(daemon.status()["endpoints"]["attached"], 4);
    });
}

fn as_v6(address: std::net::IpAddr) -> Option<std::net::Ipv6Addr> {
    address.to_string().parse().ok()
}

fn as_v4(address: std::net::IpAddr) -> Option<std::net::Ipv4Addr> {
    address.to_string().parse().ok()
}

#[test]
fn a_daemon_that_is_killed_while_containers_are_added_makes_them_wait_and_no_more() {
    World::run(|world| {
        let shop = Shop::open(world);
        let mut daemon = shop.host.porind();
        for moment in 0..8 {
            let names: Vec<String> = (0..3).map(|n| format!("c{moment}-{n}")).collect();
            let containers = shop.host.containers(&names);
            let commands = commands(&shop.host, "ADD", &containers);
            let (host, network) = (shop.host.name().to_owned(), front());
            let running: Vec<JoinHandle<Said>> = commands
                .into_iter()
                .map(|mut command| {
                    let (host, input) = (host.clone(), network.config.to_string());
                    std::thread::spawn(move || {
                        let deadline = Duration::from_secs(90);
                        let output = lab::Output::of(&host, &mut command, Some(&input), deadline);
                        Said { output }
                    })
                })
                .collect();
            // From before the request to after the answer.
            std::thread::park_timeout(Duration::from_millis(8 * moment));
            daemon.kill();
            daemon.start_again();
            for (running, container) in running.into_iter().zip(&containers) {
                let result = running.join().expect("a runtime").result();
                assert_eq!(
                    container.addresses(),
                    (
                        as_v6(address(&result, true).unwrap()),
                        as_v4(address(&result, false).unwrap())
                    )
                );
                assert!(traffic::tcp(container.place(), at(API, 8080)[0], ARRIVES));
            }
            let attached = 4 + 3 * (moment + 1);
            daemon.wait_for("all", |status| status["endpoints"]["attached"] == attached);
        }
    });
}

#[test]
fn a_container_or_its_plugin_that_is_killed_while_it_is_added_leaves_nothing_after_del() {
    World::run(|world| {
        let shop = Shop::open(world);
        let daemon = shop.host.porind();
        for moment in 0..8 {
            let name = format!("c{moment}");
            let container = shop.host.container(&name);
            let mut command =
                commands(&shop.host, "ADD", std::slice::from_ref(&container)).remove(0);
            let config = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(config.path(), front().config.to_string()).unwrap();
            command.stdin(std::fs::File::open(config.path()).unwrap());
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            let mut adding = shop.host.place().spawn(command);
            std::thread::park_timeout(Duration::from_millis(5 * moment));
            if moment % 2 == 0 {
                adding.kill();
            }
            shop.host.forget_container(&name);
            drop(container);
            let _ = adding.wait(Duration::from_secs(60));
            front().del(&shop.host, &name).nothing();
        }
        daemon.wait_for("as before", |status| {
            status["endpoints"]["attached"] == 4 && status["endpoints"]["closed"] == 0
        });
        let files = shop.host.run_directory().join("porin/endpoints.d");
        assert_eq!(std::fs::read_dir(files).map_or(0, Iterator::count), 0);
        let status: Value = daemon.status();
        assert_eq!(status["in_force"], true, "{status}");
    });
}
