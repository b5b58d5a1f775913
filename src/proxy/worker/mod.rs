//! The worker as a process: `porind --l7-worker`, a child of the daemon that parses what strangers send, and may do
//! nothing else.
//!
//! Its standard input is a socket pair with the daemon: orders come with listening sockets, and reports go back
//! (`message`, `channel`). What it needs it gets through there, so that it opens no files (`sandbox`). If the daemon dies
//! it goes on; once nobody can give orders any more, it ends when it has had no connection for [`process::LONELY`].

mod calls;
mod channel;
mod listeners;
mod message;
mod process;
mod reports;
mod sandbox;

pub use channel::{Channel, ChannelError};
pub use message::{MAX_RULESET, Order, Report};
pub use process::{Failed, run};
pub use sandbox::Sandbox;
