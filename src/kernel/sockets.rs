//! Programs at the host's own sockets, by which its programs reach published ports (`bpf/host.bpf.c`).
//!
//! They are attached to a cgroup, the root of all as a rule, by links that outlive the daemon. Nothing of porin
//! rests on them: where they cannot be, published ports are there for all but the host itself.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use libbpf_rs::{ProgramType, libbpf_sys};
use rustix::io::Errno;

use super::datapath::{self, Maps, SOCKET_PROGRAMS};
use super::{mirror, sys};

/// The cgroup whose sockets are the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Cgroup {
    /// The root of what is mounted.
    Root,
    At(PathBuf),
    #[default]
    None,
}

/// Why there are no such programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Without {
    Asked,
    Unable(String),
}

impl fmt::Display for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Without::Asked => f.write_str("--cgroup none"),
            Without::Unable(why) => f.write_str(why),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Datapath(#[from] datapath::Error),
    #[error("cannot {what}: {errno}")]
    Link { what: String, errno: Errno },
}

fn failed(what: String) -> impl FnOnce(Errno) -> Error {
    |errno| Error::Link { what, errno }
}

/// A cgroup that programs can be attached to, and the namespace of the host.
#[derive(Debug)]
pub struct Sockets {
    cgroup: OwnedFd,
    path: PathBuf,
    /// The kernel's number of it.
    id: u64,
    /// The cookie of this daemon's network namespace.
    namespace: u64,
}

impl Sockets {
    /// Finds out by trying. Leaves nothing behind.
    pub fn open(cgroup: &Cgroup) -> Result<Sockets, Without> {
        let path = match cgroup {
            Cgroup::None => return Err(Without::Asked),
            Cgroup::At(path) => path.clone(),
            Cgroup::Root => root().map_err(Without::Unable)?,
        };
        Self::at(path).map_err(Without::Unable)
    }

    fn at(path: PathBuf) -> Result<Sockets, String> {
        let opened = || {
            let directory = File::open(&path)?;
            let id = directory.metadata()?.ino(); // as the kernel numbers cgroups
            let is = rustix::fs::fstatfs(&directory)?.f_type == CGROUP2_MAGIC;
            Ok::<_, io::Error>((OwnedFd::from(directory), id, is))
        };
        let (cgroup, id, is) =
            opened().map_err(|error| format!("cannot open {}: {error}", path.display()))?;
        if !is {
            return Err(format!("{} is no cgroup of version 2", path.display()));
        }
        let namespace = sys::network_namespace_cookie()
            .map_err(|errno| format!("SO_NETNS_COOKIE (Linux 5.14): {errno}"))?;
        // A kernel that has these has the others.
        let cookie = libbpf_sys::BPF_FUNC_get_netns_cookie;
        if !ProgramType::CgroupSockAddr.is_helper_supported(cookie).unwrap_or(false) {
            return Err("the BPF helper bpf_get_netns_cookie (Linux 5.7)".to_owned());
        }
        let newest = libbpf_sys::BPF_CGROUP_INET6_GETPEERNAME;
        let probe = sys::load_socket_probe(newest)
            .map_err(|errno| format!("BPF programs at getpeername (Linux 5.8): {errno}"))?;
        sys::cgroup_link_create(probe.as_fd(), cgroup.as_fd(), newest)
            .map_err(|errno| format!("cannot attach programs to {}: {errno}", path.display()))?;
        Ok(Sockets { cgroup, path, id, namespace })
    }

    pub fn cgroup(&self) -> &Path {
        &self.path
    }

    /// Puts all programs there, each in one step in the place of the one that is there. On an error some may be new.
    pub fn attach(&self, maps: &Maps, directory: &Path) -> Result<(), Error> {
        let programs = datapath::load_socket_programs(maps, self.namespace)?;
        for ((name, hook), program) in SOCKET_PROGRAMS.into_iter().zip(&programs) {
            self.attach_one(program.as_fd(), hook, &directory.join(name))
                .map_err(failed(format!("attach {name} to {}", self.path.display())))?;
        }
        Ok(())
    }

