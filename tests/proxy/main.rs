//! The L7 worker between real sockets: what a client says, what its server hears, and the other way round. Over loopback
//! but for `worker`, which runs the real process in a world of its own.

mod h1_answers;
mod h1_life;
mod h1_long;
mod h1_requests;
mod h1_upgrades;
mod h2_frames;
mod h2_streams;
mod heads;
mod judge;
mod keeper;
#[path = "../lab/mod.rs"]
mod lab;
mod place;
mod second_opinion;
mod support;
mod tls;
mod worker;
