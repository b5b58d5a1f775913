//! Docker's driver beside the daemon: started and ended as `[docker]` says.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::adapter::docker::{PLUGINS, Plugin, Store, networks_in};
use crate::config::model;
use crate::control::server::Handler;
use crate::desired::Fault;

use super::store;

pub struct Docker {
    /// What the daemon keeps of it over reboots.
    path: PathBuf,
    handler: Arc<dyn Handler>,
    running: Option<(model::Docker, Plugin)>,
    /// Why it could not be started; told in the log once, and by `porinctl status` as long as it is so.
    failed: Option<String>,
}

impl Docker {
    /// `state`: directory of what outlives reboots.
    pub fn new(state: &Path, handler: Arc<dyn Handler>) -> Self {
        Docker { path: state.join("docker.toml"), handler, running: None, failed: None }
    }

    /// To be called when a generation is in force. What could not be started is tried again.
    pub fn follow(&mut self, config: &model::Docker) {
        // Adoption is not the driver's.
        let config = &model::Docker { adopt: Vec::new(), ..config.clone() };
        if self.running.as_ref().is_some_and(|(running, _)| running == config) {
            return;
        }
        self.running = None;
        if !config.driver {
            self.failed = self.left_over();
            return;
        }
        match self.start(config) {
            Ok(plugin) => {
                self.running = Some((config.clone(), plugin));
                self.failed = None;
            }
            Err(why) if self.failed.as_ref() != Some(&why) => {
                log::error!("Docker is not served: {why}");
                self.failed = Some(why);
            }
            Err(_) => {}
        }
    }

    pub fn faults(&self) -> Option<Fault> {
        let why = self.failed.as_ref()?;
        Some(Fault::whole(format!("Docker is not served: {why}")))
    }

    /// Why Docker waits in vain: it has networks of a driver that is no more.
    fn left_over(&self) -> Option<String> {
        let text = store::read(&self.path).ok()??;
        let networks = networks_in(&text);
        let path = self.path.display();
        (networks > 0).then(|| {
            format!(
                "{networks} of its networks are porin's, and `driver` in [docker] is not on; its calls about them wait in vain \
                 (turn it on, and remove them first; if they are gone, remove {path})"
            )
        })
    }

    fn start(&self, config: &model::Docker) -> Result<Plugin, String> {
        let path = self.path.clone();
        let unreadable = |error| format!("{} cannot be read: {error}", path.display());
        let text = store::read(&path).map_err(unreadable)?;
        let to = path.clone();
        let store = Store { path, text, save: Box::new(move |text| store::replace(&to, text)) };
        Plugin::start(config, Path::new(PLUGINS), store, self.handler.clone())
    }
}
