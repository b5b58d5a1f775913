//! One round: what the files say and what the kernel shows, to what should be, to a plan, to a commit.
//!
//! Everything is tried on copies. Only when the kernel has committed do the copies become the daemon's
//! state; until then, and if anything is wrong, what was in force stays.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::compile::{self, Memory};
use crate::config::model::Config;
use crate::config::{Changed, Loaded, Loader, Report};
use crate::desired::ipam::Leases;
use crate::desired::snapshot::{Endpoint, Snapshot};
use crate::desired::{Change, Desired, Fault, digest};
use crate::kernel::netlink::monitor::KernelEvent;
use crate::kernel::{Kernel, Recovered, Refused};
use crate::observe::names::{NameBook, Names};
use crate::types::{Generation, Name, Slot};

use super::attachments::Attachments;
use super::backoff::Vanished;
use super::inputs::{self, Inputs, Seen};
use super::l7::L7;
use super::rulesets;
use super::store;

/// What the daemon believes, and the means to make it so.
pub struct Reconciler {
    loader: Loader,
    /// The last report with all warnings.
    told: Arc<Report>,
    kernel: Kernel,
    l7: L7,
    desired: Desired,
    memory: Memory,
    rulesets: rulesets::Kept,
    names: Arc<NameBook>,
    leases: PathBuf,
    /// The leases as they are on disk, and as they are read from there.
    stored: String,
    kept: Leases,
    /// The last configuration without a fault.
    config: Option<Arc<Config>>,
    /// What the generation in force was made from.
    in_force: Option<Inputs>,
    /// The operator's files were not what was put in force when they were read last.
    refused: bool,
    /// What was there when it was last looked at.
    seen: Option<Seen>,
    /// Those in force.
    endpoints: Arc<BTreeMap<Slot, Arc<Endpoint>>>,
    /// Theirs by host interface, once somebody wanted to know.
    owners: HashMap<String, Name>,
    vanished: Vanished,
}

/// What a round looks at.
pub enum Scope {
    /// The operator's files that may be others than before, and what they name.
    Files(Changed),
    /// The files of requests, and nothing of what an operator may be in the middle of writing.
    Requests(BTreeSet<PathBuf>),
}

impl Scope {
    fn files(&self) -> Changed {
        match self {
            Scope::Files(changed) => changed.clone(),
            Scope::Requests(paths) => Changed::At(paths.clone()),
        }
    }
}

/// How a round begins.
struct Begin {
    at: Instant,
    kernel_changed: bool,
    /// What was seen before may not hold any more.
    anew: bool,
}

/// A configuration that cannot be in force.
struct Unfit;

/// How a round went.
#[derive(Default)]
pub struct Round {
    /// What is wrong with the files.
    pub report: Arc<Report>,
    /// Endpoints that stay closed, uplinks that are missing; and what refused the whole.
    pub faults: Vec<Fault>,
    /// Set if this round should have committed and could not.
    pub refused: bool,
    /// Set if it was the kernel that could not: later it may, though nothing else changes.
    pub kernel_refused: bool,
    pub committed: Option<Done>,
    /// Something that no event will tell of: look again soon.
    pub look_again: bool,
    /// There are other endpoints than before, or some are elsewhere.
    pub other_endpoints: bool,
}

pub struct Done {
    pub generation: Generation,
    pub config: Arc<Config>,
    pub snapshot: Snapshot,
    /// From the beginning of the round to the commit.
    pub took: Duration,
    /// Changes to the kernel, the commit included.
    pub ops: usize,
}

