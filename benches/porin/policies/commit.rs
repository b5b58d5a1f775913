//! From an edit of one file to the new generation, by a daemon with ten containers and ever more policies.

use std::time::Instant;

use super::shape::{self, Shape};
use super::{POLICIES, milliseconds};
use crate::lab::generation::GenerationWatch;
use crate::lab::{Container, Daemon, Host, World, daemon};
use crate::report::Figure;
use crate::stats::Series;

const ENDPOINTS: usize = 10;
/// What porin waits for further edits by default.
const QUIET_MS: f64 = 50.0;

pub fn run(rounds: usize) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut commits = Vec::new();
    for policies in POLICIES {
        let shape = Shape { policies, identities: ENDPOINTS };
        let taken = World::run(|world| {
            let lab = Lab::new(world, &shape.files());
            lab.edits(rounds, |n| (shape::policy_file(0), shape.policy(0, n + 1)))
        });
        let name = format!("policies.commit.{policies}.ms");
        figures.push(Figure::median(&name, &Series::new(taken.clone()), "ms"));
        commits.push(taken);
    }
    figures.push(super::growth("policies.commit.ratio", &commits));
    figures
}

/// A group of very many networks, which a thousand policies share.
pub fn run_group(rounds: usize) -> Vec<Figure> {
    let mut files = Shape { policies: 10, identities: ENDPOINTS }.files();
    let policy = |n, edit| (shape::of_group_file(n), shape::of_group(n, edit));
    files.extend((0..shape::SHARED_BY).map(|n| policy(n, 0)));
    files.push((shape::GROUP_FILE.to_owned(), shape::group(shape::NETWORKS)));
    World::run(|world| {
        let lab = Lab::new(world, &files);
        let edits = lab.edits(rounds, |n| policy(0, n + 1));
        let grow = lab.edits(rounds.div_ceil(2), |n| {
            let more = shape::NETWORKS + 1 - n as u32 % 2;
            (shape::GROUP_FILE.to_owned(), shape::group(more))
        });
        let figure = |name, samples| {
            Figure::median(&format!("cidrs.100k.{name}.ms"), &Series::new(samples), "ms")
        };
        vec![figure("commit", edits), figure("grow", grow)]
    })
}

struct Lab {
    host: Host,
    _containers: Vec<Container>,
    _daemon: Daemon,
}

impl Lab {
    fn new(world: &World, files: &[(String, String)]) -> Lab {
        let host = world.host("many");
        let names: Vec<String> = (0..ENDPOINTS).map(shape::endpoint_name).collect();
        let containers = host.containers(&names);
        files.iter().for_each(|(file, text)| host.write(file, text));
        let daemon = host.porind();
        Lab { host, _containers: containers, _daemon: daemon }
    }

    /// Milliseconds from writing a file until it is in force, without the quiet time.
    fn edits(&self, count: usize, edit: impl Fn(usize) -> (String, String)) -> Vec<f64> {
        let watch = GenerationWatch::open(&self.host);
        let one = |n| {
            let (file, text) = edit(n);
            // Settling and looking again are over.
            std::thread::sleep(std::time::Duration::from_millis(700));
            let (before, begin) = (watch.now(), Instant::now());
            self.host.write(&file, &text);
            watch.after(before, daemon::EFFECT);
            milliseconds(begin.elapsed()) - QUIET_MS
        };
        // The first does not count: what is made once and kept is made in it.
        (0..=count).map(one).skip(1).collect()
    }
}
