//! The network configuration that comes on standard input: specification, section 1 and "Execution configuration".
//!
//! What is not known is refused, and so is what is known and cannot be honoured: nothing that somebody asked for is
//! dropped in silence. Only deleting reads as little as it needs, so that whatever was made can be removed.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use serde_json::{Map, Value};

use super::arguments;
use super::environment::{IDENTIFIER, is_identifier, shortened};
use super::failure::{Code, Failure};
use super::labels::WrittenLabels;
use super::published::{self, Mapping};
use super::version::Version;
use crate::types::{Mac, Publication};

/// Bytes at most.
pub const LONGEST: usize = 1 << 20;

/// What every operation needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basics {
    pub version: Version,
    pub name: String,
    /// The daemon's run directory.
    pub run: PathBuf,
}

/// What ADD and CHECK need besides.
#[derive(Debug, Default)]
pub struct Network {
    pub labels: WrittenLabels,
    /// `args.cni.labels`.
    pub asked_labels: WrittenLabels,
    /// Of the pod: capability `io.kubernetes.cri.pod-annotations`.
    pub annotations: WrittenLabels,
    pub ips: Vec<IpAddr>,
    /// Capability `mac`, or `args.cni.mac`.
    pub mac: Option<Mac>,
    /// Capability `portMappings`.
    pub publish: Vec<Publication>,
    pub dns: Dns,
    /// Sockets, of those that are to be asked for labels.
    pub podman: Option<PathBuf>,
    pub containerd: Option<PathBuf>,
    pub previous: Option<Value>,
}

/// Passed through: porin serves no names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// One that is to stay: GC removes all others of the network.
#[derive(Debug, Deserialize)]
pub struct Valid {
    #[serde(rename = "containerID")]
    pub container: String,
    #[serde(rename = "ifname")]
    pub interface: String,
}

#[derive(Deserialize)]
struct WrittenBasics {
    #[serde(rename = "cniVersion")]
    version: Option<String>,
    name: Option<String>,
    run: Option<PathBuf>,
}

/// The version, as far as it can be told: errors are printed in it.
pub fn version(text: &[u8]) -> Result<Version, Failure> {
    let basics: WrittenBasics = decode(text)?;
    Version::of(basics.version.as_deref())
}

pub fn basics(text: &[u8]) -> Result<Basics, Failure> {
    let written: WrittenBasics = decode(text)?;
    let version = Version::of(written.version.as_deref())?;
    let invalid = |what: String| Failure::new(Code::InvalidNetwork, what);
    let name = written.name.ok_or_else(|| invalid("the network has no name".to_owned()))?;
    if !is_identifier(&name) || name.len() > 512 {
        let what = format!("{} is not a network's name", shortened(&name));
        return Err(invalid(what).details(IDENTIFIER));
    }
    let run = written.run.unwrap_or_else(|| Path::new("/run/porin").to_owned());
    if !run.is_absolute() {
        return Err(invalid(format!("`run` is not an absolute path: {}", run.display())));
    }
    Ok(Basics { version, name, run })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(rename = "cniVersion")]
    _version: Option<String>,
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "run")]
    _run: Option<PathBuf>,
    #[serde(rename = "type")]
    _type: Option<String>,
    /// The runtime has looked at it: what was asked for is in `runtimeConfig`.
    #[serde(rename = "capabilities")]
    _capabilities: Option<Map<String, Value>>,
    #[serde(rename = "cni.dev/valid-attachments", alias = "cni.dev/attachments")]
    _valid: Option<Value>,
    #[serde(default)]
    labels: WrittenLabels,
    #[serde(default)]
    dns: Dns,
    #[serde(rename = "runtimeConfig", default)]
    runtime: Runtime,
    #[serde(default)]
    args: Args,
    #[serde(rename = "prevResult")]
    previous: Option<Value>,
    ipam: Option<Map<String, Value>>,
    podman: Option<PathBuf>,
    containerd: Option<PathBuf>,
    #[serde(rename = "ipMasq")]
    masquerade: Option<bool>,
}

