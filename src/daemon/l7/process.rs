//! Starts workers.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::proxy::worker::Channel;

/// The program that runs, also if its file has been replaced meanwhile.
pub const OWN: &str = "/proc/self/exe";

/// A worker, and the daemon's end of its channel and its pidfd.
pub fn start(program: &Path) -> io::Result<(Child, Channel, OwnedFd)> {
    let (own, theirs) = Channel::pair()?;
    let mut command = Command::new(program);
    command
        .arg("--l7-worker")
        .stdin(theirs.into_fd())
        .stdout(Stdio::null())
        // It outlives the daemon: what is meant for that alone is not its own.
        .process_group(0)
        .current_dir("/");
    for variable in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"] {
        command.env_remove(variable);
    }
    let mut child = command.spawn()?;
    // It is not waited for yet: the number is its own.
    match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
        Ok(process) => Ok((child, own, process)),
        Err(error) => {
            child.kill()?;
            child.wait()?;
            Err(error.into())
        }
    }
}
