//! Where porin's things are on bpffs, and the marks it leaves there.
//!
//! ```text
//! v3/maps/<name>                     maps
//! v3/links/<interface>_<hook>        tcx links of gates
//! v3/links/<interface>_clsact/       this qdisc is porin's
//! v3/sockets/<program>               cgroup links of programs at the host's own sockets
//! v3/addresses/<32 hex digits>/      this address on lo is porin's
//! v3/gates/<digest>-<rate>/          all gates have this code and event rate
//! ```
//! A mark is an empty directory: the one thing on bpffs that needs no kernel object. It is made before
//! what it stands for, and removed after.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, mkdir, rmdir};
use rustix::io::Errno;

use super::datapath::abi;
use super::netlink::{Netlink, host};
use super::transaction::Reason;
use crate::types::AddressKey;

/// The default place.
pub const BPFFS: &str = "/sys/fs/bpf/porin";

/// What is where, for this ABI.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    pub fn new(bpffs: &Path) -> Self {
        Layout { root: bpffs.join(format!("v{}", abi::ABI)) }
    }

    /// Of a directory of any ABI, to tear it down.
    pub fn at(root: PathBuf) -> Self {
        Layout { root }
    }

    pub fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    pub fn sockets(&self) -> PathBuf {
        self.root.join("sockets")
    }

    fn addresses(&self) -> PathBuf {
        self.root.join("addresses")
    }

    fn gates(&self) -> PathBuf {
        self.root.join("gates")
    }

    pub fn make(&self) -> Result<(), std::io::Error> {
        std::fs::create_dir_all(&self.root)?;
        for directory in [self.links(), self.sockets(), self.addresses(), self.gates()] {
            std::fs::create_dir_all(directory)?;
        }
        Ok(())
    }

    /// Puts an address on `lo`, unless it is there already. Then it is someone else's, and stays.
    pub fn add_address(&self, netlink: &Netlink, address: IpAddr) -> Result<(), Reason> {
        let mark = self.address_mark(address);
        let marked = match mkdir(&mark, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(Reason(format!("cannot make {}: {errno}", mark.display()))),
        };
        let added = host::add_address(netlink, address);
        if marked && !matches!(added, Ok(true)) {
            remove(&mark)?;
        }
        added.map(|_| ()).map_err(|error| Reason(error.to_string()))
    }

    /// Takes an address off `lo`, if porin put it there.
    pub fn remove_address(&self, netlink: &Netlink, address: IpAddr) -> Result<(), Reason> {
        let mark = self.address_mark(address);
        if !mark.is_dir() {
            return Ok(());
        }
        host::remove_address(netlink, address).map_err(|error| Reason(error.to_string()))?;
        remove(&mark)
    }

    /// The addresses that porin put on `lo`, or was about to.
    pub fn marked_addresses(&self) -> Vec<IpAddr> {
        let parse = |name: &str| {
            let key = u128::from_str_radix(name, 16).ok().filter(|_| name.len() == 32)?;
            Some(IpAddr::from(AddressKey(key.to_be_bytes())))
        };
        names(&self.addresses()).iter().filter_map(|name| parse(name)).collect()
    }

    /// The event rate of all gates, if they all have the code with this digest.
    pub fn gate_mark(&self, digest: &str) -> Option<u32> {
        let names = names(&self.gates());
        let [name] = names.as_slice() else { return None };
        let (code, rate) = name.rsplit_once('-')?;
        if code == digest { rate.parse().ok() } else { None }
    }

    /// Notes what all gates are, or, with None, that they differ.
    pub fn mark_gates(&self, gates: Option<(&str, u32)>) -> Result<(), Reason> {
        for name in names(&self.gates()) {
            remove(&self.gates().join(name))?;
        }
        let Some((digest, rate)) = gates else { return Ok(()) };
        let mark = self.gates().join(format!("{digest}-{rate}"));
        mkdir(&mark, Mode::RWXU)
            .map_err(|errno| Reason(format!("cannot make {}: {errno}", mark.display())))
    }

    fn address_mark(&self, address: IpAddr) -> PathBuf {
        let key = u128::from_be_bytes(AddressKey::from(address).0);
        self.addresses().join(format!("{key:032x}"))
    }
}

fn remove(mark: &Path) -> Result<(), Reason> {
    match rmdir(mark) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Reason(format!("cannot remove {}: {errno}", mark.display()))),
    }
}

/// Directories of other ABIs.
pub fn others(bpffs: &Path) -> Vec<PathBuf> {
    let own = format!("v{}", abi::ABI);
    let is_version = |name: &String| {
        let number = name.strip_prefix('v').unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    let names = names(bpffs).into_iter().filter(|name| is_version(name) && *name != own);
    names.map(|name| bpffs.join(name)).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
