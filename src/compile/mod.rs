//! Snapshot to Plan: which kernel objects what should be means. Pure and deterministic.

pub mod plan;
