//! Entities: peers that are neither endpoints nor written as addresses.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::Invalid;

/// A reserved peer. More (remote-host, cluster, unmanaged) come with what they stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entity {
    /// Any address of this host.
    Host,
    /// Every address that is neither an endpoint's nor the host's.
    World,
    /// Every peer.
    All,
}

impl Entity {
    pub const NAMES: [(&'static str, Entity); 3] =
        [("host", Entity::Host), ("world", Entity::World), ("all", Entity::All)];
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
                .hint("entities are: host, world, all")),
        }
    }
}
