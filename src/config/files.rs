//! Which files count: systemd's precedence of directories, masks, and names that are not ours to read.
//!
//! Looks at names and metadata only; opens no file.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::fault::{Fault, Faults, Place};
use super::read::Stamp;
use super::table::nearest;

/// More files than this are refused.
pub const MOST: usize = 100_000;

/// What a file is about, by where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Host,
    Endpoints,
    Policies,
}

const HOST_FILE: &str = "porin.toml";

/// Directories of files, in the order in which they are read. None: a later version's.
const DIRECTORIES: [(&str, Option<Kind>); 4] = [
    ("porin.toml.d", Some(Kind::Host)),
    ("endpoints.d", Some(Kind::Endpoints)),
    ("policies.d", Some(Kind::Policies)),
    ("services.d", None),
];

/// Where a file is in the order of reading: by directory, then by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileKey {
    /// Index in `DIRECTORIES`; none: the host's file.
    directory: Option<usize>,
    name: OsString,
}

impl FileKey {
    /// None: a later version's.
    pub fn kind(&self) -> Option<Kind> {
        match self.directory {
            None => Some(Kind::Host),
            Some(at) => DIRECTORIES[at].1,
        }
    }
}

/// What is to be read, in that order.
pub type Files = BTreeMap<FileKey, Found>;

#[derive(Debug)]
pub struct Found {
    pub kind: Kind,
    pub path: Arc<Path>,
    /// None: whether it can be read, only reading can tell.
    pub stamp: Option<Stamp>,
    pub size: u64,
}

#[derive(Debug, Default)]
pub struct Listing {
    pub files: Files,
    pub faults: Faults,
    /// Where a change can change what is read.
    pub watch: BTreeSet<PathBuf>,
    /// Some file is elsewhere, and here is only a link to it.
    pub linked: bool,
}

/// What is at a path of a file, as far as that path alone can tell.
pub enum Look {
    /// Nothing that is read.
    Nothing,
    /// The file that counts of this name; none: there is none.
    File(FileKey, Option<Found>),
    /// Only [`list`] can tell.
    Unclear,
}

/// Which file counts of all that have the name of `path`.
pub fn look(roots: &[PathBuf], path: &Path) -> Look {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Look::Unclear;
    };
    let is_parent = |(_, (directory, _)): &(usize, &(&str, Option<Kind>))| {
        roots.iter().any(|root| root.join(directory) == parent)
    };
    let Some((at, (directory, Some(kind)))) = DIRECTORIES.iter().enumerate().find(is_parent) else {
        return Look::Unclear;
    };
    if *kind == Kind::Host {
        return Look::Unclear;
    }
    if !counts(name) {
        return Look::Nothing;
    }
    let key = FileKey { directory: Some(at), name: name.to_owned() };
    for root in roots {
        let path = root.join(directory).join(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() && path.to_str().is_some() => {
                let stamp = Some(Stamp::new(&metadata, SystemTime::now()));
                let (kind, size) = (*kind, metadata.size());
                return Look::File(key, Some(Found { kind, path: path.into(), stamp, size }));
            }
            Ok(_) => return Look::Unclear,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(_) => return Look::Unclear,
        }
    }
    Look::File(key, None)
}

/// `roots`: highest precedence first.
pub fn list(roots: &[PathBuf]) -> Listing {
    let mut listing = Listing::default();
    let mut lister = Lister { listing: &mut listing, now: SystemTime::now() };
    let present = roots.iter().filter(|root| lister.root(root)).count();
    if present == 0 {
        let place = Place::file(roots.first().map_or(Path::new("/"), PathBuf::as_path));
        let fault = Fault::error(place, "none of the configuration directories exists");
        lister.listing.faults.push(fault.hint("an empty directory is an empty configuration"));
    }
    let host_file = |root: &PathBuf| {
        let path = root.join(HOST_FILE);
        fs::symlink_metadata(&path).is_ok().then_some(path)
    };
    if let Some(path) = roots.iter().find_map(host_file) {
        let metadata = fs::metadata(&path);
        let key = FileKey { directory: None, name: HOST_FILE.into() };
        lister.file(key, path, metadata);
    }
    for (at, (name, _)) in DIRECTORIES.into_iter().enumerate() {
        // The first to name a file masks the others.
        let mut files = BTreeMap::new();
        for root in roots {
            let directory = root.join(name);
            match lister.entries(&directory) {
                Ok(entries) => {
                    for entry in entries {
                        files.entry(entry.file_name()).or_insert(entry);
                    }
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => lister.unusable(&directory, &error),
            }
            lister.listing.watch.insert(directory);
        }
        for (name, entry) in files {
            let path = entry.path();
            // Asked of the directory at hand, which is much cheaper than by its path.
            let metadata = match entry.file_type() {
                Ok(found) if found.is_file() => entry.metadata(),
                _ => fs::metadata(&path),
            };
            lister.file(FileKey { directory: Some(at), name }, path, metadata);
        }
    }
    // A mistyped directory must not be taken for the wish to have no endpoints.
    if let Some(first) = roots.first().filter(|first| !first.exists())
        && present > 0
        && listing.files.is_empty()
    {
        let fault = Fault::error(Place::file(first.as_path()), "does not exist");
        let hint =
            "no configuration was found elsewhere; an empty directory is an empty configuration";
        listing.faults.push(fault.hint(hint));
    }
    listing
}

struct Lister<'a> {
    listing: &'a mut Listing,
    now: SystemTime,
}

