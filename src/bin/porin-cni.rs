//! The CNI plugin and, by another name, netavark's: see porin-cni(8).

use std::process::ExitCode;

fn main() -> ExitCode {
    // CNI says all by the environment, netavark what to do by an argument.
    match std::env::args_os().nth(1) {
        None => porin::adapter::cni::plugin::main(),
        Some(_) => porin::adapter::netavark::plugin::main(),
    }
}
