//! From what the API says of a container to the endpoints that it should be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::answers::{Container, Joined};
use crate::control::attach::AttachmentId;
use crate::types::addr::check_unicast;
use crate::types::label::check_value;
use crate::types::{Label, LabelKey, Labels, Mac, Name};

pub const ADOPTED: &str = "adopt";

/// Bytes of a container's labels at most, keys and values: those that come later are left out.
const LABELS: usize = 64 << 10;

/// One interface of a container, in a network that is adopted. Where it ends on this host is still to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    pub id: AttachmentId,
    /// Which container and network, for people.
    pub about: String,
    pub name: Name,
    pub labels: Labels,
    /// How many labels cannot be any, or are too much.
    pub left_out: usize,
    /// At least one of them is there.
    pub ipv6: Option<Ipv6Addr>,
    pub ipv4: Option<Ipv4Addr>,
    pub mac: Option<Mac>,
    /// Where its network namespace may be found, and whether what is there is its own, with this interface alone. (What is
    /// certain may be seen by the other daemon only.)
    pub namespaces: Vec<(PathBuf, bool)>,
}

impl Wish {
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let ipv6 = self.ipv6.map(IpAddr::V6);
        ipv6.into_iter().chain(self.ipv4.map(IpAddr::V4))
    }
}

/// Those of a container. `adopt`: which networks. None for a container that does not run, or shares
/// another's network: that one's endpoint is its own.
///
/// # Errors
/// In the place of a wish: why there is none.
pub fn wishes(container: &Container, adopt: &[String]) -> Vec<Result<Wish, String>> {
    let shares = container.host_config.network_mode.starts_with("container:");
    if container.state.pid.is_none_or(|pid| pid <= 0) || container.id.is_empty() || shares {
        return Vec::new();
    }
    let (labels, left_out) = labels(container);
    let networks = container.network_settings.networks.iter();
    let adopted = networks.filter_map(|(name, joined)| {
        let joined = joined.known().cloned().unwrap_or_default();
        let named = |wanted: &&String| *wanted == name || **wanted == joined.network_id;
        Some((adopt.iter().find(named)?, joined))
    });
    let wish = |(network, joined): (&String, Joined)| {
        let called = container.name.trim_start_matches('/');
        let about = format!("container {called} ({}) in network {network}", short(&container.id));
        let (ipv6, ipv4) = (address(&joined.ipv6), address(&joined.ipv4));
        if ipv6.is_none() && ipv4.is_none() {
            return Err(format!("{about} has no address there"));
        }
        let Some(name) = name(network, called, &container.id) else {
            return Err(format!(
                "{about} cannot be named: the network's name has other than letters, digits, `.`, `_`, `-`"
            ));
        };
        Ok(Wish {
            id: attachment(network, &container.id),
            about,
            name,
            labels: labels.clone(),
            left_out,
            ipv6,
            ipv4,
            mac: mac(&joined.mac_address),
            namespaces: namespaces(container),
        })
    };
    adopted.map(wish).collect()
}

/// Of a container in a network.
pub fn attachment(network: &str, container: &str) -> AttachmentId {
    AttachmentId::new(ADOPTED, network, &[container])
}

/// What it is called in words to people.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// `network/container`: of one network, names are unique. What cannot be a name gives way to the container's id.
fn name(network: &str, called: &str, id: &str) -> Option<Name> {
    let of = |container: &str| format!("{network}/{container}").parse().ok();
    of(called).or_else(|| of(short(id)))
}

fn labels(container: &Container) -> (Labels, usize) {
    let mut labels = Labels::default();
    let (mut left_out, mut bytes) = (0, 0);
    for (key, value) in &container.config.labels {
        let value = value.known().map_or("", String::as_str);
        bytes += key.len() + value.len();
        match key.parse::<LabelKey>() {
            Ok(key) if bytes <= LABELS && check_value(value).is_ok() => {
                labels.insert(Label { key, value: value.to_owned() });
            }
            _ => left_out += 1,
        }
    }
    (labels, left_out)
}

fn address<A: std::str::FromStr + Copy + Into<IpAddr>>(text: &str) -> Option<A> {
    text.parse().ok().filter(|address: &A| check_unicast((*address).into()).is_ok())
}

fn mac(text: &str) -> Option<Mac> {
    let bytes: Option<Vec<u8>> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok().map(Mac)
}

fn namespaces(container: &Container) -> Vec<(PathBuf, bool)> {
    let sandbox = PathBuf::from(&container.network_settings.sandbox_key);
    let process =
        PathBuf::from(format!("/proc/{}/ns/net", container.state.pid.unwrap_or_default()));
    // In one of several networks, its interface may be yet to come.
    let certain = !sandbox.starts_with("/proc") && container.network_settings.networks.len() == 1;
    [(sandbox, certain), (process, false)]
        .into_iter()
        .filter(|(path, _)| path.is_absolute())
        .collect()
}

#[cfg(test)]
#[path = "wishes_tests.rs"]
mod tests;
