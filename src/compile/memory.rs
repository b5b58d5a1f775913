//! The compiler, and what it keeps from run to run so that an edit costs what it changes.
//!
//! What depends on what: selectors on identities; classes on address sets; roles on endpoints and on what rules ask of
//! them beyond labels; a resolved policy on its rules, its groups, its selectors' picks, and the classes and roles
//! that it means; a table on the resolved policies that pick its identity. Each is made anew only when something that
//! it depends on is another value than before.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use ipnet::IpNet;

use crate::config::model::{self, Group, Policies, Policy};
use crate::desired::Fault;
use crate::desired::ipam::host_sources;
use crate::desired::selectors::{Picks, Selectors};
use crate::desired::snapshot::Snapshot;
use crate::types::http::Side;
use crate::types::{Entity, Name, PortRange, PortSpec, RulesetId, Selector};

use super::assertions::Assertions;
use super::classes::{Classes, Ground};
use super::plan::Plan;
use super::published::Published;
use super::resolve::{self, Numbers, Resolved};
use super::roles::{Interest, Roles};
use super::rules::{Cookies, Wanted};
use super::sets::AddressSets;
use super::sources::Sources;
use super::subjects::{Places, Subjects};

/// Cloning is cheap. A clone is what to go back to when a plan does not come into force.
#[derive(Debug, Clone)]
pub struct Memory {
    selectors: Selectors,
    /// Of the last run's snapshot.
    written: Policies,
    policies: OrdMap<Name, Arc<Known>>,
    /// Sorted by name.
    groups: Arc<BTreeMap<Name, Arc<Group>>>,
    groups_seen: Option<Arc<Vec<Arc<Group>>>>,
    cookies: Cookies,
    classes: Classes,
    roles: Roles,
    sources: Sources,
    published: Published,
    assertions: Assertions,
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
    asks: Asks,
    /// What the subject selector picks.
    subjects: Picks,
    /// None: it picks nobody, or is not resolved yet.
    resolved: Option<Arc<Resolved>>,
}

/// What a policy asks of addresses, ports and groups, so that most need not be gone through again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asks {
    /// It names networks or groups.
    sets: bool,
    /// It has named ports, or rules that match endpoints by address.
    roles: bool,
    source_ports: bool,
}

/// What became of the policies since the last run.
#[derive(Default)]
struct Taken {
    /// New or edited: what it is, and what it was.
    edited: BTreeMap<Name, (Arc<Known>, Option<Arc<Known>>)>,
    removed: Vec<Arc<Known>>,
}

impl Taken {
    /// As they were: what is edited or removed.
    fn former(&self) -> impl Iterator<Item = &Known> {
        let edited = self.edited.values().filter_map(|(_, old)| old.as_ref());
        edited.chain(&self.removed).map(|known| &**known)
    }

