//! Gates on interfaces: how a program comes to see an interface's packets, stays there when the daemon
//! is gone, and is replaced or removed.
//!
//! By tcx (Linux 6.6) a gate is a link, pinned as `links/<interface>_<hook>`; by clsact, a cls_bpf filter
//! ([`super::clsact`]). Who prefers which is said at [`Mechanisms`]. Other people's programs on the
//! interface stay as they are: porin's goes behind them, and none is ever replaced or removed.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::clsact;
use super::mirror::{Mirror, Row};
use super::netlink::{self, Netlink};
use super::sys;

/// The direction of a gate, as the kernel names it: ingress is what comes in from the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    Ingress,
    Egress,
}

impl Hook {
    pub const BOTH: [Hook; 2] = [Hook::Ingress, Hook::Egress];

    pub fn name(self) -> &'static str {
        match self {
            Hook::Ingress => "ingress",
            Hook::Egress => "egress",
        }
    }

    fn attach_type(self) -> libbpf_sys::bpf_attach_type {
        match self {
            Hook::Ingress => libbpf_sys::BPF_TCX_INGRESS,
            Hook::Egress => libbpf_sys::BPF_TCX_EGRESS,
        }
    }
}

/// By which means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    Tcx,
    Clsact,
}

impl std::fmt::Display for Mechanism {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Mechanism::Tcx => "tcx",
            Mechanism::Clsact => "clsact",
        })
    }
}

/// By which means on which interfaces.
///
/// Attaching by tcx waits for an RCU grace period, and holds up all of the host's network configuration
/// meanwhile; for a thousand endpoints that is half a minute. On an uplink, which others have programs on
/// too, it is worth it: links have owners, and an order. An endpoint's interface is porin's alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mechanisms {
    pub endpoints: Mechanism,
    pub uplinks: Mechanism,
}

impl Mechanisms {
    pub fn only(mechanism: Mechanism) -> Self {
        Mechanisms { endpoints: mechanism, uplinks: mechanism }
    }
}

impl Mechanisms {
    /// By which means gates are on an interface that has some.
    pub fn on(self, mirror: &Mirror, interface: &str) -> Mechanism {
        let is_endpoints = |row: &Row| row.interface == interface;
        let own = mirror.interfaces.contains_key(interface);
        match own || mirror.endpoints.values().any(is_endpoints) {
            true => self.endpoints,
            false => self.uplinks,
        }
    }
}

impl std::fmt::Display for Mechanisms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.endpoints == self.uplinks {
            return self.endpoints.fmt(f);
        }
        write!(f, "{} (endpoints), {} (uplinks)", self.endpoints, self.uplinks)
    }
}

/// An interface, and how gates are on it.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub interface: &'a str,
    pub ifindex: u32,
    pub mechanism: Mechanism,
}

/// A digest of a program's code, by the kernel.
pub type Tag = [u8; 8];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {what}: {errno}")]
    Link { what: String, errno: Errno },
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
}

fn failed(what: impl Into<String>) -> impl FnOnce(Errno) -> Error {
    |errno| Error::Link { what: what.into(), errno }
}

/// The links directory on bpffs.
#[derive(Debug, Clone)]
pub struct Links {
    directory: PathBuf,
}

impl Links {
    pub fn new(directory: PathBuf) -> Self {
        Links { directory }
    }

