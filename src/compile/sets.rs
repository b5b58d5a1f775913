//! Address sets: networks that rules name as one thing, and which addresses are in which of them.
//!
//! Knows nothing of who has an address, nor of what rules say.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::model::{CidrSet, Group, Peer};
use crate::types::Name;

/// What a rule calls its networks. A group is known by its name: what is in it may change without a change of
/// what rules say of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetName {
    Cidr(CidrSet),
    Group(Name),
}

impl SetName {
    /// As written, for people.
    pub fn written(&self) -> String {
        let cidr = match self {
            SetName::Group(name) => return format!("group:{name}"),
            SetName::Cidr(cidr) => cidr,
        };
        let except: Vec<String> = cidr.except.iter().map(IpNet::to_string).collect();
        match except.as_slice() {
            [] => cidr.network.to_string(),
            except => format!("{} except {}", cidr.network, except.join(", ")),
        }
    }
}

/// The sets that matter to somebody, with what is in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressSets {
    pub cidrs: BTreeSet<CidrSet>,
    pub groups: BTreeMap<Name, Arc<Group>>,
}

impl AddressSets {
    /// The sets that peers of rules name.
    pub fn of<'a>(
        peers: impl Iterator<Item = &'a Peer>,
        groups: &BTreeMap<Name, Arc<Group>>,
    ) -> Self {
        let (mut cidrs, mut names) = (BTreeSet::new(), BTreeSet::new());
        for peer in peers {
            match peer {
                Peer::Cidr(cidr) => _ = cidrs.insert(cidr),
                Peer::Group(name) => _ = names.insert(name),
                Peer::Selector(_) | Peer::Entity(_) => {}
            }
        }
        let group = |name: &Name| {
            let group = groups.get(name).filter(|group| !group.networks.is_empty())?;
            Some((name.clone(), Arc::clone(group)))
        };
        AddressSets {
            cidrs: cidrs.into_iter().cloned().collect(),
            groups: names.into_iter().filter_map(group).collect(),
        }
    }
}

/// A list of names, sorted. Equal ones of one run are one object.
pub type SetNames = Arc<Vec<Arc<SetName>>>;

/// What begins at a prefix.
#[derive(Debug, Default)]
pub struct Node<M> {
    /// Indices into the names.
    networks: Vec<usize>,
    excepts: Vec<usize>,
    /// Whatever else there is to say of it.
    pub mark: M,
}

/// Prefixes in an order in which each comes right after those that contain it.
pub struct Field<M> {
    names: Vec<Arc<SetName>>,
    nodes: BTreeMap<IpNet, Node<M>>,
}

/// More than this many times over all parts an address is in a set: too much to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMixed;

impl<M: Default> Field<M> {
    pub fn new(sets: &AddressSets) -> Self {
        let mut field = Field { names: Vec::new(), nodes: BTreeMap::new() };
        for cidr in &sets.cidrs {
            field.add(SetName::Cidr(cidr.clone()), &[cidr.network], &cidr.except);
        }
        for (name, group) in &sets.groups {
            field.add(SetName::Group(name.clone()), &group.networks, &group.except);
        }
        field
    }

    fn add(&mut self, name: SetName, networks: &[IpNet], except: &[IpNet]) {
        let index = self.names.len();
        self.names.push(Arc::new(name));
        for network in networks {
            self.at(*network).networks.push(index);
        }
        for except in except {
            self.at(*except).excepts.push(index);
        }
    }

    /// What begins at a prefix, made if need be.
    pub fn at(&mut self, prefix: IpNet) -> &mut Node<M> {
        self.nodes.entry(prefix.trunc()).or_default()
    }

    pub fn sets(&self) -> usize {
        self.names.len()
    }