    /// As they are: what is new or edited.
    fn edited(&self) -> impl Iterator<Item = &Known> {
        self.edited.values().map(|(new, _)| &**new)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Memory {
            selectors: Selectors::default(),
            written: Policies::default(),
            policies: OrdMap::default(),
            groups: Arc::default(),
            groups_seen: None,
            cookies: Cookies::default(),
            classes: Classes::new(),
            roles: Roles::new(),
            sources: Sources::default(),
            published: Published::default(),
            assertions: Assertions::default(),
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
    /// What an earlier daemon's generations called what they ask of requests.
    pub fn recover_rulesets(&mut self, known: BTreeMap<RulesetId, Arc<Side>>) {
        self.subjects.recover_rulesets(known);
    }

    /// The plan of the last run is in force.
    pub fn committed(&mut self) {
        self.classes.committed();
        self.roles.committed();
        self.subjects.committed();
    }

    /// Assertions that are proven for the identities in force only.
    pub fn undecided(&self) -> &[Fault] {
        self.assertions.undecided()
    }

    pub fn stats(&self) -> Stats {
        self.stats
    }

    fn run(&mut self, snapshot: &Snapshot) -> Result<Plan, Vec<Fault>> {
        self.stats = Stats::default();
        let picks_changed = self.selectors.set_identities(&snapshot.identities);
        let groups = self.take_over_groups(snapshot);
        let taken = self.take_over(&snapshot.policies);
        let renumbered = self.cookies.update(
            taken.former().map(|known| &known.wanted),
            taken.edited().map(|known| &known.wanted),
            self.policies.values().map(|known| &known.wanted),
        );
        let touched = |asks: fn(&Asks) -> bool| {
            let any = |mut all: Box<dyn Iterator<Item = &Known> + '_>| all.any(|k| asks(&k.asks));
            picks_changed || any(Box::new(taken.former())) || any(Box::new(taken.edited()))
        };
        let matter = Matter {
            picks_changed,
            sets: groups.changed || touched(|asks| asks.sets),
            roles: groups.changed || touched(|asks| asks.roles),
            sources: touched(|asks| asks.source_ports),
        };
        let classes = self.classes.update(self.ground(snapshot, &matter))?;
        self.stats.classes_made = classes.made;
        let interest = self.interest(&matter);
        let regrouped = self.roles.update(snapshot, interest)?;
        let sources_changed = matter.sources && {
            let lists = self.source_lists(&matter);
            self.sources.update(lists)?
        };

        let Taken { edited, removed } = taken;
        let all = picks_changed
            || groups.peers
            || renumbered
            || classes.members
            || regrouped
            || sources_changed;
        let again: Vec<Arc<Known>> = match all {
            true => self.policies.values().cloned().collect(),
            false => edited.values().map(|(new, _)| Arc::clone(new)).collect(),
        };
        for known in removed {
            self.subjects.replace(Some((&known.subjects, known.resolved.as_ref())), None);
        }
        for known in again {
            let fresh = self.resolved(&known);
            let name = known.policy.name.clone();
            let old = match edited.get(&name) {
                Some((_, old)) => old.clone(),
                None => Some(known),
            };
            let as_before = |old: &Known| {
                old.resolved == fresh.resolved && Arc::ptr_eq(&old.subjects, &fresh.subjects)
            };
            if old.as_deref().is_none_or(|old| !as_before(old)) {
                let new = (&fresh.subjects, fresh.resolved.as_ref());
                let old = old.as_deref().map(|old| (&old.subjects, old.resolved.as_ref()));
                self.subjects.replace(old, Some(new));
            }
            self.policies.insert(name, Arc::new(fresh));
        }
        self.stats.tables_built =
            self.subjects.update(&snapshot.identities, &self.roles, regrouped)?;
        self.published.update(snapshot)?;
        self.assertions.check(snapshot, &self.groups, self.classes.ground())?;
        Ok(self.plan(snapshot))
    }

    /// Compares the policies of the snapshot with those of the last run.
    fn take_over(&mut self, policies: &Policies) -> Taken {
        let before = std::mem::replace(&mut self.written, policies.clone());
        let mut taken = Taken::default();
        for change in before.diff(policies) {
            match change {
                DiffItem::Add(name, policy) | DiffItem::Update { new: (name, policy), .. } => {
                    self.acquire(policy);
                    let subjects = self.selectors.picks(&policy.subject);
                    let old = self.policies.get(name).cloned();
                    let known = Arc::new(Known::new(policy, subjects, old.as_ref()));
                    self.policies.insert(name.clone(), Arc::clone(&known));
                    taken.edited.insert(name.clone(), (known, old));
                }
                DiffItem::Remove(name, _) => taken.removed.extend(self.policies.remove(name)),
            }
        }
        // Released last, so that a selector that stays in use is not forgotten and its picks stay the same `Arc`.
        taken.former().for_each(|old| self.release(&old.policy));
        taken
    }

    fn acquire(&mut self, policy: &Policy) {
        self.selectors.acquire(&policy.subject);
        for selector in selectors_of(policy) {
            self.selectors.acquire(&selector);
        }
    }

    fn release(&mut self, policy: &Policy) {
        self.selectors.release(&policy.subject);
        for selector in selectors_of(policy) {
            self.selectors.release(&selector);
        }
    }

    fn take_over_groups(&mut self, snapshot: &Snapshot) -> Groups {
        if self.groups_seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &snapshot.groups)) {
            return Groups::default();
        }
        self.groups_seen = Some(Arc::clone(&snapshot.groups));
        let named = |group: &Arc<Group>| (group.name.clone(), Arc::clone(group));
        let new: BTreeMap<Name, Arc<Group>> = snapshot.groups.iter().map(named).collect();
        let old = std::mem::replace(&mut self.groups, Arc::new(new));
        let new = Arc::clone(&self.groups);
        let peers = |group: &Arc<Group>| {
            let selectors = group.entities.iter().filter_map(|entity| selector_of(*entity));
            group.selectors.iter().cloned().chain(selectors).collect::<Vec<_>>()
        };
        // Acquired first, so that what stays in use is not forgotten.
        new.values().flat_map(peers).for_each(|selector| self.selectors.acquire(&selector));
        old.values().flat_map(peers).for_each(|selector| self.selectors.release(&selector));
        let same = |(a, b): (&Arc<Group>, &Arc<Group>)| {
            (&a.name, &a.selectors, &a.entities) == (&b.name, &b.selectors, &b.entities)
        };
        let peers = old.len() != new.len() || !old.values().zip(new.values()).all(same);
        Groups { changed: true, peers }
    }

