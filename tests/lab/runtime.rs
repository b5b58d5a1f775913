//! What real container runtimes need of a host: processes of their own, control groups, and an image.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::host::Host;
use super::place::Place;
use super::process::Output;
use super::world::World;

/// Set in the process that has process numbers of its own.
const INSIDE: &str = "PORIN_LAB_INSIDE";
/// For one test, runtimes and images and all.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs `story` in a new world in which processes end with the test, however it ends: runtimes leave some that no parent
/// looks after. `name`: the test's own.
pub fn with_own_processes(name: &str, story: impl FnOnce(&World) + Send) {
    if std::env::var_os(INSIDE).is_some() {
        return World::run(story);
    }
    let test = std::env::current_exe().expect("this program");
    let here = Place::here("machine");
    let mut command = here.command(&["unshare", "--pid", "--fork", "--kill-child", "--cgroup"]);
    command.args(["--mount", "--mount-proc", "--propagation", "private"]).arg(test);
    command.args([name, "--exact", "--nocapture", "--test-threads", "1"]).env(INSIDE, "1");
    let output = Output::of("machine", &mut command, None, PATIENCE);
    print!("{}", output.stdout);
    eprint!("{}", output.stderr);
    assert!(output.ok(), "{name} failed inside: {}", output.status);
}

/// For `sh -c` in a container of busybox: sends a line to a server that echoes, and says what came of it.
pub fn question(to: IpAddr, port: u16, patience: u8) -> String {
    format!("echo begun; echo porin | nc -w {patience} {to} {port} 2>&1; echo ended $?")
}

/// What a [`question`] came to: true if it was answered, false if nothing came back in time. Panics if it was not put at all,
/// or ended otherwise: a container that never ran is not one that was denied.
#[track_caller]
pub fn was_answered(asked: &Output) -> bool {
    match asked.stdout.lines().map(str::trim_end).collect::<Vec<_>>()[..] {
        ["begun", "porin", "ended 0"] => true,
        ["begun", "nc: timed out", "ended 1"] => false,
        _ => panic!("{asked:?}"),
    }
}

/// Whether all of these programs are there. `make test` installs them; without, a test says so and does nothing.
pub fn has(programs: &[&str]) -> bool {
    let there = |name: &str| {
        ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().any(|d| Path::new(d).join(name).exists())
    };
    let missing: Vec<_> = programs.iter().filter(|name| !there(name)).collect();
    if !missing.is_empty() {
        eprintln!("not tried, for want of {missing:?}");
    }
    missing.is_empty()
}

impl Host {
    /// Mounts the control groups that the machine has; a host's /sys is its own.
    pub fn mount_control_groups(&self) {
        self.sh("mount -t tmpfs cgroup /sys/fs/cgroup
             if grep -qv '^0:' /proc/self/cgroup; then
                 cut -d: -f2 /proc/self/cgroup | grep . | while read -r kind; do
                     case $kind in name=*) options=none,$kind ;; *) options=$kind ;; esac
                     mkdir /sys/fs/cgroup/${kind#name=}
                     mount -t cgroup -o $options cgroup /sys/fs/cgroup/${kind#name=}
                 done
             else
                 mount -t cgroup2 cgroup2 /sys/fs/cgroup
             fi");
    }

    /// A root file system with a static busybox, as a tar file; its path on the host.
    pub fn busybox_image(&self) -> PathBuf {
        self.sh("mkdir -p /run/image/bin && cp /bin/busybox /run/image/bin/
             for name in sh sleep nc wget httpd cat true ip; do ln -sf busybox /run/image/bin/$name; done
             mkdir -p /run/image/etc /run/image/tmp /run/image/proc /run/image/sys /run/image/dev
             tar -C /run/image -cf /run/image.tar . && rm -r /run/image");
        "/run/image.tar".into()
    }

    /// Runs a program that takes its time, like those of runtimes do.
    pub fn slowly(&self, mut command: Command) -> Output {
        Output::of(self.name(), &mut command, None, Duration::from_secs(90))
    }
}
