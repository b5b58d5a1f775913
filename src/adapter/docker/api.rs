//! What Docker's API (or Podman's, which is compatible) says of networks and containers.
//!
//! While Docker sets a container's network up it holds that container's lock: to inspect the container would wait for itself. To
//! list containers, and to look at a network, does not. Answers differ from version to version, so they are read field by
//! field, and what is not as expected is as if it were not there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde_json::Value;

use super::engine::{self, Engine};
use super::is_id;
use crate::types::label::{VALUE_MAX, check_value};
use crate::types::{Label, LabelKey, Labels, Mac};

/// Bytes of an answer at most: of the list of all containers.
const LONGEST: usize = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("Docker cannot be asked at {0}: {1}")]
    Engine(PathBuf, engine::Error),
    #[error("Docker does not know yet whose endpoint this is")]
    NobodysYet,
}

/// Whose an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Without the leading slash; may be empty.
    pub name: String,
    pub labels: Labels,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// By their ids.
    pub endpoints: BTreeMap<String, Endpoint>,
    /// That it asked for and no endpoint is to have.
    pub reserved: BTreeSet<IpAddr>,
}

/// What a network has of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Id of its container; none: nobody's yet.
    pub container: Option<String>,
    pub ipv6: Option<Ipv6Addr>,
    pub ipv4: Option<Ipv4Addr>,
    pub mac: Option<Mac>,
}

/// Docker's API on a socket, for threads that have no runtime.
#[derive(Debug)]
pub struct Api {
    socket: PathBuf,
}

impl Api {
    pub fn new(socket: &Path) -> Self {
        Api { socket: socket.to_owned() }
    }

    /// Of all networks, whoever their driver is.
    pub fn subnets(&self) -> Result<BTreeSet<IpNet>, Error> {
        Ok(subnets(&self.get("/networks")?))
    }

    /// Ids of the networks whose driver is called so.
    pub fn networks(&self, driver: &str) -> Result<Vec<String>, Error> {
        let all = self.get("/networks")?;
        let its = all.as_array().into_iter().flatten().filter(|one| one["Driver"] == driver);
        Ok(its
            .filter_map(|one| one["Id"].as_str())
            .filter(|id| is_id(id))
            .map(Into::into)
            .collect())
    }

    pub fn network(&self, id: &str) -> Result<Network, Error> {
        let answer = self.get(&format!("/networks/{id}"))?;
        Ok(Network { endpoints: endpoints(&answer), reserved: reserved(&answer) })
    }

    /// Whose endpoint of a network this is.
    pub fn container(&self, network: &str, endpoint: &str) -> Result<Container, Error> {
        let mut network = self.network(network)?;
        let endpoint = network.endpoints.remove(endpoint).ok_or(Error::NobodysYet)?;
        let id = endpoint.container.ok_or(Error::NobodysYet)?;
        // Identifiers need no escapes, in JSON or in the target.
        let filters = format!("%7B%22id%22%3A%5B%22{id}%22%5D%7D");
        let list = self.get(&format!("/containers/json?all=1&filters={filters}"))?;
        container(&list, &id).ok_or(Error::NobodysYet)
    }

    /// `target`: made of what `is_id` allows.
    fn get(&self, target: &str) -> Result<Value, Error> {
        let failed = |error: engine::Error| Error::Engine(self.socket.clone(), error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| failed(engine::Error::Http(error.into())))?;
        runtime.block_on(Engine::new(&self.socket).ask(target, LONGEST)).map_err(failed)
    }
}

fn endpoints(network: &Value) -> BTreeMap<String, Endpoint> {
    // With a length, or without.
    let bare = |text: &Value| Some(text.as_str()?.split('/').next()?.to_owned());
    let endpoint = |(container, one): (&String, &Value)| {
        let id = one["EndpointID"].as_str().filter(|id| is_id(id))?;
        let endpoint = Endpoint {
            // Of one that is in none, `ep-` and its own id stand here.
            container: is_id(container).then(|| container.clone()),
            ipv6: bare(&one["IPv6Address"]).and_then(|text| text.parse().ok()),
            ipv4: bare(&one["IPv4Address"]).and_then(|text| text.parse().ok()),
            mac: one["MacAddress"].as_str().and_then(|text| text.parse().ok()),
        };
        Some((id.to_owned(), endpoint))
    };
    network["Containers"].as_object().into_iter().flatten().filter_map(endpoint).collect()
}

/// `--aux-address`.
fn reserved(network: &Value) -> BTreeSet<IpAddr> {
    let parts = network["IPAM"]["Config"].as_array().into_iter().flatten();
    let addresses = parts.flat_map(|part| part["AuxiliaryAddresses"].as_object());
    let addresses = addresses.flatten().filter_map(|(_, address)| address.as_str());
    addresses.filter_map(|address| address.parse().ok()).collect()
}

