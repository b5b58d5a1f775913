//! L7 workers outlive their daemons. In the lab they outlive nobody, also if the test is killed.

use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::place::Place;

/// Ends the workers of a place when it is dropped, or when the test is gone: a process that waits for that.
pub struct Guard {
    shell: Child,
    /// Closed by whatever ends the test.
    held: Option<ChildStdin>,
}

/// Only processes of this network namespace, which is the test's own.
const SCRIPT: &str = r#"
read -r _
own=$(readlink /proc/self/ns/net)
for process in /proc/[0-9]*; do
    [ "$(readlink "$process/ns/net")" = "$own" ] || continue
    tr '\0' '\n' < "$process/cmdline" | tail -n 1 | grep -qx -e --l7-worker || continue
    kill -KILL "${process#/proc/}"
done"#;

impl Guard {
    pub fn of(place: &Place) -> Guard {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stderr(Stdio::null());
        // What is sent to the test's group is not for it.
        command.stdout(Stdio::null()).process_group(0);
        let mut shell = place.enter(|| command.spawn()).expect("sh");
        let held = shell.stdin.take();
        Guard { shell, held }
    }

    pub fn is_there(&mut self) -> bool {
        self.shell.try_wait().expect("wait").is_none()
    }

    /// As if the test had been killed.
    pub fn let_go(&mut self) {
        self.held = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.held = None;
        let _ = self.shell.wait();
    }
}
