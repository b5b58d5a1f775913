//! Reading it all: finds the files, parses those that changed, checks the whole.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::assertion::WrittenAssert;
use super::check::{self, In};
use super::edited::{self, Edit};
use super::endpoint::WrittenEndpoint;
use super::fault::{Fault, Faults, Place};
use super::files::{self, Files, Listing, Look};
use super::group::WrittenGroup;
use super::host::{self, HostPart};
use super::known::{Fresh, Known, read_file};
use super::model::{self, Boot, Config, Endpoint};
use super::parse::Content;
use super::policy::WrittenPolicy;
use super::read;
use super::report::Report;
use super::warn;
use crate::types::Origin;

/// All files together are at most this large, in bytes.
pub const LARGEST_TOTAL: u64 = 64 << 20;

/// Reads configuration, and remembers what it has parsed, so that reading again costs only what changed.
#[derive(Debug)]
pub struct Loader {
    roots: Vec<PathBuf>,
    files: Files,
    /// Bytes in all of them.
    total: u64,
    known: HashMap<Arc<Path>, Known>,
    watch: Vec<PathBuf>,
    last: Option<Loaded>,
    report: Arc<Report>,
    /// What may be hardly meant in what was read last is yet to be looked for. Its faults so far: no errors.
    undoubted: Option<Faults>,
    /// Set if what was read last had no error, and every file is where it seems to be: an edit of a few files can be
    /// judged by itself. The faults of the files: no errors.
    sound: Option<Faults>,
}

/// Which files may be others than when they were last read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// Any; some may be gone, or new.
    Any,
    /// These paths at most.
    At(BTreeSet<PathBuf>),
}

impl Changed {
    pub fn nothing() -> Self {
        Changed::At(BTreeSet::new())
    }

    /// Either.
    pub fn and(&mut self, other: Changed) {
        match (self, other) {
            (Changed::At(paths), Changed::At(more)) => paths.extend(more),
            (all, _) => *all = Changed::Any,
        }
    }
}

/// The outcome of one reading. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// None if there is any error.
    pub config: Option<Arc<Config>>,
    pub report: Arc<Report>,
    /// Files that were read; masked ones do not count.
    pub files: usize,
}

impl Loader {
    /// Where configuration is looked for, highest precedence first.
    pub const ROOTS: [&str; 3] = ["/etc/porin", "/run/porin", "/usr/lib/porin"];

    /// `roots`: highest precedence first; those that do not exist are skipped.
    pub fn new(roots: Vec<PathBuf>) -> Self {
        Loader {
            roots,
            files: Files::new(),
            total: 0,
            known: HashMap::new(),
            watch: Vec::new(),
            last: None,
            report: Arc::default(),
            undoubted: None,
            sound: None,
        }
    }

    /// Reads everything anew. Takes as long as it takes; never waits for anything but the disk.
    pub fn load(&mut self) -> Loaded {
        let loaded = self.look(&Changed::Any);
        Loaded { report: self.report(), ..loaded }
    }

    /// Reads what may have changed. Those warnings are left out that files hardly ever deserve: to look for them takes
    /// longer than all the rest, and nothing depends on them. [`Loader::report`] has them.
    pub fn look(&mut self, changed: &Changed) -> Loaded {
        let edited = match changed {
            Changed::Any => None,
            Changed::At(paths) => self.look_at(paths),
        };
        edited.unwrap_or_else(|| self.look_everywhere())
    }

