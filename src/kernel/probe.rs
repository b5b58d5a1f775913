//! What this kernel and this process can do, found by trying.
//!
//! `Support` can only be had by probing, so who has one knows that porin can work here. Everything that
//! is missing is named, with the Linux version that brought it.

use std::fmt;
use std::path::{Path, PathBuf};

use libbpf_rs::{MapHandle, MapType, ProgramType};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::links::{Mechanism, Mechanisms};
use super::sys;

/// What may differ between kernels that porin runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Support {
    pub tcx: bool,
    /// `bpf_ktime_get_coarse_ns`, Linux 5.11.
    pub coarse_clock: bool,
}

/// Everything that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    pub missing: Vec<String>,
}

impl std::error::Error for Unusable {}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy();
        write!(f, "porin cannot work here (Linux {release}): ")?;
        f.write_str(&self.missing.join("; "))
    }
}

/// Which way to attach gates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Attach {
    /// On endpoints' interfaces clsact, on uplinks tcx where it exists.
    #[default]
    Auto,
    Tcx,
    Clsact,
}

impl Support {
    /// Tries everything that porin needs. Raises what limits stand in the way.
    pub fn probe() -> Result<Support, Unusable> {
        let missing = capabilities();
        if !missing.is_empty() {
            // Without them nothing else can be found out.
            return Err(Unusable { missing });
        }
        raise_limits();
        let mut missing = Vec::new();
        let program = match sys::load_nothing() {
            Ok(program) => program,
            Err(errno) => {
                missing.push(format!("loading BPF programs is refused: {errno}"));
                return Err(Unusable { missing });
            }
        };
        // Two CPUs that judge one flow must not both write its entry, so there is no doing without.
        if sys::load_compare_and_swap().is_err() {
            missing.push("atomic compare-and-swap in BPF (Linux 5.12)".to_owned());
        }
        missing.extend(maps());
        missing.extend(helpers());
        if !missing.is_empty() {
            return Err(Unusable { missing });
        }
        use std::os::fd::AsFd;
        // No interface has this index: a kernel that knows tcx says so, another does not understand.
        let attached =
            sys::link_create(program.as_fd(), i32::MAX as u32, libbpf_sys::BPF_TCX_INGRESS);
        Ok(Support {
            tcx: attached.is_err_and(|errno| errno == Errno::NODEV),
            coarse_clock: has_helper(libbpf_sys::BPF_FUNC_ktime_get_coarse_ns),
        })
    }

    pub fn mechanisms(&self, attach: Attach) -> Result<Mechanisms, Unusable> {
        match attach {
            Attach::Auto if self.tcx => {
                Ok(Mechanisms { endpoints: Mechanism::Clsact, uplinks: Mechanism::Tcx })
            }
            Attach::Auto | Attach::Clsact => Ok(Mechanisms::only(Mechanism::Clsact)),
            Attach::Tcx if self.tcx => Ok(Mechanisms::only(Mechanism::Tcx)),
            Attach::Tcx => Err(Unusable { missing: vec!["tcx, asked for (Linux 6.6)".to_owned()] }),
        }
    }
}

/// Sees to it that `path` can be a directory on bpffs: if nothing of the kind is there, bpffs is mounted
/// where it belongs.
pub fn mount_bpffs(path: &Path) -> Result<(), Unusable> {
    let failed = |what: String| Unusable { missing: vec![what] };
    let mut existing = path;
    while !existing.exists() {
        existing = existing.parent().unwrap_or(Path::new("/"));
    }
    if is_bpffs(existing) {
        return Ok(());
    }
    // The usual place is where every tool looks; elsewhere, the path itself.
    let usual = Path::new("/sys/fs/bpf");
    let target = if path.starts_with(usual) { usual.to_owned() } else { PathBuf::from(path) };
    if !target.is_dir() {
        std::fs::create_dir_all(&target)
            .map_err(|error| failed(format!("bpffs: cannot make {}: {error}", target.display())))?;
    }
    mount(
        "bpf",
        &target,
        "bpf",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        c"mode=0700",
    )
    .map_err(|errno| failed(format!("bpffs: cannot mount it at {}: {errno}", target.display())))
}

/// Whether the path is on a BPF file system.
pub fn is_bpffs(path: &Path) -> bool {
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type == BPF_FS_MAGIC)
}

