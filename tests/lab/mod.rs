//! The lab: private worlds in which whole hosts with containers run real traffic.
//!
//! `World::run` gives a thread a world of its own. In it a `Host` has an own kernel network stack,
//! bpffs, `/etc/porin`, `/run` and `/var/lib/porin`; a `Container` is a named network namespace of a
//! host; a `Daemon` is a `porind` on a host. Traffic is made in-process (`traffic`), so that a probe
//! costs a system call and not a program's start; set-up uses `ip` (iproute2), as a person would.
//!
//! Nothing here waits by sleeping: `eventually` waits for conditions, with a deadline. No packet
//! leaves a world: it has no interface to anything else, and that is asserted.
//!
//! Tests, benches and the demo share this module; none of them uses all of it.
#![allow(dead_code, unused_imports)]

pub mod cgroup;
pub mod cni;
pub mod config;
pub mod cri;
pub mod daemon;
pub mod docker;
pub mod eventually;
pub mod flips;
pub mod flows;
pub mod generation;
pub mod host;
pub mod http;
pub mod machine;
pub mod newer;
pub mod notify;
pub mod package;
pub mod ping;
pub mod place;
pub mod podman5;
pub mod process;
pub mod runtime;
pub mod shop;
#[allow(unsafe_code)]
pub mod sys;
pub mod traffic;
pub mod workers;
pub mod world;

pub use cgroup::Cgroup;
pub use daemon::{Daemon, Setup};
pub use docker::Docker;
pub use eventually::eventually;
pub use host::{Container, Host};
pub use place::Place;
pub use process::{Output, Process};
pub use world::World;
