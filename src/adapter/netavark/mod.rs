//! Netavark's plugin API, as which Podman 5 knows network drivers (`podman network create -d porin`).
//!
//! The same program as the CNI plugin, by another name: the file is called as the driver is, and what is to be done comes as
//! an argument, which CNI never gives. ([`plugin`]; `network` is what `create` is about, `container` what `setup` and
//! `teardown` are.)
//!
//! API: <https://github.com/containers/netavark/blob/main/plugin-API.md>.

mod container;
mod network;
pub mod plugin;
mod published;