fn subnets(networks: &Value) -> BTreeSet<IpNet> {
    let networks = networks.as_array().into_iter().flatten();
    let parts = networks.flat_map(|one| one["IPAM"]["Config"].as_array()).flatten();
    let subnets = parts.filter_map(|part| part["Subnet"].as_str()?.parse::<IpNet>().ok());
    subnets.map(|subnet| subnet.trunc()).collect()
}

fn container(list: &Value, id: &str) -> Option<Container> {
    let one = list.as_array()?.iter().find(|one| one["Id"] == id)?;
    let name = one["Names"][0].as_str().unwrap_or_default();
    let pairs = one["Labels"].as_object().into_iter().flatten();
    Some(Container {
        name: name.trim_start_matches('/').to_owned(),
        labels: pairs.filter_map(|(key, value)| label(key, value.as_str()?)).collect(),
    })
}

/// Images may bear labels of any form. One whose key no policy can name is left out; of a value that none can name, what no
/// label may have is.
fn label(key: &str, value: &str) -> Option<Label> {
    let key: LabelKey = key.parse().ok()?;
    let mut value = value.to_owned();
    if check_value(&value).is_err() {
        value = value.replace(|c: char| c.is_control(), " ");
        value.truncate(value.floor_char_boundary(VALUE_MAX));
    }
    Some(Label { key, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_answered_is_read_or_left() {
        let list = serde_json::json!([
            7,
            { "Id": "other" },
            { "Id": "c1", "Names": ["/web"], "State": "created", "New": {}, "Labels": {
                "app": "web", "a key": "x", "empty": "", "number": 7, "lines": "a\nb",
            } },
            { "Id": "c2", "Names": null, "Labels": null },
        ]);
        let web = container(&list, "c1").unwrap();
        assert_eq!(web.name, "web");
        assert_eq!(web.labels.to_string(), "app=web,empty=,lines=a b");
        let bare = container(&list, "c2").unwrap();
        assert_eq!(bare, Container { name: String::new(), labels: Labels::default() });
        for nothing in [&list, &Value::Null, &serde_json::json!({ "message": "no" })] {
            assert_eq!(container(nothing, "c3"), None);
        }
        let long = label("app", &"ü".repeat(VALUE_MAX)).unwrap();
        assert!(check_value(&long.value).is_ok());
    }

    #[test]
    fn endpoints_are_known_before_they_are_anybodys() {
        let (one, two) = ("1".repeat(64), "2".repeat(64));
        let network = serde_json::json!({ "Containers": {
            "c".repeat(64): { "EndpointID": one, "IPv4Address": "10.0.0.2/24", "IPv6Address": "" },
            format!("ep-{two}"): { "EndpointID": two, "MacAddress": "02:00:00:00:00:01",
                "IPv6Address": "fd00::2/80", "IPv4Address": 7 },
            "d".repeat(64): { "EndpointID": "../.." },
            "e".repeat(64): null,
        } });
        let found = endpoints(&network);
        assert_eq!(found.len(), 2);
        assert_eq!(found[&one].container, Some("c".repeat(64)));
        assert_eq!((found[&one].ipv4, found[&one].ipv6), ("10.0.0.2".parse().ok(), None));
        assert_eq!((found[&two].container.clone(), found[&two].ipv4), (None, None));
        assert_eq!(found[&two].ipv6, "fd00::2".parse().ok());
        assert_eq!(found[&two].mac, "02:00:00:00:00:01".parse().ok());
        assert_eq!(endpoints(&Value::Null).len(), 0);
        let ipam = serde_json::json!({ "IPAM": { "Config": [
            { "AuxiliaryAddresses": { "router": "10.0.0.9", "odd": 7 } }, {}, null,
        ] } });
        assert_eq!(reserved(&ipam), BTreeSet::from(["10.0.0.9".parse().unwrap()]));
        assert_eq!(reserved(&Value::Null), BTreeSet::new());
        let networks = serde_json::json!([
            { "Driver": "null", "IPAM": { "Config": [] } },
            { "Driver": "bridge", "IPAM": { "Driver": "porin", "Config": [
                { "Subnet": "10.0.0.0/24", "Gateway": "10.0.0.1" }, { "Subnet": "fd00::1/80" }, {},
                { "Subnet": 7 }, { "Subnet": "x" },
            ] } },
            { "IPAM": null }, 7,
        ]);
        let all = ["10.0.0.0/24", "fd00::/80"].map(|subnet| subnet.parse().unwrap());
        assert_eq!(subnets(&networks), BTreeSet::from(all));
        assert_eq!(subnets(&Value::Null), BTreeSet::new());
    }

    #[test]
    fn only_ids_get_into_a_target() {
        assert!(is_id(&"0f".repeat(32)));
        for bad in ["", "../../containers", &"a".repeat(129), "aaaaaaaaaaaaaaaa?b"] {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
