//! porin gives every container on a host an address and a membrane.
#![deny(unsafe_code)]

pub mod types;

pub mod config;

pub mod desired;

pub mod compile;

pub mod kernel;

pub mod observe;

pub mod proxy;

pub mod control;

pub mod adapter;

pub mod daemon;
