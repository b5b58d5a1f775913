//! Docker's Engine API, as far as porin listens to it; Podman's compatible one speaks likewise.
//!
//! `engine` asks, `answers` is what comes back, `wishes` makes endpoints of that. Nothing is ever changed over there.

mod answers;
mod engine;
mod wishes;

pub use answers::Container;
pub use engine::{Engine, Error, Event, Events};
pub use wishes::{ADAPTER, Wish, attachment, short, wishes};
