//! Programs of a newer Debian, which `make test-newer` puts under `target/`.
//!
//! They see the host's /run, and whatever either side mounts there, so that the daemon outside finds their containers'
//! network namespaces, and they its sockets. Nothing else of that Debian can be written to.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::eventually;
use super::host::Host;
use super::process::Process;
use super::traffic::ARRIVES;

/// Where `make test-newer` has put it.
const ROOT: &str = "PORIN_NEWER_ROOT";

/// None: it is not to be tried.
pub fn root() -> Option<PathBuf> {
    std::env::var_os(ROOT).map(PathBuf::from)
}

/// As long as the process is there, so are the mounts.
pub fn enter(host: &Host, root: &Path) -> Process {
    // Container runtimes would else lay a mount over those that are there.
    host.sh("mkdir -p /run/netns; mount --rbind /run/netns /run/netns; mount --make-rshared /run");
    // A chroot is not enough: crun and runc pivot the container's root themselves.
    let script = format!(
        "mount --bind {root} {root}; mount --make-private {root}; cd {root}
         mount -t proc proc proc; mount --rbind /sys sys; mount --rbind /dev dev; mount --rbind /run run
         # Or what is unmounted below would be unmounted for the host as well.
         mount --make-rprivate /run
         mount -o remount,bind,ro {root}
         for own in tmp var/tmp var/lib var/cache; do mount -t tmpfs tmpfs $own; done
         pivot_root . .; umount -l .; cd /; touch /run/newer.ready; exec sleep infinity",
        root = root.display()
    );
    let unshare = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-euc", &script];
    let inside = host.place().spawn(host.place().command(&unshare));
    let ready = host.run_directory().join("newer.ready");
    eventually(ARRIVES, "the other Debian is there", || ready.exists());
    inside
}

/// A command in there.
pub fn command<S: AsRef<str>>(host: &Host, inside: &Process, arguments: &[S]) -> Command {
    let pid = inside.pid().to_string();
    let enter = ["nsenter", "--target", &pid, "--mount", "--root", "--wd"];
    let all: Vec<&str> = enter.into_iter().chain(arguments.iter().map(AsRef::as_ref)).collect();
    host.place().command(&all)
}