    fn look_everywhere(&mut self) -> Loaded {
        let mut listing = files::list(&self.roots);
        self.watch = std::mem::take(&mut listing.watch).into_iter().collect();
        let Listing { files, mut faults, linked, .. } = listing;
        let unread = faults.clone();
        let mut known = HashMap::with_capacity(files.len());
        let (mut total, mut changed) = (0, files.len() != self.known.len());
        for found in files.values() {
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
        self.total = files.values().map(|found| found.size).sum();
        self.files = files;
        let whole = self.known.len() == self.files.len() && unread.is_empty();
        if let Some(last) = self.last.as_ref().filter(|_| whole && !changed) {
            return last.clone();
        }
        let (loaded, faults) = self.check(faults);
        let sound = whole && !linked && loaded.config.is_some();
        self.sound = sound.then(|| faults.clone());
        // Faults outside files (a directory that cannot be read) are looked at anew each time.
        self.last = whole.then(|| loaded.clone());
        self.report = Arc::clone(&loaded.report);
        self.undoubted = loaded.config.is_some().then_some(faults);
        loaded
    }

    /// Reads these alone, whatever became of others. None: only a look at all files can tell what they mean.
    pub fn look_at(&mut self, paths: &BTreeSet<PathBuf>) -> Option<Loaded> {
        let faults = self.sound.clone()?;
        let last = self.last.as_ref()?;
        let config = last.config.as_ref()?;
        let mut looks = Vec::new();
        for path in paths {
            match files::look(&self.roots, path) {
                Look::Nothing => {}
                Look::File(key, found) => looks.push((key, found)),
                Look::Unclear => return None,
            }
        }
        let mut edits = Vec::new();
        for (key, found) in looks {
            let before = self.files.get(&key).and_then(|found| self.known.get(&found.path));
            let same_file = found.as_ref().and_then(|found| self.known.get(&found.path));
            let fresh = match (&found, before) {
                (None, None) => continue,
                (None, Some(_)) => None,
                (Some(found), _) => match read_file(found, same_file).ok()? {
                    Fresh::Same(_) => continue,
                    Fresh::New(fresh) => Some(fresh),
                },
            };
            edits.push(Edit { key, before, after: found.zip(fresh) });
        }
        if edits.is_empty() {
            return Some(last.clone());
        }
        let policies = edited::policies(config, &edits)?;
        let endpoints = edits.iter().any(|edit| edit.key.kind() == Some(files::Kind::Endpoints));
        let edits: Vec<_> = edits.into_iter().map(|edit| (edit.key, edit.after)).collect();
        let mut config = Config { policies, ..Config::clone(config) };
        // From here on it is not what was read last any more, whatever comes of it.
        self.last = None;
        for (key, after) in edits {
            if let Some(found) = self.files.remove(&key) {
                self.known.remove(&found.path);
                self.total -= found.size;
            }
            if let Some((found, known)) = after {
                self.total += found.size;
                self.known.insert(found.path.clone(), *known);
                self.files.insert(key, found);
            }
        }
        if self.total > LARGEST_TOTAL || self.files.len() > files::MOST {
            return None;
        }
        if endpoints {
            let mut wrong = Faults::default();
            let parts = self.parts();
            check::endpoints(&parts.endpoints, Some(&config.host), &mut wrong);
            if !wrong.is_empty() {
                return None;
            }
            config.endpoints = sorted_endpoints(&parts.endpoints);
        }
        let report = Arc::new(Report::new(faults.clone()));
        let loaded = Loaded { config: Some(Arc::new(config)), report, files: self.known.len() };
        self.last = Some(loaded.clone());
        self.report = Arc::clone(&loaded.report);
        self.undoubted = Some(faults);
        Some(loaded)
    }

    /// All that is to be said of what was read last.
    pub fn report(&mut self) -> Arc<Report> {
        if let Some(mut faults) = self.undoubted.take() {
            let parts = self.parts();
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

    /// What the files say of the boot that were read last, whatever else is written wrong. A mistake elsewhere must not have
    /// runtimes wait that nobody asked to; but what the host's own files say of just this, and cannot be read, is closed.
    pub fn boot(&self) -> Boot {
        let mut hosts = self.files.values().filter(|found| found.kind == files::Kind::Host);
        let unclear = |found: &files::Found| {
            let Some(file) = self.known.get(&found.path) else { return true };
            let said = match &file.content {
                Some(Content::Host(part)) => part.boot.is_some(),
                _ => false,
            };
            let speaks = |line: &str| line.trim_start().starts_with("boot");
            !said && file.faults.errors() > 0 && file.source.text().lines().any(speaks)
        };
        // One that cannot be read at all may be what says it.
        match self.last.is_none() || hosts.any(unclear) {
            true => Boot::Closed,
            false => host::merge(self.parts().hosts.into_iter()).host.boot,
        }
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
    fn parts(&self) -> Parts<'_> {
        let mut parts = Parts { hosts_are_whole: true, groups_are_whole: true, ..Parts::default() };
        for found in self.files.values() {
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
    fn check(&self, mut faults: Faults) -> (Loaded, Faults) {
        let parts = self.parts();
        for file in &parts.files {
            faults.extend(&file.faults);
        }
        let Parts { hosts, endpoints, policies, groups, asserts, .. } = parts;
        let merged = host::merge(hosts.into_iter());
        check::host(&merged, &mut faults);
        let host = parts.hosts_are_whole.then_some(&merged.host);
        check::endpoints(&endpoints, host, &mut faults);
        check::policies(&policies, &mut faults);
        check::groups(&groups, &mut faults);
        if parts.groups_are_whole {
            check::references(&policies, &groups, &asserts, &mut faults);
        }
        let mut config = None;
        if faults.errors() == 0 {
            let endpoints = sorted_endpoints(&endpoints);
            let policies = model::by_name(policies.iter().map(|(_, one)| one.policy.clone()));
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
        };
        (loaded, faults)
    }
}

fn sorted_endpoints(written: &[In<WrittenEndpoint>]) -> Vec<Arc<Endpoint>> {
    let mut endpoints: Vec<_> = written.iter().map(|(_, one)| one.endpoint.clone()).collect();
    endpoints.sort_by(|a, b| a.name.cmp(&b.name));
    endpoints
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
