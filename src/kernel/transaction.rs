//! The one interpreter: prepare, commit, settle.
//!
//! *Prepare* makes what is new and fills the inactive side; nothing of it is visible to a packet, and
//! a failure undoes all of it. *Commit* is one store. *Settle* waits until no packet is on the old side,
//! removes what no generation needs any more, and makes ready what the next one may need; a failure
//! there is reported and tried again. It is apart, since it waits and nothing waits for it: whoever
//! commits can tell of it first.
//! What an op does is the backend's business; this file knows only their order and their undo.

use std::time::{Duration, Instant};

use super::clean;
use super::diff;
use super::mirror::Mirror;
use super::ops::Op;
use crate::compile::plan::Plan;
use crate::types::{Generation, Slot};

/// What carries ops out: the kernel, or a fake of it in tests.
pub trait Backend {
    /// All or nothing: an op that fails has left no trace, but for tables that nobody refers to, and programs at
    /// sockets, which look at what is in force (see `Mirror::note_begun`).
    fn run(&mut self, op: &Op) -> Result<(), Reason>;

    /// Makes `generation` the one in force. Does nothing else, and cannot fail.
    fn commit(&mut self, generation: Generation);
}

/// Why an op failed, down to the system's own words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Reason(pub String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {operation}: {reason}")]
pub struct Fault {
    /// As `Op` is displayed.
    pub operation: String,
    pub reason: String,
    /// Whose interface it is about, if one endpoint's alone.
    pub endpoint: Option<Slot>,
}

#[derive(Debug, Clone)]
pub struct Applied {
    pub generation: Generation,
    /// Ops run.
    pub ops: usize,
    pub took: Duration,
}

#[derive(Debug, Clone, Default)]
pub struct Settled {
    /// Ops run.
    pub ops: usize,
    pub took: Duration,
    /// What could not be done. The next time tries again.
    pub leftovers: Vec<Fault>,
}

/// Nothing was committed; all that had been made is gone again, and the active side is untouched.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
pub struct Refused {
    pub error: Fault,
    /// If not empty, the transaction might pass without these endpoints.
    pub endpoint_faults: Vec<(Slot, Fault)>,
}

/// Brings the kernel to `plan` as the next generation.
pub fn apply<B: Backend>(
    backend: &mut B,
    mirror: &mut Mirror,
    plan: &Plan,
) -> Result<Applied, Refused> {
    let begin = Instant::now();
    let ops = diff::prepare(mirror, plan).map_err(|error| {
        Refused::of(Fault {
            operation: "prepare the next generation".to_owned(),
            reason: error.to_string(),
            endpoint: None,
        })
    })?;
    prepare(backend, mirror, &ops)?;
    let generation = mirror.generation.next();
    commit(backend, mirror, generation);
    Ok(Applied { generation, ops: ops.len(), took: begin.elapsed() })
}

/// What comes after a commit, or after a refusal. `plan`: what is in force, if this daemon put it there.
pub fn settle<B: Backend>(backend: &mut B, mirror: &mut Mirror, plan: Option<&Plan>) -> Settled {
    let begin = Instant::now();
    let ops = clean::clean(mirror, plan);
    let mut leftovers = Vec::new();
    for op in &ops {
        mirror.note_begun(op);
        match backend.run(op) {
            Ok(()) => mirror.note(op),
            Err(Reason(reason)) => {
                leftovers.push(Fault { operation: op.to_string(), reason, endpoint: None });
                // All the rest may only be removed once no packet is on the old side.
                if matches!(op, Op::Grace) {
                    break;
                }
            }
        }
    }
    Settled { ops: ops.len(), took: begin.elapsed(), leftovers }
}

/// The commit point. Do as little as possible here: one store.
fn commit<B: Backend>(backend: &mut B, mirror: &mut Mirror, generation: Generation) {
    backend.commit(generation);
    mirror.note_commit(generation);
}

/// Runs all of `ops`, or none. After a fault of one endpoint's interface the other interfaces are
/// tried nevertheless, so that all such faults are known at once.
fn prepare<B: Backend>(backend: &mut B, mirror: &mut Mirror, ops: &[Op]) -> Result<(), Refused> {
    let mut undos = Vec::new();
    let mut faults: Vec<Fault> = Vec::new();
    for op in ops {
        let endpoint = op.endpoint();
        if let Some(first) = faults.first() {
            let others = first.endpoint.is_some() && matches!(op, Op::CreateInterface(_));
            if !others {
                continue;
            }
        }
        let undo = op.undo(mirror);
        mirror.note_begun(op);
        match backend.run(op) {
            Ok(()) => {
                mirror.note(op);
                undos.push(undo);
            }
            Err(Reason(reason)) => {
                faults.push(Fault { operation: op.to_string(), reason, endpoint });
                if endpoint.is_none() {
                    break;
                }
            }
        }
    }
    let Some(first) = faults.first().cloned() else { return Ok(()) };
    roll_back(backend, mirror, undos);
    let endpoint_faults =
        faults.into_iter().filter_map(|fault| fault.endpoint.map(|slot| (slot, fault))).collect();
    Err(Refused { error: first, endpoint_faults })
}

/// An undo that fails leaves the mirror saying what is really there; the next transaction's diff
/// takes it from that.
fn roll_back<B: Backend>(backend: &mut B, mirror: &mut Mirror, undos: Vec<Vec<Op>>) {
    for undo in undos.into_iter().rev() {
        for op in undo {
            mirror.note_begun(&op);
            if let Err(reason) = backend.run(&op) {
                log::warn!("cannot {op}, to undo a refused transaction: {reason}");
                // What follows builds upon it: an interface goes up after its gate.
                break;
            }
            mirror.note(&op);
        }
    }
}

impl Refused {
    fn of(error: Fault) -> Self {
        Refused { error, endpoint_faults: Vec::new() }
    }
}