    /// Puts a program on each hook (in the order of [`Hook::BOTH`]), or in the place of the one that porin
    /// has there. Only then it takes away what porin has there by the other means: a packet may meet both,
    /// but never neither.
    pub fn attach(
        &self,
        netlink: &Netlink,
        place: Place<'_>,
        programs: [BorrowedFd<'_>; 2],
    ) -> Result<(), Error> {
        match place.mechanism {
            Mechanism::Tcx => {
                for (hook, program) in Hook::BOTH.into_iter().zip(programs) {
                    self.attach_tcx(place, hook, program)?;
                }
                self.detach_clsact(netlink, place.interface)
            }
            Mechanism::Clsact => {
                let attach = match self.add_qdisc(netlink, place)? {
                    true => clsact::attach,
                    false => clsact::replace,
                };
                attach(netlink, place.interface, place.ifindex, programs)?;
                self.detach_tcx(place.interface)
            }
        }
    }

    /// Removes both gates, by either means, whether or not the interface still exists.
    pub fn detach(&self, netlink: &Netlink, interface: &str) -> Result<(), Error> {
        self.detach_tcx(interface)?;
        self.detach_clsact(netlink, interface)
    }

    /// The code that is on each interface, by hook. None: porin has nothing there by this means, or not
    /// on that very interface.
    pub fn tags(
        &self,
        netlink: &Netlink,
        places: &[Place<'_>],
    ) -> Result<Vec<[Option<Tag>; 2]>, Error> {
        let by_clsact = places.iter().filter(|place| place.mechanism == Mechanism::Clsact);
        let indices: Vec<u32> = by_clsact.map(|place| place.ifindex).collect();
        let mut filters = clsact::tags(netlink, &indices)?.into_iter();
        let mut tags = Vec::with_capacity(places.len());
        for place in places {
            tags.push(match place.mechanism {
                Mechanism::Clsact => filters.next().unwrap_or_default(),
                Mechanism::Tcx => {
                    let [ingress, egress] = Hook::BOTH.map(|hook| self.tag_of_link(*place, hook));
                    [ingress?, egress?]
                }
            });
        }
        Ok(tags)
    }

    /// Interfaces that have, or had, gates by this directory.
    pub fn interfaces(&self) -> Result<Vec<String>, Error> {
        let what = || format!("list {}", self.directory.display());
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(what())(errno_of(&error))),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| failed(what())(errno_of(&error)))?;
            let file = entry.file_name();
            let name = file.to_str().and_then(|file| file.rsplit_once('_'));
            names.extend(name.map(|(interface, _)| unescape(interface)));
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn attach_tcx(
        &self,
        place: Place<'_>,
        hook: Hook,
        program: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        let path = self.pin(place.interface, hook);
        let what = || format!("attach the {} gate to {}", hook.name(), place.interface);
        if let Ok(link) = sys::pinned(&path) {
            // The name may be left from an interface that is gone, with a link that is dead.
            let alive =
                sys::link_info(link.as_fd()).is_ok_and(|info| info.ifindex == place.ifindex);
            if alive {
                match sys::link_update(link.as_fd(), program) {
                    Ok(()) => return Ok(()),
                    Err(Errno::NOLINK) => {}
                    Err(errno) => return Err(failed(what())(errno)),
                }
            }
            unpin(&path)?;
        }
        let link = sys::link_create(program, place.ifindex, hook.attach_type());
        let link = link.map_err(failed(what()))?;
        sys::pin(link.as_fd(), &path).map_err(failed(format!("pin {}", path.display())))
    }

    fn detach_tcx(&self, interface: &str) -> Result<(), Error> {
        for hook in Hook::BOTH {
            let path = self.pin(interface, hook);
            match sys::pinned(&path) {
                // With its device gone, a link is only a name.
                Ok(link) => match sys::link_detach(link.as_fd()) {
                    Ok(()) | Err(Errno::NOLINK) => unpin(&path)?,
                    Err(errno) => return Err(failed(format!("detach {}", path.display()))(errno)),
                },
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed(format!("open {}", path.display()))(errno)),
            }
        }
        Ok(())
    }

    fn detach_clsact(&self, netlink: &Netlink, interface: &str) -> Result<(), Error> {
        let qdisc = self.qdisc_mark(interface);
        let made_by_us = qdisc.is_dir();
        if let Some(link) = netlink::host::link_by_name(&netlink.socket(), interface)? {
            clsact::detach(netlink, interface, link.ifindex, made_by_us)?;
        }
        if made_by_us {
            let remove = rustix::fs::rmdir(&qdisc);
            remove.map_err(failed(format!("remove {}", qdisc.display())))?;
        }
        Ok(())
    }

    fn tag_of_link(&self, place: Place<'_>, hook: Hook) -> Result<Option<Tag>, Error> {
        let path = self.pin(place.interface, hook);
        let link = match sys::pinned(&path) {
            Ok(link) => link,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failed(format!("open {}", path.display()))(errno)),
        };
        let read = || {
            let info = sys::link_info(link.as_fd())?;
            if info.ifindex != place.ifindex {
                return Ok(None);
            }
            sys::program_tag(sys::program_by_id(info.program_id)?.as_fd()).map(Some)
        };
        read().map_err(failed(format!("read the link {}", path.display())))
    }

    /// A qdisc that porin adds is marked, so that it is removed and another's is not. The mark is there
    /// first: a death in between leaves no qdisc that is nobody's. False if there is a qdisc already.
    fn add_qdisc(&self, netlink: &Netlink, place: Place<'_>) -> Result<bool, Error> {
        let mark = self.qdisc_mark(place.interface);
        let marked = match rustix::fs::mkdir(&mark, rustix::fs::Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(failed(format!("make {}", mark.display()))(errno)),
        };
        let added = clsact::add_qdisc(netlink, place.interface, place.ifindex);
        if marked && !matches!(added, Ok(true)) {
            let remove = rustix::fs::rmdir(&mark);
            remove.map_err(failed(format!("remove {}", mark.display())))?;
        }
        Ok(added?)
    }

    fn pin(&self, interface: &str, hook: Hook) -> PathBuf {
        self.directory.join(format!("{}_{}", escape(interface), hook.name()))
    }

    fn qdisc_mark(&self, interface: &str) -> PathBuf {
        self.directory.join(format!("{}_clsact", escape(interface)))
    }
}

fn unpin(path: &Path) -> Result<(), Error> {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed(format!("unpin {}", path.display()))(errno)),
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// bpffs allows no dots in names; interfaces do (`eth0.100`).
fn escape(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2e")
}

fn unescape(name: &str) -> String {
    name.replace("%2e", ".").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interfaces_survive_as_names_of_pins() {
        for name in ["eth0", "eth0.100", "br-a_b", "100%", "a%2eb", "%25."] {
            let escaped = escape(name);
            assert!(!escaped.contains('.'));
            assert_eq!(unescape(&escaped), name);
        }
    }
}
