//! Watching directories, whatever way people and tools save files in them.
//!
//! Kinds of events are never trusted, and names only for a while: editors, dpkg, rpm and ConfigMaps all save in ways
//! of their own, and some leave no event for the file itself. Any event means "look there at once, and everywhere
//! soon": a commit need not wait until ten thousand other files were looked at. Directories are watched, not files, and so are the parents of those that do not exist yet and the homes of files that are only linked to.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use crate::config::Changed;
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

/// Calls back on any change in the watched directories, from a thread of its own.
pub struct Watcher {
    inner: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
    /// Those whose content matters. The others are watched for these to come, go or be replaced.
    homes: BTreeSet<PathBuf>,
}

impl Watcher {
    pub fn new(mut changed: impl FnMut(Changed) + Send + 'static) -> notify::Result<Self> {
        let inner = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            match event {
                // An error (a full queue, say) may hide a change.
                Err(_) => changed(Changed::Any),
                Ok(event) if !is_change(&event) => {}
                Ok(event) if event.need_rescan() || event.paths.is_empty() => changed(Changed::Any),
                Ok(event) => changed(Changed::At(event.paths.into_iter().collect())),
            }
        })?;
        Ok(Watcher { inner, watched: BTreeSet::new(), homes: BTreeSet::new() })
    }

    /// Makes `directories` what is watched. To be called before they are read, so that no change falls between.
    /// What could not be watched is returned with the reason: those need another way to notice changes.
    ///
    /// Each is watched anew every time: a directory that was removed and made again looks the same (inodes are
    /// used again, too), but its watch is dead. For one that lives this changes nothing (inotify_add_watch(2)).
    /// The death of a watch may come to light after its successor was made and take that along: so after
    /// a change this is to be called once more, a little later.
    pub fn watch(&mut self, directories: &[PathBuf]) -> Vec<(PathBuf, notify::Error)> {
        self.homes = directories.iter().flat_map(|directory| homes(directory)).collect();
        let mut wanted = self.homes.clone();
        wanted.retain(|home| home.is_dir());
        wanted.extend(directories.iter().filter_map(|directory| above(directory)));
        let gone: Vec<PathBuf> = self.watched.difference(&wanted).cloned().collect();
        for path in gone {
            self.forget(&path);
        }
        wanted.into_iter().filter_map(|path| self.watch_one(path)).collect()
    }

    /// Leaves out what is only beside that which is watched. False if nothing is left.
    pub fn concerns(&self, changed: &mut Changed) -> bool {
        let Changed::At(paths) = changed else { return true };
        paths.retain(|path| {
            let inside = path.parent().is_some_and(|parent| self.homes.contains(parent));
            // From a path on come those that are below it.
            let at =
                self.homes.range::<Path, _>((Bound::Included(path.as_path()), Bound::Unbounded));
            inside || at.take(1).any(|home| home.starts_with(path))
        });
        !paths.is_empty()
    }

    fn watch_one(&mut self, path: PathBuf) -> Option<(PathBuf, notify::Error)> {
        match self.inner.watch(&path, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.watched.insert(path);
                None
            }
            // Gone since it was looked at: its parent tells.
            Err(_) if !path.exists() => None,
            Err(error) => Some((path, error)),
        }
    }

    fn forget(&mut self, path: &Path) {
        if self.watched.remove(path) {
            // Fails when the directory is gone, and the watch with it: just what is wanted.
            let _ = self.inner.unwatch(path);
        }
    }
}

/// Our own reading makes Access events: taking them for changes would never end.
fn is_change(event: &notify::Event) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => event.need_rescan(),
        _ => true,
    }
}

/// The directory, which need not exist, and those that hold what its links point to.
fn homes(directory: &Path) -> Vec<PathBuf> {
    let mut homes = vec![directory.to_owned()];
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            let target = std::fs::canonicalize(entry.path()).ok();
            let home = target.as_deref().and_then(Path::parent);
            // /dev/null masks a file; /dev itself is no place to watch.
            homes.extend(home.filter(|home| *home != Path::new("/dev")).map(Path::to_owned));
        }
    }
    homes
}

