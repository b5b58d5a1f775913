//! A cgroup of this test's own below the machine's root, with this process and all that it starts in it.
//!
//! Programs that are attached to it see the sockets that this process makes, in whatever namespace, and nobody
//! else's. It is left and removed with the last `Cgroup`; what a killed test leaves is empty, and the next one removes it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::SystemTime;

use rustix::mount::{MountFlags, mount};

use super::host::Host;
use super::world::World;

/// Where a host of the lab's sees cgroups.
const MOUNT: &str = "/run/cgroup";
const PREFIX: &str = "porin-lab-";

/// Where this process is, and was before.
struct Stay {
    users: usize,
    own: String,
    before: String,
}

static STAY: Mutex<Option<Stay>> = Mutex::new(None);

pub struct Cgroup {
    host: Host,
    path: PathBuf,
}

impl Cgroup {
    /// To be held for as long as what is started on the host runs.
    pub fn enter(host: &Host) -> Cgroup {
        host.enter(show);
        let mut stay = stay();
        let stay = stay.get_or_insert_with(|| host.enter(Stay::begin));
        stay.users += 1;
        Cgroup { host: host.clone(), path: Path::new(MOUNT).join(&stay.own) }
    }

    /// For `--cgroup`.
    pub fn path(&self) -> String {
        self.path.display().to_string()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let mut stay = stay();
        let Some(there) = stay.as_mut() else { return };
        there.users -= 1;
        if there.users == 0 {
            let before = Path::new(MOUNT).join(&there.before);
            *stay = None;
            // Whoever was just killed may still be in it: then the next test removes it.
            let leave = || move_to(&before).and_then(|()| fs::remove_dir(&self.path));
            let _ = self.host.enter(leave);
        }
    }
}

/// Removes those that nobody is in any more. For tests whose processes end all at once, when nobody is left to do it.
pub fn sweep() {
    World::run(|world| {
        let host = world.host("sweep");
        host.enter(|| {
            show();
            remove_empty();
        });
    });
}

fn show() {
    fs::create_dir_all(MOUNT).expect("mount point");
    mount("none", MOUNT, "cgroup2", MountFlags::empty(), None).expect("mount cgroup2");
}

fn remove_empty() {
    for entry in fs::read_dir(MOUNT).expect("cgroups").flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            // Refused, if anybody is in it.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn stay() -> MutexGuard<'static, Option<Stay>> {
    STAY.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Stay {
    fn begin() -> Stay {
        remove_empty();
        let table = fs::read_to_string("/proc/self/cgroup").expect("own cgroup");
        let before = table.lines().find_map(|line| line.strip_prefix("0::/")).expect("cgroup2");
        // What a test started is in that test's.
        let before = if before.starts_with(PREFIX) { "" } else { before };
        // Process numbers may be a namespace's own.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        let own = format!("{PREFIX}{}-{}", std::process::id(), now.as_nanos());
        let path = Path::new(MOUNT).join(&own);
        // Another test may take it for one that was left, before anybody is in it.
        let entered =
            (0..100).find_map(|_| match fs::create_dir(&path).and_then(|()| move_to(&path)) {
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                entered => Some(entered),
            });
        entered.expect("not always removed").expect("enter a cgroup: the lab needs cgroup2");
        Stay { users: 0, own, before: before.to_owned() }
    }
}

/// With all threads.
fn move_to(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0")
}
