//! Podman 5 with netavark, from a newer Debian.

use std::process::Command;

use serde_json::Value;

use super::host::Host;
use super::newer;
use super::process::{Output, Process};

pub struct Podman5<'h> {
    host: &'h Host,
    /// In that Debian; as long as it is there, so are its mounts.
    inside: Process,
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
        let inside = newer::enter(host, root);
        let podman = Podman5 { host, inside };
        let import = podman.run(&["import", &image.to_string_lossy(), "busybox"]);
        import.success();
        podman
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.host.slowly(self.command(arguments))
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let fixed = ["podman", "--root", "/run/storage", "--runroot", "/run/storage-run"];
        let fixed = [&fixed[..], &["--storage-driver", "vfs"], arguments].concat();
        let mut command = newer::command(self.host, &self.inside, &fixed);
        command.env("CONTAINERS_CONF", "/run/containers.conf").env("HOME", "/tmp");
        command
    }

    pub fn inspect(&self, container: &str) -> Value {
        self.run(&["inspect", container]).json()[0].clone()
    }
}
