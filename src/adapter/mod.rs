//! Other systems' words for what porin does: a foreign request becomes a request to the daemon, and its answer a
//! foreign answer; what another daemon tells becomes what porin would want to know.
//!
//! Foreign formats end here: behind are only valid types. `cni` runs outside the daemon; `docker` in threads of it.

pub mod cni;
mod containerd;
pub mod docker;
pub mod grpc;
mod http;
pub mod netavark;
mod podman;
