//! TCP between two containers: porin against a bare veth pair and against bridge and nftables.

use std::time::Duration;

use crate::generator::{Lane, Pinned};
use crate::lab::World;
use crate::lanes::{self, Form};
use crate::report::Figure;
use crate::stats::Series;

const SAMPLE: Duration = Duration::from_millis(100);

pub fn run(rounds: usize) -> Vec<Figure> {
    World::run(|world| {
        let one = lanes::porin(world, "porin", 0);
        let thousand = lanes::porin(world, "porin-1000", lanes::RULES);
        let mut lanes = [
            lanes::bare(world),
            one.lane,
            lanes::bridge(world, Form::List),
            lanes::bridge(world, Form::Set),
            thousand.lane,
        ];
        let taken = take(&mut lanes, rounds);
        let [bare, porin, list, set, porin_1000] = &taken[..] else { unreachable!() };
        let p99: Vec<f64> = porin.p99_us.iter().map(|us| 1.0 / us).collect();
        let bare_p99: Vec<f64> = bare.p99_us.iter().map(|us| 1.0 / us).collect();
        let p99 = Figure::ratio("tcp.rr.p99.ratio", &p99, &bare_p99);
        let bare_p99 = Series::new(bare.p99_us.clone()).median();
        vec![
            Figure::ratio("tcp.stream.ratio", &porin.gbits, &bare.gbits),
            Figure::ratio("tcp.rr.ratio", &porin.trips, &bare.trips),
            Figure::ratio("tcp.crr.ratio", &porin.connections, &bare.connections),
            p99.baseline(bare_p99),
            Figure::ratio("cpu.per-request.ratio", &bare.cpu_us, &porin.cpu_us)
                .baseline(Series::new(bare.cpu_us.clone()).median()),
            Figure::ratio("tcp.stream.vs-nft-1000", &porin_1000.gbits, &list.gbits),
            Figure::ratio("tcp.rr.vs-nft-1000", &porin_1000.trips, &list.trips),
            Figure::ratio("tcp.crr.vs-nft-1000", &porin_1000.connections, &list.connections),
            Figure::ratio("tcp.rr.vs-nft-1000-set", &porin_1000.trips, &set.trips),
            Figure::ratio("tcp.crr.vs-nft-1000-set", &porin_1000.connections, &set.connections),
        ]
    })
}

/// Bridge and nftables against the bare veth: the state of the art, with no porin in it.
pub fn run_baselines(rounds: usize) -> Vec<Figure> {
    World::run(|world| {
        let mut lanes =
            [lanes::bare(world), lanes::bridge(world, Form::List), lanes::bridge(world, Form::Set)];
        let taken = take(&mut lanes, rounds);
        let bare = &taken[0];
        let mut figures = Vec::new();
        for (lane, taken) in lanes.iter().zip(&taken).skip(1) {
            let name = |what: &str| format!("baseline.{}.{what}.ratio", lane.name);
            figures.extend([
                Figure::ratio(&name("stream"), &taken.gbits, &bare.gbits),
                Figure::ratio(&name("rr"), &taken.trips, &bare.trips),
                Figure::ratio(&name("crr"), &taken.connections, &bare.connections),
                Figure::ratio(&name("cpu"), &bare.cpu_us, &taken.cpu_us)
                    .baseline(Series::new(bare.cpu_us.clone()).median()),
            ]);
        }
        figures
    })
}

/// 100,000 entries in the policy of the server, against one.
pub fn run_scale(rounds: usize) -> Vec<Figure> {
    World::run(|world| {
        let one = lanes::porin(world, "porin", 0);
        let many = lanes::porin(world, "porin-100k", 100_000);
        let taken = take(&mut [one.lane, many.lane], rounds);
        vec![
            Figure::ratio("scale.entries-100k.ratio", &taken[1].trips, &taken[0].trips),
            Figure::ratio("scale.entries-100k.crr", &taken[1].connections, &taken[0].connections),
        ]
    })
}

/// The samples of one lane; those of one round have the same index in every lane.
#[derive(Default)]
struct Taken {
    gbits: Vec<f64>,
    trips: Vec<f64>,
    p99_us: Vec<f64>,
    cpu_us: Vec<f64>,
    connections: Vec<f64>,
}

/// Every lane once per round, beginning with another one each time.
fn take(lanes: &mut [Lane], rounds: usize) -> Vec<Taken> {
    let mut taken: Vec<Taken> = lanes.iter().map(|_| Taken::default()).collect();
    let count = lanes.len();
    let turns = |round: usize| (0..count).map(move |n| (n + round) % count);
    // The first round warms up and does not count.
    for round in 0..=rounds {
        for n in turns(round) {
            lanes[n].pin(Pinned::Together(round));
            let trips = lanes[n].round_trips(SAMPLE);
            if round > 0 {
                taken[n].trips.push(trips.per_second);
                taken[n].p99_us.push(trips.p99_us);
                taken[n].cpu_us.push(trips.cpu_us);
            }
        }
        for n in turns(round) {
            lanes[n].pin(Pinned::Together(round));
            let connections = lanes[n].connections(SAMPLE);
            if round > 0 {
                taken[n].connections.push(connections);
            }
        }
        for n in turns(round) {
            lanes[n].pin(Pinned::Apart(round));
            let gbits = lanes[n].stream(SAMPLE);
            if round > 0 {
                taken[n].gbits.push(gbits);
            }
        }
    }
    taken
}
