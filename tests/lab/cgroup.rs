//! A cgroup of this test's own below the machine's root, with this process and all that it starts in it.
//!
//! Programs that are attached to it see the sockets that this process makes, in whatever namespace, and nobody
//! else's. It is left and removed with the last `Cgroup`; what a killed test leaves is empty, and the next one removes it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::mount::{MountFlags, mount};

use super::host::Host;

/// Where a host of the lab's sees cgroups.
const MOUNT: &str = "/run/cgroup";
const PREFIX: &str = "porin-lab-";

/// How many there are in this process, and the one where it was before.
static USERS: Mutex<(usize, String)> = Mutex::new((0, String::new()));

pub struct Cgroup {
    host: Host,
}

impl Cgroup {
    /// To be held for as long as what is started on the host runs.
    pub fn enter(host: &Host) -> Cgroup {
        let cgroup = Cgroup { host: host.clone() };
        cgroup.host.enter(|| {
            fs::create_dir_all(MOUNT).expect("mount point");
            mount("none", MOUNT, "cgroup2", MountFlags::empty(), None).expect("mount cgroup2");
        });
        let mut users = USERS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if users.0 == 0 {
            users.1 = cgroup.host.enter(begin);
        }
        users.0 += 1;
        cgroup
    }

    /// For `--cgroup`.
    pub fn path(&self) -> String {
        own().display().to_string()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let mut users = USERS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        users.0 -= 1;
        if users.0 == 0 {
            let before = users.1.clone();
            self.host.enter(|| {
                let left = move_to(&Path::new(MOUNT).join(&before));
                // A child that was just killed may still be there: the next test removes it.
                let _ = left.and_then(|()| fs::remove_dir(own()));
            });
        }
    }
}

fn own() -> PathBuf {
    Path::new(MOUNT).join(format!("{PREFIX}{}", std::process::id()))
}

/// Returns where the process was, from the root on.
fn begin() -> String {
    for entry in fs::read_dir(MOUNT).expect("cgroups").flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            // Refused, if anybody is in it.
            let _ = fs::remove_dir(entry.path());
        }
    }
    let table = fs::read_to_string("/proc/self/cgroup").expect("own cgroup");
    let before = table.lines().find_map(|line| line.strip_prefix("0::/")).expect("cgroup2");
    let before = if before.starts_with(PREFIX) { "" } else { before };
    fs::create_dir_all(own()).expect("make a cgroup: the lab needs cgroup2");
    move_to(&own()).expect("enter a cgroup");
    before.to_owned()
}

fn move_to(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string())
}
