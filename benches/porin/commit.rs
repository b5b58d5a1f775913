//! From an edit to its effect, with a thousand endpoints and a thousand policies; and what the
//! daemon takes for them to start and to be there.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::lab::generation::GenerationWatch;
use crate::lab::{Container, Daemon, Host, World, config, daemon, flips, traffic};
use crate::report::Figure;
use crate::stats::Series;

const COUNT: u16 = 1000;
const PROBE: u16 = 7;
/// What porin waits for further edits by default.
const QUIET_MS: f64 = 50.0;
const STARTS: usize = 3;

pub fn run(rounds: usize) -> Vec<Figure> {
    World::run(|world| {
        let (host, containers) = thousand(world);
        let nft = world.host("nft");
        let mut daemon = host.porind();
        let mut figures = Vec::new();
        let (totals, nft_ms) = edits(&host, &nft, &containers, rounds * 5);
        figures.push(rss(&daemon));

        let without: Vec<f64> = totals.iter().map(|ms| ms - QUIET_MS).collect();
        let nft_median = Series::new(nft_ms.clone()).median();
        for (name, samples) in [("commit.total", &totals), ("commit", &without)] {
            let series = Series::new(samples.clone());
            let figure = |which: &str, value| {
                let name = format!("{name}.{which}.ms");
                Figure::new(&name, value, "ms", series.len(), series.spread()).baseline(nft_median)
            };
            figures.push(figure("p99", series.quantile(0.99)));
            figures.push(figure("p50", series.median()));
        }
        figures.push(Figure::ratio("commit.vs-nft", &nft_ms, &without).baseline(nft_median));
        figures.extend(starts(&host, &mut daemon));
        figures
    })
}

pub fn run_flips(_rounds: usize) -> Vec<Figure> {
    let seen = World::run(|world| flips::run(world, 10_000));
    let count = |name: &str, value: u64, of: u64| {
        Figure::new(name, value as f64, "packets", of as usize, 0.0)
    };
    let per_second = seen.commits as f64 / seen.elapsed.as_secs_f64();
    vec![
        count("commit.flips.mixed", seen.mixed, seen.marked),
        count("commit.flips.lost", seen.lost, seen.requests),
        Figure::new("commit.flips.rate", per_second, "1/s", seen.commits as usize, 0.0),
    ]
}

/// A host with `COUNT` containers, each with labels of its own, and a policy about each.
pub fn thousand(world: &World) -> (Host, Vec<Container>) {
    let host = world.host("thousand");
    host.write("porin.toml", &config::host(&[]));
    let names: Vec<String> = (0..COUNT).map(|n| format!("c{n}")).collect();
    let containers = host.containers(&names);
    for (n, name) in (0..).zip(&names) {
        let labels = format!("app = \"a{n}\", env = \"bench\"");
        host.write(&format!("endpoints.d/{name}.toml"), &config::endpoint(name, &labels, n + 1));
        host.write(&format!("policies.d/{name}.toml"), &policy(n, false));
    }
    (host, containers)
}

fn policy(n: u16, probed: bool) -> String {
    let peer = (n + 1) % COUNT;
    let probe = if probed { format!(", \"{PROBE}/udp\"") } else { String::new() };
    format!(
        "[[policy]]\nname = \"p{n}\"\nsubject = \"app=a{n}\"\n\n[[policy.ingress]]\nfrom = [\"app=a{peer}\"]\n\
         ports = [\"80/tcp\"{probe}]\n"
    )
}

/// Milliseconds from writing one policy's file until it is in force, and of `nft -f`, in turn.
fn edits(host: &Host, nft: &Host, containers: &[Container], count: usize) -> (Vec<f64>, Vec<f64>) {
    let _server = traffic::Server::echo(containers[0].place(), PROBE);
    let to = std::net::SocketAddr::new(config::ipv6(1).parse().expect("address"), PROBE);
    let probe = traffic::udp_socket(containers[1].place(), to);
    let watch = GenerationWatch::open(host);
    let (mut porin_ms, mut nft_ms) = (Vec::new(), Vec::new());
    for n in 0..count {
        let allow = n % 2 == 0;
        let (before, begin) = (watch.now(), Instant::now());
        host.write("policies.d/c0.toml", &policy(0, allow));
        watch.after(before, daemon::EFFECT);
        porin_ms.push(milliseconds(begin.elapsed()));
        // The very next packet must be judged by it.
        let patience = if allow { traffic::ARRIVES } else { Duration::from_millis(20) };
        let passed = traffic::udp_once(&probe, 16, patience).is_ok();
        assert_eq!(passed, allow, "edit {n} is committed, but not in force");

        nft.write("bench.nft", &ruleset(allow));
        let begin = Instant::now();
        nft.run(&["nft", "-f", "/etc/porin/bench.nft"]).success();
        nft_ms.push(milliseconds(begin.elapsed()));
    }
    (porin_ms, nft_ms)
}

/// The thousand policies as one table, replaced in one transaction.
fn ruleset(probed: bool) -> String {
    let mut rules = String::new();
    for n in 0..COUNT {
        let (to, from) = (config::ipv6(n + 1), config::ipv6((n + 1) % COUNT + 1));
        let _ = writeln!(rules, "    ip6 saddr {from} ip6 daddr {to} tcp dport 80 accept");
        if n == 0 && probed {
            let _ = writeln!(rules, "    ip6 saddr {from} ip6 daddr {to} udp dport {PROBE} accept");
        }
    }
    format!(
        "table inet bench\ndelete table inet bench\ntable inet bench {{\n  chain forward {{\n    \
         type filter hook forward priority 0; policy drop;\n    ct state established,related accept\n{rules}  }}\n}}\n"
    )
}

fn rss(daemon: &Daemon) -> Figure {
    Figure::new("daemon.rss.mib", daemon.rss_kib() as f64 / 1024.0, "MiB", 1, 0.0)
}

/// From exec to ready: over what a killed daemon left, and from nothing.
fn starts(host: &Host, daemon: &mut Daemon) -> [Figure; 2] {
    let (mut warm, mut cold) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        daemon.kill();
        daemon.start_again();
        warm.push(milliseconds(daemon.ready_after));
        daemon.kill();
        host.porind_once(&["--teardown"]).success();
        daemon.start_again();
        cold.push(milliseconds(daemon.ready_after));
    }
    let figure = |name: &str, samples| Figure::median(name, &Series::new(samples), "ms");
    [figure("start.warm.ms", warm), figure("start.cold.ms", cold)]
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
