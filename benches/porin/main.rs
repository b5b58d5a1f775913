//! `make bench`: every figure against a baseline of the same run.
//!
//! Needs root, iproute2, nftables and, for `attach.`, the reference plugins of CNI. Writes target/bench/results.json and BENCHMARKS.md.

mod attach;
mod commit;
#[path = "../../tests/packet/frame.rs"]
#[allow(dead_code)]
mod frame;
mod generator;
mod http;
#[path = "../../tests/lab/mod.rs"]
mod lab;
mod lanes;
#[path = "../../tests/packet/measure.rs"]
#[allow(dead_code)]
mod measure;
mod packet;
mod policies;
mod report;
mod stats;
mod targets;
mod tcp;
#[path = "../../tests/packet/world.rs"]
#[allow(dead_code)]
mod world;

use report::Figure;

/// What measures figures whose names begin in one of these ways.
struct Suite {
    names: &'static [&'static str],
    run: fn(usize) -> Vec<Figure>,
}

const SUITES: &[Suite] = &[
    Suite { names: &["packet."], run: packet::run },
    Suite { names: &["baseline."], run: tcp::run_baselines },
    Suite { names: &["tcp.", "cpu."], run: tcp::run },
    Suite {
        names: &["commit.p50", "commit.p99", "commit.total", "commit.vs", "daemon.", "start."],
        run: commit::run,
    },
    Suite { names: &["commit.flips."], run: commit::run_flips },
    Suite { names: &["attach."], run: attach::run },
    Suite { names: &["scale."], run: tcp::run_scale },
    Suite { names: &["http."], run: http::run },
    Suite {
        names: &[
            "policies.compile.",
            "policies.edit.",
            "policies.load.",
            "policies.look.",
            "policies.reload.",
            "identities.compile.",
            "identities.edit.",
        ],
        run: policies::compile::run,
    },
    Suite {
        names: &["policies.memory.", "identities.memory.", "cidrs.100k.memory."],
        run: policies::memory::run,
    },
    Suite { names: &["policies.commit."], run: policies::commit::run },
    Suite { names: &["cidrs.100k.commit.", "cidrs.100k.grow."], run: policies::commit::run_group },
    Suite { names: &["why."], run: policies::why::run },
];

fn main() {
    let (only, rounds) = arguments();
    for suite in SUITES {
        let touches = |name: &&str| name.starts_with(&only) || only.starts_with(*name);
        if !suite.names.iter().any(touches) {
            continue;
        }
        let mut figures = (suite.run)(rounds);
        figures.retain(|figure| figure.name.starts_with(&only));
        for figure in &figures {
            let Figure { name, value, unit, spread, samples, .. } = figure;
            let (value, spread) = (report::round(*value), report::round(*spread));
            println!("{name:32} {value:>9} {unit:8} spread {spread:>8}  {samples} samples");
        }
        if let Err(error) = report::write(figures) {
            eprintln!("writing the results: {error}");
            std::process::exit(1);
        }
    }
}

/// `--only PREFIX` and `--rounds N`; cargo's own `--bench` is let pass.
fn arguments() -> (String, usize) {
    let (mut only, mut rounds) = (String::new(), 40);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--only" => only = words.next().unwrap_or_default(),
            "--rounds" => rounds = words.next().and_then(|n| n.parse().ok()).unwrap_or(rounds),
            "--bench" => {}
            other => {
                eprintln!("unknown argument {other}");
                std::process::exit(2);
            }
        }
    }
    (only, rounds)
}