    /// Goes through all prefixes; for each, `visit` gets what it returned for the next wider one, and the names of
    /// the sets that hold there. `most`: how often, over all prefixes where that changes, a set may hold.
    pub fn walk<S: Clone>(
        &self,
        most: usize,
        mut visit: impl FnMut(&IpNet, &M, Option<&S>, &SetNames) -> S,
    ) -> Result<(), TooMixed> {
        struct Around<S> {
            prefix: IpNet,
            /// Indices of the sets that hold here. Sorted.
            active: Arc<Vec<usize>>,
            names: SetNames,
            said: S,
        }
        let mut memberships = 0;
        let mut around: Vec<Around<S>> = Vec::new();
        let mut lists: HashMap<Arc<Vec<usize>>, SetNames> = HashMap::new();
        for (prefix, node) in &self.nodes {
            while around.last().is_some_and(|outer| !contains(&outer.prefix, prefix)) {
                around.pop();
            }
            let outer = around.last();
            let (active, names) = match outer {
                Some(outer) if node.networks.is_empty() && node.excepts.is_empty() => {
                    (Arc::clone(&outer.active), Arc::clone(&outer.names))
                }
                outer => {
                    let outer = outer.map_or(&[][..], |outer| &outer.active);
                    memberships += outer.len() + node.networks.len();
                    if memberships > most {
                        return Err(TooMixed);
                    }
                    let active = Arc::new(active(outer, node));
                    let list = || active.iter().map(|index| Arc::clone(&self.names[*index]));
                    let names = lists
                        .entry(Arc::clone(&active))
                        .or_insert_with(|| Arc::new(sorted(list().collect())));
                    let names = Arc::clone(names);
                    (active, names)
                }
            };
            let said = visit(prefix, &node.mark, outer.map(|outer| &outer.said), &names);
            around.push(Around { prefix: *prefix, active, names, said });
        }
        Ok(())
    }
}

/// Which sets each address is in; those in none are left out.
pub fn locate(sets: &AddressSets, addresses: &[IpAddr]) -> BTreeMap<IpAddr, SetNames> {
    let mut field: Field<bool> = Field::new(sets);
    for address in addresses {
        field.at(IpNet::from(*address)).mark = true;
    }
    let mut found = BTreeMap::new();
    // The parts of a set do not matter here, only its addresses: there is no limit to them but that on addresses.
    let walked = field.walk(usize::MAX, |prefix, wanted, _: Option<&()>, names| {
        if *wanted && !names.is_empty() {
            found.insert(prefix.addr(), Arc::clone(names));
        }
    });
    debug_assert_eq!(walked, Ok(()));
    found
}

fn sorted(mut names: Vec<Arc<SetName>>) -> Vec<Arc<SetName>> {
    names.sort();
    names
}

/// Of those that hold around it: which hold at a prefix.
fn active<M>(outer: &[usize], node: &Node<M>) -> Vec<usize> {
    // Nodes have their indices in order.
    let ends = |index: &usize| node.excepts.binary_search(index).is_ok();
    let all = outer.iter().chain(&node.networks);
    let mut active: Vec<usize> = all.filter(|index| !ends(index)).copied().collect();
    // Two sorted runs.
    active.sort();
    active.dedup();
    active
}

fn contains(outer: &IpNet, inner: &IpNet) -> bool {
    match (outer, inner) {
        (IpNet::V4(outer), IpNet::V4(inner)) => outer.contains(inner),
        (IpNet::V6(outer), IpNet::V6(inner)) => outer.contains(inner),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_a_set_if_in_a_network_and_in_no_exception() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let cidr = |network, except: &[&str]| CidrSet {
            network: net(network),
            except: except.iter().map(|text| net(text)).collect(),
        };
        let group = Group {
            name: "g".parse().unwrap(),
            selectors: Vec::new(),
            entities: Vec::new(),
            networks: vec![net("10.0.0.0/8"), net("192.0.2.0/24")],
            except: vec![net("10.1.0.0/16")],
            origin: crate::types::Origin {
                file: Arc::from(std::path::Path::new("g.toml")),
                line: 1,
                column: 1,
            },
        };
        let sets = AddressSets {
            cidrs: [cidr("10.0.0.0/8", &["10.2.0.0/16"]), cidr("10.1.2.0/24", &[])].into(),
            groups: [(group.name.clone(), Arc::new(group))].into(),
        };
        let addresses =
            ["10.0.0.1", "10.1.0.1", "10.1.2.3", "10.2.0.1", "192.0.2.9", "198.51.100.1"];
        let addresses = addresses.map(|text| text.parse::<IpAddr>().unwrap());
        let found = locate(&sets, &addresses);
        let written = addresses.map(|address| {
            let names = found.get(&address).map(|names| names.as_slice()).unwrap_or_default();
            names.iter().map(|name| name.written()).collect::<Vec<_>>().join("; ")
        });
        let wide = "10.0.0.0/8 except 10.2.0.0/16";
        assert_eq!(
            written.each_ref().map(String::as_str),
            [
                &format!("{wide}; group:g"),
                wide,
                &format!("{wide}; 10.1.2.0/24"),
                "group:g",
                "group:g",
                ""
            ]
        );
    }
}
