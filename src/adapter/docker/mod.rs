//! Docker: its networks of porin's, and containers in networks of its own.
//!
//! The network and IPAM driver `porin` is on a socket that Docker discovers, inside porind. Unlike `porin-cni`, which a runtime starts, a driver has to be there all the time. It still speaks to the daemon in requests and
//! answers (`control::wire`), and knows nothing of what is behind them.
//!
//! `engine` asks the Engine API (Podman's compatible one speaks likewise); the driver's threads, which have no runtime, ask by `api`. For adoption `answers` is what comes back, `wishes`
//! makes endpoints of that; nothing is ever changed over there.

mod answers;
mod api;
mod calls;
mod driver;
mod engine;
mod left;
mod opener;
mod pools;
mod published;
mod serve;
mod subnets;
mod wire;
mod wishes;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Weak};

use crate::config::model;
use crate::control::server::Handler;
use crate::types::Invalid;

pub use answers::Container;
use driver::Driver;
pub use engine::{Engine, Error, Event, Events};
use left::Left;
use pools::Pools;
pub use pools::{Store, networks_in};
use serve::Server;
pub use wishes::{ADOPTED, Wish, attachment, short, wishes};

/// The driver's name, and its socket's without `.sock`.
pub const NAME: &str = "porin";
/// Where Docker looks for plugins' sockets.
pub const PLUGINS: &str = "/run/docker/plugins";

/// The running driver. Dropping it ends it; what is attached stays.
pub struct Plugin {
    driver: Weak<Driver>,
    _server: Server,
}

impl Drop for Plugin {
    /// Calls that are under way may end after the next one has begun.
    fn drop(&mut self) {
        if let Some(driver) = self.driver.upgrade() {
            driver.pools.close();
        }
    }
}

impl Plugin {
    /// `plugins`: directory of the socket.
    ///
    /// # Errors
    /// What is saved cannot be read, or there can be no socket.
    pub fn start(
        config: &model::Docker,
        plugins: &Path,
        store: Store,
        handler: Arc<dyn Handler>,
    ) -> Result<Self, String> {
        let pools = Pools::open(config.networks.clone(), store, handler.clone())?;
        let (opener, tells) = channel();
        let driver = Arc::new(Driver::new(pools, &config.socket, handler, opener));
        // Before Docker can speak of any: these are an earlier daemon's.
        let attachments = driver.attachments().map_err(|failure| failure.to_string())?;
        let left = Left::new(attachments, driver.pools.given());
        let weak = Arc::downgrade(&driver);
        let path: PathBuf = plugins.join(format!("{NAME}.sock"));
        // First: who is not served by this one must not have its state saved by it.
        let server = Server::start(&path, driver).map_err(|error| error.to_string())?;
        let opened = weak.clone();
        let open = move || opener::run(&opened, &tells, left);
        std::thread::Builder::new()
            .name("docker-opener".to_owned())
            .spawn(open)
            .map_err(|error| error.to_string())?;
        log::info!("serving Docker on {}", path.display());
        Ok(Plugin { driver: weak, _server: server })
    }
}

/// From a call's path and body to its answer's status and body.
pub type Answering = Box<dyn Fn(&str, &[u8]) -> (u16, Vec<u8>)>;

/// What the driver would answer on its socket, to who has calls without one, such as a fuzzer.
///
/// # Errors
/// What is saved cannot be read.
pub fn answering(
    config: &model::Docker,
    store: Store,
    handler: Arc<dyn Handler>,
) -> Result<Answering, String> {
    let pools = Pools::open(config.networks.clone(), store, handler.clone())?;
    let (opener, tells) = channel();
    let driver = Driver::new(pools, &config.socket, handler, opener);
    Ok(Box::new(move |path, body| {
        let answer = calls::call(&driver, path, body);
        tells.try_iter().for_each(drop);
        answer
    }))
}

/// Ids go into paths. Docker's are 64 hexadecimal digits, or 25 letters and digits in a swarm.
fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Why a call is refused: one sentence, and what to do about it.
#[derive(Debug)]
struct Failure {
    what: String,
    hint: Option<String>,
}

impl Failure {
    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Failure { what, hint: None }
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Failure { what: invalid.what, hint: invalid.hint }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}