impl Lister<'_> {
    /// Whether it exists. Tells of what lies in it and is not read.
    fn root(&mut self, root: &Path) -> bool {
        self.listing.watch.insert(root.to_owned());
        let entries = match fs::read_dir(root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return false,
            Err(error) => {
                self.unusable(root, &error);
                return true;
            }
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let known = || DIRECTORIES.iter().map(|(name, _)| *name);
            if name == HOST_FILE || name.starts_with('.') || known().any(|known| known == name) {
                continue;
            }
            let directory = entry.file_type().is_ok_and(|kind| kind.is_dir() || kind.is_symlink());
            let near = nearest(name, known()).filter(|_| directory);
            if near.is_none() && !name.ends_with(".d") && !name.ends_with(".toml") {
                continue;
            }
            let fault = Fault::warning(Place::file(entry.path()), "nothing reads this");
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => "endpoints go to endpoints.d, policies to policies.d, settings to porin.toml or porin.toml.d".to_owned(),
            };
            self.listing.faults.push(fault.hint(hint));
        }
        true
    }

    fn entries(&mut self, directory: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if !counts(&entry.file_name()) {
                continue;
            }
            if self.listing.files.len() + entries.len() >= MOST {
                let what = format!("there are more than {MOST} files");
                let fault = Fault::error(Place::file(directory), what);
                self.listing
                    .faults
                    .push(fault.hint("put several endpoints or policies into one file"));
                break;
            }
            // What a link leads to changes elsewhere.
            if entry.file_type().is_ok_and(|kind| kind.is_symlink())
                && let Ok(target) = fs::canonicalize(entry.path())
                && let Some(parent) = target.parent()
                && parent != Path::new("/dev")
            {
                self.listing.watch.insert(parent.to_owned());
                self.listing.linked = true;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// `metadata`: of the file, or of what it is a link to.
    fn file(&mut self, key: FileKey, path: PathBuf, metadata: io::Result<Metadata>) {
        if metadata.as_ref().is_ok_and(|metadata| masked(metadata, &path)) {
            return;
        }
        let place = || Place::file(path.clone());
        let Some(kind) = key.kind() else {
            let fault = Fault::error(place(), "services are not supported by this version");
            self.listing
                .faults
                .push(fault.hint("remove the file, or wait for a version that has them"));
            return;
        };
        if path.to_str().is_none() {
            self.listing.faults.push(Fault::error(place(), "the file's path is not UTF-8"));
            return;
        }
        let fault = match &metadata {
            Ok(_) => None,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                match fs::symlink_metadata(&path) {
                    // Removed since its name was read: not there any more.
                    Err(error) if error.kind() == ErrorKind::NotFound => return,
                    _ => Some(
                        Fault::error(
                            place(),
                            "is a symbolic link to something that does not exist",
                        )
                        .hint("a file that is to be masked is linked to /dev/null"),
                    ),
                }
            }
            Err(error) => Some(io_fault(place(), error)),
        };
        match fault {
            Some(fault) => self.listing.faults.push(fault),
            None => {
                let metadata = metadata.ok();
                let stamp = metadata.as_ref().filter(|metadata| metadata.is_file());
                let stamp = stamp.map(|metadata| Stamp::new(metadata, self.now));
                let size = metadata.map_or(0, |metadata| metadata.size());
                self.listing.files.insert(key, Found { kind, path: path.into(), stamp, size });
            }
        }
    }

    fn unusable(&mut self, path: &Path, error: &io::Error) {
        self.listing.faults.push(io_fault(Place::file(path), error));
    }
}

pub fn io_fault(place: Place, error: &io::Error) -> Fault {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            Fault::error(place, "cannot be read: permission denied").hint("see its mode and owner")
        }
        ErrorKind::NotADirectory => Fault::error(place, "is not a directory"),
        // ELOOP has no stable kind of its own.
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            Fault::error(place, "is a loop of symbolic links")
        }
        _ => Fault::error(place, format!("cannot be read: {error}")),
    }
}

/// Editors' and package managers' own files (`x.toml~`, `x.toml.dpkg-new`, `.x.toml.swp`) do not
/// end so, or begin with a dot.
fn counts(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.ends_with(b".toml") && !name.starts_with(b".")
}

/// A link to `/dev/null`.
fn masked(metadata: &Metadata, path: &Path) -> bool {
    let null = rustix::fs::makedev(1, 3);
    metadata.file_type().is_char_device()
        && metadata.rdev() == null
        && fs::symlink_metadata(path).is_ok_and(|link| link.is_symlink())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_toml_files_count() {
        for name in ["a.toml", "10-b.toml", "ü.toml"] {
            assert!(counts(OsStr::new(name)), "{name}");
        }
        for name in [
            ".toml",
            ".a.toml",
            ".#a.toml",
            "#a.toml#",
            "a.toml~",
            "a.toml.dpkg-new",
            "a.toml.dpkg-old",
            "a.toml.rpmsave",
            "a.toml.rpmnew",
            ".a.toml.swp",
            "a.toml.swp",
            "4913",
            "README",
            "a.tml",
        ] {
            assert!(!counts(OsStr::new(name)), "{name}");
        }
    }
}
