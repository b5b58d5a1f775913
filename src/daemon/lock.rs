//! One daemon at a time: two would fill the inactive side together.

use std::fs::{self, File};
use std::path::Path;

use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{Exit, Fatal};

/// Held as long as it lives; the kernel lets go when the process dies, however it dies.
pub struct Lock {
    _file: File,
}

/// A daemon that was killed holds its lock until the kernel has taken it apart, maps and all.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes `<run>/porind.lock`, waiting a little for another daemon to end.
pub fn take(run: &Path) -> Result<Lock, Fatal> {
    take_within(run, PATIENCE)
}

fn take_within(run: &Path, patience: Duration) -> Result<Lock, Fatal> {
    let path = run.join("porind.lock");
    let failed =
        |why: String| Fatal::new(Exit::Failed, "lock", format_args!("{}: {why}", path.display()));
    fs::create_dir_all(run).map_err(|error| failed(error.to_string()))?;
    let file = File::options().create(true).append(true).open(&path);
    let file = file.map_err(|error| failed(error.to_string()))?;
    let deadline = Instant::now() + patience;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(Errno::WOULDBLOCK) => return Err(failed("another porind is running".to_owned())),
            Err(error) => return Err(failed(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_at_a_time() {
        let run = tempfile::tempdir().unwrap();
        let first = take(run.path()).unwrap_or_else(|fatal| panic!("{fatal}"));
        let second = take_within(run.path(), Duration::ZERO);
        assert!(second.is_err_and(|fatal| fatal.to_string().contains("another porind")));
        let waiting = std::thread::spawn({
            let run = run.path().to_owned();
            move || take(&run).is_ok()
        });
        drop(first);
        assert!(waiting.join().unwrap());
        assert!(take(run.path()).is_ok());
    }
}
