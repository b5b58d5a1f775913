//! Network namespaces: opening them, telling them apart, and doing something inside.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Error;
use crate::kernel::sys;

const CURRENT: &str = "/proc/thread-self/ns/net";
const NOT_ONE: &str = "not a network namespace";

/// An open namespace file (namespaces(7)). It keeps the namespace alive.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    path: PathBuf,
    pub device: u64,
    pub inode: u64,
}

impl Namespace {
    /// Opens `path`, which must be a network namespace.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let what = || format!("open network namespace {}", path.display());
        let file = open_nsfs(path).map_err(|error| Error::new(what(), error))?;
        if let Err(error) = sys::check_network_namespace(file.as_fd()) {
            // Namespaces of other kinds are on nsfs too. Linux before 4.11 does not know the question.
            let error = match error {
                Errno::NOTTY | Errno::INVAL => io::Error::other(NOT_ONE),
                other => other.into(),
            };
            return Err(Error::new(what(), error));
        }
        let metadata = file.metadata().map_err(|error| Error::new(what(), error))?;
        Ok(Namespace { file, path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }

    /// The calling thread's.
    pub fn current() -> Result<Self, Error> {
        Self::open(Path::new(CURRENT))
    }

    pub fn is_same(&self, other: &Namespace) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "network namespace {}", self.path.display())
    }
}

/// Opens a file of nsfs, and nothing else: to open a FIFO could take for ever, and to open a device could do
/// anything. So the path is only looked up first.
fn open_nsfs(path: &Path) -> io::Result<File> {
    const NSFS_MAGIC: u64 = 0x6e73_6673;
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if rustix::fs::fstatfs(&place)?.f_type as u64 != NSFS_MAGIC {
        return Err(io::Error::other(NOT_ONE));
    }
    File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

/// Runs `body` with this thread in `namespace`, then comes back to `home`.
///
/// What is opened inside stays there; the thread must not. If the way back fails, the process
/// ends: going on would change the wrong host's network.
pub fn within<T>(
    namespace: BorrowedFd<'_>,
    home: BorrowedFd<'_>,
    body: impl FnOnce() -> T,
) -> io::Result<T> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
    let done = body();
    if let Err(error) = move_into_link_name_space(home, Some(LinkNameSpaceType::Network)) {
        log::error!("cannot return to the host's network namespace: {error}");
        std::process::abort();
    }
    Ok(done)
}
