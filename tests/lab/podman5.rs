//! Podman 5 with netavark, from a Debian of its own, which `make test-podman5` puts under `target/`.
//!
//! It sees the host's /run, and whatever either side mounts there, so that the daemon outside finds its containers'
//! network namespaces. Nothing else of that Debian can be written to.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::eventually;
use super::host::Host;
use super::process::{Output, Process};
use super::traffic::ARRIVES;

/// Where `make test-podman5` has put it.
const ROOT: &str = "PORIN_PODMAN5_ROOT";

pub struct Podman5<'h> {
    host: &'h Host,
    /// In that Debian; as long as it is there, so are its mounts.
    inside: Process,
}

/// None: it is not to be tried.
pub fn root() -> Option<PathBuf> {
    let root = std::env::var_os(ROOT).map(PathBuf::from);
    if root.is_none() {
        eprintln!("not tried: `make test-podman5` does");
    }
    root
}

impl<'h> Podman5<'h> {
    /// With the network plugins of `/run/netavark`, and an image `busybox`.
    pub fn set_up(host: &'h Host, root: &std::path::Path) -> Self {
        host.mount_control_groups();
        let image = host.busybox_image();
        let run = host.run_directory();
        std::fs::create_dir_all(run.join("netavark")).unwrap();
        std::fs::create_dir_all(run.join("networks")).unwrap();
        let config = "[containers]\npids_limit = 0\ncgroups = \"disabled\"\ndefault_ulimits = [\"nofile=1024:4096\", \"nproc=4096:4096\"]\n\
             [engine]\nruntime = \"crun\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
             [network]\nnetwork_backend = \"netavark\"\nnetwork_config_dir = \"/run/networks\"\n\
             netavark_plugin_dirs = [\"/run/netavark\"]\nfirewall_driver = \"none\"\n";
        std::fs::write(run.join("containers.conf"), config).unwrap();
        let accept = "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}";
        std::fs::write(run.join("policy.json"), accept).unwrap();
        // Podman would else lay a mount over those that are there.
        host.sh("mount --rbind /run/netns /run/netns; mount --make-rshared /run");
        // A chroot is not enough: crun pivots the container's root itself.
        let script = format!(
            "mount --bind {root} {root}; mount --make-private {root}; cd {root}
             mount -t proc proc proc; mount --rbind /sys sys; mount --rbind /dev dev; mount --rbind /run run
             # Or what is unmounted below would be unmounted for the host as well.
             mount --make-rprivate /run
             mount -o remount,bind,ro {root}
             for own in tmp var/tmp var/lib var/cache; do mount -t tmpfs tmpfs $own; done
             pivot_root . .; umount -l .; cd /; touch /run/podman5.ready; exec sleep infinity",
            root = root.display()
        );
        let unshare = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-euc", &script];
        let inside = host.place().spawn(host.place().command(&unshare));
        eventually(ARRIVES, "the other Debian is there", || run.join("podman5.ready").exists());
        let podman = Podman5 { host, inside };
        let import = podman.run(&["import", &image.to_string_lossy(), "busybox"]);
        import.success();
        podman
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.host.slowly(self.command(arguments))
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let pid = self.inside.pid().to_string();
        let enter = ["nsenter", "--target", &pid, "--mount", "--root", "--wd", "podman"];
        let fixed = ["--root", "/run/storage", "--runroot", "/run/storage-run"];
        let fixed = [&enter[..], &fixed, &["--storage-driver", "vfs"], arguments].concat();
        let mut command = self.host.place().command(&fixed);
        command.env("CONTAINERS_CONF", "/run/containers.conf").env("HOME", "/tmp");
        command
    }

    pub fn inspect(&self, container: &str) -> Value {
        self.run(&["inspect", container]).json()[0].clone()
    }
}
