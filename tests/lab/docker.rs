//! The real dockerd on a host, and its command line beside it.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use super::eventually;
use super::host::Host;
use super::process::{Output, Process};
use super::traffic::ARRIVES;

/// `docker` of Debian: another one in the search path may be too new for its dockerd.
const CLIENT: &str = "/usr/bin/docker";

/// A running dockerd. Dropped: killed, and with it, in the test's process namespace, all containers.
pub struct Docker<'h> {
    host: &'h Host,
    arguments: Vec<String>,
    /// The control group of its containers, no other test's.
    group: String,
    /// None: stopped.
    daemon: Option<Process>,
}

impl<'h> Docker<'h> {
    /// Starts it with what it takes beside the lab's own needs, and imports the image `busybox`.
    /// To be called once a host; in a story [with own processes](super::runtime::with_own_processes).
    pub fn start(host: &'h Host, arguments: &[&str]) -> Self {
        host.mount_control_groups();
        // What it leaves in there is the host's own, and goes with it.
        host.sh("mkdir -p /run/docker-root /run/docker-exec /run/docker-etc /run/docker-home");
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let processes = std::fs::metadata("/proc/self/ns/pid").expect("process namespace");
        let group = format!("porin-lab-docker-{}", processes.ino());
        let mut docker = Docker { host, arguments, group, daemon: None };
        docker.start_again();
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
            "--data-root=/run/docker-root",
            "--exec-root=/run/docker-exec",
            "--pidfile=/run/docker.pid",
            "--host=unix:///run/docker.sock",
            "--group=root",
            "--storage-driver=vfs",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            "--log-level=warn",
        ];
        let mut arguments: Vec<String> = fixed.map(str::to_owned).into();
        arguments.push(format!("--cgroup-parent=/{}", self.group));
        arguments.extend(self.arguments.iter().cloned());
        let mut command = self.host.place().command(&arguments);
        std::fs::write(self.host.run_directory().join("docker-etc/daemon.json"), "{}")
            .expect("configuration of dockerd");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path());
        let log = log.expect("log of dockerd");
        command.stdout(log.try_clone().expect("log of dockerd")).stderr(log);
        self.daemon = Some(self.host.place().spawn(command));
        let answered = eventually::some(ARRIVES, || {
            let daemon = self.daemon.as_mut().is_some_and(Process::is_running);
            assert!(daemon, "dockerd ended:\n{}", self.log());
            self.run(&["version"]).ok().then_some(())
        });
        assert!(answered.is_some(), "dockerd does not answer:\n{}", self.log());
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
        let mut command = self.host.place().command(&[&fixed[..], arguments].concat());
        command.env("HOME", "/run/docker-home").env_remove("DOCKER_HOST");
        command
    }

    /// One value of `docker inspect`, by a Go template.
    pub fn inspect(&self, what: &str, template: &str) -> String {
        self.run(&["inspect", "--format", template, what]).success().trim().to_owned()
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
