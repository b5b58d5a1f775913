//! Packet tests: a packet goes in at a gate, through the tail call into a variant,
//! by BPF_PROG_TEST_RUN; its fate is stated, and every counter that moved. Each
//! test has maps and a network namespace of its own. They need root.

#[path = "packet/adopted.rs"]
mod adopted;
#[path = "packet/errors.rs"]
mod errors;
#[path = "packet/events.rs"]
mod events;
#[path = "packet/fragments.rs"]
mod fragments;
#[path = "packet/frame.rs"]
mod frame;
#[path = "packet/generations.rs"]
mod generations;
#[path = "packet/language.rs"]
mod language;
#[path = "packet/live.rs"]
mod live;
#[path = "packet/local.rs"]
mod local;
#[path = "packet/malformed.rs"]
mod malformed;
#[path = "packet/outside.rs"]
mod outside;
#[path = "packet/pins.rs"]
mod pins;
#[path = "packet/proxied.rs"]
mod proxied;
#[path = "packet/published.rs"]
mod published;
#[path = "packet/reject.rs"]
mod reject;
#[path = "packet/shape.rs"]
mod shape;
#[path = "packet/world.rs"]
mod world;
