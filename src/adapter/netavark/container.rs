//! A container on a network: what `setup` and `teardown` are about, and what `setup` answers.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use super::network::{self, Options, Written};
use super::published;
use crate::adapter::cni::environment::{IDENTIFIER, is_identifier, shortened};
use crate::adapter::cni::failure::{Code, Failure};
use crate::adapter::cni::labels;
use crate::adapter::cni::{arguments, asked, request, result};
use crate::control::attach::{Attach, Attached, AttachmentId, Place};
use crate::types::{Invalid, Mac, Name, Publication};

pub const ADAPTER: &str = "netavark";

/// Netavark's `NetworkPluginExec`, as much of it as matters.
#[derive(Deserialize)]
struct Exec {
    container_id: String,
    #[serde(default)]
    container_name: String,
    #[serde(default)]
    port_mappings: Option<Vec<Value>>,
    network: Network,
    network_options: PerNetwork,
}

#[derive(Deserialize)]
struct Network {
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    options: Option<Written>,
}

#[derive(Deserialize)]
struct PerNetwork {
    interface_name: String,
    #[serde(default)]
    static_ips: Option<Vec<IpAddr>>,
    #[serde(default)]
    static_mac: Option<String>,
    #[serde(default)]
    options: Option<Written>,
}

impl Exec {
    fn id(&self) -> AttachmentId {
        let parts = [self.container_id.as_str(), &self.network_options.interface_name];
        AttachmentId::new(ADAPTER, &self.network.id, &parts)
    }
}

/// One that is to be attached.
pub struct Container {
    exec: Exec,
    options: Options,
    own: Options,
    mac: Option<Mac>,
    publish: Vec<Publication>,
    /// The daemon's run directory.
    pub run: PathBuf,
}

/// # Errors
/// What is asked for and cannot be.
pub fn read(text: &[u8]) -> Result<Container, Failure> {
    let exec: Exec = network::decode(text)?;
    if !is_identifier(&exec.container_id) {
        let what = format!("{} is no container's id", shortened(&exec.container_id));
        return Err(Failure::new(Code::Decode, what).details(IDENTIFIER));
    }
    let mac = exec.network_options.static_mac.as_deref().filter(|mac| !mac.is_empty());
    let mac = mac.map(arguments::mac).transpose();
    let mac = mac.map_err(|why| Failure::new(Code::InvalidNetwork, why))?;
    let publish = published::all(exec.port_mappings.as_deref().unwrap_or_default())?;
    let options = network::options(&exec.network.options.clone().unwrap_or_default())?;
    // Who starts a container may say labels, not whom to ask.
    let own = exec.network_options.options.clone().unwrap_or_default();
    if let Some(key) = own.keys().find(|key| !key.starts_with("label.")) {
        let what = format!("the option {} is not a container's", shortened(key));
        return Err(Failure::new(Code::InvalidNetwork, what).details("label.KEY is"));
    }
    let own = network::options(&own)?;
    let run = options.run.clone();
    Ok(Container { exec, options, own, mac, publish, run })
}

impl Container {
    /// Asks Podman for labels, if the network says so.
    ///
    /// # Errors
    /// What is asked for and cannot be; and labels that are not known.
    pub fn attach(self, namespace: PathBuf) -> Result<Attach, Failure> {
        let Exec { container_id, container_name, network, network_options, .. } = &self.exec;
        let ips = network_options.static_ips.iter().flatten().copied();
        let (ipv6, ipv4) = request::fixed(ips)?;
        let found = match &self.options.podman {
            Some(socket) => asked::of_podman(socket, container_id)?,
            None => Default::default(),
        };
        let interface = network_options.interface_name.clone();
        let id = self.exec.id();
        let name = name(&id, container_name)?;
        let about = format!(
            "Podman network {}, container {container_id}, interface {interface}",
            network.name
        );
        // The operator's own first, as with CNI.
        let labels = labels::join([self.options.labels, self.own.labels, found])?;
        let place = Place::Inside { namespace, interface };
        Ok(Attach {
            ipv6,
            ipv4,
            mac: self.mac,
            publish: self.publish,
            ..Attach::new(id, about, name, place, labels)
        })
    }
}

/// The daemon's run directory, and which attachment: all that it takes to remove one.
pub fn which(text: &[u8]) -> Result<(PathBuf, AttachmentId), Failure> {
    let exec: Exec = network::decode(text)?;
    let run = exec.network.options.as_ref().and_then(|options| options.get("run"));
    let run = run.map_or_else(network::default_run, PathBuf::from);
    Ok((run, exec.id()))
}

/// Netavark's `NetInterface`.
pub fn interface(attached: &Attached) -> Value {
    let subnets: Vec<Value> = result::addresses(attached)
        .map(|address| {
            let length = if address.is_ipv4() { 32 } else { 128 };
            json!({ "ipnet": format!("{address}/{length}"), "gateway": result::gateway(address) })
        })
        .collect();
    json!({ "mac_address": attached.mac, "subnets": subnets })
}

fn name(id: &AttachmentId, container: &str) -> Result<Name, Failure> {
    let full = format!("{container}-{}", id.short());
    // Whatever it is called, it has a name.
    let named = full.parse().or_else(|_| id.as_str().parse());
    named.map_err(|why: Invalid| Failure::new(Code::Decode, why.to_string()))
}
