//! Entities: peers that are neither endpoints nor written as addresses.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::Invalid;

/// A reserved peer. Host, remote-host, unmanaged and world are disjoint; none of them is an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entity {
    /// Any address of this host.
    Host,
    /// Any address that `remote-hosts` of `porin.toml` lists.
    RemoteHost,
    /// Every address that is no endpoint's and none of host, remote-host and unmanaged.
    World,
    /// The IPv4 addresses of world.
    WorldIpv4,
    /// The IPv6 addresses of world.
    WorldIpv6,
    /// Every endpoint, host, remote-host and unmanaged: all but world.
    Cluster,
    /// Any address that `unmanaged` of `porin.toml` lists: containers that are not porin's.
    Unmanaged,
    /// Every peer.
    All,
}

impl Entity {
    pub const NAMES: [(&'static str, Entity); 8] = [
        ("host", Entity::Host),
        ("remote-host", Entity::RemoteHost),
        ("world", Entity::World),
        ("world-ipv4", Entity::WorldIpv4),
        ("world-ipv6", Entity::WorldIpv6),
        ("cluster", Entity::Cluster),
        ("unmanaged", Entity::Unmanaged),
        ("all", Entity::All),
    ];
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::NAMES.iter().find(|(_, entity)| entity == self);
        f.write_str(named.map_or("", |(name, _)| name))
    }
}

impl FromStr for Entity {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match Self::NAMES.iter().find(|(name, _)| *name == text) {
            Some((_, entity)) => Ok(*entity),
            None => Err(Invalid::new(format!("unknown entity `{text}`"))
                .hint(
                "entities are: host, remote-host, world, world-ipv4, world-ipv6, cluster, unmanaged, all",
            )),
        }
    }
}
