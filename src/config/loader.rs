//! Reading it all: finds the files, parses those that changed, checks the whole.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::assertion::WrittenAssert;
use super::check::{self, In};
use super::endpoint::WrittenEndpoint;
use super::fault::{Fault, Faults, Place};
use super::files::{self, Found, Listing};
use super::group::WrittenGroup;
use super::host::{self, HostPart};
use super::model::{self, Config};
use super::parse::{self, Content};
use super::policy::WrittenPolicy;
use super::read::{self, Stamp, Unreadable};
use super::report::Report;
use super::source::Source;
use super::warn;
use crate::types::Origin;

/// All files together are at most this large, in bytes.
pub const LARGEST_TOTAL: u64 = 64 << 20;

/// Reads configuration, and remembers what it has parsed, so that reading again costs only what changed.
#[derive(Debug)]
pub struct Loader {
    roots: Vec<PathBuf>,
    known: HashMap<Arc<Path>, Known>,
    watch: Vec<PathBuf>,
    last: Option<Loaded>,
    report: Arc<Report>,
    /// What may be hardly meant in what was read last is yet to be looked for.
    undoubted: Option<Undoubted>,
}

/// Files without errors, and what was found in them so far.
#[derive(Debug)]
struct Undoubted {
    files: Vec<Found>,
    faults: Faults,
}

/// The outcome of one reading. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// None if there is any error.
    pub config: Option<Arc<Config>>,
    pub report: Arc<Report>,
    /// Files that were read; masked ones do not count.
    pub files: usize,
    /// Of paths and contents of these files, and of the faults of those that could not be read.
    pub digest: [u8; 32],
}

/// One file as it was last read.
#[derive(Debug)]
struct Known {
    stamp: Stamp,
    source: Arc<Source>,
    content: Option<Content>,
    faults: Faults,
    /// Of path and content.
    digest: [u8; 32],
}

impl Loader {
    /// Where configuration is looked for, highest precedence first.
    pub const ROOTS: [&str; 3] = ["/etc/porin", "/run/porin", "/usr/lib/porin"];

    /// `roots`: highest precedence first; those that do not exist are skipped.
    pub fn new(roots: Vec<PathBuf>) -> Self {
        Loader {
            roots,
            known: HashMap::new(),
            watch: Vec::new(),
            last: None,
            report: Arc::default(),
            undoubted: None,
        }
    }

    /// Reads everything anew. Takes as long as it takes; never waits for anything but the disk.
    pub fn load(&mut self) -> Loaded {
        let loaded = self.load_first();
        Loaded { report: self.report(), ..loaded }
    }

    /// As [`Loader::load`], but with those warnings left out that files hardly ever deserve: to look for them takes
    /// longer than all the rest, and nothing depends on them. [`Loader::report`] has them.
    pub fn load_first(&mut self) -> Loaded {
        let mut listing = files::list(&self.roots);
        self.watch = std::mem::take(&mut listing.watch).into_iter().collect();
        let Listing { files, mut faults, .. } = listing;
        let unread = faults.clone();
        let mut known = HashMap::with_capacity(files.len());
        let (mut total, mut changed) = (0, files.len() != self.known.len());
        for found in &files {
            total += found.size.min(read::LARGEST);
            if total > LARGEST_TOTAL {
                let what = format!("all files together have more than {LARGEST_TOTAL} bytes");
                faults.push(Fault::error(Place::file(found.path.clone()), what));
                break;
            }
            let before = self.known.remove(&found.path);
            let fresh = match (before, &found.stamp) {
                (Some(before), Some(stamp)) if before.stamp.still(stamp) => before,
                (before, _) => match read_file(found, before.as_ref()) {
                    Ok(Fresh::Same(stamp)) => match before {
                        Some(before) => Known { stamp, ..before },
                        None => continue,
                    },
                    Ok(Fresh::New(fresh)) => {
                        changed = true;
                        *fresh
                    }
                    Err(None) => continue,
                    Err(Some(fault)) => {
                        faults.push(*fault);
                        continue;
                    }
                },
            };
            known.insert(found.path.clone(), fresh);
        }
        self.known = known;
        let unchanged = !changed && self.known.len() == files.len() && unread.is_empty();
        if let Some(last) = self.last.as_ref().filter(|_| unchanged) {
            return last.clone();
        }
        let (loaded, faults) = self.check(&files, faults);
        // Faults outside files (a directory that cannot be read) are looked at anew each time.
        self.last = (unread.is_empty() && self.known.len() == files.len()).then(|| loaded.clone());
        self.report = Arc::clone(&loaded.report);
        self.undoubted = loaded.config.is_some().then_some(Undoubted { files, faults });
        loaded
    }

    /// All that is to be said of what was read last.
    pub fn report(&mut self) -> Arc<Report> {
        if let Some(Undoubted { files, mut faults }) = self.undoubted.take() {
            let parts = self.parts(&files);
            let merged = host::merge(parts.hosts.into_iter());
            let whole = warn::Whole {
                host: &merged.host,
                endpoints: &parts.endpoints,
                policies: &parts.policies,
                groups: &parts.groups,
                asserts: &parts.asserts,
            };
            warn::all(&whole, &mut faults);
            self.report = Arc::new(Report::new(faults));
            if let Some(last) = &mut self.last {
                last.report = Arc::clone(&self.report);
            }
        }
        Arc::clone(&self.report)
    }

