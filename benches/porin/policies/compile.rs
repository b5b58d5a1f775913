//! What the daemon does between reading files and writing to the kernel, and the reading itself.

use std::sync::Arc;
use std::time::Instant;

use porin::compile::plan::Plan;
use porin::compile::{Memory, compile};
use porin::config::model::Config;
use porin::config::{Changed, Loaded, Loader};
use porin::desired::snapshot::{Namespace, Namespaces};
use porin::desired::{Change, Desired};
use porin::observe::names::Names;
use porin::types::Generation;

use super::files::Files;
use super::shape::{self, Shape};
use super::{IDENTITIES, POLICIES, milliseconds};
use crate::report::Figure;
use crate::stats::Series;

/// Policies of a host whose identities are many.
const POLICIES_OF_MANY: usize = 1000;
const IDENTITIES_OF_MANY: usize = 100;

pub fn run(rounds: usize) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut edits = Vec::new();
    let mut reloads = Vec::new();
    for policies in POLICIES {
        let taken = measure(Shape { policies, identities: IDENTITIES_OF_MANY }, rounds);
        let figure = |what: &str, samples: &[f64]| {
            let name = format!("policies.{what}.{policies}.ms");
            Figure::median(&name, &Series::new(samples.to_vec()), "ms")
        };
        figures.push(figure("load", &taken.load));
        figures.push(figure("reload", &taken.reload));
        figures.push(figure("look", &taken.look));
        figures.push(figure("compile", &taken.compile));
        figures.push(figure("edit", &taken.edit));
        edits.push(taken.edit);
        reloads.push(taken.reload);
    }
    figures.push(super::growth("policies.edit.ratio", &edits));
    figures.push(super::growth("policies.reload.ratio", &reloads));
    let mut edits = Vec::new();
    for identities in IDENTITIES {
        let taken = measure(Shape { policies: POLICIES_OF_MANY, identities }, rounds);
        let figure = |what: &str, samples: &[f64]| {
            let name = format!("identities.{what}.{identities}.ms");
            Figure::median(&name, &Series::new(samples.to_vec()), "ms")
        };
        figures.push(figure("compile", &taken.compile));
        figures.push(figure("edit", &taken.edit));
        edits.push(taken.edit);
    }
    figures.push(super::growth("identities.edit.ratio", &edits));
    figures
}

/// Milliseconds.
#[derive(Default)]
struct Taken {
    load: Vec<f64>,
    reload: Vec<f64>,
    look: Vec<f64>,
    compile: Vec<f64>,
    edit: Vec<f64>,
}

fn measure(shape: Shape, rounds: usize) -> Taken {
    let mut taken = Taken::default();
    let files = Files::new(&shape.files());
    let mut loaders = Vec::new();
    for _ in 0..few(rounds) {
        let mut loader = files.loader();
        taken.load.push(timed(|| _ = loaded(&mut loader)));
        loaders.push(loader);
    }
    let mut loader = loaders.pop().unwrap_or_else(|| files.loader());
    let mut configs = [loaded(&mut loader), Arc::default()];
    // The first round is not counted: what is made once and kept is made in it.
    for n in 0..=rounds {
        files.write(&shape::policy_file(0), &shape.policy(0, n % 2 + 1));
        let file = Changed::At([files.root().join(shape::policy_file(0))].into());
        let reload = timed(|| configs[(n + 1) % 2] = looked(&mut loader, &file));
        let look = timed(|| _ = loaded(&mut loader));
        if n > 0 {
            taken.reload.push(reload);
            taken.look.push(look);
        }
    }
    for _ in 0..few(rounds) {
        let mut state = State::of(&configs[0]);
        taken.compile.push(timed(|| _ = state.attempt(&configs[0])));
    }
    let mut state = State::of(&configs[0]);
    state.attempt(&configs[0]);
    for n in 0..=rounds {
        let config = &configs[(n + 1) % 2];
        let ms = timed(|| _ = state.attempt(config));
        if n > 0 {
            taken.edit.push(ms);
        }
    }
    taken
}

/// Of what takes long when there is much.
fn few(rounds: usize) -> usize {
    rounds.div_ceil(8)
}

fn timed(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    milliseconds(begin.elapsed())
}

/// Everything, warnings as well.
fn loaded(loader: &mut Loader) -> Arc<Config> {
    checked(loader.load())
}

/// What stands between an edit and its commit.
fn looked(loader: &mut Loader, changed: &Changed) -> Arc<Config> {
    checked(loader.look(changed))
}

fn checked(loaded: Loaded) -> Arc<Config> {
    loaded.config.unwrap_or_else(|| panic!("{:?}", loaded.report.shown()))
}

/// The plan of `shape`, as the daemon would make it first.
pub fn plan(files: &[(String, String)]) -> Plan {
    let config = loaded(&mut Files::new(files).loader());
    State::of(&config).attempt(&config)
}

/// What a daemon keeps from round to round, but for the kernel.
struct State {
    desired: Desired,
    memory: Memory,
    namespaces: Namespaces,
    /// Those of the generations before, which a daemon keeps as well.
    names: Vec<Names>,
}

impl State {
    /// Every endpoint's namespace is there.
    fn of(config: &Config) -> State {
        let namespaces = (1..).zip(&config.endpoints).map(|(inode, endpoint)| {
            let path = endpoint.namespace().expect("a namespace").to_owned();
            (endpoint.name.clone(), Ok(Namespace { path, device: 4, inode }))
        });
        let namespaces = namespaces.collect();
        let (desired, memory) = (Desired::default(), Memory::default());
        State { desired, memory, namespaces, names: Vec::new() }
    }

    /// As `daemon::reconcile` does.
    fn attempt(&mut self, config: &Arc<Config>) -> Plan {
        let (mut desired, mut memory) = (self.desired.clone(), self.memory.clone());
        desired.apply(Change::Config(config.clone()));
        desired.apply(Change::Namespaces(self.namespaces.clone()));
        let (snapshot, faults) = desired.snapshot().expect("a snapshot");
        assert!(faults.is_empty(), "{faults:?}");
        let plan = compile(&snapshot, &mut memory).expect("a plan");
        self.names.push(Names::new(Generation(1), &snapshot, &plan));
        let old = self.names.len().saturating_sub(4);
        self.names.drain(..old);
        desired.committed();
        memory.committed();
        (self.desired, self.memory) = (desired, memory);
        plan
    }
}
