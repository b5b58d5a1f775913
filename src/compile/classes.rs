//! Address classes: what an address that is no endpoint's is to the rules.
//!
//! Two addresses are of one class if they are the same kind of thing and in the same CIDR sets. A CIDR set is then a set
//! of classes, a class a peer like an identity, and no rule's CIDR sets can change what another rule's mean.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::model::CidrSet;
use crate::desired::Fault;
use crate::desired::digest;
use crate::desired::numbering::Numbering;
use crate::types::{AddressKey, Peer};

use super::plan::{Class, PrefixTable, PrefixValue};

/// Prefixes per side at most.
pub const PREFIXES: usize = 1_000_000;
/// All prefixes' CIDR sets together at most: rules that each leave another part out of the same network make as many
/// classes as rules, each in nearly all of their sets.
pub const MEMBERSHIPS: usize = 4_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    WorldIpv6,
    WorldIpv4,
    Pool,
    Host,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct ClassKey {
    kind: Kind,
    /// Sorted. Shared by all classes that are the same sets but another kind.
    cidrs: Arc<Vec<Arc<CidrSet>>>,
}

/// What classes are made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ground {
    pub pools: BTreeSet<IpNet>,
    pub host: BTreeSet<IpAddr>,
    /// All CIDR sets that matter to somebody.
    pub cidrs: Arc<BTreeSet<CidrSet>>,
}

#[derive(Debug, Clone)]
pub(super) struct Classes {
    ground: Arc<Ground>,
    numbers: Arc<Numbering<ClassKey>>,
    prefixes: Arc<PrefixTable>,
    names: Arc<BTreeMap<Peer, Class>>,
    members: Arc<BTreeMap<CidrSet, Vec<Peer>>>,
    world: Arc<Vec<Peer>>,
    host: Arc<Vec<Peer>>,
    made: bool,
}

impl Classes {
    pub fn new() -> Self {
        Classes {
            ground: Arc::default(),
            numbers: Arc::new(Numbering::new(Peer::CLASS..=u32::MAX)),
            prefixes: Arc::new(PrefixTable { entries: BTreeMap::new(), digest: [0; 16] }),
            names: Arc::default(),
            members: Arc::default(),
            world: Arc::default(),
            host: Arc::default(),
            made: false,
        }
    }

    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    pub fn prefixes(&self) -> &Arc<PrefixTable> {
        &self.prefixes
    }

    /// For people: every class by its number.
    pub fn names(&self) -> &Arc<BTreeMap<Peer, Class>> {
        &self.names
    }

    /// The classes inside a CIDR set. Sorted.
    pub fn members(&self, cidr: &CidrSet) -> &[Peer] {
        self.members.get(cidr).map_or(&[], Vec::as_slice)
    }

    /// The classes of outside addresses. Sorted.
    pub fn world(&self) -> &[Peer] {
        &self.world
    }

    /// The classes of the host's addresses. Sorted.
    pub fn host(&self) -> &[Peer] {
        &self.host
    }

    pub fn committed(&mut self) {
        Arc::make_mut(&mut self.numbers).committed();
    }

    /// True if anything was made anew.
    pub fn update(&mut self, ground: Ground) -> Result<bool, Vec<Fault>> {
        if self.made && *self.ground == ground {
            return Ok(false);
        }
        let regions = regions(&ground).map_err(|fault| vec![*fault])?;
        if regions.len() > PREFIXES {
            let over = regions.len() - PREFIXES;
            let what = format!(
                "the CIDRs of all rules split into {} prefixes, {over} more than the {PREFIXES} that fit",
                regions.len()
            );
            return Err(vec![Fault::whole(what).hint("merge neighbouring CIDRs")]);
        }
        let numbers = Arc::make_mut(&mut self.numbers);
        let wanted: BTreeSet<ClassKey> = regions.iter().map(|(_, class)| class.clone()).collect();
        let without = numbers.assign(wanted.iter().cloned()).len();
        if without > 0 {
            let what = format!("there are no numbers left for {without} address classes");
            return Err(vec![Fault::whole(what)]);
        }
        self.ground = Arc::new(ground);
        self.made = true;
        self.describe(&wanted);
        self.fill(regions);
        Ok(true)
    }

