//! The compiler, and what it keeps from run to run so that an edit costs what it changes.
//!
//! What depends on what: selectors on identities; classes on CIDR sets; a resolved policy on its rules, its selectors'
//! picks and its CIDR sets' classes; a table on the resolved policies that pick its identity. Each is made anew only
//! when something that it depends on is another value than before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::model::{self, CidrSet, Policy};
use crate::desired::Fault;
use crate::desired::ipam::host_address;
use crate::desired::selectors::{Picks, Selectors};
use crate::desired::snapshot::Snapshot;
use crate::types::{Family, PolicySlot, Selector};

use super::classes::{Classes, Ground};
use super::plan::Plan;
use super::resolve::{self, Resolved};
use super::rules::{Cookies, Wanted};
use super::subjects::Subjects;

/// Cloning is cheap. A clone is what to go back to when a plan does not come into force.
#[derive(Debug, Clone)]
pub struct Memory {
    selectors: Selectors,
    /// Sorted by name.
    policies: Arc<Vec<Arc<Known>>>,
    cookies: Cookies,
    classes: Classes,
    pub(super) subjects: Subjects,
    stats: Stats,
}

/// What the last run had to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Policies whose selectors, entities and CIDRs were turned into numbers.
    pub policies_resolved: usize,
    /// Policy tables built.
    pub tables_built: usize,
    /// Whether address classes were made anew.
    pub classes_made: bool,
}

/// A policy as it was in the last run.
#[derive(Debug)]
struct Known {
    policy: Arc<Policy>,
    wanted: Wanted,
    has_cidrs: bool,
    /// What the subject selector picks.
    subjects: Picks,
    /// None: not resolved yet.
    resolved: Option<Arc<Resolved>>,
}

/// What became of the policies since the last run.
#[derive(Default)]
struct Taken {
    /// All that there are now.
    policies: Vec<Arc<Known>>,
    /// New or edited: what it was, and its place in `policies`.
    edited: Vec<(Option<Arc<Known>>, usize)>,
    removed: Vec<Arc<Known>>,
}

impl Taken {
    /// As they were: what is edited or removed.
    fn former(&self) -> impl Iterator<Item = &Known> {
        let edited = self.edited.iter().filter_map(|(old, _)| old.as_ref());
        edited.chain(&self.removed).map(|known| &**known)
    }

    /// As they are: what is new or edited.
    fn edited(&self) -> impl Iterator<Item = &Known> {
        self.edited.iter().map(|(_, at)| &*self.policies[*at])
    }
}

impl Default for Memory {
    fn default() -> Self {
        Memory {
            selectors: Selectors::default(),
            policies: Arc::default(),
            cookies: Cookies::default(),
            classes: Classes::new(),
            subjects: Subjects::new(),
            stats: Stats::default(),
        }
    }
}

/// Which kernel objects `snapshot` means. An error says all that does not fit, and leaves `memory` as it was.
pub fn compile(snapshot: &Snapshot, memory: &mut Memory) -> Result<Plan, Vec<Fault>> {
    let mut next = memory.clone();
    let plan = next.run(snapshot)?;
    *memory = next;
    Ok(plan)
}

impl Memory {
    /// The plan of the last run is in force.
    pub fn committed(&mut self) {
        self.classes.committed();
        self.subjects.committed();
    }

    /// Policy slots that an earlier run used: nobody gets them until two further commits.
    pub fn recover_policy_slots(&mut self, slots: impl IntoIterator<Item = PolicySlot>) {
        self.subjects.recover(slots);
    }

    pub fn stats(&self) -> Stats {
        self.stats
    }

