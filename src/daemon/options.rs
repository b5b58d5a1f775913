//! porind's command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::kernel::probe;
use crate::kernel::sockets::Cgroup;

/// Gives containers addresses, identities and policy.
#[derive(Debug, Clone, Parser)]
#[command(name = "porind", version, about, max_term_width = 80)]
pub struct Options {
    /// The operator's configuration
    #[arg(long, value_name = "DIR", default_value = "/etc/porin")]
    pub etc: PathBuf,

    /// Run-time state: the control socket; configuration of lower precedence than --etc
    #[arg(long, value_name = "DIR", default_value = "/run/porin")]
    pub run: PathBuf,

    /// Configuration that packages bring, of the lowest precedence
    #[arg(long, value_name = "DIR", default_value = "/usr/lib/porin")]
    pub lib: PathBuf,

    /// What outlives a reboot: address leases
    #[arg(long, value_name = "DIR", default_value = "/var/lib/porin")]
    pub state: PathBuf,

    /// Where the BPF file system is, or is to be mounted
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,

    /// How programs are attached to interfaces
    #[arg(long, value_enum, default_value_t = Attach::Auto)]
    pub attach: Attach,

    /// Whose sockets reach published ports as programs of the host do, or none [default: the root cgroup]
    #[arg(long, value_name = "DIR", value_parser = cgroup)]
    pub cgroup: Option<Cgroup>,

    /// Remove all that porin made on this host, and nothing else; then exit
    #[arg(long, conflicts_with = "check_kernel")]
    pub teardown: bool,

    /// Say what this kernel offers and what porin does without; then exit
    #[arg(long)]
    pub check_kernel: bool,

    /// Wait until a generation is in force, unless porin.toml says boot = "open"; then exit
    #[arg(long, conflicts_with_all = ["teardown", "check_kernel"])]
    pub wait: bool,

    /// Be the worker that judges requests; only the daemon starts it so
    #[arg(long, hide = true, exclusive = true)]
    pub l7_worker: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Attach {
    /// clsact on endpoints' interfaces; on uplinks tcx where the kernel has it, else clsact
    Auto,
    /// Links of the tcx hook (Linux 6.6)
    Tcx,
    /// Filters of the clsact queueing discipline
    Clsact,
}

fn cgroup(text: &str) -> Result<Cgroup, String> {
    match text {
        "none" => Ok(Cgroup::None),
        path if path.starts_with('/') => Ok(Cgroup::At(path.into())),
        _ => Err("write `none`, or the directory of a cgroup from / on".to_owned()),
    }
}

impl Options {
    /// Where configuration is read, the highest precedence first.
    pub fn roots(&self) -> Vec<PathBuf> {
        vec![self.etc.clone(), self.run.clone(), self.lib.clone()]
    }
}

impl From<Attach> for probe::Attach {
    fn from(attach: Attach) -> Self {
        match attach {
            Attach::Auto => probe::Attach::Auto,
            Attach::Tcx => probe::Attach::Tcx,
            Attach::Clsact => probe::Attach::Clsact,
        }
    }
}
