//! What the service manager keeps from one daemon to the next: listening sockets, and the channels to workers.

use std::os::fd::OwnedFd;
use std::os::linux::fs::MetadataExt;
use std::path::Path;

use crate::kernel::datapath::Maps;
use crate::kernel::sys;

/// Descriptors that an earlier daemon stored.
#[derive(Debug, Default)]
pub struct Kept {
    pub sockets: Vec<OwnedFd>,
    /// With what they were called by.
    pub workers: Vec<(String, OwnedFd)>,
}

/// What listening sockets are called.
pub const SOCKETS: &str = "l7-sockets";
const WORKER: &str = "l7-worker-";

impl Kept {
    /// Of this process; to be called once. Whatever else was stored is closed.
    pub fn take() -> Self {
        let mut kept = Kept::default();
        match sd_notify::listen_fds_with_names() {
            Ok(descriptors) => {
                for (number, name) in descriptors {
                    let Some(descriptor) = sys::inherited(number) else { continue };
                    if name == SOCKETS {
                        kept.sockets.push(descriptor);
                    } else if name.starts_with(WORKER) {
                        kept.workers.push((name, descriptor));
                    }
                }
            }
            Err(error) => {
                log::warn!("cannot take over what the service manager has kept: {error}");
            }
        }
        kept
    }
}

/// What workers are called that this daemon can go on with: of this very program (another may speak otherwise), which
/// look into these tables (others may have been made since).
pub fn name(program: &Path, maps: &Maps) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("cannot look at {}: {error}", program.display());
    let file = std::fs::metadata(program).map_err(failed)?;
    let tables = maps.ids().map_err(|error| error.to_string())?;
    let table = tables.iter().find(|(_, name)| *name == "flows4").map_or(0, |(id, _)| *id);
    let (device, inode, changed) = (file.st_dev(), file.st_ino(), file.st_ctime());
    Ok(format!("{WORKER}{table}-{device:x}-{inode:x}-{changed:x}"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::Command;

    use super::*;

    /// Takes what it is given. Only run by the test below, as its child: descriptors are a process's own.
    #[test]
    #[ignore = "the child of what_was_stored_is_taken_by_its_name"]
    fn child() {
        let kept = Kept::take();
        let names: Vec<_> = kept.workers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((kept.sockets.len(), names), (1, vec!["l7-worker-a"]));
        for socket in kept.sockets.iter().chain(kept.workers.iter().map(|(_, channel)| channel)) {
            assert!(rustix::net::sockopt::socket_acceptconn(socket).unwrap());
            let flags = rustix::io::fcntl_getfd(socket).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "not for the worker");
        }
    }

    #[test]
    fn what_was_stored_is_taken_by_its_name() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let script = "LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 4<&0 5<&0";
        let output = Command::new("sh")
            .args(["-c", script])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "daemon::l7::kept::tests::child", "--ignored", "--quiet"])
            .env("LISTEN_FDS", "3")
            .env("LISTEN_FDNAMES", "l7-sockets:l7-worker-a:of-others")
            .stdin(OwnedFd::from(socket))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    #[test]
    fn another_program_or_other_tables_have_other_names() {
        let limits =
            crate::kernel::datapath::MapLimits { flows: 16, nat: 16, fragments: 16, hits: 16 };
        let (Ok(one), Ok(other)) = (Maps::create(&limits), Maps::create(&limits)) else {
            return eprintln!("skipped: this test needs root");
        };
        let own = std::env::current_exe().unwrap();
        let first = name(&own, &one).unwrap();
        assert_eq!(name(&own, &one).unwrap(), first);
        assert_ne!(name(&own, &other).unwrap(), first);
        assert_ne!(name(Path::new("/bin/sh"), &one).unwrap(), first);
        assert!(name(Path::new("/nonexistent"), &one).is_err());
    }
}