/// capabilities(7), from `/proc/thread-self/status`.
fn capabilities() -> Vec<String> {
    const NET_ADMIN: u32 = 12;
    const SYS_ADMIN: u32 = 21;
    const PERFMON: u32 = 38;
    const BPF: u32 = 39;
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let has = |bit: u32| effective & (1 << bit) != 0;
    let mut missing = Vec::new();
    // Entering network namespaces and mounting bpffs need it; before Linux 5.8 it is also what allows BPF.
    let wanted = [
        (NET_ADMIN, "CAP_NET_ADMIN (interfaces and routes)"),
        (SYS_ADMIN, "CAP_SYS_ADMIN (entering the endpoints' network namespaces)"),
    ];
    for (bit, name) in wanted {
        if !has(bit) {
            missing.push(format!("the capability {name}: run as root"));
        }
    }
    for (bit, name) in [(BPF, "CAP_BPF"), (PERFMON, "CAP_PERFMON")] {
        if !has(bit) && !has(SYS_ADMIN) {
            missing.push(format!("the capability {name} (Linux 5.8; before that, CAP_SYS_ADMIN)"));
        }
    }
    missing
}

/// Before Linux 5.11 BPF objects count as locked memory; every table and variant is a descriptor. What
/// can't be raised shows where it is needed.
fn raise_limits() {
    let unlimited = Rlimit { current: None, maximum: None };
    if setrlimit(Resource::Memlock, unlimited).is_err() {
        log::debug!("RLIMIT_MEMLOCK stays at {:?}", getrlimit(Resource::Memlock));
    }
    let files = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: files.maximum, maximum: files.maximum };
    if setrlimit(Resource::Nofile, raised).is_err() {
        log::debug!("RLIMIT_NOFILE stays at {files:?}");
    }
}

fn maps() -> Vec<String> {
    const BPF_F_NO_PREALLOC: u32 = 1;
    const BPF_F_MMAPABLE: u32 = 1 << 10;
    let mut missing = Vec::new();
    let kinds = [
        (MapType::RingBuf, "the BPF ring buffer (Linux 5.8)"),
        (MapType::LruHash, "BPF LRU hash tables (Linux 4.10)"),
        (MapType::LpmTrie, "BPF longest-prefix tries (Linux 4.11)"),
        (MapType::ArrayOfMaps, "BPF arrays of maps (Linux 4.12)"),
        (MapType::ProgArray, "BPF tail calls (Linux 4.2)"),
    ];
    for (kind, name) in kinds {
        if !kind.is_supported().unwrap_or(false) {
            missing.push(name.to_owned());
        }
    }
    let create = |kind, flags| {
        let options = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
            map_flags: flags,
            ..Default::default()
        };
        MapHandle::create(kind, Some("porin_probe"), 4, 8, 1, &options)
    };
    if create(MapType::Array, BPF_F_MMAPABLE).is_err() {
        missing.push("memory-mapped BPF arrays (Linux 5.5)".to_owned());
    }
    use libbpf_rs::{MapCore, MapFlags};
    let batch = create(MapType::Hash, BPF_F_NO_PREALLOC)
        .and_then(|map| map.update_batch(&[0; 4], &[0; 8], 1, MapFlags::ANY, MapFlags::ANY));
    if batch.is_err() {
        missing.push("BPF batch operations (Linux 5.6)".to_owned());
    }
    missing
}

fn helpers() -> Vec<String> {
    let wanted = [
        (libbpf_sys::BPF_FUNC_redirect_peer, "the BPF helper bpf_redirect_peer (Linux 5.10)"),
        (libbpf_sys::BPF_FUNC_redirect_neigh, "the BPF helper bpf_redirect_neigh (Linux 5.10)"),
        (libbpf_sys::BPF_FUNC_fib_lookup, "the BPF helper bpf_fib_lookup (Linux 4.18)"),
        (libbpf_sys::BPF_FUNC_ringbuf_output, "the BPF helper bpf_ringbuf_output (Linux 5.8)"),
    ];
    let missing = wanted.into_iter().filter(|(helper, _)| !has_helper(*helper));
    missing.map(|(_, name)| name.to_owned()).collect()
}

fn has_helper(helper: libbpf_sys::bpf_func_id) -> bool {
    ProgramType::SchedCls.is_helper_supported(helper).unwrap_or(false)
}
