//! Snapshot to Plan: which kernel objects what should be means. Pure and deterministic.
//!
//! [`compile()`] does it; [`Memory`] holds what the next run need not do again, and the numbers that must not change their
//! meaning; [`precedence`] alone says which rule beats which; [`explain`] judges packets by a plan, as the datapath does;
//! [`why`] judges them by the files, arranged as a [`view`], and says what decided.

mod assertions;
mod classes;
pub mod explain;
mod features;
mod memory;
mod passing;
pub mod plan;
pub mod ports;
pub mod precedence;
mod published;
mod resolve;
mod role_index;
mod roles;
mod rule_content;
mod rule_table;
mod rules;
mod rulesets;
mod sets;
mod source_kinds;
mod sources;
mod subjects;
mod table;
pub mod view;
pub mod why;

pub use memory::{Memory, Stats, compile};

// How large the tables of a plan may be: those of the kernel must take as much.
pub use classes::PREFIXES;
pub use table::ENTRIES as POLICY_ENTRIES;
