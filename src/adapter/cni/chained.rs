//! Behind another plugin (`prevResult` at ADD): the interface is that one's, and porin judges what passes it.
//!
//! What is to be adopted is found in the kernel, not in the list of the result, whose order and extent differ from plugin
//! to plugin. The result is handed on as it came.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use super::arguments::{self, Arguments};
use super::environment::{Target, shortened};
use super::failure::{Code, Failure};
use super::network::{Dns, Network};
use crate::control::attach::{Adopted, Place};
use crate::kernel::netlink::veth::{self, NoVeth, Veth};
use crate::kernel::netlink::{self, Namespace, Netlink};

/// As much of a result as matters here: specification, section 5, "ADD Success".
#[derive(Debug, Deserialize)]
struct Previous {
    #[serde(default)]
    interfaces: Option<Vec<Interface>>,
    #[serde(default)]
    ips: Option<Vec<Ip>>,
}

#[derive(Debug, Deserialize)]
struct Interface {
    name: String,
    #[serde(default)]
    sandbox: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Ip {
    address: String,
    /// Which of the interfaces has it; none: it is not said.
    #[serde(default)]
    interface: Option<usize>,
}

/// Where the endpoint is to be. What its addresses are replaces what was asked for in `arguments` and `network`: the other
/// plugin has given them.
///
/// # Errors
/// Code 2: what was asked for and not given, or an interface on which nothing can be judged; 7: a result that is none.
pub fn place(
    target: &Target,
    previous: &Value,
    arguments: &mut Arguments,
    network: &mut Network,
) -> Result<Place, Failure> {
    if network.dns != Dns::default() {
        let what = "`dns` is not porin-cni's to give behind another plugin";
        let hint = "the plugin that makes the interface has it";
        return Err(Failure::new(Code::Unsupported, what).details(hint));
    }
    if !network.publish.is_empty() {
        let what = "`portMappings` are not porin-cni's to publish behind another plugin";
        let hint = "`portmap` behind this one publishes what the bridge has";
        return Err(Failure::new(Code::Unsupported, what).details(hint));
    }
    let given = addresses(previous, &target.interface)?;
    let asked = network.ips.iter().chain(&arguments.ips);
    if let Some(missing) = asked.into_iter().find(|ip| !given.contains(ip)) {
        let what = format!("{missing} was asked for, and the plugin before has not given it");
        return Err(Failure::new(Code::Unsupported, what).details("see `prevResult`"));
    }
    let veth = find(target)?;
    let mut asked = network.mac.take().into_iter().chain(arguments.mac.take());
    if let Some(asked) = asked.find(|asked| veth.mac != Some(*asked)) {
        let what = format!("{asked} was asked for, and the plugin before has not given it");
        return Err(Failure::new(Code::Unsupported, what));
    }
    network.ips = given;
    arguments.ips.clear();
    Ok(Place::Behind { interface: veth.name, ifindex: veth.ifindex })
}

/// Whether what is in force is what ADD was told by the plugins before.
///
/// # Errors
/// What differs, as porin's own code.
pub fn compare(target: &Target, previous: &Value, adopted: &Adopted) -> Result<(), Failure> {
    let differs = |what: String| Err(Failure::new(Code::Refused, what));
    let veth = find(target)?;
    let Target { interface, .. } = target;
    if (&veth.name, veth.ifindex) != (&adopted.host_interface, adopted.ifindex) {
        let Adopted { host_interface, .. } = adopted;
        let what = format!("`{interface}` is behind `{}`, not `{host_interface}`", veth.name);
        return differs(what);
    }
    let told = addresses(previous, interface)?;
    let mut own = adopted.addresses();
    if let Some(address) = own.find(|address| !told.contains(address)) {
        return differs(format!("`{interface}` has {address}, which is not in prevResult"));
    }
    let own: Vec<IpAddr> = adopted.addresses().collect();
    match told.iter().find(|address| !own.contains(address)) {
        Some(address) => {
            differs(format!("{address} is in prevResult, and is not that of `{interface}`"))
        }
        None => Ok(()),
    }
}

/// The addresses that the interface `name` in the container got, of which there is one at least.
fn addresses(previous: &Value, name: &str) -> Result<Vec<IpAddr>, Failure> {
    let wrong = |details: String| {
        Failure::new(Code::InvalidNetwork, "`prevResult` is no result").details(details)
    };
    // Lists pass for structures, too.
    if !previous.is_object() {
        return Err(wrong("it is no object".to_owned()));
    }
    let Previous { interfaces, ips } =
        Previous::deserialize(previous).map_err(|error| wrong(error.to_string()))?;
    let interfaces = interfaces.unwrap_or_default();
    let mut found = Vec::new();
    for Ip { address, interface } in ips.unwrap_or_default() {
        let of_it = match interface {
            None => true,
            Some(number) => {
                let none = || wrong(format!("there is no interface {number}"));
                let Interface { name: other, sandbox } = interfaces.get(number).ok_or_else(none)?;
                other == name && sandbox.as_ref().is_some_and(|sandbox| !sandbox.is_empty())
            }
        };
        let none = || wrong(format!("{} is not an address", shortened(&address)));
        let address = arguments::address(&address).ok_or_else(none)?;
        if of_it && !found.contains(&address) {
            found.push(address);
        }
    }
    if found.is_empty() {
        let what = format!("the plugin before has given `{name}` no address");
        return Err(Failure::new(Code::Unsupported, what)
            .details("porin judges by addresses: the plugin before needs an `ipam`"));
    }
    Ok(found)
}

fn find(target: &Target) -> Result<Veth, Failure> {
    let path = target.namespace.clone().unwrap_or_default();
    let failed = |error: netlink::Error| Failure::new(Code::Io, error.to_string());
    let namespace = Namespace::open(&path).map_err(failed)?;
    let netlink = Netlink::open().map_err(failed)?;
    veth::to(&netlink, &namespace, &target.interface).map_err(|why| {
        let (code, hint) = match &why {
            NoVeth::OtherKind(..) | NoVeth::Elsewhere(_) => (
                Code::Unsupported,
                "chain porin-cni behind a plugin that makes a veth: bridge, ptp",
            ),
            NoVeth::IsPorins(_) => {
                (Code::Unsupported, "porin-cni is there twice, or the network is porin's own")
            }
            NoVeth::NoInterface(..) => {
                (Code::Refused, "the plugin before should have made it: see `prevResult`")
            }
            NoVeth::IsHost(_) => (Code::Refused, "porin would cut the host off"),
            NoVeth::Failed(_) => (Code::Io, ""),
        };
        Failure::new(code, why.to_string()).details(hint)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(previous: Value) -> Result<Vec<String>, Code> {
        let found = addresses(&previous, "eth0").map_err(|failure| failure.code)?;
        Ok(found.iter().map(IpAddr::to_string).collect())
    }

    #[test]
    fn addresses_are_those_of_the_interface_in_the_container() {
        let interfaces = json!([
            { "name": "br0", "mac": "02:00:00:00:00:01" },
            { "name": "eth0" },
            { "name": "eth0", "sandbox": "/run/netns/web" },
            { "name": "eth1", "sandbox": "/run/netns/web" },
        ]);
        let ips = json!([
            { "address": "10.0.0.2/24", "interface": 2, "version": "4" },
            { "address": "10.0.0.1/24", "interface": 0 },
            { "address": "10.0.0.9/24", "interface": 1 },
            { "address": "10.0.0.3/24", "interface": 3 },
            { "address": "fd00::2/64" },
            { "address": "fd00::2/64", "interface": 2 },
        ]);
        let all = json!({ "interfaces": interfaces, "ips": ips });
        assert_eq!(of(all).unwrap(), ["10.0.0.2", "fd00::2"]);
        let without_list = json!({ "ips": [{ "address": "10.0.0.2" }], "interfaces": null });
        assert_eq!(of(without_list).unwrap(), ["10.0.0.2"]);
    }

    #[test]
    fn what_is_no_result_is_told() {
        for none in [json!({}), json!({ "ips": null }), json!({ "ips": [] })] {
            assert_eq!(of(none.clone()), Err(Code::Unsupported), "{none}");
        }
        for wrong in [
            json!(7),
            json!(null),
            json!([[], [{ "address": "10.0.0.1" }]]),
            json!({ "ips": 7 }),
            json!({ "ips": [{}] }),
            json!({ "ips": [{ "address": "10.0.0" }] }),
            json!({ "ips": [{ "address": "10.0.0.1", "interface": 0 }] }),
            json!({ "ips": [{ "address": "10.0.0.1", "interface": -1 }] }),
            json!({ "ips": [], "interfaces": [{}] }),
        ] {
            assert_eq!(of(wrong.clone()), Err(Code::InvalidNetwork), "{wrong}");
        }
    }
}
