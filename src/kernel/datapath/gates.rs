//! Gates: two programs for each interface, alike but for their constants.
//!
//! libbpf reads and relocates the object once. For a gate, a frozen array is made with its constants and
//! the code is loaded as it is, with that array in the place of the first one: so a gate costs what the
//! verifier and the compiler to machine code cost, and the verifier still sees constants.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use libbpf_rs::libbpf_sys::{self, bpf_insn};
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{MapCore, MapType};

use super::abi::Gate;
use super::error::{Cause, Context, Error, Result};
use super::maps::Maps;
use super::print;
use super::skel::gate::GateSkelBuilder;
use super::skel::gate::types::rodata;
use crate::kernel::sys::{self, bytes_of};

const ENDPOINT: [&str; 2] = ["gate_ingress", "gate_egress"];
const ADOPTED: [&str; 2] = ["adopted_ingress", "adopted_egress"];
const UPLINK: [&str; 2] = ["uplink_ingress", "uplink_egress"];
const LICENSE: &str = "Dual BSD/GPL";

/// The two gates of an interface.
#[derive(Debug)]
pub struct GatePair {
    pub ingress: OwnedFd,
    pub egress: OwnedFd,
}

/// Loads the two gates of an endpoint.
pub fn load_gate(maps: &Maps, gate: &Gate) -> Result<GatePair> {
    load(maps, gate, ENDPOINT)
}

/// Loads the two gates of an endpoint whose network is another's. They know no MAC.
pub fn load_adopted_gate(maps: &Maps, gate: &Gate) -> Result<GatePair> {
    load(maps, gate, ADOPTED)
}

/// Loads the two gates of an uplink, whose slot is all they know.
pub fn load_uplink_gate(maps: &Maps, slot: u32) -> Result<GatePair> {
    load(maps, &Gate { slot, ..Gate::default() }, UPLINK)
}

fn load(maps: &Maps, gate: &Gate, names: [&'static str; 2]) -> Result<GatePair> {
    let template = maps.gates()?;
    let constants = template.constants(gate).context("make the constants of", names[0])?;
    let [ingress, egress] = names.map(|name| {
        let program = template.program(name, &constants, maps);
        program.context("load", format!("program {name}"))
    });
    Ok(GatePair { ingress: ingress?, egress: egress? })
}

/// Code of all gates, ready to be loaded.
#[derive(Debug)]
pub struct Template {
    programs: Vec<Code>,
    /// The section of constants, of a gate that is nobody's.
    constants: Vec<u8>,
}

#[derive(Debug)]
struct Code {
    name: String,
    insns: Vec<bpf_insn>,
    /// Which instructions refer to a map, and to which.
    references: Vec<(usize, Reference)>,
}

#[derive(Clone, Debug)]
enum Reference {
    Constants,
    Shared(String),
}

impl Template {
    /// Has libbpf load the gates of nobody, and keeps their code.
    pub(super) fn open(maps: &Maps) -> Result<Self> {
        let (result, log) = print::keep(|| {
            let mut storage = sys::object_storage();
            let mut open = GateSkelBuilder::default().open(&mut storage)?;
            for mut map in open.open_object_mut().maps_mut() {
                if let Some(shared) = map.name().to_str().and_then(|name| maps.handle(name)) {
                    map.reuse_fd(shared.as_fd())?;
                }
            }
            let constants = open.maps.rodata.initial_value().map(<[u8]>::to_vec);
            let constants = constants.filter(|bytes| bytes.len() >= size_of::<rodata>());
            let constants = constants.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
            let loaded = open.load()?;
            let object = loaded.object();
            let mut found = Vec::new();
            for map in object.maps() {
                let name = map.name().to_string_lossy().into_owned();
                let reference = match name.contains(".rodata") {
                    true => Reference::Constants,
                    false => Reference::Shared(name),
                };
                found.push((map.as_fd().as_raw_fd(), reference));
            }
            let code = |program: libbpf_rs::Program<'_>| Code::of(&program, &found);
            let programs = object.progs().map(code).collect::<io::Result<_>>()?;
            Ok(Template { programs, constants })
        });
        result.map_err(|error| Error {
            operation: "load",
            object: "the gates".to_owned(),
            cause: Cause::Load { error, log },
        })
    }

    /// A frozen array with a gate's constants.
    fn constants(&self, gate: &Gate) -> io::Result<OwnedFd> {
        const RDONLY_PROG: u32 = libbpf_sys::BPF_F_RDONLY_PROG;
        let mut value = self.constants.clone();
        let begin = offset_of!(rodata, gate);
        value[begin..begin + size_of::<Gate>()].copy_from_slice(bytes_of(gate));
        let map = sys::map_create(MapType::Array, "gate.rodata", 4, value.len(), 1, RDONLY_PROG)?;
        sys::map_update_bytes(map.as_fd(), bytes_of(&0u32), &value)?;
        sys::map_freeze(map.as_fd())?;
        Ok(map)
    }

    fn program(&self, name: &str, constants: &OwnedFd, maps: &Maps) -> io::Result<OwnedFd> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let code = self.programs.iter().find(|code| code.name == name).ok_or_else(missing)?;
        let mut insns = code.insns.clone();
        for (index, reference) in &code.references {
            let map = match reference {
                Reference::Constants => constants.as_fd(),
                Reference::Shared(name) => maps.handle(name).ok_or_else(missing)?.as_fd(),
            };
            insns[*index].imm = map.as_raw_fd();
        }
        sys::program_load(name, LICENSE, &insns)
    }
}

impl Code {
    fn of(program: &libbpf_rs::Program<'_>, maps: &[(i32, Reference)]) -> io::Result<Self> {
        let insns = program.insns().to_vec();
        let mut references = Vec::new();
        for (index, insn) in insns.iter().enumerate().filter(|(_, insn)| is_map(insn)) {
            let reference = maps.iter().find(|(fd, _)| *fd == insn.imm);
            let (_, reference) = reference.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
            references.push((index, reference.clone()));
        }
        let name = program.name().to_string_lossy().into_owned();
        Ok(Code { name, insns, references })
    }
}

/// The first half of a 64-bit load whose value is a map, or an address in one.
fn is_map(insn: &bpf_insn) -> bool {
    const LOAD_IMMEDIATE_64: u8 = 0x18;
    let source = u32::from(insn.src_reg());
    insn.code == LOAD_IMMEDIATE_64
        && (source == libbpf_sys::BPF_PSEUDO_MAP_FD || source == libbpf_sys::BPF_PSEUDO_MAP_VALUE)
}
