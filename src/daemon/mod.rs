//! The daemon: it starts, watches, reconciles, and stops without touching enforcement.

pub mod debounce;
pub mod options;
pub mod watch;
