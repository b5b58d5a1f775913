//! The operator's side from outside: the socket under hostile clients, `porinctl` as a process, what
//! it prints, and its man pages.

#[path = "control/check.rs"]
mod check;
#[path = "control/client.rs"]
mod client;
#[path = "control/fixture.rs"]
mod fixture;
#[path = "control/golden.rs"]
mod golden;
#[path = "control/man.rs"]
mod man;
#[path = "control/rows.rs"]
mod rows;
#[path = "control/server.rs"]
mod server;
#[path = "control/why.rs"]
mod why;