    fn run(&mut self, snapshot: &Snapshot) -> Result<Plan, Vec<Fault>> {
        self.stats = Stats::default();
        let picks_changed = self.selectors.set_identities(&snapshot.identities);
        let taken = self.take_over(&snapshot.policies);
        let renumbered = self.cookies.update(
            taken.former().map(|known| &known.wanted),
            taken.edited().map(|known| &known.wanted),
            taken.policies.iter().map(|known| &known.wanted),
        );
        let cidrs_touched =
            picks_changed || cidrs_that_matter(taken.former()) != cidrs_that_matter(taken.edited());
        let ground = self.ground(snapshot, &taken.policies, picks_changed, cidrs_touched);
        self.stats.classes_made = self.classes.update(ground)?;

        let Taken { mut policies, edited, removed } = taken;
        let all = picks_changed || renumbered || self.stats.classes_made;
        let again: Vec<usize> = match all {
            true => (0..policies.len()).collect(),
            false => edited.iter().map(|(_, at)| *at).collect(),
        };
        for known in removed {
            self.subjects.replace(Some((&known.subjects, known.resolved.as_ref())), None);
        }
        let edited_from: BTreeMap<usize, &Option<Arc<Known>>> =
            edited.iter().map(|(old, at)| (*at, old)).collect();
        for at in again {
            let fresh = self.resolved(&policies[at]);
            let old = match edited_from.get(&at) {
                Some(old) => (*old).clone(),
                None => Some(Arc::clone(&policies[at])),
            };
            let as_before = |old: &Known| {
                old.resolved == fresh.resolved && Arc::ptr_eq(&old.subjects, &fresh.subjects)
            };
            if old.as_deref().is_none_or(|old| !as_before(old)) {
                let new = (&fresh.subjects, fresh.resolved.as_ref());
                let old = old.as_deref().map(|old| (&old.subjects, old.resolved.as_ref()));
                self.subjects.replace(old, Some(new));
            }
            policies[at] = Arc::new(fresh);
        }
        self.policies = Arc::new(policies);
        self.stats.tables_built = self.subjects.update(&snapshot.identities)?;
        Ok(self.plan(snapshot))
    }

    /// Compares the policies of the snapshot with those of the last run.
    fn take_over(&mut self, policies: &[Arc<Policy>]) -> Taken {
        let before = Arc::clone(&self.policies);
        let mut old = before.iter().peekable();
        let mut taken = Taken::default();
        for (at, policy) in policies.iter().enumerate() {
            if let Some(same) = old.next_if(|old| Arc::ptr_eq(&old.policy, policy)) {
                taken.policies.push(Arc::clone(same));
                continue;
            }
            while let Some(gone) = old.next_if(|old| old.policy.name < policy.name) {
                taken.removed.push(Arc::clone(gone));
            }
            let old = old.next_if(|old| old.policy.name == policy.name);
            match old.filter(|old| Arc::ptr_eq(&old.policy, policy)) {
                Some(same) => taken.policies.push(Arc::clone(same)),
                None => {
                    self.acquire(policy);
                    let subjects = self.selectors.picks(&policy.subject);
                    taken.edited.push((old.cloned(), at));
                    taken.policies.push(Arc::new(Known::new(policy, subjects, old)));
                }
            }
        }
        taken.removed.extend(old.cloned());
        // Released last, so that a selector that stays in use is not forgotten and its picks stay the same `Arc`.
        taken.former().for_each(|old| self.release(&old.policy));
        taken
    }

    fn acquire(&mut self, policy: &Policy) {
        self.selectors.acquire(&policy.subject);
        for selector in selectors_of(policy) {
            self.selectors.acquire(selector);
        }
    }

    fn release(&mut self, policy: &Policy) {
        self.selectors.release(&policy.subject);
        for selector in selectors_of(policy) {
            self.selectors.release(selector);
        }
    }

