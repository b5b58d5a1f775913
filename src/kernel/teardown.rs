//! Removes all that porin made, and nothing else: also what is half made, and without a running daemon.
//!
//! What is porin's is known by itself: interfaces by name and alias or group, filters by name, handle and
//! priority, all else by its place or its mark on bpffs.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::links::Links;
use super::netlink::{Netlink, endpoint, host, steering};
use super::paths::Layout;
use super::{Error, Paths, probe, sockets};

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TeardownReport {
    pub interfaces: Vec<String>,
    /// Interfaces of others that had gates.
    pub gates: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// Pinned objects and marks.
    pub pins: usize,
    /// What could not be removed, and why.
    pub failures: Vec<String>,
}

pub fn teardown(paths: &Paths) -> Result<TeardownReport, Error> {
    // What is removed is a whole tree: it must be one that only BPF objects can be in.
    if paths.bpffs.exists() && !probe::is_bpffs(&paths.bpffs) {
        return Err(Error::Other(format!(
            "cannot tear down {}: it is not on a BPF file system, so nothing in there is porin's",
            paths.bpffs.display()
        )));
    }
    let netlink = Netlink::open()?;
    let mut report = TeardownReport::default();
    let roots = versions(&paths.bpffs);
    let links = host::links(&netlink)?;
    // Interfaces first, with their gates: none is ever up without.
    let (own, others): (Vec<_>, Vec<_>) = links.into_iter().partition(endpoint::is_porins);
    let own: Vec<String> = own.into_iter().map(|link| link.name).collect();
    match endpoint::remove_all(&netlink, &own) {
        Ok(()) => report.interfaces = own,
        Err(error) => report.failures.push(error.to_string()),
    }
    if let Err(error) = steering::remove(&netlink) {
        report.failures.push(error.to_string());
    }
    for root in &roots {
        let layout = Layout::at(root.clone());
        let directory = Links::new(layout.links());
        let mut names = directory.interfaces().unwrap_or_default();
        report.gates.extend(
            names.iter().filter(|name| others.iter().any(|link| link.name == **name)).cloned(),
        );
        names.extend(others.iter().map(|link| link.name.clone()));
        names.sort_unstable();
        names.dedup();
        for name in names {
            if let Err(error) = directory.detach(&netlink, &name) {
                report.failures.push(error.to_string());
            }
        }
        if let Err(error) = sockets::detach(&layout.sockets()) {
            report.failures.push(error.to_string());
        }
        for address in layout.marked_addresses() {
            match layout.remove_address(&netlink, address) {
                Ok(()) => report.addresses.push(address),
                Err(reason) => report.failures.push(reason.to_string()),
            }
        }
    }
    if paths.bpffs.exists() {
        remove_tree(&paths.bpffs, &mut report);
    }
    Ok(report)
}

/// The directories of all ABIs.
fn versions(bpffs: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(bpffs).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn remove_tree(directory: &Path, report: &mut TeardownReport) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&path, report);
            continue;
        }
        match std::fs::remove_file(&path) {
            Ok(()) => report.pins += 1,
            Err(error) => {
                report.failures.push(format!("cannot remove {}: {error}", path.display()));
            }
        }
    }
    if let Err(error) = std::fs::remove_dir(directory) {
        report.failures.push(format!("cannot remove {}: {error}", directory.display()));
    }
}
