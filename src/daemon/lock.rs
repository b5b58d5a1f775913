//! One daemon at a time: two would fill the inactive side together.
//!
//! What is locked is the directory that the kernel objects are in: whoever uses the same ones finds the same lock, and
//! nobody but root can open it to hold it.

use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use super::{Exit, Fatal};
use crate::kernel::probe;

/// Held as long as it lives; the kernel lets go when the process dies, however it dies.
#[derive(Debug)]
pub struct Lock {
    _directory: File,
}

/// A daemon that was killed holds its lock until the kernel has taken it apart, maps and all.
const PATIENCE: Duration = Duration::from_secs(5);

/// Locks the directory of porin's objects on bpffs, waiting a little for another daemon to end.
pub fn take(bpffs: &Path) -> Result<Lock, Fatal> {
    probe::mount_bpffs(bpffs)
        .map_err(|unusable| Fatal::new(Exit::Unusable, "use this kernel", unusable))?;
    take_within(bpffs, PATIENCE)
}

fn take_within(path: &Path, patience: Duration) -> Result<Lock, Fatal> {
    let failed = |why: &dyn std::fmt::Display| {
        Fatal::new(Exit::Failed, "lock", format_args!("{}: {why}", path.display()))
    };
    let deadline = Instant::now() + patience;
    loop {
        let directory = open(path).map_err(|error| failed(&error))?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_at(&directory, path) => return Ok(Lock { _directory: directory }),
            // A teardown removed it meanwhile; the next daemon makes another.
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(Errno::WOULDBLOCK) => {
                return Err(failed(&"another porind is running; stop it first"));
            }
            Err(error) => return Err(failed(&error)),
        }
    }
}

/// Makes it if it is not there. Nobody else is to open it, whoever made it.
fn open(path: &Path) -> std::io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let directory = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    directory.set_permissions(Permissions::from_mode(0o700))?;
    Ok(directory)
}

fn is_at(directory: &File, path: &Path) -> bool {
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let (opened, there) = (directory.metadata(), fs::symlink_metadata(path));
    opened.is_ok_and(|opened| there.is_ok_and(|there| id(opened) == id(there)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_at_a_time_and_only_root_could_hold_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("porin");
        DirBuilder::new().mode(0o755).create(&path).unwrap();
        let first = take_within(&path, PATIENCE).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
        let second = take_within(&path, Duration::ZERO);
        assert!(second.is_err_and(|fatal| fatal.to_string().contains("another porind")));
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || take_within(&path, PATIENCE).is_ok()
        });
        drop(first);
        assert!(waiting.join().unwrap());
        assert!(take_within(&path, PATIENCE).is_ok());
    }

    #[test]
    fn a_lock_on_what_was_removed_is_none() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("porin");
        let first = take_within(&path, PATIENCE).unwrap();
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || take_within(&path, PATIENCE).unwrap()
        });
        fs::remove_dir(&path).unwrap();
        drop(first);
        let second = waiting.join().unwrap();
        assert!(is_at(&second._directory, &path));
    }
}
