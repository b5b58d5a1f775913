//! The socket's file: made safely, open to root and one group, removed only if it is ours.
//!
//! The file's mode already keeps others out (connecting needs write permission, unix(7)); peer
//! credentials are checked besides, in case somebody changes the mode.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

/// Name of the socket in the daemon's run directory.
pub const NAME: &str = "porin.sock";
/// Whose members may connect, besides root.
pub const GROUP: &str = "porin";

const MODE: u32 = 0o660;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("another porind answers on {0}")]
    InUse(PathBuf),
    #[error("{0} is not a socket: it is left alone")]
    NotSocket(PathBuf),
    #[error("cannot {operation} {path}: {error}")]
    Io { operation: &'static str, path: PathBuf, error: io::Error },
}

/// A bound socket.
#[derive(Debug)]
pub struct Socket {
    pub listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    id: (u64, u64),
    group: Option<u32>,
}

impl Socket {
    /// Binds `path`, in place of a socket that nobody listens on. Members of `group` may connect.
    ///
    /// The socket appears under its name, with its mode and owner, in one step (rename(2)).
    pub fn bind(path: &Path, group: Option<u32>) -> Result<Self, SocketError> {
        let io = |operation| {
            let path = path.to_owned();
            move |error| SocketError::Io { operation, path, error }
        };
        check_free(path)?;
        let new = path.with_extension(std::process::id().to_string());
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io("replace the leftover of")(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&new).map_err(io("bind"))?;
        let placed = place(&new, path, group);
        if placed.is_err() {
            // Best effort: the error that matters is returned.
            let _ = fs::remove_file(&new);
        }
        let id = placed.map_err(io("set up"))?;
        Ok(Socket { listener, path: path.to_owned(), id, group })
    }

    /// Whether the process at the other end may ask.
    pub fn admits(&self, peer: &UnixStream) -> io::Result<bool> {
        if is_superior(peer)? {
            return Ok(true);
        }
        let Some(group) = self.group else { return Ok(false) };
        let peer = socket_peercred(peer)?;
        Ok(peer.gid.as_raw() == group
            || supplementary(peer.pid.as_raw_nonzero().get()).contains(&group))
    }

    /// Removes the file, unless it is another's by now.
    pub fn remove(&self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.id);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Whether the process at the other end is root's, or of this process's own user.
pub fn is_superior(peer: &UnixStream) -> io::Result<bool> {
    let peer = socket_peercred(peer)?;
    Ok(peer.uid.is_root() || peer.uid == geteuid())
}

fn place(new: &Path, path: &Path, group: Option<u32>) -> io::Result<(u64, u64)> {
    chown(new, None, group)?;
    fs::set_permissions(new, Permissions::from_mode(MODE))?;
    let metadata = fs::symlink_metadata(new)?;
    fs::rename(new, path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Nothing is there, or a socket that its process left behind.
fn check_free(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(SocketError::NotSocket(path.to_owned()))
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => Err(SocketError::InUse(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(SocketError::Io { operation: "probe", path: path.to_owned(), error }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(SocketError::Io { operation: "look at", path: path.to_owned(), error }),
    }
}

/// The number of a group of this machine (group(5)); none if there is no such group.
pub fn group(name: &str) -> Option<u32> {
    find_group(&fs::read_to_string("/etc/group").ok()?, name)
}

fn find_group(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// Supplementary groups of a process (proc_pid_status(5)). Another process may have taken the number
/// by now, but who gets here has passed the file's mode.
fn supplementary(pid: i32) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    groups.unwrap_or_default().split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_their_whole_name() {
        let groups = "root:x:0:\nporins:x:7:\nporin:x:998:alice,bob\nbroken\nporin2:x:y:\n";
        assert_eq!(find_group(groups, "porin"), Some(998));
        assert_eq!(find_group(groups, "porin2"), None);
        assert_eq!(find_group(groups, "nobody"), None);
    }

    #[test]
    fn this_process_has_the_groups_that_proc_says() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let raw: Vec<_> =
            rustix::process::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        assert_eq!(supplementary(pid), raw);
        assert_eq!(supplementary(0), [0_u32; 0]);
    }
}