/// Where it can be noticed that the directory is made or replaced: the nearest of those above it.
fn above(directory: &Path) -> Option<PathBuf> {
    directory.ancestors().skip(1).find(|path| path.is_dir()).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    struct Watched {
        root: tempfile::TempDir,
        watcher: Watcher,
        changes: Receiver<()>,
    }

    impl Watched {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("d")).unwrap();
            let (tell, changes) = channel();
            let watcher = Watcher::new(move |_| _ = tell.send(())).unwrap();
            let mut watched = Watched { root, watcher, changes };
            watched.rewatch();
            watched
        }

        fn path(&self, name: &str) -> PathBuf {
            self.root.path().join(name)
        }

        fn rewatch(&mut self) {
            assert!(self.watcher.watch(&[self.path("d")]).is_empty());
        }

        /// The change is noticed; then reads everything, which must not be.
        fn noticed(&mut self, what: &str) {
            self.changes.recv_timeout(Duration::from_secs(5)).unwrap_or_else(|_| panic!("{what}"));
            while self.changes.recv_timeout(Duration::from_millis(50)).is_ok() {}
            self.rewatch();
            for entry in fs::read_dir(self.path("d")).into_iter().flatten() {
                let _ = fs::read(entry.unwrap().path());
            }
            assert!(
                self.changes.recv_timeout(Duration::from_millis(50)).is_err(),
                "{what}: reading"
            );
        }
    }

    #[test]
    fn every_way_to_save_is_noticed_and_reading_is_not() {
        let mut w = Watched::new();
        fs::write(w.path("d/a.toml"), "1").unwrap();
        w.noticed("create");
        fs::write(w.path("d/a.toml"), "2").unwrap();
        w.noticed("truncate and write");
        fs::write(w.path("d/.a.tmp"), "3").unwrap();
        fs::rename(w.path("d/.a.tmp"), w.path("d/a.toml")).unwrap();
        w.noticed("rename over");
        fs::create_dir(w.path("d/..1")).unwrap();
        fs::write(w.path("d/..1/b.toml"), "1").unwrap();
        symlink("..1", w.path("d/..data")).unwrap();
        symlink("..data/b.toml", w.path("d/b.toml")).unwrap();
        w.noticed("links");
        fs::create_dir(w.path("d/..2")).unwrap();
        fs::write(w.path("d/..2/b.toml"), "2").unwrap();
        symlink("..2", w.path("d/..tmp")).unwrap();
        fs::rename(w.path("d/..tmp"), w.path("d/..data")).unwrap();
        w.noticed("ConfigMap swap");
        fs::remove_file(w.path("d/a.toml")).unwrap();
        w.noticed("remove");
    }

    #[test]
    fn what_a_link_points_to_is_watched() {
        let mut w = Watched::new();
        fs::create_dir(w.path("git")).unwrap();
        fs::write(w.path("git/c.toml"), "1").unwrap();
        symlink(w.path("git/c.toml"), w.path("d/c.toml")).unwrap();
        w.noticed("link");
        fs::write(w.path("git/c.toml"), "2").unwrap();
        w.noticed("target");
    }

    #[test]
    fn what_is_only_beside_concerns_nobody() {
        let mut w = Watched::new();
        fs::create_dir(w.path("git")).unwrap();
        fs::write(w.path("git/c.toml"), "1").unwrap();
        symlink(w.path("git/c.toml"), w.path("d/c.toml")).unwrap();
        assert!(w.watcher.watch(&[w.path("d"), w.path("x/y")]).is_empty());
        let concerns = |name: &str| {
            let mut changed = Changed::At([w.path(name)].into());
            w.watcher.concerns(&mut changed)
        };
        for name in ["d", "d/a.toml", "d/.a.swp", "git/c.toml", "git", "x", "x/y", "x/y/a.toml"] {
            assert!(concerns(name), "{name}");
        }
        for name in ["porind.log", "e", "dd", "x/z", "d/e/a.toml", "git/c/d"] {
            assert!(!concerns(name), "{name}");
        }
        assert!(w.watcher.concerns(&mut Changed::Any));
        let mut both = Changed::At([w.path("e"), w.path("d/a.toml")].into());
        assert!(w.watcher.concerns(&mut both));
        assert_eq!(both, Changed::At([w.path("d/a.toml")].into()));
    }

    #[test]
    fn a_directory_made_anew_is_watched_again() {
        let mut w = Watched::new();
        fs::remove_dir_all(w.path("d")).unwrap();
        w.noticed("removed");
        fs::create_dir(w.path("d")).unwrap();
        w.noticed("made anew");
        fs::write(w.path("d/a.toml"), "1").unwrap();
        w.noticed("file in it");
        fs::rename(w.path("d"), w.path("old")).unwrap();
        w.noticed("moved away");
        symlink("old", w.path("d")).unwrap();
        w.noticed("link to a directory");
        fs::write(w.path("old/a.toml"), "2").unwrap();
        w.noticed("file behind the link");
    }
}
