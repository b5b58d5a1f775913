//! One file's bytes: never blocks, never more than the limit, never a mixture of two versions.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A larger file is refused without being read.
pub const LARGEST: u64 = 4 << 20;

/// Tells whether a file is what it was: any change to it changes this, once it is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// Seen so long after the last change that a further one gets another time. Kernels that keep
    /// coarse times (before 6.13) cannot tell two changes within a tick apart.
    settled: bool,
}

impl Stamp {
    pub fn new(metadata: &std::fs::Metadata, now: SystemTime) -> Self {
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        let since = |(seconds, nanoseconds): (i64, i64)| {
            let after_epoch =
                Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?);
            now.duration_since(SystemTime::UNIX_EPOCH.checked_add(after_epoch)?).ok()
        };
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed,
            settled: since(changed).is_some_and(|age| age > Duration::from_millis(100)),
        }
    }

    /// The file has not changed since this stamp was taken from it.
    pub fn still(&self, now: &Stamp) -> bool {
        self.settled && self.same(now)
    }

    fn same(&self, other: &Stamp) -> bool {
        Stamp { settled: true, ..*self } == Stamp { settled: true, ..*other }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("is {0}, not a file")]
    NotAFile(&'static str),
    #[error("has {0} bytes; at most {LARGEST} are read")]
    TooLarge(u64),
    #[error("changed while it was read")]
    Unsteady,
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
}

/// The content and the stamp that it bears. Follows symbolic links.
pub fn read(path: &Path) -> Result<(Vec<u8>, Stamp), Unreadable> {
    // What writes in place takes a moment; whoever watches calls again after the last change anyway.
    const TRIES: usize = 3;
    for _ in 0..TRIES {
        // Before opening: opening some devices has effects.
        regular(&std::fs::metadata(path)?)?;
        // Nonblocking, should a FIFO have taken its place.
        let nonblocking = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        let flags = nonblocking.bits() as i32;
        let mut file = File::options().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        regular(&metadata)?;
        let before = Stamp::new(&metadata, SystemTime::now());
        let content = bounded(&mut file, before.size)?;
        let after = Stamp::new(&file.metadata()?, SystemTime::now());
        if before.same(&after) && content.len() as u64 == before.size {
            return Ok((content, before));
        }
    }
    Err(Unreadable::Unsteady)
}

fn regular(metadata: &std::fs::Metadata) -> Result<(), Unreadable> {
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_file() && metadata.size() > LARGEST => {
            return Err(Unreadable::TooLarge(metadata.size()));
        }
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(Unreadable::NotAFile(what))
}

fn bounded(file: &mut File, expected: u64) -> Result<Vec<u8>, Unreadable> {
    let mut content = Vec::with_capacity(expected.min(LARGEST) as usize + 1);
    file.take(LARGEST + 1).read_to_end(&mut content)?;
    match content.len() as u64 {
        size if size > LARGEST => Err(Unreadable::TooLarge(size)),
        _ => Ok(content),
    }
}
