//! A whole Debian with systemd as its PID 1, booted by systemd-nspawn from a root that `make test-system` made.
//!
//! What it writes is in memory. It shares nothing with this machine but the kernel: its network namespace has only a loopback,
//! its bpffs is its own. (BPF objects' numbers and the kernel's log are not private.)

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::place::Place;
use super::process::{Output, Process};
use super::{eventually, runtime};

/// Where `make test-system` has put the root.
const ROOT: &str = "PORIN_SYSTEM_ROOT";
/// To boot, to install a package, to stop: on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub struct Machine {
    nspawn: Process,
    /// Its PID 1, by the number that it has here.
    leader: u32,
}

/// None: it is not to be tried.
pub fn root() -> Option<PathBuf> {
    let root = std::env::var_os(ROOT).map(PathBuf::from);
    if root.is_none() {
        eprintln!("not tried: `make test-system` does");
    }
    root
}

impl Machine {
    /// Boots, and waits until systemd has started everything. `shared` is to be found there as /packages.
    ///
    /// To be called by a test that has processes of its own: with it, all of the machine ends.
    pub fn boot(root: &Path, shared: &Path) -> Machine {
        // Until it has been started.
        let here = Place::here("machine");
        let mut command = here.command(&["unshare", "--mount", "--net", "sh", "-euc", BOOT, "sh"]);
        command.arg(root).arg(shared).stdin(Stdio::null());
        command.stdout(Stdio::piped());
        let mut nspawn = Process::start("machine", &mut command);
        // Nobody reads the console, and it must not fill up.
        let mut console = nspawn.take_stdout().expect("piped");
        std::thread::spawn(move || std::io::copy(&mut console, &mut std::io::sink()));
        let leader = eventually::some(PATIENCE, || leader(nspawn.pid()));
        let leader = leader.expect("systemd-nspawn starts a PID 1");
        let machine = Machine { nspawn, leader };
        eventually(PATIENCE, "systemd has started everything", || {
            let state = machine.run(&["systemctl", "is-system-running"]).stdout;
            assert_ne!(state.trim(), "degraded", "{}", machine.sh("systemctl --failed"));
            state.trim() == "running"
        });
        machine
    }

    pub fn command(&self, argv: &[&str]) -> Command {
        let leader = self.leader.to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &leader, "--all", "--"]).args(argv).stdin(Stdio::null());
        command.env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    pub fn run(&self, argv: &[&str]) -> Output {
        Output::of("machine", &mut self.command(argv), None, PATIENCE)
    }

    /// Runs `script` and insists on success.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.run(&["sh", "-euc", script]).success()
    }

    /// Puts a file there, whole or not at all.
    pub fn write(&self, path: &str, text: &str) {
        let script = "mkdir -p \"${1%/*}\"; cat >\"$1.part\"; mv \"$1.part\" \"$1\"";
        let mut command = self.command(&["sh", "-euc", script, "sh", path]);
        Output::of("machine", &mut command, Some(text), PATIENCE).success();
    }

    pub fn exists(&self, path: &str) -> bool {
        self.run(&["test", "-e", path]).ok()
    }

    /// One of its network namespaces, by its path there. Files are those of this machine.
    pub fn namespace(&self, path: &str) -> Place {
        let there = format!("/proc/{}/root{path}", self.leader);
        Place::here("machine").inside(path, Path::new(&there))
    }

    /// A property of a unit.
    pub fn unit(&self, unit: &str, property: &str) -> String {
        self.run(&["systemctl", "show", "--value", "--property", property, unit])
            .success()
            .trim()
            .to_owned()
    }

    /// What porind has logged since the machine booted.
    pub fn log(&self) -> String {
        self.sh("journalctl --unit porind --no-pager --output cat")
    }
}

impl Drop for Machine {
    /// In order, so that its control groups are empty and can be removed. What does not stop is killed.
    fn drop(&mut self) {
        let mut stop = self.command(&["systemctl", "poweroff"]);
        let stopping = stop.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if stopping.is_ok_and(|status| status.success()) {
            eventually::some(PATIENCE, || (!self.nspawn.is_running()).then_some(()));
        }
    }
}

/// Which programs this needs.
pub fn can_boot() -> bool {
    runtime::has(&["systemd-nspawn", "nsenter", "unshare"])
}

/// In mounts and a network of its own. Control groups are the machine's all the same: its own is removed in the end, and those
/// of killed ones are when the next begins.
const BOOT: &str = r#"
    root=$1 shared=$2
    mount -t tmpfs tmpfs /run
    umount -R /sys/fs/cgroup 2>/dev/null || true
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    umount /sys/fs/bpf 2>/dev/null || true
    mount -t bpf bpf /sys/fs/bpf
    clear() { find "$@" -depth -type d -exec rmdir {} + 2>/dev/null || true; }
    for old in /sys/fs/cgroup/porin-machine.*; do
        if [ -d "$old" ] && grep -q 'populated 0' "$old/cgroup.events"; then clear "$old"; fi
    done
    group=$(mktemp -d /sys/fs/cgroup/porin-machine.XXXXXX)
    export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_API_VFS_WRITABLE=1
    code=0
    sh -c 'echo $$ >"$0/cgroup.procs"; exec systemd-nspawn "$@"' "$group" --directory="$root" --volatile=overlay --boot \
        --bind-ro="$shared:/packages" --machine=porin-test --register=no --keep-unit --private-network --link-journal=no \
        --console=pipe --capability=all --system-call-filter='bpf perf_event_open' --bind=/sys/fs/bpf --timezone=off \
        --resolv-conf=off || code=$?
    clear "$group"
    exit $code
"#;

/// The grandchild (`sh`, systemd-nspawn) that has become PID 1 of namespaces of its own.
fn leader(start: u32) -> Option<u32> {
    let nspawn = child(start, "systemd-nspawn")?;
    let init = child(nspawn, "systemd")?;
    // Before that it is nspawn itself, on the way.
    let name = fs::read_to_string(format!("/proc/{init}/comm")).ok()?;
    (name.trim() == "systemd").then_some(init)
}

fn child(parent: u32, name: &str) -> Option<u32> {
    let numbers = fs::read_dir("/proc").ok()?.flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.into_iter().find(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // pid (comm) state ppid: proc_pid_stat(5)
        let Some((before, after)) = stat.rsplit_once(") ") else { return false };
        before.ends_with(&format!("({name}"))
            && after.split(' ').nth(1) == Some(&parent.to_string())
    })
}
