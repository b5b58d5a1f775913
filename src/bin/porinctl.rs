//! The operator's tool: see porinctl(1).

use std::process::ExitCode;

fn main() -> ExitCode {
    porin::control::command::main().into()
}
