//! Which roles a rule means, found by what rules say: peers, port names, sets. A rule costs its own, not all that there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::{Name, Peer};

use super::roles::{NamedPorts, Role};
use super::sets::SetName;

#[derive(Debug, Default)]
pub(super) struct RoleIndex {
    /// Of peers that have any.
    ports: BTreeMap<Peer, NamedPorts>,
    /// By the name of a port that they have.
    naming: BTreeMap<Name, Vec<Peer>>,
    /// By a set that their address is in.
    within: BTreeMap<Arc<SetName>, Vec<Peer>>,
}

impl RoleIndex {
    /// A peer is one role.
    pub fn of<'a>(roles: impl Iterator<Item = &'a Role>) -> Self {
        let mut index = RoleIndex::default();
        for role in roles {
            for name in role.ports.keys() {
                index.naming.entry(name.clone()).or_default().push(role.peer);
            }
            for set in role.sets.iter() {
                index.within.entry(Arc::clone(set)).or_default().push(role.peer);
            }
            if !role.ports.is_empty() {
                index.ports.insert(role.peer, Arc::clone(&role.ports));
            }
        }
        index
    }

    pub fn ports(&self, peer: Peer) -> Option<&NamedPorts> {
        self.ports.get(&peer)
    }

    pub fn naming(&self, port: &Name) -> &[Peer] {
        self.naming.get(port).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn within(&self, set: &SetName) -> &[Peer] {
        self.within.get(set).map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PortMatch, Protocol};

    #[test]
    fn roles_are_found_by_what_rules_say() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let set = |text: &str| SetName::Group(name(text));
        let role = |peer, ports: &[&str], sets: &[&str]| {
            let port = |text: &&str| (name(text), PortMatch::whole(Protocol::TCP));
            Role {
                peer: Peer(peer),
                ports: Arc::new(ports.iter().map(port).collect()),
                sets: Arc::new(sets.iter().map(|text| Arc::new(set(text))).collect()),
            }
        };
        let roles =
            [role(1, &["web"], &[]), role(2, &["web", "ssh"], &["g"]), role(3, &[], &["g"])];
        let index = RoleIndex::of(roles.iter());
        assert_eq!(index.naming(&name("web")), [Peer(1), Peer(2)]);
        assert_eq!(index.naming(&name("ssh")), [Peer(2)]);
        assert_eq!(index.naming(&name("dns")), []);
        assert_eq!(index.within(&set("g")), [Peer(2), Peer(3)]);
        assert_eq!(index.within(&set("h")), []);
        assert_eq!(index.ports(Peer(2)), Some(&roles[1].ports));
        assert_eq!(index.ports(Peer(3)), None);
    }
}
