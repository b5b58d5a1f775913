//! Other systems' words for what porin does: a foreign request becomes a request to the daemon, and its answer a
//! foreign answer.
//!
//! Adapters run outside the daemon, which parses none of their formats; Docker's in threads of the same process.

pub mod cni;
mod containerd;
pub mod docker;
pub mod grpc;
mod http;
mod podman;
