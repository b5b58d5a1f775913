//! The daemon. See porind(8).

use std::process::ExitCode;

use clap::Parser;
use porin::daemon::options::Options;

fn main() -> ExitCode {
    porin::daemon::main(&Options::parse())
}