impl Reconciler {
    pub fn new(
        loader: Loader,
        (state, run): (&Path, &Path),
        kernel: Kernel,
        recovered: Recovered,
        names: Arc<NameBook>,
        l7: L7,
    ) -> Self {
        let leases = state.join("leases.toml");
        let mut desired = Desired::default();
        let uplinks = recovered.uplinks.iter().map(|(interface, ifindex, slot)| {
            (digest::uplink_incarnation(interface, *ifindex), *slot)
        });
        desired.apply(Change::Slots(recovered.slots.iter().copied().chain(uplinks).collect()));
        let stored = match store::read(&leases) {
            Ok(stored) => stored.unwrap_or_default(),
            Err(error) => {
                log::error!("cannot read {}: {error}; addresses may change", leases.display());
                String::new()
            }
        };
        let (known, faults) = Leases::read(&stored);
        for fault in faults {
            log::warn!("{}: {fault}", leases.display());
        }
        desired.apply(Change::Leases(known.clone()));
        let (rulesets, called) = rulesets::Kept::open(run);
        let mut memory = Memory::default();
        memory.recover_rulesets(called);
        Reconciler {
            loader,
            told: Arc::default(),
            kernel,
            l7,
            desired,
            memory,
            rulesets,
            names,
            leases,
            stored,
            kept: known,
            config: None,
            in_force: None,
            refused: false,
            seen: None,
            endpoints: Arc::default(),
            owners: HashMap::new(),
            vanished: Vanished::default(),
        }
    }

    /// Where configuration may appear, and where the namespaces are that it names.
    pub fn directories(&self) -> Vec<PathBuf> {
        let mut directories = self.loader.directories();
        let config = self.config.iter().flat_map(|config| &config.endpoints);
        let homes = config.filter_map(|endpoint| endpoint.namespace()?.parent());
        // Nothing tells when a process comes or goes: /proc has no inotify.
        let homes = homes.filter(|home| !home.starts_with("/proc"));
        directories.extend(homes.map(ToOwned::to_owned));
        directories.sort();
        directories.dedup();
        directories
    }

    pub fn config(&self) -> Option<&Arc<Config>> {
        self.config.as_ref()
    }

    /// Whether the event means that the next round has something to mend though nothing was edited.
    pub fn note(&mut self, event: &KernelEvent) -> bool {
        let mend = self.kernel.observe(event);
        if let KernelEvent::InterfaceVanished(interface) = event
            && mend
        {
            if self.owners.is_empty() {
                let owner = |e: &Arc<Endpoint>| (e.host_interface.clone(), e.name.clone());
                self.owners = self.endpoints.values().map(owner).collect();
            }
            if let Some(endpoint) = self.owners.get(interface) {
                self.vanished.note(endpoint, Instant::now());
            }
        }
        mend
    }

    /// `kernel_changed`: something of ours was changed by others, so that equal inputs do not mean equal results.
    ///
    /// The report may have the warnings of the round before: [`Reconciler::report`] has these.
    pub fn round(
        &mut self,
        kernel_changed: bool,
        scope: &Scope,
        attachments: &Attachments,
    ) -> Round {
        let begun = Instant::now();
        let before = self.config.clone();
        let mut round = self.read(scope, attachments);
        round.other_endpoints = !same_endpoints(before.as_deref(), self.config.as_deref());
        if let Some(config) = self.config.clone() {
            let files = scope.files();
            let mut begin = Begin { at: begun, kernel_changed, anew: kernel_changed };
            begin.anew |= files == Changed::Any;
            if self.put_in_force(config, &begin, &files, &mut round).is_err()
                && let Some(held) = self.in_force.as_ref().map(|inputs| inputs.config.clone())
            {
                // What the operator wrote cannot be; what is in force can, and so can containers that come and go.
                let alone = attachments.over(held.clone());
                if !Arc::ptr_eq(&alone, &held) {
                    begin.anew = false;
                    let _ = self.put_in_force(alone, &begin, &files, &mut round);
                }
            }
        }
        if matches!(scope, Scope::Files(_)) {
            self.refused = round.refused;
        }
        round
    }

    /// What is to be in force, as [`Reconciler::config`].
    fn read(&mut self, scope: &Scope, attachments: &Attachments) -> Round {
        let loaded = match scope {
            Scope::Files(changed) => Some(self.loader.look(changed)),
            Scope::Requests(paths) => self.loader.look_at(paths),
        };
        let mut round = Round { look_again: loaded.is_none(), ..Round::default() };
        let config = match loaded {
            Some(Loaded { config, report, .. }) => {
                let sound = report.errors == 0 && self.told.errors == 0;
                round.report = if sound { Arc::clone(&self.told) } else { report };
                round.refused = config.is_none();
                config
            }
            None => {
                round.report = Arc::clone(&self.told);
                round.refused = self.refused;
                None
            }
        };
        // The operator's mistakes are no reason not to start a container, nor is an edit that is not done.
        let held = || Some(self.in_force.as_ref()?.config.clone());
        let held = || held().or_else(|| self.config.clone()).map(|held| attachments.over(held));
        self.config = config.or_else(held);
        round
    }

