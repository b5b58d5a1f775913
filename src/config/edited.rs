//! What an edit of a few files makes of a configuration that had no fault, without going through all of it.
//!
//! Whatever is not plain (a fault, a name that is taken, groups or assertions that change) is left to the check of
//! everything, which tells it well.

use std::collections::HashSet;
use std::sync::Arc;

use super::files::{FileKey, Found};
use super::known::Known;
use super::model::{Config, Peer, Policies, Policy};
use super::parse::{Content, PolicyFile};
use crate::types::{Direction, Name};

/// One file that is another than before.
pub struct Edit<'a> {
    pub key: FileKey,
    /// None: it is new.
    pub before: Option<&'a Known>,
    /// None: it is gone.
    pub after: Option<(Found, Box<Known>)>,
}

impl Edit<'_> {
    fn after(&self) -> Option<&Known> {
        self.after.as_ref().map(|(_, known)| &**known)
    }
}

/// The policies after the edits. None: only a check of everything can tell.
pub fn policies(config: &Config, edits: &[Edit]) -> Option<Policies> {
    let mut policies = config.policies.clone();
    for edit in edits {
        let known = || edit.before.into_iter().chain(edit.after());
        if known().any(|known| !known.faults.is_empty() || known.content.is_none()) {
            return None;
        }
        let (before, after) = (file(edit.before), file(edit.after()));
        if !alike(before, after) {
            return None;
        }
        for written in before.into_iter().flat_map(|file| &file.policies) {
            policies.remove(&written.policy.name);
        }
    }
    let groups: HashSet<&Name> = config.groups.iter().map(|group| &group.name).collect();
    let after = edits.iter().filter_map(|edit| file(edit.after()));
    for policy in after.flat_map(|file| &file.policies).map(|written| &written.policy) {
        let taken = policies.insert(policy.name.clone(), Arc::clone(policy)).is_some();
        if taken || !named(policy).all(|group| groups.contains(group)) {
            return None;
        }
    }
    Some(policies)
}

fn file(known: Option<&Known>) -> Option<&PolicyFile> {
    match known?.content.as_ref()? {
        Content::Policies(file) => Some(file),
        Content::Host(_) | Content::Endpoints(_) => None,
    }
}

/// Whether all but the policies is as before.
fn alike(before: Option<&PolicyFile>, after: Option<&PolicyFile>) -> bool {
    let groups = |file: Option<&PolicyFile>| -> Vec<_> {
        file.into_iter().flat_map(|file| &file.groups).map(|one| one.group.clone()).collect()
    };
    let asserts = |file: Option<&PolicyFile>| -> Vec<_> {
        file.into_iter().flat_map(|file| &file.asserts).map(|one| one.assert.clone()).collect()
    };
    groups(before) == groups(after) && asserts(before) == asserts(after)
}

/// The groups that a policy names.
fn named(policy: &Policy) -> impl Iterator<Item = &Name> {
    let rules = Direction::BOTH.into_iter().filter_map(|direction| policy.rules(direction));
    rules.flatten().flat_map(|rule| &rule.peers).filter_map(|peer| match peer {
        Peer::Group(name) => Some(name),
        Peer::Selector(_) | Peer::Entity(_) | Peer::Cidr(_) => None,
    })
}
