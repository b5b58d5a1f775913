//! `porinctl check`: what the daemon would say of the files, without the daemon.

use std::io;
use std::path::PathBuf;

use super::view::{CheckView, FaultView};
use crate::config::{Loaded, Loader};

/// A directory that was asked for cannot be read, or there is none to read.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("cannot read {path}: {error}")]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("there is nothing to check: none of {} exists", Loader::ROOTS.join(", "))]
    Nothing,
}

/// Loads `directories`, highest precedence first; without any, those of the daemon.
pub fn check(directories: &[PathBuf]) -> Result<Loaded, CheckError> {
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
    Ok(Loader::new(roots).load())
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
