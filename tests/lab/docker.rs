//! dockerd on a host, with all its files in the host's own /run, and the client beside it.

use std::fs::OpenOptions;
use std::process::Command;

use super::eventually;
use super::host::Host;
use super::process::{Output, Process};
use super::traffic::ARRIVES;

/// Debian's; what else may be called so first in PATH speaks another version of the protocol.
const CLIENT: &str = "/usr/bin/docker";

/// Ends what is left in the control groups named, of containers that a dockerd forgot, and removes the groups.
const TIDY: &str = r#"
    find /sys/fs/cgroup -path "*/$1/*" -name cgroup.procs -exec cat {} + | sort -u | xargs -r kill -9
    for _ in $(seq 100); do
        find /sys/fs/cgroup -depth -type d -path "*/$1*" -exec rmdir {} + 2>/dev/null
        [ -z "$(find /sys/fs/cgroup -type d -name "$1")" ] && exit
        sleep 0.05
    done"#;

pub struct Docker<'h> {
    host: &'h Host,
    arguments: Vec<String>,
    /// The control group that its containers' are in: the machine's are shared.
    groups: String,
    process: Process,
    /// Of its own, as Debian has it: containers outlive dockerd.
    _containerd: Process,
}

impl<'h> Docker<'h> {
    /// Starts it and waits until it answers. There is an image `busybox`.
    pub fn start(host: &'h Host, more: &[&str]) -> Self {
        host.mount_control_groups();
        let containerd = containerd(host);
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock");
        let groups = format!("porin-lab-{}", now.as_nanos());
        let parent = format!("--cgroup-parent=/{groups}");
        let arguments: Vec<String> =
            more.iter().map(|word| (*word).to_owned()).chain([parent]).collect();
        let process = spawn(host, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let docker = Docker { host, arguments, groups, process, _containerd: containerd };
        docker.answers();
        let image = host.busybox_image();
        docker.run(&["import", &image.to_string_lossy(), "busybox"]).success();
        docker
    }

    /// As SIGKILL leaves it.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks it to end, and waits.
    pub fn stop(&mut self) {
        self.process.signal(rustix::process::Signal::TERM);
        self.process.wait(super::daemon::EFFECT * 2);
    }

    /// As it would be on a new machine: it knows of nothing.
    pub fn start_afresh(&mut self) {
        self.arguments.push("--data-root=/run/docker-data-2".to_owned());
        self.start_again();
    }

    pub fn start_again(&mut self) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.process = spawn(self.host, &arguments);
        self.answers();
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.host.slowly(self.command(arguments))
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let all = [&[CLIENT, "-H", "unix:///run/docker.sock"], arguments].concat();
        let mut command = self.host.place().command(&all);
        command.env("DOCKER_CONFIG", "/run/docker-client");
        command
    }

    fn answers(&self) {
        eventually(ARRIVES * 3, "dockerd answers", || self.run(&["version"]).ok());
    }
}

impl Drop for Docker<'_> {
    /// Its containers end with it; so do the control groups that it has made in the machine's.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.host.run_directory().join("dockerd.log");
            eprintln!(
                "--- log of dockerd\n{}---",
                std::fs::read_to_string(log).unwrap_or_default()
            );
        }
        let _ = self
            .run(&["ps", "-qa"])
            .stdout
            .lines()
            .try_for_each(|id| self.run(&["rm", "-f", id]).ok().then_some(()));
        self.process.signal(rustix::process::Signal::TERM);
        self.process.wait(super::daemon::EFFECT * 2);
        self.host.place().run(&["sh", "-c", TIDY, "tidy", &self.groups]);
    }
}

fn containerd(host: &Host) -> Process {
    let run = host.run_directory();
    let config = "version = 2\nroot = \"/run/containerd-root\"\nstate = \"/run/containerd\"\n\
                  disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
                  [grpc]\naddress = \"/run/containerd/containerd.sock\"\n";
    std::fs::write(run.join("containerd.toml"), config).expect("write");
    let log = std::fs::File::create(run.join("containerd.log")).expect("log");
    let mut command = host.place().command(&["containerd", "--config", "/run/containerd.toml"]);
    command.stdout(log.try_clone().expect("log")).stderr(log);
    let process = host.place().spawn(command);
    let socket = run.join("containerd/containerd.sock");
    eventually(ARRIVES, "containerd listens", || socket.exists());
    process
}

fn spawn(host: &Host, more: &[&str]) -> Process {
    let fixed = [
        "dockerd",
        "--exec-root=/run/docker-exec",
        "--host=unix:///run/docker.sock",
        "--pidfile=/run/docker.pid",
        "--storage-driver=vfs",
        "--exec-opt=native.cgroupdriver=cgroupfs",
        "--containerd=/run/containerd/containerd.sock",
        "--bridge=none",
        "--iptables=false",
    ];
    // A dockerd that was killed leaves it.
    let _ = std::fs::remove_file(host.run_directory().join("docker.pid"));
    let log = host.run_directory().join("dockerd.log");
    let log = OpenOptions::new().create(true).append(true).open(log).expect("log");
    let fresh = more.iter().any(|word| word.starts_with("--data-root"));
    let usual: &[&str] = if fresh { &[] } else { &["--data-root=/run/docker-data"] };
    let mut command = host.place().command(&[&fixed[..], usual, more].concat());
    command.stdout(log.try_clone().expect("log")).stderr(log);
    host.place().spawn(command)
}
