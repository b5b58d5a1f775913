//! The L7 worker over loopback, between real sockets: what a client says, what its server hears, and the other way round.

mod h1_answers;
mod h1_life;
mod h1_requests;
mod h1_upgrades;
mod h2_frames;
mod h2_streams;
mod heads;
mod judge;
mod second_opinion;
mod support;
mod tls;
mod worker;
