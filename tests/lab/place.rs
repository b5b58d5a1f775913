//! A place where things run: a network namespace seen together with a mount namespace.
//!
//! Knows nothing of hosts, containers or porin.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::thread::UnshareFlags;

use super::process::{Output, Process};
use super::sys;

/// How long a command may take that has nothing to wait for.
pub const COMMAND: Duration = Duration::from_secs(20);

#[derive(Clone)]
pub struct Place {
    name: Arc<str>,
    net: Arc<OwnedFd>,
    mnt: Arc<OwnedFd>,
}

impl Place {
    /// Where the calling thread is.
    pub fn here(name: &str) -> Place {
        let open = |kind| Arc::new(sys::own_namespace(kind).expect("own namespace"));
        Place { name: name.into(), net: open("net"), mnt: open("mnt") }
    }

    /// A new network namespace under this place's mounts, also to be found at `path` there.
    pub fn nest(&self, name: &str, path: &Path) -> Place {
        self.enter(|| nest_here(name, path))
    }

    /// `count` at once: what a thousand containers take is one thread and some milliseconds.
    pub fn nest_all(&self, names: &[(String, std::path::PathBuf)]) -> Vec<Place> {
        self.enter(|| names.iter().map(|(name, path)| nest_here(name, path)).collect())
    }

    /// The network namespace at `path` here, under this place's mounts.
    pub fn inside(&self, name: &str, path: &Path) -> Place {
        let net = self.enter(|| File::open(path));
        let net = net.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Place { name: name.into(), net: Arc::new(net.into()), mnt: self.mnt.clone() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` in a thread in here. Children that it spawns die with that thread: use `spawn`.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = std::thread::Builder::new()
                .name(self.name.to_string())
                .spawn_scoped(scope, || {
                    sys::unshare(UnshareFlags::FS).expect("unshare fs");
                    sys::enter(self.net.as_fd(), Some(self.mnt.as_fd())).expect("setns");
                    work()
                })
                .expect("thread");
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread in here for good (for threads that serve).
    pub fn settle(&self) {
        sys::unshare(UnshareFlags::FS).expect("unshare fs");
        sys::enter(self.net.as_fd(), Some(self.mnt.as_fd())).expect("setns");
    }

    /// A command that will run in here; looked up in PATH in here, too.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, argv: &[S]) -> Command {
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]).stdin(Stdio::null());
        sys::confine(&mut command, &self.net, &self.mnt);
        command
    }

    /// Starts what dies with the returned value, and with the calling thread.
    pub fn spawn(&self, mut command: Command) -> Process {
        Process::start(&self.name, &mut command)
    }

    /// Runs to its end, and panics after the deadline.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, argv: &[S]) -> Output {
        Output::of(&self.name, &mut self.command(argv), None, COMMAND)
    }

    /// Runs `script` by the shell and insists on success. For set-up: `ip`, `nft`.
    pub fn sh(&self, script: &str) -> String {
        self.run(&["sh", "-euc", script]).success()
    }

    /// Sets a sysctl of this network namespace; `key` with slashes.
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/{key}");
        self.enter(|| std::fs::write(&path, value))
            .unwrap_or_else(|error| panic!("{}: {path}: {error}", self.name));
    }

    /// Names of the interfaces in here.
    pub fn interfaces(&self) -> Vec<String> {
        let table = self.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
        let names = |line: &str| Some(line.split_once(':')?.0.trim().to_owned());
        table.expect("/proc/thread-self/net/dev").lines().filter_map(names).collect()
    }
}

fn nest_here(name: &str, path: &Path) -> Place {
    sys::unshare(UnshareFlags::NEWNET).expect("unshare net");
    expose(path);
    Place::here(name)
}

/// Gives the calling thread's network namespace a name in the file system (as ip-netns(8) does).
pub fn expose(path: &Path) {
    std::fs::create_dir_all(path.parent().expect("parent")).expect("directory of namespaces");
    File::create(path).expect("namespace file");
    mount_bind("/proc/thread-self/ns/net", path).expect("bind namespace");
}

/// A tmpfs that only the calling thread's mount namespace sees.
pub fn tmpfs(path: &Path) {
    std::fs::create_dir_all(path).expect("mount point");
    mount("tmpfs", path, "tmpfs", MountFlags::empty(), None).expect("mount tmpfs");
}

/// From here on nothing that is mounted or unmounted is seen outside.
pub fn seclude() {
    sys::unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS).expect(
        "new network and mount namespaces: the lab needs root (CAP_SYS_ADMIN); `make test` sees to it",
    );
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .expect("private mounts");
}
