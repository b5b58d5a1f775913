//! Plan to kernel, as a transaction of ops.
//!
//! Nothing else changes the kernel. What is to be so comes in as a `Plan`; this module knows nothing
//! of files, labels or policies.
//!
//! `ops` says what can be done, `mirror` what is so, `numbers` which tables there are, `diff` what is missing,
//! `clean` what is superfluous; `transaction` runs it, `backend` carries it out by `netlink`, `links`, `sockets` and
//! `datapath`. `flows` is for the L7 worker, which asks which rules a connection is under; `hits` forgets the counters of rules that are gone; `recover` reads what an earlier daemon left, `teardown` removes it all.

mod ahead;
mod backend;
mod clean;
mod clsact;
// The generated skeletons are not safe code; no other file in there has any.
#[allow(unsafe_code)]
pub mod datapath;
pub mod diff;
pub mod flows;
mod hits;
pub mod layout;
pub mod links;
pub mod mirror;
pub mod netlink;
pub mod numbers;
mod observe;
pub mod ops;
mod paths;
pub mod probe;
mod recover;
pub mod sockets;
pub mod sweep;
pub mod sys;
mod teardown;
pub mod transaction;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod transaction_tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backend::Host;
use datapath::{MapLimits, Maps};
use mirror::Mirror;
use netlink::Netlink;
use netlink::adopted::Adopted;
use paths::Layout;
use probe::{Attach, Support};
use sockets::{Cgroup, Sockets};

use crate::compile::plan::Plan;
use crate::types::{Generation, Slot};

pub use teardown::TeardownReport;
pub use transaction::{Applied, Fault, Refused, Settled};

