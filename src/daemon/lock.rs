//! One daemon at a time: two would fill the inactive side together.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{Exit, Fatal};

/// Held as long as it lives; the kernel lets go when the process dies, however it dies.
pub struct Lock {
    _file: File,
}

/// Takes `<run>/porind.lock`.
pub fn take(run: &Path) -> Result<Lock, Fatal> {
    let path = run.join("porind.lock");
    let failed =
        |why: String| Fatal::new(Exit::Failed, "lock", format_args!("{}: {why}", path.display()));
    fs::create_dir_all(run).map_err(|error| failed(error.to_string()))?;
    let file = File::options().create(true).append(true).open(&path);
    let file = file.map_err(|error| failed(error.to_string()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock { _file: file }),
        Err(Errno::WOULDBLOCK) => Err(failed("another porind is running".to_owned())),
        Err(error) => Err(failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_at_a_time() {
        let run = tempfile::tempdir().unwrap();
        let first = take(run.path()).unwrap_or_else(|fatal| panic!("{fatal}"));
        assert!(take(run.path()).is_err_and(|fatal| fatal.to_string().contains("another porind")));
        drop(first);
        assert!(take(run.path()).is_ok());
    }
}
