//! What Docker says to its network and IPAM drivers, and what it wants to hear (libnetwork's documents `remote.md` and `ipam.md`).
//!
//! Fields that are not known here are none of our business; absent ones are as if empty, as Go has it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Plugin.Activate.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Activated {
    pub implements: [&'static str; 2],
}

#[derive(Debug, Default, Serialize)]
pub struct Nothing {}

#[derive(Debug, Serialize)]
pub struct Failed {
    #[serde(rename = "Err")]
    pub what: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkCapabilities {
    pub scope: &'static str,
}

#[derive(Debug, Serialize)]
pub struct IpamCapabilities {
    #[serde(rename = "RequiresMACAddress")]
    pub requires_mac_address: bool,
    /// What is given out is remembered here.
    #[serde(rename = "RequiresRequestReplay")]
    pub requires_request_replay: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AddressSpaces {
    pub local_default_address_space: &'static str,
    pub global_default_address_space: &'static str,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
pub struct RequestPool {
    #[serde(deserialize_with = "nullable")]
    pub pool: String,
    #[serde(deserialize_with = "nullable")]
    pub sub_pool: String,
    #[serde(deserialize_with = "nullable")]
    pub options: BTreeMap<String, Value>,
    pub v6: bool,
}

#[derive(Debug, Serialize)]
pub struct Pool {
    #[serde(rename = "PoolID")]
    pub id: String,
    #[serde(rename = "Pool")]
    pub network: String,
    #[serde(rename = "Data")]
    pub data: BTreeMap<&'static str, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ReleasePool {
    #[serde(rename = "PoolID", deserialize_with = "nullable")]
    pub pool: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RequestAddress {
    #[serde(rename = "PoolID", deserialize_with = "nullable")]
    pub pool: String,
    #[serde(rename = "Address", deserialize_with = "nullable")]
    pub address: String,
    #[serde(rename = "Options", deserialize_with = "nullable")]
    pub options: BTreeMap<String, Value>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Address {
    pub address: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ReleaseAddress {
    #[serde(rename = "PoolID", deserialize_with = "nullable")]
    pub pool: String,
    #[serde(rename = "Address", deserialize_with = "nullable")]
    pub address: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CreateNetwork {
    #[serde(rename = "NetworkID", deserialize_with = "nullable")]
    pub network: String,
    #[serde(rename = "Options", deserialize_with = "nullable")]
    pub options: BTreeMap<String, Value>,
    #[serde(rename = "IPv4Data", deserialize_with = "nullable")]
    pub ipv4: Vec<IpamData>,
    #[serde(rename = "IPv6Data", deserialize_with = "nullable")]
    pub ipv6: Vec<IpamData>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct IpamData {
    #[serde(rename = "Pool", deserialize_with = "nullable")]
    pub pool: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct OfNetwork {
    #[serde(rename = "NetworkID", deserialize_with = "nullable")]
    pub network: String,
}

/// What all calls about an endpoint have.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(default)]
pub struct OfEndpoint {
    #[serde(rename = "NetworkID", deserialize_with = "nullable")]
    pub network: String,
    #[serde(rename = "EndpointID", deserialize_with = "nullable")]
    pub endpoint: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CreateEndpoint {
    #[serde(flatten)]
    pub of: OfEndpoint,
    #[serde(rename = "Interface", deserialize_with = "nullable")]
    pub interface: Interface,
    #[serde(rename = "Options", deserialize_with = "nullable")]
    pub options: BTreeMap<String, Value>,
}

/// ProgramExternalConnectivity.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Connectivity {
    #[serde(flatten)]
    pub of: OfEndpoint,
    #[serde(rename = "Options", deserialize_with = "nullable")]
    pub options: BTreeMap<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// With a length, like the next.
    #[serde(rename = "Address", deserialize_with = "nullable")]
    pub ipv4: String,
    #[serde(rename = "AddressIPv6", deserialize_with = "nullable")]
    pub ipv6: String,
    #[serde(rename = "MacAddress", deserialize_with = "nullable")]
    pub mac: String,
}

/// Only what was not given may be said.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Created {
    pub interface: CreatedInterface,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreatedInterface {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Info {
    pub value: BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Joined {
    pub interface_name: InterfaceName,
    #[serde(rename = "Gateway")]
    pub gateway: String,
    #[serde(rename = "GatewayIPv6")]
    pub gateway6: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InterfaceName {
    pub src_name: String,
    pub dst_prefix: &'static str,
}

/// Go writes what is empty as null.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