    fn describe(&mut self, wanted: &BTreeSet<ClassKey>) {
        let mut names = BTreeMap::new();
        let mut members: BTreeMap<CidrSet, Vec<Peer>> = BTreeMap::new();
        let (mut world, mut host) = (Vec::new(), Vec::new());
        let mut texts: HashMap<*const CidrSet, Arc<str>> = HashMap::new();
        for class in wanted {
            let Some(peer) = self.numbers.number(class).map(Peer) else { continue };
            let kind = match class.kind {
                Kind::WorldIpv6 | Kind::WorldIpv4 => {
                    world.push(peer);
                    "world"
                }
                Kind::Host => {
                    host.push(peer);
                    "host"
                }
                Kind::Pool => "pool",
            };
            for cidr in &*class.cidrs {
                match members.get_mut(&**cidr) {
                    Some(peers) => peers.push(peer),
                    None => drop(members.insert((**cidr).clone(), vec![peer])),
                }
            }
            // The sets are shared by all classes, so the pointers tell them apart.
            let text = |cidr: &Arc<CidrSet>| {
                Arc::clone(texts.entry(Arc::as_ptr(cidr)).or_insert_with(|| written(cidr).into()))
            };
            let cidrs = class.cidrs.iter().map(text).collect();
            names.insert(peer, Class { kind, cidrs });
        }
        world.sort_unstable();
        host.sort_unstable();
        members.values_mut().for_each(|peers| peers.sort_unstable());
        self.names = Arc::new(names);
        self.members = Arc::new(members);
        self.world = Arc::new(world);
        self.host = Arc::new(host);
    }

    fn fill(&mut self, regions: Vec<(IpNet, ClassKey)>) {
        let mut entries = BTreeMap::new();
        let mut bytes = Vec::with_capacity(regions.len() * 22);
        for (prefix, class) in regions {
            let Some(peer) = self.numbers.number(&class).map(Peer) else { continue };
            let (host, pool) = (class.kind == Kind::Host, class.kind == Kind::Pool);
            let family = u8::from(prefix.addr().is_ipv6());
            bytes.extend(AddressKey::from(prefix.addr()).0);
            bytes.extend([family, prefix.prefix_len()]);
            bytes.extend(peer.0.to_be_bytes());
            entries.insert(prefix, PrefixValue { peer, host, pool });
        }
        let digest = digest::head(digest::digest([b"prefixes".as_slice(), &bytes]));
        self.prefixes = Arc::new(PrefixTable { entries, digest });
    }
}

fn written(cidr: &CidrSet) -> String {
    let except: Vec<String> = cidr.except.iter().map(IpNet::to_string).collect();
    match except.as_slice() {
        [] => cidr.network.to_string(),
        except => format!("{} except {}", cidr.network, except.join(", ")),
    }
}

/// What begins at a prefix.
#[derive(Default)]
struct Node {
    networks: Vec<usize>,
    excepts: Vec<usize>,
    pool: bool,
    host: bool,
}

/// The prefixes such that an address is of the class of the longest that contains it; none that says what the next wider one says.
fn regions(ground: &Ground) -> Result<Vec<(IpNet, ClassKey)>, Box<Fault>> {
    let cidrs: Vec<Arc<CidrSet>> = ground.cidrs.iter().cloned().map(Arc::new).collect();
    let everything = [IpNet::V6(Ipv6Net::default()), IpNet::V4(Ipv4Net::default())];
    let mut nodes: BTreeMap<IpNet, Node> = BTreeMap::new();
    for root in everything {
        nodes.insert(root, Node::default());
    }
    for pool in &ground.pools {
        nodes.entry(pool.trunc()).or_default().pool = true;
    }
    for host in &ground.host {
        nodes.entry(IpNet::from(*host)).or_default().host = true;
    }
    for (index, cidr) in cidrs.iter().enumerate() {
        nodes.entry(cidr.network.trunc()).or_default().networks.push(index);
        for except in &cidr.except {
            nodes.entry(except.trunc()).or_default().excepts.push(index);
        }
    }
    walk(&nodes, &cidrs)
}

