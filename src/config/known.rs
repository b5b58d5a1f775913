//! One file as it was last read: what it says, and what is the same object as before because it says the same.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use super::fault::{Fault, Faults, Place};
use super::files::{self, Found};
use super::parse::{self, Content};
use super::read::{self, Stamp, Unreadable};
use super::source::Source;

/// One file as it was last read.
#[derive(Debug)]
pub struct Known {
    pub stamp: Stamp,
    pub source: Arc<Source>,
    pub content: Option<Content>,
    pub faults: Faults,
}

pub enum Fresh {
    /// Touched, but the same content.
    Same(Stamp),
    New(Box<Known>),
}

/// The error is none if the file is gone. `before`: what was read at this path.
pub fn read_file(found: &Found, before: Option<&Known>) -> Result<Fresh, Option<Box<Fault>>> {
    let (content, stamp) =
        read::read(&found.path).map_err(|error| unreadable(found, &error).map(Box::new))?;
    if let Some(before) = before
        && before.source.text().as_bytes() == content
    {
        return Ok(Fresh::Same(stamp));
    }
    let text = parse::utf8(&found.path, content).map_err(Some)?;
    let source = Arc::new(Source::new(found.path.clone(), text));
    let (mut content, faults) = parse::parse(found.kind, &source);
    if let (Some(content), Some(before)) =
        (&mut content, before.and_then(|known| known.content.as_ref()))
    {
        share(content, before);
    }
    Ok(Fresh::New(Box::new(Known { stamp, source, content, faults })))
}

fn unreadable(found: &Found, error: &Unreadable) -> Option<Fault> {
    let place = Place::file(found.path.clone());
    match error {
        Unreadable::Io(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Unreadable::Io(error) => Some(files::io_fault(place, error)),
        Unreadable::NotAFile(_) => Some(
            Fault::error(place, error.to_string())
                .hint("configuration is read from regular files and links to them"),
        ),
        Unreadable::TooLarge(_) => {
            Some(Fault::error(place, error.to_string()).hint("split it into several files"))
        }
        Unreadable::Unsteady => Some(
            Fault::error(place, error.to_string()).hint("it is read again once it is left alone"),
        ),
    }
}

/// What a changed file says as before stays the same object.
fn share(content: &mut Content, before: &Content) {
    match (content, before) {
        (Content::Endpoints(fresh), Content::Endpoints(before)) => {
            same(fresh, before, |one| &one.endpoint, |one| &mut one.endpoint, |one| &one.name);
        }
        (Content::Policies(fresh), Content::Policies(before)) => {
            let (new, old) = (&mut fresh.policies, &before.policies);
            same(new, old, |one| &one.policy, |one| &mut one.policy, |one| &one.name);
            let (new, old) = (&mut fresh.groups, &before.groups);
            same(new, old, |one| &one.group, |one| &mut one.group, |one| &one.name);
            // They have no names; but no two are at one place.
            let (new, old) = (&mut fresh.asserts, &before.asserts);
            same(new, old, |one| &one.assert, |one| &mut one.assert, |one| &one.origin);
        }
        _ => {}
    }
}

fn same<W, T: PartialEq, K: Hash + Eq>(
    fresh: &mut [W],
    before: &[W],
    value: impl Fn(&W) -> &Arc<T>,
    replace: impl Fn(&mut W) -> &mut Arc<T>,
    key: impl Fn(&T) -> &K,
) {
    let before: HashMap<_, _> =
        before.iter().map(&value).map(|before| (key(before), before)).collect();
    for one in fresh {
        match before.get(key(value(one))) {
            Some(same) if **same == *value(one) => *replace(one) = Arc::clone(same),
            _ => {}
        }
    }
}