    /// The policies that pick anybody.
    fn in_use<'a>(&'a self, matter: &'a Matter) -> impl Iterator<Item = &'a Known> {
        let has_subjects = |known: &&'a Known| match matter.picks_changed {
            true => !self.selectors.picks(&known.policy.subject).is_empty(),
            false => !known.subjects.is_empty(),
        };
        self.policies.values().map(|known| &**known).filter(has_subjects)
    }

    fn ground(&self, snapshot: &Snapshot, matter: &Matter) -> Ground {
        let sets = if matter.sets {
            let naming = self.in_use(matter).filter(|known| known.asks.sets);
            Arc::new(AddressSets::of(
                naming.flat_map(|known| resolve::peers_of(&known.policy)),
                &self.groups,
            ))
        } else {
            Arc::clone(&self.classes.ground().sets)
        };
        let own = host_sources(&snapshot.host.pools);
        let host = snapshot.host_addresses.iter().copied().chain(own).collect();
        let remote_hosts = snapshot.host.remote_hosts.iter().copied().collect();
        let unmanaged = snapshot.host.unmanaged.iter().copied().collect();
        let pools = snapshot.pools().chain(snapshot.reserved.iter().map(|a| IpNet::from(*a)));
        Ground { pools: pools.collect(), host, remote_hosts, unmanaged, sets }
    }

    fn interest(&self, matter: &Matter) -> Interest {
        if !matter.roles {
            return self.roles.interest().clone();
        }
        let rules = || {
            let asking = self.in_use(matter).filter(|known| known.asks.roles);
            asking.flat_map(|known| resolve::rules_of(&known.policy))
        };
        let name = |port: &PortSpec| match port {
            PortSpec::Named { name, .. } => Some(name.clone()),
            PortSpec::Match(_) => None,
        };
        let inside = rules().filter(|rule| rule.match_endpoints);
        Interest {
            ports: rules().flat_map(|rule| &rule.ports).filter_map(name).collect(),
            sets: Arc::new(AddressSets::of(inside.flat_map(|rule| &rule.peers), &self.groups)),
        }
    }

    fn source_lists(&self, matter: &Matter) -> BTreeSet<Vec<PortRange>> {
        let asking = self.in_use(matter).filter(|known| known.asks.source_ports);
        let rules = asking.flat_map(|known| resolve::rules_of(&known.policy));
        let lists = rules.map(|rule| &rule.source_ports).filter(|list| !list.is_empty());
        lists.cloned().collect()
    }

    fn resolved(&mut self, known: &Known) -> Known {
        self.stats.policies_resolved += 1;
        let subjects = self.selectors.picks(&known.policy.subject);
        let (wanted, policy) = (known.wanted.clone(), Arc::clone(&known.policy));
        let numbers = Numbers {
            selectors: &self.selectors,
            classes: &self.classes,
            roles: &self.roles,
            sources: &self.sources,
            groups: &self.groups,
            cookies: &self.cookies,
        };
        let resolved = (!subjects.is_empty()).then(|| numbers.resolve(&policy, &wanted));
        let resolved = match (&known.resolved, resolved) {
            (Some(old), Some(new)) if **old == new => Some(Arc::clone(old)),
            (_, new) => new.map(Arc::new),
        };
        Known { policy, wanted, asks: known.asks, subjects, resolved }
    }

    fn plan(&mut self, snapshot: &Snapshot) -> Plan {
        let (prefixes, classes) = (self.classes.prefixes(), self.classes.names());
        let by_source = !self.sources.table().runs.is_empty();
        let publishes = self.published.concerns_packets();
        let Places { endpoints, uplinks, addresses } =
            self.subjects.places(snapshot, &self.roles, by_source, publishes);
        Plan {
            endpoints,
            uplinks,
            addresses,
            published: Arc::clone(self.published.table()),
            prefixes: Arc::clone(prefixes),
            policies: self.subjects.tables(),
            sources: Arc::clone(self.sources.table()),
            rulesets: Arc::clone(self.subjects.rulesets()),
            roles: Arc::clone(self.roles.table()),
            rules: Arc::clone(self.cookies.table()),
            classes: Arc::clone(classes),
            undecided: Arc::clone(self.assertions.undecided()),
            host_sources: host_sources(&snapshot.host.pools).collect(),
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
            asks: Asks::of(policy),
            subjects,
            resolved: same.and_then(|old| old.resolved.clone()),
        }
    }
}