    /// An error refuses the whole of `config`; the round has all that is to be said of it.
    fn put_in_force(
        &mut self,
        config: Arc<Config>,
        begin: &Begin,
        files: &Changed,
        round: &mut Round,
    ) -> Result<(), Unfit> {
        let seen = self.seen.take();
        let before = seen.as_ref().filter(|_| !begin.anew);
        let netlink = self.kernel.netlink();
        let mut inputs =
            match inputs::observe(netlink, config, before, files, self.in_force.as_ref()) {
                Ok(seen) => {
                    round.faults.extend_from_slice(&seen.faults);
                    self.seen.insert(seen).inputs.clone()
                }
                Err(what) => {
                    round.faults.push(Fault::whole(what));
                    round.refused = true;
                    round.kernel_refused = true;
                    return Ok(());
                }
            };
        self.hold(&mut inputs, begin.at);
        round.look_again |= inputs.namespaces.values().any(Result::is_err)
            || inputs.interfaces.values().any(Result::is_err);
        // Each try learns of at least one endpoint that cannot be attached after all.
        for _ in 0..=inputs.config.endpoints.len() {
            if !begin.kernel_changed && self.in_force.as_ref() == Some(&inputs) {
                round.faults.extend(self.standing_faults());
                return Ok(());
            }
            match self.attempt(&inputs, &mut round.faults) {
                Ok(done) => {
                    round.committed = Some(Done { took: begin.at.elapsed(), ..done });
                    self.in_force = Some(inputs);
                    return Ok(());
                }
                Err(Failure::Whole(faults)) => {
                    round.faults.extend(faults);
                    round.refused = true;
                    return Err(Unfit);
                }
                Err(Failure::Kernel(fault)) => {
                    round.faults.push(*fault);
                    round.refused = true;
                    round.kernel_refused = true;
                    return Ok(());
                }
                Err(Failure::Endpoints(failed)) => {
                    round.look_again = true;
                    for (name, why) in failed {
                        match inputs.interfaces.contains_key(&name) {
                            true => _ = inputs.interfaces.insert(name, Err(why)),
                            false => _ = inputs.namespaces.insert(name, Err(why)),
                        }
                    }
                }
            }
        }
        round.refused = true;
        round.kernel_refused = true;
        Ok(())
    }

    /// What is wrong with the files, and what is hardly meant in them.
    pub fn report(&mut self) -> Arc<Report> {
        self.told = self.loader.report();
        Arc::clone(&self.told)
    }

    /// Leaves out the endpoints that are not to be mended yet.
    fn hold(&mut self, inputs: &mut Inputs, now: Instant) {
        let there = |name: &Name| matches!(inputs.namespaces.get(name), Some(Ok(_)));
        self.vanished.forget_unless(there);
        for (name, why) in self.vanished.held(now) {
            inputs.namespaces.insert(name.clone(), Err(why));
        }
    }

    /// What remains to be done after a round. Nobody waits for it: it is to be called when the round has been
    /// told of, and before the next one.
    pub fn settle(&mut self) {
        let settled = self.kernel.settle();
        for leftover in &settled.leftovers {
            log::warn!("left for the next commit: {leftover}");
        }
        if settled.ops > 0 {
            log::debug!("settled by {} changes in {:?}", settled.ops, settled.took);
        }
    }

    /// The endpoints that were closed in the generation in force still are, for the same reasons; what was not proven for
    /// all label sets still is not.
    fn standing_faults(&mut self) -> Vec<Fault> {
        let mut faults = self.desired.snapshot().map_or_else(|faults| faults, |(_, faults)| faults);
        faults.extend_from_slice(self.memory.undecided());
        faults
    }

