//! The real dockerd on a host, with all its files in the host's own /run, and its command line beside it: those of this
//! machine, or of a newer Debian if there is one to try.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use super::eventually;
use super::host::Host;
use super::newer;
use super::process::{Output, Process};
use super::traffic::ARRIVES;

/// `docker` of Debian: another one in the search path may be too new for its dockerd.
const CLIENT: &str = "/usr/bin/docker";

/// A running dockerd. Dropped: killed, and with it, in the test's process namespace, all containers.
pub struct Docker<'h> {
    host: &'h Host,
    /// The newer Debian; as long as it is there, so are its mounts.
    newer: Option<Process>,
    arguments: Vec<String>,
    /// Where it keeps what it knows.
    root: &'static str,
    /// The control group of its containers, no other test's.
    group: String,
    /// None: stopped.
    daemon: Option<Process>,
    /// Of its own, as Debian has it: containers outlive dockerd.
    containerd: Option<Process>,
}

impl<'h> Docker<'h> {
    /// Starts it with what it takes beside the lab's own needs, and imports the image `busybox`.
    /// To be called once a host; in a story [with own processes](super::runtime::with_own_processes).
    pub fn start(host: &'h Host, arguments: &[&str]) -> Self {
        host.mount_control_groups();
        // What it leaves in there is the host's own, and goes with it.
        host.sh("mkdir -p /run/docker-exec /run/docker-etc /run/docker-home");
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let processes = std::fs::metadata("/proc/self/ns/pid").expect("process namespace");
        let group = format!("porin-lab-docker-{}", processes.ino());
        let newer = newer::root().map(|root| newer::enter(host, &root));
        let root = "/run/docker-root";
        let (daemon, containerd) = (None, None);
        let mut docker = Docker { host, newer, arguments, root, group, daemon, containerd };
        docker.containerd = Some(docker.start_containerd());
        docker.start_again();
        if docker.newer.is_some() {
            let version = docker.run(&["version", "--format", "{{.Server.Version}}"]).success();
            assert!(version.starts_with("26."), "{version}");
        }
        let image = host.busybox_image();
        docker.run(&["import", &image.to_string_lossy(), "busybox"]).success();
        docker
    }

    /// Waits until it answers.
    pub fn start_again(&mut self) {
        assert!(self.daemon.is_none(), "dockerd runs already");
        let fixed = [
            "dockerd",
            "--config-file=/run/docker-etc/daemon.json",
            "--exec-root=/run/docker-exec",
            "--pidfile=/run/docker.pid",
            "--host=unix:///run/docker.sock",
            "--group=root",
            "--storage-driver=vfs",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            "--containerd=/run/containerd/containerd.sock",
            "--log-level=warn",
        ];
        let mut arguments: Vec<String> = fixed.map(str::to_owned).into();
        arguments.push(format!("--data-root={}", self.root));
        arguments.push(format!("--cgroup-parent=/{}", self.group));
        arguments.extend(self.arguments.iter().cloned());
        let mut command = self.command_of(&arguments);
        let run = self.host.run_directory();
        std::fs::write(run.join("docker-etc/daemon.json"), "{}").expect("configuration of dockerd");
        // One that was killed leaves it.
        let _ = std::fs::remove_file(run.join("docker.pid"));
        let log = OpenOptions::new().create(true).append(true).open(self.log_path());
        let log = log.expect("log of dockerd");
        command.stdout(log.try_clone().expect("log of dockerd")).stderr(log);
        self.daemon = Some(self.host.place().spawn(command));
        let answered = eventually::some(ARRIVES * 3, || {
            let daemon = self.daemon.as_mut().is_some_and(Process::is_running);
            assert!(daemon, "dockerd ended:\n{}", self.log());
            self.run(&["version"]).ok().then_some(())
        });
        assert!(answered.is_some(), "dockerd does not answer:\n{}", self.log());
    }

    /// As it would be on a new machine: it knows of nothing.
    pub fn start_afresh(&mut self) {
        self.root = "/run/docker-root-2";
        self.start_again();
    }

    /// As SIGKILL leaves it.
    pub fn kill(&mut self) {
        self.daemon.take().expect("dockerd runs").kill();
    }

    /// Asks it to end, and waits. With `--live-restore` its containers go on.
    pub fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("dockerd runs");
        daemon.signal(rustix::process::Signal::TERM);
        daemon.wait(ARRIVES * 3);
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.host.slowly(self.command(arguments))
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let fixed = [CLIENT, "--host", "unix:///run/docker.sock"];
        let mut command = self.command_of(&[&fixed[..], arguments].concat());
        command.env("HOME", "/run/docker-home").env_remove("DOCKER_HOST");
        command
    }

    /// One value of `docker inspect`, by a Go template.
    pub fn inspect(&self, what: &str, template: &str) -> String {
        self.run(&["inspect", "--format", template, what]).success().trim().to_owned()
    }

    fn command_of<S: AsRef<str>>(&self, arguments: &[S]) -> Command {
        let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
        match &self.newer {
            Some(inside) => newer::command(self.host, inside, &arguments),
            None => self.host.place().command(&arguments),
        }
    }

    fn start_containerd(&self) -> Process {
        let run = self.host.run_directory();
        let config = "version = 2\nroot = \"/run/containerd-root\"\nstate = \"/run/containerd\"\n\
                      disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
                      [grpc]\naddress = \"/run/containerd/containerd.sock\"\n";
        std::fs::write(run.join("containerd.toml"), config).expect("configuration of containerd");
        let log = File::create(run.join("containerd.log")).expect("log of containerd");
        let mut command = self.command_of(&["containerd", "--config", "/run/containerd.toml"]);
        command.stdout(log.try_clone().expect("log of containerd")).stderr(log);
        let process = self.host.place().spawn(command);
        let socket = run.join("containerd/containerd.sock");
        eventually(ARRIVES, "containerd listens", || socket.exists());
        process
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.host.run_directory().join("dockerd.log")
    }
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of dockerd\n{}---", self.log());
        }
        drop(self.daemon.take());
        drop(self.containerd.take());
        // The groups of its containers are the machine's, and last as long as something runs in them.
        let groups =
            format!("find /sys/fs/cgroup -mindepth 2 -maxdepth 2 -type d -name {}", self.group);
        let clean = format!(
            "while [ -n \"$({groups})\" ]; do
                 {groups} | while read -r group; do
                     cat $(find $group -name cgroup.procs) | sort -u | while read -r pid; do kill -9 $pid; done
                     find $group -depth -type d -exec rmdir {{}} +
                 done
             done"
        );
        let left = self.host.place().command(&["timeout", "10", "sh", "-c", &clean]);
        let _ = self.host.slowly(left);
    }
}
