//! Variants: programs by features. Each is loaded from its object with the shared
//! maps put in and its constants set; the object is let go of at once, and what
//! remains is one descriptor. Gates are in `gates.rs`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{ErrorKind, OpenObject, libbpf_sys};

use super::abi::Features;
use super::error::{Cause, Context, Error, Result};
use super::maps::Maps;
use super::print;
use super::skel::endpoint::EndpointSkelBuilder;
use super::skel::host::HostSkelBuilder;
use super::skel::uplink::UplinkSkelBuilder;
use crate::kernel::sys::{self, bytes_of, from_bytes};

pub use crate::kernel::sys::{TestContext, TestOutcome};

const RETRIES: usize = 10;

/// The four programs behind gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Program {
    FromEndpoint,
    ToEndpoint,
    FromUplink,
    ToUplink,
}

impl Program {
    pub const ALL: [Self; 4] =
        [Self::FromEndpoint, Self::ToEndpoint, Self::FromUplink, Self::ToUplink];

    /// Its name in C and in the kernel.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromEndpoint => "from_endpoint",
            Self::ToEndpoint => "to_endpoint",
            Self::FromUplink => "from_uplink",
            Self::ToUplink => "to_uplink",
        }
    }
}

/// A program in the kernel, and what it costs.
#[derive(Debug)]
pub struct LoadedProgram {
    pub fd: OwnedFd,
    pub id: u32,
    /// Instructions that the verifier left.
    pub xlated_insns: u32,
    /// Bytes of machine code.
    pub jited_len: u32,
    /// Instructions that the verifier walked through; 0 before Linux 5.16.
    pub verified_insns: u32,
}

/// Loads one program, specialised for `features`.
pub fn load_variant(maps: &Maps, program: Program, features: &Features) -> Result<LoadedProgram> {
    let fd = load(program.name(), || match program {
        Program::FromEndpoint | Program::ToEndpoint => {
            let mut storage = sys::object_storage();
            let mut open = EndpointSkelBuilder::default().open(&mut storage)?;
            if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
                rodata.features = from_bytes(bytes_of(features)).unwrap_or_default();
            }
            prepare(open.open_object_mut(), maps, &[program.name()])?;
            let loaded = open.load()?;
            programs(loaded.object(), [program.name()])
        }
        Program::FromUplink | Program::ToUplink => {
            let mut storage = sys::object_storage();
            let mut open = UplinkSkelBuilder::default().open(&mut storage)?;
            if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
                rodata.features = from_bytes(bytes_of(features)).unwrap_or_default();
            }
            prepare(open.open_object_mut(), maps, &[program.name()])?;
            let loaded = open.load()?;
            programs(loaded.object(), [program.name()])
        }
    });
    let [fd] = fd?;
    let info = sys::program_info(fd.as_fd()).context("ask about", program.name())?;
    Ok(LoadedProgram {
        fd,
        id: info.id,
        xlated_insns: info.xlated_insns,
        jited_len: info.jited_len,
        verified_insns: info.verified_insns,
    })
}

/// The programs at the host's own sockets, and where each belongs.
pub const SOCKET_PROGRAMS: [(&str, libbpf_sys::bpf_attach_type); 8] = [
    ("host_connect4", libbpf_sys::BPF_CGROUP_INET4_CONNECT),
    ("host_connect6", libbpf_sys::BPF_CGROUP_INET6_CONNECT),
    ("host_sendmsg4", libbpf_sys::BPF_CGROUP_UDP4_SENDMSG),
    ("host_sendmsg6", libbpf_sys::BPF_CGROUP_UDP6_SENDMSG),
    ("host_recvmsg4", libbpf_sys::BPF_CGROUP_UDP4_RECVMSG),
    ("host_recvmsg6", libbpf_sys::BPF_CGROUP_UDP6_RECVMSG),
    ("host_getpeername4", libbpf_sys::BPF_CGROUP_INET4_GETPEERNAME),
    ("host_getpeername6", libbpf_sys::BPF_CGROUP_INET6_GETPEERNAME),
];

/// Loads them, in that order. `host`: the cookie of the network namespace whose sockets they are about.
pub fn load_socket_programs(maps: &Maps, host: u64) -> Result<[OwnedFd; SOCKET_PROGRAMS.len()]> {
    let names = SOCKET_PROGRAMS.map(|(name, _)| name);
    load("at the host's sockets", || {
        let mut storage = sys::object_storage();
        let mut open = HostSkelBuilder::default().open(&mut storage)?;
        // It is there, as the object has this constant; without it the programs would do nothing.
        if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
            rodata.host_netns = host;
        }
        prepare(open.open_object_mut(), maps, &names)?;
        let loaded = open.load()?;
        programs(loaded.object(), names)
    })
}

/// Puts the shared maps in, and leaves out all programs but `wanted`.
fn prepare(object: &mut OpenObject, maps: &Maps, wanted: &[&str]) -> libbpf_rs::Result<()> {
    for mut map in object.maps_mut() {
        if let Some(shared) = map.name().to_str().and_then(|name| maps.handle(name)) {
            map.reuse_fd(shared.as_fd())?;
        }
    }
    for mut program in object.progs_mut() {
        let is_wanted = wanted.iter().any(|name| program.name() == *name);
        program.set_autoload(is_wanted);
    }
    Ok(())
}

/// Takes programs out of their object.
fn programs<const N: usize>(
    object: &libbpf_rs::Object,
    names: [&str; N],
) -> libbpf_rs::Result<[OwnedFd; N]> {
    let find = |wanted: &str| {
        let program = object.progs().find(|program| program.name() == wanted);
        let program = program.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))?;
        Ok(program.as_fd().try_clone_to_owned()?)
    };
    let found = names.iter().map(|name| find(name)).collect::<libbpf_rs::Result<Vec<_>>>()?;
    found.try_into().map_err(|_| std::io::Error::from(std::io::ErrorKind::NotFound).into())
}

fn load<T>(name: &str, f: impl Fn() -> libbpf_rs::Result<T>) -> Result<T> {
    let (mut result, mut log) = print::keep(&f);
    // The verifier gives up when a signal comes (EAGAIN); libbpf tries five times, which a busy machine can outlast.
    for _ in 0..RETRIES {
        if !result.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            break;
        }
        (result, log) = print::keep(&f);
    }
    result.map_err(|error| Error {
        operation: "load",
        object: format!("program {name}"),
        cause: Cause::Load { error, log },
    })
}

/// Runs a program on a packet (BPF_PROG_TEST_RUN), `repeat` times on the same buffer.
pub fn test_run(
    program: BorrowedFd<'_>,
    packet: &[u8],
    repeat: u32,
    context: TestContext,
) -> Result<TestOutcome> {
    sys::test_run(program, packet, repeat, context).context("run", "program")
}

/// The ids of the maps that a loaded program can still reach, after the verifier has
/// removed what its constants exclude. (The kernel's own list has all that it once named.)
pub fn referenced_maps(program: BorrowedFd<'_>) -> Result<Vec<u32>> {
    const LOAD_IMMEDIATE_64: u64 = 0x18;
    let insns = sys::program_xlated(program).context("read", "program")?;
    let mut ids: Vec<u32> = insns
        .iter()
        .filter(|insn| **insn & 0xff == LOAD_IMMEDIATE_64)
        .filter(|insn| {
            let source = (**insn >> 12) as u32 & 0xf;
            source == libbpf_sys::BPF_PSEUDO_MAP_FD || source == libbpf_sys::BPF_PSEUDO_MAP_VALUE
        })
        .map(|insn| (insn >> 32) as u32)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
