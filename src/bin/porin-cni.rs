//! The CNI plugin: see porin-cni(8).

use std::process::ExitCode;

fn main() -> ExitCode {
    porin::adapter::cni::plugin::main()
}
