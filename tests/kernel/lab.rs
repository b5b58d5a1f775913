//! A private world for one test: own network and mount namespaces, own bpffs, nested network
//! namespaces as containers. It has no way to the machine's network, and vanishes with its thread.
//!
//! This is for tests below the daemon.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::thread::UnshareFlags;

pub struct Lab {
    /// A tmpfs.
    pub dir: PathBuf,
    _temporary: tempfile::TempDir,
}

/// Runs `test` in a world of its own; a panic in there is the test's.
pub fn run(test: impl FnOnce(&Lab) + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: this test needs root");
        return;
    }
    let world = std::thread::spawn(move || {
        #[allow(deprecated)] // files are not unshared, which is what makes it unsafe
        rustix::thread::unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS).unwrap();
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().to_owned();
        mount("tmpfs", &dir, "tmpfs", MountFlags::empty(), None).unwrap();
        std::fs::create_dir(dir.join("bpf")).unwrap();
        mount("bpf", dir.join("bpf"), "bpf", MountFlags::empty(), None).unwrap();
        let lab = Lab { dir, _temporary: temporary };
        lab.ip("link set lo up");
        test(&lab);
    });
    if let Err(panic) = world.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Lab {
    pub fn bpffs(&self) -> PathBuf {
        self.dir.join("bpf").join("porin")
    }

    /// A new network namespace, kept by a file.
    pub fn namespace(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        File::create(&path).unwrap();
        let target = path.clone();
        std::thread::spawn(move || {
            #[allow(deprecated)]
            rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
            mount_bind("/proc/thread-self/ns/net", &target).unwrap();
        })
        .join()
        .unwrap();
        path
    }

    pub fn drop_namespace(&self, path: &Path) {
        rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH).unwrap();
        std::fs::remove_file(path).unwrap();
    }

    /// `ip`, on the host of this world.
    pub fn ip(&self, arguments: &str) -> String {
        output(Command::new("ip").args(arguments.split_whitespace()))
    }

    /// A command inside a namespace.
    pub fn inside(&self, namespace: &Path, command: &str) -> String {
        output(&mut self.command(namespace, command))
    }

    pub fn command(&self, namespace: &Path, command: &str) -> Command {
        let mut words = Command::new("nsenter");
        words.arg(format!("--net={}", namespace.display()));
        words.args(command.split_whitespace());
        words
    }

    /// All that porin could leave behind, as text.
    pub fn traces(&self) -> String {
        let mut text = String::new();
        for query in [
            "link show",
            "-4 address show",
            "-6 address show",
            "-4 route show table all",
            "-6 route show table all",
            "-4 rule show",
            "-6 rule show",
            "-4 neighbour show",
            "-6 neighbour show",
        ] {
            text += &format!("# ip {query}\n{}", self.ip(query));
        }
        let qdiscs = output(Command::new("tc").args(["qdisc", "show"]));
        text += &format!("# tc qdisc show\n{qdiscs}");
        text + &tree(&self.dir.join("bpf"))
    }
}

fn tree(dir: &Path) -> String {
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
        .iter()
        .map(|path| {
            let below = if path.is_dir() { tree(path) } else { String::new() };
            format!("{}\n{below}", path.display())
        })
        .collect()
}

pub fn output(command: &mut Command) -> String {
    let done = command.output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {text}{errors}");
    text
}