    fn attach_one(
        &self,
        program: BorrowedFd<'_>,
        hook: libbpf_sys::bpf_attach_type,
        pin: &Path,
    ) -> Result<(), Errno> {
        if let Ok(link) = sys::pinned(pin) {
            // One of a cgroup that is gone, or not the one asked for any more, is only a name.
            if sys::cgroup_of(link.as_fd()) == Ok(self.id) {
                return sys::link_update(link.as_fd(), program);
            }
            unpin(pin)?;
        }
        let link = sys::cgroup_link_create(program, self.cgroup.as_fd(), hook)?;
        sys::pin(link.as_fd(), pin)
    }
}

/// Takes all programs away, whatever there is of them.
pub fn detach(directory: &Path) -> Result<(), Error> {
    for (name, _) in SOCKET_PROGRAMS {
        let pin = directory.join(name);
        match sys::pinned(&pin) {
            // Without its name it would go, too, but some time later. With its cgroup gone it is only a name.
            Ok(link) => match sys::link_detach(link.as_fd()) {
                Ok(()) | Err(Errno::NOLINK) => {}
                Err(errno) => return Err(failed(format!("detach {}", pin.display()))(errno)),
            },
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(failed(format!("open {}", pin.display()))(errno)),
        }
        unpin(&pin).map_err(failed(format!("unpin {}", pin.display())))?;
    }
    Ok(())
}

/// What an earlier daemon left; nothing stays where nothing may be.
pub fn recover(able: bool, directory: &Path) -> Result<mirror::SocketPrograms, Error> {
    if !able {
        detach(directory)?;
        return Ok(mirror::SocketPrograms::Without);
    }
    let there = |(name, _): &(&str, _)| directory.join(name).exists();
    Ok(match SOCKET_PROGRAMS.iter().any(there) {
        true => mirror::SocketPrograms::Old,
        false => mirror::SocketPrograms::Absent,
    })
}

fn unpin(pin: &Path) -> Result<(), Errno> {
    match rustix::fs::unlink(pin) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// statfs(2): `CGROUP2_SUPER_MAGIC`.
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// Where the cgroups of version 2 are mounted that this process sees all of.
fn root() -> Result<PathBuf, String> {
    let path = "/proc/self/mountinfo";
    let mounts =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let visible = |mount: &PathBuf| {
        rustix::fs::statfs(mount).is_ok_and(|found| found.f_type == CGROUP2_MAGIC)
    };
    let found = cgroup2_mounts(&mounts).into_iter().find(visible);
    found.ok_or_else(|| "no cgroups of version 2 are mounted".to_owned())
}

/// proc(5): `36 35 98:0 ROOT MOUNT_POINT OPTIONS [FIELDS...] - TYPE SOURCE OPTIONS`. Of part of a hierarchy none.
fn cgroup2_mounts(mountinfo: &str) -> Vec<PathBuf> {
    let mount = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let is = file_system.split(' ').next() == Some("cgroup2") && root == "/";
        is.then(|| PathBuf::from(unescaped(point)))
    };
    mountinfo.lines().filter_map(mount).collect()
}

/// Blanks and backslashes are written as three octal digits.
fn unescaped(point: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(point.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_found_where_it_is_mounted() {
        let hybrid = "\
24 1 0:22 / /sys/fs/cgroup rw,relatime shared:9 - tmpfs tmpfs rw,mode=755
25 24 0:23 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
26 24 0:24 / /sys/fs/cgroup/cpu rw,nosuid - cgroup cgroup rw,cpu
27 24 0:23 /part /run/part rw - cgroup2 cgroup2 rw
28 24 0:23 / /mnt/a\\040b\\134c rw - cgroup2 none rw
29 24 broken
";
        let want = ["/sys/fs/cgroup/unified", "/mnt/a b\\c"].map(PathBuf::from);
        assert_eq!(cgroup2_mounts(hybrid), want);
        assert!(cgroup2_mounts("").is_empty());
    }

    #[test]
    fn what_is_no_cgroup_is_told_apart() {
        let why = |path: &str| match Sockets::open(&Cgroup::At(path.into())) {
            Err(without) => without.to_string(),
            Ok(sockets) => panic!("{sockets:?}"),
        };
        assert!(why("/proc").contains("/proc is no cgroup of version 2"), "{}", why("/proc"));
        assert!(why("/nowhere").contains("cannot open /nowhere"));
        assert_eq!(Sockets::open(&Cgroup::None).unwrap_err(), Without::Asked);
    }
}
