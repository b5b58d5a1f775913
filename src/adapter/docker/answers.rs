//! What the API answers: the fields that matter, whatever else is there.
//!
//! Tried with Docker 20.10 and Podman 4.3; versions differ in what is missing, null, or new. So each field may be missing
//! or null, and values that are not known mean nothing here.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

/// One of `GET /containers/json`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Listed {
    #[serde(deserialize_with = "or_default")]
    pub id: String,
}

/// `GET /networks/NAME`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Network {
    #[serde(deserialize_with = "or_default")]
    pub driver: String,
}

/// `GET /containers/ID/json`.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Container {
    #[serde(deserialize_with = "or_default")]
    pub id: String,
    /// With a slash before it.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    #[serde(deserialize_with = "or_default")]
    pub state: State,
    #[serde(deserialize_with = "or_default")]
    pub config: Configuration,
    #[serde(deserialize_with = "or_default")]
    pub host_config: HostConfiguration,
    #[serde(deserialize_with = "or_default")]
    pub network_settings: NetworkSettings,
}

#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct State {
    /// 0: it does not run. None: it is not said.
    #[serde(deserialize_with = "or_default")]
    pub pid: Option<i64>,
}

#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Configuration {
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, Maybe<String>>,
}

#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfiguration {
    #[serde(deserialize_with = "or_default")]
    pub network_mode: String,
}

#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSettings {
    /// Path of the network namespace, as the other daemon sees it.
    #[serde(deserialize_with = "or_default")]
    pub sandbox_key: String,
    /// By the networks' names.
    #[serde(deserialize_with = "or_default")]
    pub networks: BTreeMap<String, Maybe<Joined>>,
}

/// What a container has in one network. Empty: nothing, or not yet.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Joined {
    /// Podman's ids are the names that it shows, also where its compatible API calls the network otherwise.
    #[serde(rename = "NetworkID", deserialize_with = "or_default")]
    pub network_id: String,
    #[serde(rename = "IPAddress", deserialize_with = "or_default")]
    pub ipv4: String,
    #[serde(rename = "GlobalIPv6Address", deserialize_with = "or_default")]
    pub ipv6: String,
    #[serde(deserialize_with = "or_default")]
    pub mac_address: String,
}

/// A line of `GET /events`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Told {
    #[serde(deserialize_with = "or_default")]
    actor: Actor,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Actor {
    #[serde(rename = "ID", deserialize_with = "or_default")]
    id: String,
    #[serde(deserialize_with = "or_default")]
    attributes: Attributes,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Attributes {
    /// Of Docker's events about networks: who was connected.
    #[serde(deserialize_with = "or_default")]
    container: String,
}

impl Told {
    /// The container that it is about. A container's label called `container` leads astray here: to be sure, look at both.
    pub fn about(self) -> [String; 2] {
        [self.actor.id, self.actor.attributes.container]
    }
}

/// A value of a table that may be null, or of another type.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Maybe<T> {
    Known(T),
    Other(IgnoredAny),
}

impl<T> Maybe<T> {
    pub fn known(&self) -> Option<&T> {
        match self {
            Maybe::Known(value) => Some(value),
            Maybe::Other(_) => None,
        }
    }
}

/// Null, and what has another type than it should have, count as missing.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(match Maybe::deserialize(deserializer)? {
        Maybe::Known(value) => value,
        Maybe::Other(_) => T::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_null_or_of_another_type_is_nothing() {
        let read = |json: &str| serde_json::from_str::<Container>(json).unwrap();
        let nothing = Container::default();
        for json in ["{}", r#"{"Id":null,"State":null,"Config":null,"NetworkSettings":null}"#] {
            assert_eq!(read(json), nothing, "{json}");
        }
        let odd = r#"{"Id":7,"Name":[],"State":{"Pid":"x","Status":"stopping"},"Config":{"Labels":[]},
            "HostConfig":0,"NetworkSettings":{"Networks":{"a":null,"b":7},"SandboxKey":{}},"New":{"x":1}}"#;
        let odd = read(odd);
        assert_eq!((odd.id.as_str(), odd.state.pid), ("", None));
    }

    #[test]
    fn events_name_containers_either_way() {
        let read = |json: &str| serde_json::from_str::<Told>(json).unwrap().about();
        let docker = r#"{"Type":"network","Action":"connect","Actor":{"ID":"n","Attributes":{"container":"c"}}}"#;
        assert_eq!(read(docker), ["n", "c"]);
        let podman = r#"{"status":"died","id":"c","Actor":{"ID":"c","Attributes":{"containerExitCode":"0"}}}"#;
        assert_eq!(read(podman), ["c", ""]);
        assert_eq!(read("{}"), ["", ""]);
    }
}