    /// A place in what was last read, with the line to show.
    pub fn place(&self, origin: &Origin) -> Place {
        match self.known.get(&origin.file) {
            Some(known) => {
                let start = known.source.offset(origin.line, origin.column);
                let line = known.source.text()[start..].find('\n');
                let end = line.map_or(known.source.text().len(), |line| start + line);
                known.source.place(&(start..end))
            }
            None => Place::file(origin.file.clone()),
        }
    }

    /// Where a change can change what [`Loader::load`] returns: to be watched. Some may not exist yet.
    pub fn directories(&self) -> Vec<PathBuf> {
        if self.watch.is_empty() {
            return files::list(&self.roots).watch.into_iter().collect();
        }
        self.watch.clone()
    }

    /// What the files say, in their order.
    fn parts(&self, files: &[Found]) -> Parts<'_> {
        let mut parts = Parts { hosts_are_whole: true, groups_are_whole: true, ..Parts::default() };
        for found in files {
            let Some(file) = self.known.get(&found.path) else {
                parts.hosts_are_whole &= found.kind != files::Kind::Host;
                parts.groups_are_whole &= found.kind != files::Kind::Policies;
                continue;
            };
            parts.files.push(file);
            parts.hosts_are_whole &= found.kind != files::Kind::Host || file.faults.errors() == 0;
            let source = &file.source;
            match &file.content {
                Some(Content::Host(part)) => parts.hosts.push((source, part)),
                Some(Content::Endpoints(more)) => {
                    parts.endpoints.extend(more.iter().map(|one| (source, one)))
                }
                Some(Content::Policies(more)) => {
                    parts.policies.extend(more.policies.iter().map(|one| (source, one)));
                    parts.groups.extend(more.groups.iter().map(|one| (source, one)));
                    parts.asserts.extend(more.asserts.iter().map(|one| (source, one)));
                    parts.groups_are_whole &= more.has_all_groups;
                }
                None => parts.groups_are_whole &= found.kind != files::Kind::Policies,
            }
        }
        parts
    }

    /// What the files are as a whole, and the faults so far.
    fn check(&self, files: &[Found], mut faults: Faults) -> (Loaded, Faults) {
        let parts = self.parts(files);
        let mut digest = Sha256::new();
        for file in &parts.files {
            digest.update(file.digest);
            faults.extend(&file.faults);
        }
        let Parts { hosts, endpoints, policies, groups, asserts, .. } = parts;
        let merged = host::merge(hosts.into_iter());
        check::host(&merged, &mut faults);
        let pools = parts.hosts_are_whole.then_some(merged.host.pools.as_slice());
        check::endpoints(&endpoints, pools, &mut faults);
        check::policies(&policies, &mut faults);
        check::groups(&groups, &mut faults);
        if parts.groups_are_whole {
            check::references(&policies, &groups, &asserts, &mut faults);
        }
        let mut config = None;
        if faults.errors() == 0 {
            let mut endpoints: Vec<_> =
                endpoints.iter().map(|(_, one)| one.endpoint.clone()).collect();
            let policies = model::by_name(policies.iter().map(|(_, one)| one.policy.clone()));
            endpoints.sort_by(|a, b| a.name.cmp(&b.name));
            let mut groups: Vec<_> = groups.iter().map(|(_, one)| one.group.clone()).collect();
            let mut asserts: Vec<_> = asserts.iter().map(|(_, one)| one.assert.clone()).collect();
            groups.sort_by(|a, b| a.name.cmp(&b.name));
            asserts.sort_by(|a, b| a.origin.cmp(&b.origin));
            config =
                Some(Arc::new(Config { host: merged.host, endpoints, policies, groups, asserts }));
        }
        let loaded = Loaded {
            config,
            report: Arc::new(Report::new(faults.clone())),
            files: self.known.len(),
            digest: digest.finalize().into(),
        };
        (loaded, faults)
    }
}

/// What all files say, with the text that each thing stands in.
#[derive(Default)]
struct Parts<'a> {
    files: Vec<&'a Known>,
    hosts: Vec<In<'a, HostPart>>,
    endpoints: Vec<In<'a, WrittenEndpoint>>,
    policies: Vec<In<'a, WrittenPolicy>>,
    groups: Vec<In<'a, WrittenGroup>>,
    asserts: Vec<In<'a, WrittenAssert>>,
    /// Nothing of the host is missing for faults.
    hosts_are_whole: bool,
    /// Likewise, all groups are known.
    groups_are_whole: bool,
}

enum Fresh {
    /// Touched, but the same content.
    Same(Stamp),
    New(Box<Known>),
}

/// The error is none if the file is gone.
fn read_file(found: &Found, before: Option<&Known>) -> Result<Fresh, Option<Box<Fault>>> {
    let (content, stamp) =
        read::read(&found.path).map_err(|error| unreadable(found, &error).map(Box::new))?;
    if let Some(before) = before
        && before.source.text().as_bytes() == content
    {
        return Ok(Fresh::Same(stamp));
    }
    let path = found.path.as_os_str().as_encoded_bytes();
    let digest = Sha256::new().chain_update((path.len() as u64).to_be_bytes());
    let digest = digest.chain_update(path).chain_update(&content).finalize().into();
    let text = parse::utf8(&found.path, content).map_err(Some)?;
    let source = Arc::new(Source::new(found.path.clone(), text));
    let (mut content, faults) = parse::parse(found.kind, &source);
    if let (Some(content), Some(before)) =
        (&mut content, before.and_then(|known| known.content.as_ref()))
    {
        share(content, before);
    }
    Ok(Fresh::New(Box::new(Known { stamp, source, content, faults, digest })))
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
