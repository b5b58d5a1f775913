//! What the worker takes from itself before it reads what strangers send: another user's rights, all capabilities but the
//! one for transparent sockets, every file, and the system calls that it has no use for.
//!
//! What the kernel does not have is left out, and told; what it has must succeed.

use std::io;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope,
};
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_keep_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use serde::{Deserialize, Serialize};

use crate::kernel::sys;

/// What confines the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sandbox {
    /// It has a user of its own; not if it was not started by root.
    pub user: bool,
    /// No file can be opened.
    pub files: bool,
    /// System calls other than those it needs are refused.
    pub calls: bool,
    /// It had to keep `CAP_BPF`, without which older kernels let nobody look into maps.
    pub bpf: bool,
}

/// Nobody's, as no user of that number is to have anything.
const NOBODY: u32 = 65_534;

/// Of this thread and those that it starts from now on.
pub fn enter() -> io::Result<Sandbox> {
    let root = geteuid().is_root();
    let bpf = match root {
        true => become_nobody()?,
        false => {
            set_capabilities(None, sets(CapabilitySet::empty()))?;
            false
        }
    };
    set_no_new_privs(true)?;
    let files = deny_files()?;
    let calls = super::calls::deny_others()?;
    Ok(Sandbox { user: root, files, calls, bpf })
}

/// Whether it keeps `CAP_BPF`.
fn become_nobody() -> io::Result<bool> {
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_keep_capabilities(true)?;
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    // For IP_TRANSPARENT (ip(7)) and SO_MARK (socket(7)).
    let least = CapabilitySet::NET_ADMIN;
    let more = least | CapabilitySet::BPF;
    set_capabilities(None, CapabilitySets { permitted: more, ..sets(least) })?;
    let bpf = !sys::may_look_up()?;
    set_capabilities(None, sets(if bpf { more } else { least }))?;
    set_keep_capabilities(false)?;
    Ok(bpf)
}

fn sets(capabilities: CapabilitySet) -> CapabilitySets {
    CapabilitySets {
        effective: capabilities,
        permitted: capabilities,
        inheritable: CapabilitySet::empty(),
    }
}

/// Whether the kernel has Landlock.
fn deny_files() -> io::Result<bool> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))
        .and_then(|ruleset| ruleset.scope(Scope::AbstractUnixSocket | Scope::Signal))
        .and_then(|ruleset| ruleset.create())
        .and_then(|ruleset| ruleset.restrict_self());
    let status = ruleset.map_err(io::Error::other)?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}
