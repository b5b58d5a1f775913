//! `porind --wait`: what `porin-boot.service` holds containers back by.

use std::path::Path;
use std::time::Duration;

use super::options::Options;
use crate::config::model::Boot;
use crate::config::{Changed, Loader};
use crate::control::client::Client;
use crate::control::view::State;
use crate::control::wire::{Request, Response};

/// Nothing tells another process that a generation is in force.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Returns once a generation is in force, or the files do not say that anybody has to wait for it.
pub fn wait(options: &Options) {
    let mut loader = Loader::new(options.roots());
    let mut said = false;
    loop {
        loader.look(&Changed::Any);
        if loader.boot() == Boot::Open || enforces(&options.run) {
            return;
        }
        if !said {
            log::info!(
                "containers wait until a generation is in force (boot = \"closed\", or a porin.toml that does not say it clearly)"
            );
            said = true;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Whether the daemon says so. Without one nobody can know.
fn enforces(run: &Path) -> bool {
    let answer = Client::connect(run).and_then(|mut client| client.ask(&Request::Status));
    matches!(answer, Ok(Response::Status(status)) if status.state == State::Enforcing)
}