/// A prefix around the one that is looked at.
struct Around {
    prefix: IpNet,
    pool: bool,
    /// Indices of the CIDR sets that hold here. Sorted.
    active: Arc<Vec<usize>>,
    class: ClassKey,
}

/// `nodes` are in an order in which each prefix comes right after those that contain it.
fn walk(
    nodes: &BTreeMap<IpNet, Node>,
    cidrs: &[Arc<CidrSet>],
) -> Result<Vec<(IpNet, ClassKey)>, Box<Fault>> {
    let mut regions = Vec::new();
    let mut memberships = 0;
    let mut around: Vec<Around> = Vec::new();
    let mut lists: HashMap<Arc<Vec<usize>>, Arc<Vec<Arc<CidrSet>>>> = HashMap::new();
    let nothing: Arc<Vec<Arc<CidrSet>>> = Arc::default();
    for (prefix, node) in nodes {
        while around.last().is_some_and(|outer| !contains(&outer.prefix, prefix)) {
            around.pop();
        }
        let outer = around.last();
        let pool = node.pool || outer.is_some_and(|outer| outer.pool);
        let active = match outer {
            Some(outer) if node.networks.is_empty() && node.excepts.is_empty() => {
                Arc::clone(&outer.active)
            }
            outer => {
                let outer = outer.map_or(&[][..], |outer| &outer.active);
                memberships += outer.len() + node.networks.len();
                if memberships > MEMBERSHIPS {
                    return Err(Box::new(too_mixed(cidrs.len())));
                }
                active(outer, node)
            }
        };
        let kind = match prefix {
            _ if node.host => Kind::Host,
            _ if pool => Kind::Pool,
            IpNet::V6(_) => Kind::WorldIpv6,
            IpNet::V4(_) => Kind::WorldIpv4,
        };
        let list = |active: &Arc<Vec<usize>>| {
            Arc::new(active.iter().map(|index| Arc::clone(&cidrs[*index])).collect::<Vec<_>>())
        };
        let sets = match kind {
            // Rules never pick what nobody has.
            Kind::Pool => Arc::clone(&nothing),
            _ => Arc::clone(lists.entry(Arc::clone(&active)).or_insert_with(|| list(&active))),
        };
        let class = ClassKey { kind, cidrs: sets };
        if outer.is_none_or(|outer| outer.class != class) {
            regions.push((*prefix, class.clone()));
        }
        around.push(Around { prefix: *prefix, pool, active, class });
    }
    Ok(regions)
}

/// Of those that hold around it: which hold at a prefix.
fn active(outer: &[usize], node: &Node) -> Arc<Vec<usize>> {
    // Nodes have their indices in order.
    let ends = |index: &usize| node.excepts.binary_search(index).is_ok();
    let all = outer.iter().chain(&node.networks);
    let mut active: Vec<usize> = all.filter(|index| !ends(index)).copied().collect();
    // Two sorted runs.
    active.sort();
    Arc::new(active)
}

fn too_mixed(cidrs: usize) -> Fault {
    let what = format!(
        "the {cidrs} different CIDR peers of all rules split each other into too many parts: an address is in \
         too many of them at once, more than {MEMBERSHIPS} times over all parts"
    );
    Fault::whole(what).hint("give rules the same `except`, or let them name only what they mean")
}

fn contains(outer: &IpNet, inner: &IpNet) -> bool {
    match (outer, inner) {
        (IpNet::V4(outer), IpNet::V4(inner)) => outer.contains(inner),
        (IpNet::V6(outer), IpNet::V6(inner)) => outer.contains(inner),
        _ => false,
    }
}