/// Where porin keeps what outlives the daemon.
#[derive(Debug, Clone)]
pub struct Paths {
    /// A directory on bpffs, made if it is missing.
    pub bpffs: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Paths { bpffs: PathBuf::from(paths::BPFFS) }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Options {
    pub attach: Attach,
    /// For the host's own sockets.
    pub cgroup: Cgroup,
    /// Of maps that are made; those that exist keep theirs.
    pub limits: MapLimits,
}

/// What an earlier daemon left, which numbers must not mean anything else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    pub generation: Generation,
    /// Incarnations of endpoints, with their slots.
    pub slots: Vec<([u8; 16], Slot)>,
    /// Interfaces of uplinks, their indices, and their slots.
    pub uplinks: Vec<(String, u32, Slot)>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Unusable(#[from] probe::Unusable),
    #[error(transparent)]
    Datapath(#[from] datapath::Error),
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    #[error(transparent)]
    Links(#[from] links::Error),
    #[error(transparent)]
    Sockets(#[from] sockets::Error),
    /// Gates and maps of another ABI. They go on as they are: nothing reads or changes them any more.
    #[error(
        "{} is of another version of porin, and still in force: remove it with `porind --teardown`, then start again",
        .0.display()
    )]
    OtherVersion(PathBuf),
    #[error("{0}")]
    Other(String),
}

/// The kernel as porin holds it. There must be one at a time: the caller sees to that.
pub struct Kernel {
    host: Host,
    mirror: Mirror,
    support: Support,
    /// What this daemon committed last.
    in_force: Option<Plan>,
    /// Something remains to be done.
    unsettled: bool,
    counted: hits::Counted,
}

impl Kernel {
    /// Opens what an earlier daemon left, or makes it. Nothing that is in force changes.
    pub fn open(paths: &Paths, options: &Options) -> Result<(Kernel, Recovered), Error> {
        let support = Support::probe()?;
        probe::mount_bpffs(&paths.bpffs)?;
        let layout = Layout::new(&paths.bpffs);
        if let Some(other) = paths::others(&paths.bpffs).into_iter().next() {
            return Err(Error::OtherVersion(other));
        }
        let failed = |error: std::io::Error| {
            Error::Other(format!("cannot make directories in {}: {error}", paths.bpffs.display()))
        };
        layout.make().map_err(failed)?;
        let netlink = Netlink::open()?;
        let (maps, _) = Maps::open_or_create(&layout.maps(), &options.limits)?;
        let mechanisms = support.mechanisms(options.attach)?;
        let links = links::Links::new(layout.links());
        let gate_digest = recover::gate_digest(&maps)?;
        let gate_mark = layout.gate_mark(&gate_digest);
        let sockets = Sockets::open(&options.cgroup);
        let (mut mirror, interfaces) =
            recover::read(&netlink, &maps, &links, mechanisms, &layout, gate_mark)?;
        mirror.sockets = sockets::recover(sockets.is_ok(), &layout.sockets())?;
        let recovered = Recovered {
            generation: mirror.generation,
            slots: mirror.endpoints.iter().map(|(slot, row)| (row.incarnation, *slot)).collect(),
            uplinks: mirror
                .uplinks
                .iter()
                .map(|(ifindex, row)| (row.interface.clone(), *ifindex, row.slot))
                .collect(),
        };
        let adopted = match interfaces.is_empty() {
            true => Adopted::default(),
            false => Adopted::read(&netlink)?,
        };
        let endpoints =
            mirror.endpoints.iter().map(|(slot, row)| (*slot, row.incarnation.to_vec()));
        let uplinks =
            mirror.uplinks.values().map(|row| (row.slot, row.interface.as_bytes().to_vec()));
        let counted = endpoints.chain(uplinks).collect();
        let rows = mirror.endpoints.values().filter(|row| !row.interface.is_empty());
        let behind = |row: &mirror::Row| Some((row.interface.clone(), row.adopted?.ifindex));
        let gated = rows.filter_map(behind).collect();
        let host = Host {
            netlink,
            maps: Arc::new(maps),
            links,
            mechanisms,
            layout,
            sockets,
            gate_digest,
            gate_mark,
            coarse_clock: support.coarse_clock,
            interfaces,
            gated,
            ahead: Default::default(),
            adopted,
            planned: Default::default(),
            variants: Default::default(),
            counted,
        };
        let kernel = Kernel {
            host,
            mirror,
            support,
            in_force: None,
            unsettled: true,
            counted: Default::default(),
        };
        Ok((kernel, recovered))
    }

    /// Brings the kernel to `plan` as the next generation, or leaves it as it is. It is in force when this
    /// returns; [`Kernel::settle`] is to be called soon after, whatever the result.
    pub fn apply(&mut self, plan: &Plan) -> Result<Applied, Refused> {
        for leftover in self.settle().leftovers {
            log::warn!("left for the next commit: {leftover}");
        }
        self.host.planned =
            plan.endpoints.values().map(|p| p.endpoint.host_interface.clone()).collect();
        self.unsettled = true;
        let gates = diff::new_endpoint_gates(&self.mirror, plan);
        self.host.load_ahead(&gates);
        let applied = transaction::apply(&mut self.host, &mut self.mirror, plan);
        self.host.ahead = Default::default();
        self.host.adopted = Default::default();
        let applied = applied?;
        self.in_force = Some(plan.clone());
        self.counted.in_force(&plan.rules);
        Ok(applied)
    }

    /// Waits until no packet is judged by what was in force before, removes what is not needed any more, and
    /// makes ready what the next `apply` may need. That takes milliseconds; if nothing is to be done, nothing.
    pub fn settle(&mut self) -> Settled {
        if !self.unsettled {
            return Settled::default();
        }
        let in_force = self.in_force.as_ref();
        let settled = transaction::settle(&mut self.host, &mut self.mirror, in_force);
        self.unsettled = !settled.leftovers.is_empty();
        if !self.unsettled
            && let Err(error) = self.counted.forget(&self.host.maps)
        {
            log::warn!("{error}"); // the next commit's settling tries again
        }
        // Without the mark the next daemon only has more to do.
        if let Err(error) = self.mark_gates() {
            log::warn!("{error}");
        }
        settled
    }

    /// The generation in force.
    pub fn generation(&self) -> Generation {
        self.mirror.generation
    }

    /// Shared with whoever reads counters and sweeps flows.
    pub fn maps(&self) -> &Arc<Maps> {
        &self.host.maps
    }

    /// How gates are attached.
    pub fn mechanisms(&self) -> links::Mechanisms {
        self.host.mechanisms
    }

    /// The cgroup whose sockets are led to published ports, or why none are.
    pub fn cgroup(&self) -> Result<&Path, &sockets::Without> {
        self.host.sockets.as_ref().map(Sockets::cgroup)
    }

    /// For facts of namespaces, uplinks and the host.
    pub fn netlink(&self) -> &Netlink {
        &self.host.netlink
    }

    pub fn support(&self) -> Support {
        self.support
    }

    /// Removes all that porin made and nothing else. No daemon may be running.
    pub fn teardown(paths: &Paths) -> Result<TeardownReport, Error> {
        teardown::teardown(paths)
    }

    /// Once all gates have this daemon's code and one event rate, a mark says so to the next daemon. It is
    /// taken away before a gate is attached that differs.
    fn mark_gates(&mut self) -> Result<(), transaction::Reason> {
        let mut rates = self.mirror.gates.values().map(|state| state.event_rate);
        let first = rates.next().flatten();
        let alike = first.filter(|_| rates.all(|rate| rate == first));
        match alike {
            Some(rate) if self.host.gate_mark != Some(rate) => self.host.mark_gates(Some(rate)),
            _ => Ok(()),
        }
    }
}
