//! What it takes to attach a container by CNI and to let it go, end to end: porin-cni and the reference plugins
//! `bridge` with `host-local`, each as a runtime would run it, in turn.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::lab::cni::Network;
use crate::lab::{Container, Host, World, config};
use crate::report::Figure;
use crate::stats::Series;

/// Containers that are there already.
const EXISTING: [usize; 2] = [1, 500];
/// At a time, while those are made.
const TOGETHER: usize = 4;
/// Debian's.
const PLUGINS: &str = "/usr/lib/cni";

pub fn run(rounds: usize) -> Vec<Figure> {
    EXISTING.into_iter().flat_map(|existing| with_existing(existing, rounds)).collect()
}

fn with_existing(existing: usize, rounds: usize) -> Vec<Figure> {
    World::run(|world| {
        let (ours, theirs) = (Side::porin(world.host("porin")), Side::bridge(world.host("bridge")));
        let _daemon = ours.host.porind();
        let (mut add, mut del) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        let _others = [&ours, &theirs].map(|side| side.fill(existing));
        for round in 0..rounds {
            let mut order = [(0, &ours), (1, &theirs)];
            order.rotate_left(round % 2);
            for (at, side) in order {
                let container = side.container(&format!("m{round}"));
                add[at].push(side.time("ADD", &container));
                del[at].push(side.time("DEL", &container));
            }
        }
        theirs.host.expect_links();
        figures(existing, add, del)
    })
}

fn figures(existing: usize, add: [Vec<f64>; 2], del: [Vec<f64>; 2]) -> Vec<Figure> {
    let suffix = if existing == 1 { String::new() } else { format!("-{existing}") };
    let both =
        |at: usize| -> Vec<f64> { add[at].iter().zip(&del[at]).map(|(a, d)| a + d).collect() };
    let (ours, theirs) = (both(0), both(1));
    let each = |what: &str, [ours, theirs]: [Vec<f64>; 2]| {
        let baseline = Series::new(theirs).median();
        let name = format!("attach.{what}{suffix}.ms");
        Figure::median(&name, &Series::new(ours), "ms").baseline(baseline)
    };
    // Their time over ours.
    let ratio = Figure::ratio(&format!("attach.vs-bridge{suffix}"), &theirs, &ours);
    let baseline = Series::new(theirs).median();
    vec![ratio.baseline(baseline), each("add", add), each("del", del)]
}

struct Side {
    host: Host,
    network: Network,
}

impl Side {
    fn porin(host: Host) -> Side {
        host.write("porin.toml", &config::host(&[]));
        let policy = "[[policy]]\nname = \"bench\"\nsubject = \"app=bench\"\n\n[[policy.ingress]]\nfrom = [\"app=bench\"]\n";
        host.write("policies.d/bench.toml", policy);
        let network = Network::new("1.0.0").labels(json!({ "app": "bench" }));
        Side { host, network }
    }

    /// Both families, routes to everywhere, as porin gives them; no masquerading, which would take iptables.
    fn bridge(host: Host) -> Side {
        let network = Network::new("1.0.0")
            .by(&format!("{PLUGINS}/bridge"))
            .with("type", json!("bridge"))
            .with("bridge", json!("cni0"))
            .with("isGateway", json!(true))
            .with(
                "ipam",
                json!({
                    "type": "host-local",
                    "dataDir": "/run/cni-addresses",
                    "ranges": [[{ "subnet": config::POOL4 }], [{ "subnet": config::POOL6 }]],
                    "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
                }),
            );
        Side { host, network }
    }

    /// Nobody waits for duplicate addresses to be looked for.
    fn container(&self, name: &str) -> Container {
        let container = self.host.container(name);
        container.place().sysctl("net/ipv6/conf/default/accept_dad", "0");
        container
    }

    fn fill(&self, count: usize) -> Vec<Container> {
        let containers: Vec<_> = (0..count).map(|n| self.container(&format!("c{n}"))).collect();
        for some in containers.chunks(TOGETHER) {
            let commands: Vec<_> = some.iter().map(|one| self.command("ADD", one)).collect();
            let run = |mut command: Command| std::thread::spawn(move || check(&mut command));
            let running: Vec<_> = commands.into_iter().map(run).collect();
            running.into_iter().for_each(|thread| _ = thread.join().expect("a runtime"));
        }
        containers
    }

    fn command(&self, operation: &str, container: &Container) -> Command {
        let path = container.path().to_string_lossy();
        let mut command = self.network.command(&self.host, operation, container.name(), &path);
        let file = self.host.run_directory().join("network.json");
        std::fs::write(&file, self.network.config.to_string()).expect("configuration");
        command.stdin(std::fs::File::open(file).expect("configuration"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Milliseconds from before `fork` until it has ended.
    fn time(&self, operation: &str, container: &Container) -> f64 {
        let mut command = self.command(operation, container);
        check(&mut command).as_secs_f64() * 1e3
    }
}

fn check(command: &mut Command) -> Duration {
    let begun = Instant::now();
    let output = command.output().expect("a plugin");
    let took = begun.elapsed();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?}: {said}");
    took
}