#[derive(Default, Deserialize)]
struct Runtime {
    #[serde(default)]
    ips: Vec<String>,
    #[serde(default)]
    mac: Option<String>,
    dns: Option<Dns>,
    #[serde(default)]
    labels: WrittenLabels,
    #[serde(rename = "io.kubernetes.cri.pod-annotations", default)]
    annotations: WrittenLabels,
    #[serde(rename = "portMappings", default)]
    ports: Vec<Mapping>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// Conventions, "args in network config": keys that are not known are ignored.
#[derive(Default, Deserialize)]
struct Args {
    #[serde(default)]
    cni: CniArgs,
}

#[derive(Default, Deserialize)]
struct CniArgs {
    #[serde(default)]
    labels: WrittenLabels,
    #[serde(default)]
    ips: Vec<String>,
    #[serde(default)]
    mac: Option<String>,
}

/// # Errors
/// The specification's codes 2, 6 and 7.
pub fn network(text: &[u8]) -> Result<Network, Failure> {
    let written: Written = decode(text)?;
    let unsupported = |what: &str, hint: &str| {
        let what = format!("{what} is not supported by porin-cni");
        Err(Failure::new(Code::Unsupported, what).details(hint))
    };
    if written.ipam.is_some_and(|ipam| !ipam.is_empty()) {
        return unsupported("`ipam`", "addresses come from the pools of porin.toml");
    }
    for (key, path) in [("podman", &written.podman), ("containerd", &written.containerd)] {
        if let Some(relative) = path.as_ref().filter(|path| path.is_relative()) {
            let what = format!("`{key}` is not an absolute path: {}", relative.display());
            return Err(Failure::new(Code::InvalidNetwork, what));
        }
    }
    if written.masquerade == Some(true) {
        return unsupported("`ipMasq`", "[masquerade] in porin.toml says what is masqueraded");
    }
    let asked = |value: &Value| match value {
        Value::Null => false,
        Value::Array(values) => !values.is_empty(),
        Value::Object(values) => !values.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    };
    if let Some((key, _)) = written.runtime.others.iter().find(|(_, value)| asked(value)) {
        let hint = match key.as_str() {
            "bandwidth" => "a plugin behind this one could have the capability: see porin-cni(8)",
            _ => "do without, or take it out of `capabilities`",
        };
        return unsupported(&format!("the capability {}", shortened(key)), hint);
    }
    let ips = written.runtime.ips.iter().chain(&written.args.cni.ips);
    let ips = ips.map(|text| {
        let what = || format!("{} is not an address", shortened(text));
        arguments::address(text).ok_or_else(|| Failure::new(Code::InvalidNetwork, what()))
    });
    let macs = [written.runtime.mac.as_deref(), written.args.cni.mac.as_deref()];
    let macs =
        macs.into_iter().flatten().filter(|text| !text.is_empty()).map(|text| {
            arguments::mac(text).map_err(|why| Failure::new(Code::InvalidNetwork, why))
        });
    let mac = one_mac(macs.collect::<Result<Vec<_>, _>>()?)?;
    let mut asked_labels = written.args.cni.labels;
    asked_labels.extend(written.runtime.labels);
    Ok(Network {
        labels: written.labels,
        asked_labels,
        annotations: written.runtime.annotations,
        ips: ips.collect::<Result<_, _>>()?,
        mac,
        publish: published::all(&written.runtime.ports)?,
        dns: written.runtime.dns.unwrap_or(written.dns),
        podman: written.podman,
        containerd: written.containerd,
        previous: written.previous,
    })
}

/// The one MAC address that is asked for, however often.
///
/// # Errors
/// The specification's code 7.
pub fn one_mac(asked: impl IntoIterator<Item = Mac>) -> Result<Option<Mac>, Failure> {
    let mut asked = asked.into_iter();
    let Some(mac) = asked.next() else { return Ok(None) };
    match asked.find(|other| *other != mac) {
        Some(other) => {
            let what = format!("{mac} and {other} are asked for; an interface has one MAC address");
            Err(Failure::new(Code::InvalidNetwork, what))
        }
        None => Ok(Some(mac)),
    }
}

/// Which attachments are to stay.
pub fn valid(text: &[u8]) -> Result<Vec<Valid>, Failure> {
    #[derive(Deserialize)]
    struct Written {
        #[serde(rename = "cni.dev/valid-attachments", alias = "cni.dev/attachments")]
        valid: Option<Vec<Valid>>,
    }
    let written: Written = decode(text)?;
    // Without it, everything would go.
    written
        .valid
        .ok_or_else(|| Failure::new(Code::InvalidNetwork, "`cni.dev/valid-attachments` is missing"))
}

fn decode<'t, T: Deserialize<'t>>(text: &'t [u8]) -> Result<T, Failure> {
    serde_json::from_slice(text).map_err(|error| {
        match error.classify() {
            Category::Data => {
                Failure::new(Code::InvalidNetwork, "the network configuration is wrong")
            }
            Category::Io | Category::Syntax | Category::Eof => {
                Failure::new(Code::Decode, "the network configuration is no JSON object")
            }
        }
        .details(match error.to_string() {
            why if why.starts_with("unknown field `plugins`") => {
                "this is a list: a plugin gets one of its `plugins`, with the list's `cniVersion` and `name`".to_owned()
            }
            why => why,
        })
    })
}