    /// `picks_changed`: what the policies' subjects were is no longer so. `cidrs_touched`: the CIDR sets may be others.
    fn ground(
        &self,
        snapshot: &Snapshot,
        policies: &[Arc<Known>],
        picks_changed: bool,
        cidrs_touched: bool,
    ) -> Ground {
        let has_subjects = |known: &&Arc<Known>| match picks_changed {
            true => !self.selectors.picks(&known.policy.subject).is_empty(),
            false => !known.subjects.is_empty(),
        };
        let cidrs = if cidrs_touched {
            let matter = policies.iter().filter(|known| known.has_cidrs).filter(has_subjects);
            let distinct: BTreeSet<_> = matter.flat_map(|known| cidrs_of(&known.policy)).collect();
            Arc::new(distinct.into_iter().cloned().collect())
        } else {
            Arc::clone(&self.classes.ground().cidrs)
        };
        let own = host_sources(snapshot);
        let host = snapshot.host_addresses.iter().copied().chain(own).collect();
        Ground { pools: snapshot.pools().collect(), host, cidrs }
    }

    fn resolved(&mut self, known: &Known) -> Known {
        self.stats.policies_resolved += 1;
        let subjects = self.selectors.picks(&known.policy.subject);
        let (wanted, policy) = (known.wanted.clone(), Arc::clone(&known.policy));
        let resolved = (!subjects.is_empty()).then(|| {
            let Memory { selectors, classes, cookies, .. } = &*self;
            resolve::resolve(&policy, &wanted, selectors, classes, cookies)
        });
        let resolved = match (&known.resolved, resolved) {
            (Some(old), Some(new)) if **old == new => Some(Arc::clone(old)),
            (_, new) => new.map(Arc::new),
        };
        Known { policy, wanted, has_cidrs: known.has_cidrs, subjects, resolved }
    }

    fn plan(&self, snapshot: &Snapshot) -> Plan {
        let (prefixes, classes) = (self.classes.prefixes(), self.classes.names());
        Plan {
            endpoints: self.subjects.endpoints(snapshot),
            uplinks: self.subjects.uplinks(snapshot),
            addresses: super::subjects::addresses(snapshot),
            prefixes: Arc::clone(prefixes),
            policies: self.subjects.tables(),
            sources: Arc::default(),
            roles: Arc::default(),
            rules: Arc::clone(self.cookies.table()),
            classes: Arc::clone(classes),
            host_sources: host_sources(snapshot),
        }
    }
}

impl Known {
    /// `old`: what the policy was; if it says the same in other lines, all but the lines still holds.
    fn new(policy: &Arc<Policy>, subjects: Picks, old: Option<&Arc<Known>>) -> Self {
        let same = old.filter(|old| resolve::same_rules(&old.policy, policy));
        Known {
            policy: Arc::clone(policy),
            wanted: Wanted::new(policy),
            has_cidrs: cidrs_of(policy).next().is_some(),
            subjects,
            resolved: same.and_then(|old| old.resolved.clone()),
        }
    }
}

fn selectors_of(policy: &Policy) -> impl Iterator<Item = &Selector> {
    resolve::peers_of(policy).filter_map(|peer| match peer {
        model::Peer::Selector(selector) => Some(selector),
        _ => None,
    })
}

fn cidrs_of(policy: &Policy) -> impl Iterator<Item = &CidrSet> {
    resolve::peers_of(policy).filter_map(|peer| match peer {
        model::Peer::Cidr(cidr) => Some(cidr),
        _ => None,
    })
}

fn cidrs_that_matter<'a>(policies: impl Iterator<Item = &'a Known>) -> BTreeSet<&'a CidrSet> {
    let matter = policies.filter(|known| known.has_cidrs && !known.subjects.is_empty());
    matter.flat_map(|known| cidrs_of(&known.policy)).collect()
}

/// The host's own address in the first pool of each family that has one.
fn host_sources(snapshot: &Snapshot) -> Vec<IpAddr> {
    let own = |family: Family| {
        let of_family = snapshot.host.pools.iter().filter_map(host_address);
        of_family.into_iter().find(|address| Family::of(*address) == family)
    };
    Family::BOTH.into_iter().filter_map(own).collect()
}
