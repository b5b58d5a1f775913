//! The operator's side: the daemon's socket, `porinctl`'s commands and what they print.
//!
//! Knows what there is to show and how it looks, not how it came about.

pub mod attach;
pub mod check;
pub mod cli;
pub mod client;
pub mod command;
pub mod exit;
pub mod fault;
pub mod names;
pub mod rows;
pub mod server;
pub mod show;
pub mod socket;
pub mod tables;
mod terminal;
pub mod view;
pub mod why;
pub mod wire;
