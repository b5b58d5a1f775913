//! A `porind` on a host, and `porinctl` beside it.
//!
//! Knows their command lines, sd_notify(3) and their JSON; nothing of what is behind.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::eventually;
use super::flows::FlowStream;
use super::host::Host;
use super::notify::Notify;
use super::place::COMMAND;
use super::process::{Output, Process};
use super::workers::Guard;

/// From start to ready, with a thousand endpoints, on a busy machine, in a debug build.
pub const READY: Duration = Duration::from_secs(120);
/// From an edit to its effect.
pub const EFFECT: Duration = Duration::from_secs(90);

const PORIND: &str = env!("CARGO_BIN_EXE_porind");
const PORINCTL: &str = env!("CARGO_BIN_EXE_porinctl");

/// A running daemon. Dropped: killed.
pub struct Daemon {
    host: Host,
    arguments: Vec<String>,
    process: Process,
    notify: Notify,
    /// From its start to `READY=1`.
    pub ready_after: Duration,
    // After the daemon: it is not there to start others.
    _workers: Guard,
}

/// How a daemon is started.
pub type Setup<'a> = &'a [&'a str];

impl Host {
    /// Starts the daemon and waits until it says that it enforces.
    pub fn porind(&self) -> Daemon {
        self.porind_with(&[])
    }

    pub fn porind_with(&self, arguments: Setup<'_>) -> Daemon {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let notify = Notify::bind(&self.run_directory().join("notify.sock"));
        let _workers = Guard::of(self.place());
        let begin = Instant::now();
        let process = start(self, &arguments);
        let ready_after = Duration::ZERO;
        let host = self.clone();
        let mut daemon = Daemon { host, arguments, process, notify, ready_after, _workers };
        daemon.wait_ready(begin);
        daemon
    }

    /// `porind` with arguments that make it do something and end.
    pub fn porind_once(&self, arguments: Setup<'_>) -> Output {
        let mut command = self.place().command(&[&[PORIND], arguments].concat());
        Output::of(self.name(), &mut command, None, READY)
    }

    pub fn porinctl(&self, arguments: &[&str]) -> Output {
        self.place().run(&[&[PORINCTL], arguments].concat())
    }

    /// What the daemon logged, all its lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(log_path(self)).unwrap_or_default()
    }
}

impl Daemon {
    /// As SIGKILL leaves it. `start_again` starts another.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks it to end, and waits.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.wait(COMMAND)
    }

    pub fn start_again(&mut self) {
        self.process.kill();
        self.notify.begin();
        let begin = Instant::now();
        self.process = start(&self.host, &self.arguments);
        self.wait_ready(begin);
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Its exit status tells whether all is well; what is wrong is in here.
    pub fn status(&self) -> Value {
        let output = self.host.porinctl(&["status", "--json"]);
        serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("status: {e}: {output:?}"))
    }

    pub fn generation(&self) -> u64 {
        self.status()["generation"].as_u64().expect("a generation")
    }

    /// Makes an edit and waits for the commit that it causes.
    #[track_caller]
    pub fn commit(&self, edit: impl FnOnce()) {
        let before = self.generation();
        edit();
        self.wait_for("a commit", |status| status["generation"].as_u64() > Some(before));
    }

    #[track_caller]
    pub fn wait_for(&self, what: &str, condition: impl Fn(&Value) -> bool) {
        let mut last = Value::Null;
        let seen = eventually::some(EFFECT, || {
            last = self.status();
            condition(&last).then_some(())
        });
        assert!(seen.is_some(), "not within {EFFECT:?}: {what}: {last:#}\n{}", self.host.log());
    }

    /// What the daemon knows, and everything that happens from now on.
    pub fn flows(&self) -> FlowStream {
        FlowStream::follow(self.host.place(), PORINCTL)
    }

    /// Resident memory in KiB.
    pub fn rss_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.pid());
        let text = std::fs::read_to_string(path).expect("status of porind");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    fn wait_ready(&mut self, begin: Instant) {
        while !self.notify.is_ready() {
            assert!(self.process.is_running(), "porind ended early:\n{}", self.host.log());
            assert!(begin.elapsed() < READY, "porind is not ready:\n{}", self.host.log());
            eventually::pause();
        }
        self.ready_after = begin.elapsed();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process.kill();
        if std::thread::panicking() {
            eprintln!("--- log of porind on {}\n{}---", self.host.name(), self.host.log());
        }
    }
}

fn start(host: &Host, arguments: &[String]) -> Process {
    let mut words = vec![PORIND.to_owned()];
    words.extend(arguments.iter().cloned());
    if !words.iter().any(|word| word == "--cgroup") {
        // Cgroups are this machine's, not the lab's: see `Cgroup`.
        words.extend(["--cgroup", "none"].map(str::to_owned));
    }
    let mut command = host.place().command(&words);
    let log = OpenOptions::new().create(true).append(true).open(log_path(host)).expect("log");
    command.env("NOTIFY_SOCKET", "/run/notify.sock").stdout(std::process::Stdio::null());
    command.stderr(log);
    host.place().spawn(command)
}

fn log_path(host: &Host) -> PathBuf {
    host.run_directory().join("porind.log")
}