impl Asks {
    fn of(policy: &Policy) -> Self {
        let rules = || resolve::rules_of(policy);
        let set = |peer: &model::Peer| matches!(peer, model::Peer::Cidr(_) | model::Peer::Group(_));
        let named = |port: &PortSpec| matches!(port, PortSpec::Named { .. });
        Asks {
            sets: resolve::peers_of(policy).any(set),
            roles: rules().any(|rule| rule.match_endpoints || rule.ports.iter().any(named)),
            source_ports: rules().any(|rule| !rule.source_ports.is_empty()),
        }
    }
}

/// What became of the groups since the last run.
#[derive(Debug, Clone, Copy, Default)]
struct Groups {
    changed: bool,
    /// In what rules mean by them; what addresses are in them is the classes' and roles' to find out.
    peers: bool,
}

/// What of the policies may ask for other numbers than before.
struct Matter {
    /// What the policies' subjects were is no longer so.
    picks_changed: bool,
    sets: bool,
    roles: bool,
    sources: bool,
}

fn selectors_of(policy: &Policy) -> impl Iterator<Item = Cow<'_, Selector>> {
    resolve::peers_of(policy).filter_map(|peer| match peer {
        model::Peer::Selector(selector) => Some(Cow::Borrowed(selector)),
        model::Peer::Entity(entity) => selector_of(*entity).map(Cow::Owned),
        model::Peer::Cidr(_) | model::Peer::Group(_) => None,
    })
}

/// Which endpoints an entity stands for.
fn selector_of(entity: Entity) -> Option<Selector> {
    (entity == Entity::Cluster).then(Selector::default)
}
