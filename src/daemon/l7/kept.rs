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
