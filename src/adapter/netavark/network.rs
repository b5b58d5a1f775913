//! A network of Podman's: what `create` is asked for, and the options that it keeps for those who come later.
//!
//! Addresses are porin's to give, so the network has none of its own (`ipam_options.driver = "none"`): Podman would else
//! give out of the same pools behind porin's back. What is asked for and cannot be is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::adapter::cni::environment::shortened;
use crate::adapter::cni::failure::{Code, Failure};
use crate::adapter::cni::labels::{self, WrittenLabels};

/// `--opt KEY=VALUE`.
pub type Written = BTreeMap<String, String>;

/// What they say.
#[derive(Debug, Default)]
pub struct Options {
    /// The daemon's run directory.
    pub run: PathBuf,
    /// Podman's socket, if it is to be asked for labels.
    pub podman: Option<PathBuf>,
    /// `label.KEY=VALUE`.
    pub labels: WrittenLabels,
}

/// The default of `run`.
pub fn default_run() -> PathBuf {
    Path::new("/run/porin").to_owned()
}

/// # Errors
/// An option that is not known, or cannot be.
pub fn options(written: &Written) -> Result<Options, Failure> {
    let mut options = Options { run: default_run(), ..Options::default() };
    let mut pairs = Vec::new();
    for (key, value) in written {
        let path = || match Path::new(value) {
            path if path.is_absolute() => Ok(path.to_owned()),
            _ => {
                let what = format!("`{key}` is not an absolute path: {}", shortened(value));
                Err(Failure::new(Code::InvalidNetwork, what))
            }
        };
        match (key.as_str(), key.strip_prefix("label.")) {
            (_, Some(label)) => pairs.push((label.to_owned(), value.clone())),
            ("run", _) => options.run = path()?,
            ("podman", _) => options.podman = Some(path()?),
            _ => {
                let what = format!("the option {} is not known", shortened(key));
                let hint = "options are podman, run and label.KEY: see porin-cni(8)";
                return Err(Failure::new(Code::InvalidNetwork, what).details(hint));
            }
        }
    }
    options.labels = pairs.into_iter().collect();
    Ok(options)
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    subnets: Option<Vec<Value>>,
    #[serde(default)]
    routes: Option<Vec<Value>>,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    network_interface: Option<String>,
    #[serde(default)]
    network_dns_servers: Option<Vec<Value>>,
    #[serde(default)]
    ipam_options: Option<Written>,
    #[serde(default)]
    options: Option<Written>,
}

/// The network as it is to be kept: as it came but for who gives addresses and names.
///
/// # Errors
/// What is asked for and cannot be.
pub fn create(text: &[u8]) -> Result<Value, Failure> {
    let mut network: Map<String, Value> = decode(text)?;
    let asked: Asked = decode(text)?;
    let unsupported = |what: &str, hint: &str| {
        let what = format!("{what} is not supported by porin");
        Err(Failure::new(Code::Unsupported, what).details(hint))
    };
    let some = |values: &Option<Vec<Value>>| values.as_ref().is_some_and(|v| !v.is_empty());
    if some(&asked.subnets) {
        let hint = "addresses come from the pools of porin.toml";
        return unsupported("a subnet, gateway or range of a network's own", hint);
    }
    if some(&asked.routes) {
        return unsupported("a route of a network's own", "the host routes for its endpoints");
    }
    if asked.internal {
        return unsupported("an internal network", "policies say who may reach the outside");
    }
    if asked.network_interface.is_some_and(|name| !name.is_empty()) {
        return unsupported("an interface of a network's own", "there is no bridge to name");
    }
    if some(&asked.network_dns_servers) {
        return unsupported("a name server of a network's own", "use `podman run --dns`");
    }
    let ipam = asked.ipam_options.unwrap_or_default();
    if !matches!(ipam.get("driver").map(String::as_str), None | Some("" | "none")) {
        return unsupported("an IPAM driver", "addresses come from the pools of porin.toml");
    }
    labels::join([options(&asked.options.unwrap_or_default())?.labels])?;
    network.insert("ipam_options".to_owned(), json!({ "driver": "none" }));
    // Nobody serves names there; Podman asks for it unless it is told not to.
    network.insert("dns_enabled".to_owned(), false.into());
    Ok(network.into())
}

/// # Errors
/// Text that is no such object.
pub fn decode<'t, T: Deserialize<'t>>(text: &'t [u8]) -> Result<T, Failure> {
    serde_json::from_slice(text).map_err(|error| {
        Failure::new(Code::Decode, "what came on standard input is not netavark's")
            .details(error.to_string())
    })
}
