//! The kernel module against this kernel, each test in its own namespaces.

mod apply;
mod lab;
mod links;
mod maps;
mod netlink;
mod plans;
