//! The worker as a process: `porind --l7-worker`, a child of the daemon that parses what strangers send, and may do
//! nothing else.
//!
//! Its standard input is a socket pair with the daemon: orders come with rules, tables and listening sockets, and reports
//! go back (`message`, `channel`). The datapath's table of flows says which rules a connection is under (`book`). What it needs it gets through there, so that it opens no files (`sandbox`). If the daemon dies
//! it goes on; once nobody can give orders any more, it ends when it has had no connection for [`process::LONELY`].

mod book;
mod calls;
mod channel;
mod listeners;
mod message;
mod process;
mod reports;
mod sandbox;
mod transparent;

pub use channel::{Channel, ChannelError};
pub use message::{MAX_RULES, Order, Report};
pub use process::{Failed, run};
pub use sandbox::Sandbox;