    /// Puts back what others take away without anybody telling of it.
    pub fn look(&self) {
        self.l7.look(self.kernel.netlink());
    }

    fn attempt(&mut self, inputs: &Inputs, faults: &mut Vec<Fault>) -> Result<Done, Failure> {
        let mut desired = self.desired.clone();
        let mut memory = self.memory.clone();
        desired.apply(Change::Config(inputs.config.clone()));
        desired.apply(Change::HostAddresses(inputs.host_addresses.clone()));
        desired.apply(Change::HostNetworks(inputs.host_networks.clone()));
        desired.apply(Change::LocalPorts(inputs.local_ports.clone()));
        desired.apply(Change::Uplinks(inputs.uplinks.clone()));
        desired.apply(Change::Namespaces(inputs.namespaces.clone()));
        desired.apply(Change::Interfaces(inputs.interfaces.clone()));
        let (snapshot, closed) = desired.snapshot().map_err(Failure::Whole)?;
        let plan = compile::compile(&snapshot, &mut memory).map_err(Failure::Whole)?;
        // Written before the commit: a lease too many harms nobody, one too few may move an address.
        self.store(desired.leases());
        self.rulesets.keep(&plan.rulesets);
        // The first event of a generation may come before `apply` returns: its names are there already.
        let next = self.kernel.generation().next();
        self.names.insert(Arc::new(Names::new(next, &snapshot, &plan)));
        self.l7.prepare(self.kernel.netlink(), &plan.rulesets);
        let applied =
            self.kernel.apply(&plan).map_err(|refused| Failure::of(&refused, &snapshot))?;
        self.names.committed(applied.generation);
        self.l7.committed(&plan.rulesets);
        desired.committed();
        memory.committed();
        self.rulesets.committed(&plan.rulesets);
        self.desired = desired;
        self.memory = memory;
        if !Arc::ptr_eq(&self.endpoints, &snapshot.endpoints) {
            self.endpoints = Arc::clone(&snapshot.endpoints);
            self.owners.clear();
        }
        faults.extend(closed);
        faults.extend_from_slice(&plan.undecided);
        Ok(Done {
            generation: applied.generation,
            config: inputs.config.clone(),
            snapshot,
            took: Duration::ZERO,
            ops: applied.ops,
        })
    }

    fn store(&mut self, leases: &Leases) {
        if *leases == self.kept {
            return;
        }
        let text = match leases.write() {
            Ok(text) if text == self.stored => return self.kept = leases.clone(),
            Ok(text) => text,
            Err(error) => return log::error!("cannot write leases: {error}"),
        };
        match store::replace(&self.leases, &text) {
            Ok(()) => (self.stored, self.kept) = (text, leases.clone()),
            Err(error) => log::error!(
                "cannot write {}: {error}; automatic addresses may change at the next start",
                self.leases.display()
            ),
        }
    }
}

enum Failure {
    /// Nothing changed, and nothing can before the inputs change.
    Whole(Vec<Fault>),
    /// Nothing changed; the same may work later (ENOMEM).
    Kernel(Box<Fault>),
    /// Nothing changed, for these endpoints' sake: without them it may work.
    Endpoints(Vec<(Name, String)>),
}

impl Failure {
    fn of(refused: &Refused, snapshot: &Snapshot) -> Self {
        let name = |slot| Some(snapshot.endpoints.get(slot)?.name.clone());
        let faults = refused.endpoint_faults.iter();
        let endpoints: Vec<(Name, String)> =
            faults.filter_map(|(slot, fault)| Some((name(slot)?, fault.to_string()))).collect();
        if endpoints.is_empty() {
            let what = format!("the kernel refused the change: {}", refused.error);
            return Failure::Kernel(Box::new(Fault::whole(what)));
        }
        Failure::Endpoints(endpoints)
    }
}

fn same_endpoints(a: Option<&Config>, b: Option<&Config>) -> bool {
    a.map(|config| &config.endpoints) == b.map(|config| &config.endpoints)
}
