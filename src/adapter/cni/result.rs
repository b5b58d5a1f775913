//! What ADD prints, in the form of the version asked in, and what CHECK compares: specification, section 5.

use std::net::IpAddr;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::failure::{Code, Failure};
use super::network::Dns;
use super::version::Version;
use crate::control::attach::Attached;
use crate::types::addr::{GATEWAY_IPV4, GATEWAY_IPV6};

/// The interface inside is the second.
const INSIDE: usize = 1;

pub fn added(version: Version, attached: &Attached, dns: &Dns) -> Value {
    let mut outside = json!({ "name": attached.host_interface, "mac": attached.host_mac });
    let mut inside = json!({
        "name": attached.interface,
        "mac": attached.mac,
        "sandbox": attached.namespace,
    });
    if version >= Version::V1_1_0 {
        outside["mtu"] = attached.mtu.into();
        inside["mtu"] = attached.mtu.into();
    }
    let ips: Vec<Value> = addresses(attached).map(|address| ip(version, address)).collect();
    let routes: Vec<Value> = addresses(attached)
        .map(|address| json!({ "dst": everywhere(address), "gw": gateway(address) }))
        .collect();
    let mut result = Map::new();
    result.insert("cniVersion".to_owned(), version.as_str().into());
    result.insert("interfaces".to_owned(), json!([outside, inside]));
    result.insert("ips".to_owned(), ips.into());
    result.insert("routes".to_owned(), routes.into());
    // 0.3.x and 0.4.0 have it always.
    if *dns != Dns::default() || version < Version::V1_0_0 {
        result.insert("dns".to_owned(), json!(dns));
    }
    result.into()
}

/// Another plugin's result, which the runtime has put into this version's form; if it has not, the difference that there
/// is between the forms is made up for.
pub fn passed(version: Version, mut previous: Value) -> Value {
    previous["cniVersion"] = version.as_str().into();
    for ip in previous.get_mut("ips").and_then(Value::as_array_mut).into_iter().flatten() {
        let address = ip["address"].as_str().and_then(super::arguments::address);
        match (ip.as_object_mut(), address) {
            (Some(ip), Some(address)) if version < Version::V1_0_0 => {
                ip.insert("version".to_owned(), family(address).into());
            }
            (Some(ip), _) => _ = ip.remove("version"),
            _ => {}
        }
    }
    previous
}

fn ip(version: Version, address: IpAddr) -> Value {
    let length = if address.is_ipv4() { 32 } else { 128 };
    let mut ip = json!({
        "address": format!("{address}/{length}"),
        "gateway": gateway(address),
        "interface": INSIDE,
    });
    if version < Version::V1_0_0 {
        ip["version"] = family(address).into();
    }
    ip
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "4" } else { "6" }
}

pub fn addresses(attached: &Attached) -> impl Iterator<Item = IpAddr> {
    let ipv6 = attached.ipv6.map(IpAddr::V6);
    ipv6.into_iter().chain(attached.ipv4.map(IpAddr::V4))
}

pub fn gateway(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(_) => GATEWAY_IPV6.into(),
        IpAddr::V4(_) => GATEWAY_IPV4.into(),
    }
}

fn everywhere(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" }
}

/// Whether what is in force is what the runtime was told at ADD. Others' interfaces and addresses, which a plugin behind
/// this one may have added, are not looked at.
///
/// # Errors
/// What differs, as porin's own code.
pub fn compare(previous: &Value, attached: &Attached) -> Result<(), Failure> {
    let differs = |what: String| Err(Failure::new(Code::Refused, what));
    let entries = |key: &str| previous[key].as_array().cloned().unwrap_or_default();
    let sandbox = attached.namespace.as_deref().unwrap_or(Path::new("")).to_string_lossy();
    let ours = entries("interfaces").into_iter().find(|one| {
        one["name"] == attached.interface.as_str() && one["sandbox"] == sandbox.as_ref()
    });
    let Some(interface) = ours else {
        return differs(format!("`{}` in {sandbox} is not in prevResult", attached.interface));
    };
    let mac = interface["mac"].as_str().unwrap_or_default();
    if !mac.eq_ignore_ascii_case(&attached.mac) {
        return differs(format!("`{}` has {}, not {mac}", attached.interface, attached.mac));
    }
    let told: Vec<IpAddr> = entries("ips")
        .iter()
        .filter_map(|ip| super::arguments::address(ip["address"].as_str()?))
        .collect();
    match addresses(attached).find(|address| !told.contains(address)) {
        Some(address) => {
            differs(format!("`{}` has {address}, which is not in prevResult", attached.interface))
        }
        None => Ok(()),
    }
}
