//! What happened: kernel records to named flows, counters to named rows, and the daemon's health.
//!
//! Observing never decides anything and never changes the kernel. It may know generations
//! (`compile`, `desired`), but not how they got into the kernel, nor who asks.

pub mod clock;
pub mod counters;
pub mod event;
#[cfg(test)]
mod fixture;
pub mod flow;
pub mod health;
pub mod hub;
pub mod line;
pub mod names;
pub mod reader;
pub mod reason;
pub mod request;
pub mod text;
