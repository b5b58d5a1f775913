//! `porinctl check`: what the daemon would say of the files, without the daemon.
//!
//! The files are compiled as if every endpoint's namespace existed, so that what does not fit, and assertions that do not
//! hold, are told here and not first at a commit. What only the host can know (its addresses, uplinks) is left out.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::view::{CheckView, FaultView};
use crate::compile::{Memory, compile};
use crate::config::model::{Config, Endpoint};
use crate::config::{self, Loaded, Loader, Place};
use crate::desired::snapshot::{Adopted, Namespace};
use crate::desired::{self, Change, Desired};

/// A directory that was asked for cannot be read, or there is none to read.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("cannot read {path}: {error}")]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("there is nothing to check: none of {} exists", Loader::ROOTS.join(", "))]
    Nothing,
}

/// Loads `directories`, highest precedence first; without any, those of the daemon. What only shows when they are
/// compiled is not looked for.
pub fn load(directories: &[PathBuf]) -> Result<(Loader, Loaded), CheckError> {
    for path in directories {
        let unreadable = |error| CheckError::Unreadable { path: path.clone(), error };
        std::fs::read_dir(path).map_err(unreadable)?;
    }
    let roots = if directories.is_empty() {
        let roots: Vec<_> = Loader::ROOTS.iter().map(PathBuf::from).collect();
        if !roots.iter().any(|root| root.exists()) {
            return Err(CheckError::Nothing);
        }
        roots
    } else {
        directories.to_vec()
    };
    let mut loader = Loader::new(roots);
    let loaded = loader.load();
    Ok((loader, loaded))
}

/// The same, and compiles it.
pub fn check(directories: &[PathBuf]) -> Result<Loaded, CheckError> {
    let (loader, mut loaded) = load(directories)?;
    let Some(config) = loaded.config.clone() else { return Ok(loaded) };
    let (refused, noted) = compiled(&config);
    let place = |fault: &desired::Fault| match (&fault.origin, config.host.pools.first()) {
        (Some(origin), _) => loader.place(origin),
        (None, Some(pool)) => Place::file(Arc::clone(&pool.origin.file)),
        (None, None) => Place::file(Path::new("porin.toml")),
    };
    let told = |fault: &desired::Fault, error: bool| {
        let what = match &fault.why {
            Some(why) => format!("{}: {why}", fault.what),
            None => fault.what.clone(),
        };
        let told = match error {
            true => config::Fault::error(place(fault), what),
            false => config::Fault::warning(place(fault), what),
        };
        fault.hint.iter().fold(told, |told, hint| told.hint(hint))
    };
    let errors = refused.iter().map(|fault| told(fault, true));
    let warnings = noted.iter().map(|fault| told(fault, false));
    loaded.report = Arc::new(loaded.report.and(errors.chain(warnings)));
    if !refused.is_empty() {
        loaded.config = None;
    }
    Ok(loaded)
}

/// What would refuse the whole; and what would keep an endpoint closed or leaves something unproven.
fn compiled(config: &Arc<Config>) -> (Vec<desired::Fault>, Vec<desired::Fault>) {
    let namespace = |(inode, endpoint): (u64, &Arc<Endpoint>)| {
        let path = endpoint.namespace()?.to_owned();
        Some((endpoint.name.clone(), Ok(Namespace { path, device: 0, inode })))
    };
    let interface = |(ifindex, endpoint): (u32, &Arc<Endpoint>)| {
        let found = Adopted { ifindex, via: ifindex };
        endpoint.is_adopted().then(|| (endpoint.name.clone(), Ok(found)))
    };
    let mut desired = Desired::default();
    desired.apply(Change::Namespaces((1..).zip(&config.endpoints).filter_map(namespace).collect()));
    desired.apply(Change::Interfaces((1..).zip(&config.endpoints).filter_map(interface).collect()));
    desired.apply(Change::Config(Arc::clone(config)));
    let (snapshot, mut noted) = match desired.snapshot() {
        Ok(made) => made,
        Err(refused) => return (refused, Vec::new()),
    };
    // Uplinks are nobody's endpoint; which there are is not known here.
    noted.retain(|fault| fault.endpoint.is_some());
    match compile(&snapshot, &mut Memory::default()) {
        Ok(plan) => {
            noted.extend_from_slice(&plan.undecided);
            (Vec::new(), noted)
        }
        Err(refused) => (refused, noted),
    }
}

pub fn view(loaded: &Loaded) -> CheckView {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let config = loaded.config.as_deref();
    CheckView {
        ok: config.is_some(),
        errors: count(loaded.report.errors),
        warnings: count(loaded.report.warnings),
        faults: loaded.report.faults.iter().map(FaultView::from).collect(),
        files: count(loaded.files),
        endpoints: config.map(|config| count(config.endpoints.len())),
        policies: config.map(|config| count(config.policies.len())),
        pools: config.map(|config| count(config.host.pools.len())),
        uplinks: config.map(|config| count(config.host.uplinks.len())),
    }
}

/// Every fault with its source line, then one line that sums up.
pub fn text(loaded: &Loaded, width: Option<usize>) -> String {
    /// Of excerpts, where there is no terminal to fit.
    const WIDTH: usize = 100;
    let mut text = loaded.report.terminal(true, width.unwrap_or(WIDTH));
    if let Some(config) = &loaded.config {
        let parts = [
            plural(config.endpoints.len(), "endpoint", "endpoints"),
            plural(config.policies.len(), "policy", "policies"),
            plural(config.host.pools.len(), "pool", "pools"),
            plural(config.host.uplinks.len(), "uplink", "uplinks"),
        ];
        let files = plural(loaded.files, "file", "files");
        text.push_str(&format!("ok: {} in {files}\n", parts.join(", ")));
    }
    text
}

fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
