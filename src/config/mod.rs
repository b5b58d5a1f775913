//! What the operator wrote: TOML files to a checked [`model::Config`], or every fault in them at once.
//!
//! [`Loader`] finds the files (`files`), reads (`read`) and parses (`parse`) what changed, and checks
//! the whole (`check`), with what is hardly meant (`warn`, `moot`). Parsing goes by key tables (`keys`)
//! through `table`, which turns every mismatch into a [`Fault`] with its place; `host`, `endpoint`,
//! `policy`, `rule`, `http`, `peer`, `selector`, `group` and `assertion` say what keys mean. A [`Report`] is for
//! logs (`Display`), programs (`Serialize`) and people ([`Report::terminal`]).

mod assertion;
mod check;
mod covers;
mod docker;
mod edited;
mod endpoint;
mod fault;
mod files;
mod group;
mod host;
mod http;
pub mod keys;
mod known;
mod loader;
pub mod model;
mod moot;
mod networks;
pub mod one;
mod parse;
mod peer;
mod picks;
mod policy;
pub mod print;
pub mod published;
mod read;
mod render;
mod report;
mod rule;
mod selector;
mod source;
mod table;
mod value;
mod warn;

pub use fault::{Excerpt, Fault, Place, Position, Related, Severity};
pub use loader::{Changed, Loaded, Loader};
pub use report::Report;
