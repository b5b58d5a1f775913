//! The datapath as Rust sees it: its maps, its programs, and what they share.
//!
//! Nothing here decides anything: policy, slots and generations are the callers'.
//! All calls are synchronous system calls.

pub mod abi;
mod error;
mod gates;
mod maps;
mod names;
mod print;
mod programs;
pub(in crate::kernel) mod skel;
mod tables;

pub use error::{Cause, Error, Result};
pub use gates::{GatePair, load_adopted_gate, load_gate, load_uplink_gate};
pub use maps::{MapLimits, Maps};
pub use names::{drop_reason_names, event_type_names, verdict_names};
pub use programs::{
    LoadedProgram, Program, SOCKET_PROGRAMS, TestContext, TestOutcome, load_socket_programs,
    load_variant, referenced_maps, test_run,
};

pub use tables::TableKind;

pub use super::sys::{Pod, bytes_of, from_bytes};
