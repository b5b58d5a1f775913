//! The only `unsafe` of the tests: leaving namespaces, and what a child does between fork and exec.
//!
//! Everything above works with `Place`s and knows neither of these calls nor of their conditions.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Gives the calling thread namespaces (and file system attributes) of its own.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: no flag used here parts the file descriptor table (CLONE_FILES), which is what makes
    // the call unsafe: descriptors that other threads believe in stay valid.
    assert!(!flags.contains(UnshareFlags::FILES));
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    Ok(())
}

/// A namespace of the calling thread: `net` or `mnt`.
pub fn own_namespace(kind: &str) -> io::Result<OwnedFd> {
    Ok(File::open(format!("/proc/thread-self/ns/{kind}"))?.into())
}

/// Moves the calling thread. The thread must not share its file system attributes (`unshare(FS)` first).
pub fn enter(net: BorrowedFd<'_>, mnt: Option<BorrowedFd<'_>>) -> io::Result<()> {
    // The mount namespace comes last: /proc and the like may look different afterwards.
    move_into_link_name_space(net, Some(LinkNameSpaceType::Network))?;
    if let Some(mnt) = mnt {
        move_into_link_name_space(mnt, Some(LinkNameSpaceType::Mount))?;
    }
    Ok(())
}

/// Makes `command` run inside, and die with the *thread* that spawns it.
pub fn confine(command: &mut Command, net: &OwnedFd, mnt: &OwnedFd) {
    let (net, mnt) = (net.as_raw_fd(), mnt.as_raw_fd());
    let parent = rustix::process::getpid();
    let confined = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the call above.
        if getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()));
        }
        // SAFETY: the caller holds both descriptors while it spawns (`Place` owns them, and
        // `spawn` borrows the `Place`); fork copies the table.
        let (net, mnt) = unsafe { (BorrowedFd::borrow_raw(net), BorrowedFd::borrow_raw(mnt)) };
        enter(net.as_fd(), Some(mnt.as_fd()))
    };
    // SAFETY: between fork and exec only system calls are made: nothing allocates or takes a lock.
    unsafe { command.pre_exec(confined) };
}
