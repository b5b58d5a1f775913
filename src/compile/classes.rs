//! Address classes: what an address that is no endpoint's is to the rules.
//!
//! Two addresses are of one class if they are the same kind of thing and in the same address sets. A set is then a list
//! of classes, a class a peer like an identity, and no rule's networks can change what another rule's mean.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::desired::Fault;
use crate::desired::digest;
use crate::desired::numbering::Numbering;
use crate::types::{AddressKey, Peer};

use super::plan::{Class, PrefixTable, PrefixValue};
use super::sets::{AddressSets, Field, SetName, SetNames};

/// Prefixes per side at most.
pub const PREFIXES: usize = 1_000_000;
/// All prefixes' sets together at most: rules that each leave another part out of the same network make as many
/// classes as rules, each in nearly all of their sets.
pub const MEMBERSHIPS: usize = 4_000_000;

/// What an address is, apart from the sets it is in. Where several hold, the last decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    WorldIpv6,
    WorldIpv4,
    Unmanaged,
    RemoteHost,
    Pool,
    Host,
}

impl Kind {
    const ALL: [Kind; 6] = [
        Kind::WorldIpv6,
        Kind::WorldIpv4,
        Kind::Unmanaged,
        Kind::RemoteHost,
        Kind::Pool,
        Kind::Host,
    ];

    fn name(self) -> &'static str {
        match self {
            Kind::WorldIpv6 | Kind::WorldIpv4 => "world",
            Kind::Unmanaged => "unmanaged",
            Kind::RemoteHost => "remote-host",
            Kind::Pool => "pool",
            Kind::Host => "host",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct ClassKey {
    kind: Kind,
    /// Shared by all classes that are the same sets but another kind.
    sets: SetNames,
}

/// What classes are made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ground {
    pub pools: BTreeSet<IpNet>,
    pub host: BTreeSet<IpAddr>,
    pub remote_hosts: BTreeSet<IpNet>,
    pub unmanaged: BTreeSet<IpNet>,
    /// All sets that matter to somebody.
    pub sets: Arc<AddressSets>,
}

/// What the classes are to rules: no more than this is read of them when policies are resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Members {
    of_set: BTreeMap<SetName, Vec<Peer>>,
    of_kind: BTreeMap<Kind, Vec<Peer>>,
}

#[derive(Debug, Clone)]
pub(super) struct Classes {
    ground: Arc<Ground>,
    numbers: Numbering<ClassKey>,
    prefixes: Arc<PrefixTable>,
    names: Arc<BTreeMap<Peer, Class>>,
    members: Arc<Members>,
    made: bool,
}

/// What an update did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Update {
    /// Anything was made anew.
    pub made: bool,
    /// Rules may mean other peers than before.
    pub members: bool,
}

impl Classes {
    pub fn new() -> Self {
        Classes {
            ground: Arc::default(),
            numbers: Numbering::new(Peer::CLASS..=u32::MAX),
            prefixes: Arc::new(PrefixTable { entries: BTreeMap::new(), digest: [0; 16] }),
            names: Arc::default(),
            members: Arc::default(),
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

    /// The classes inside a set. Sorted.
    pub fn members(&self, set: &SetName) -> &[Peer] {
        self.members.of_set.get(set).map_or(&[], Vec::as_slice)
    }

    /// The classes of a kind. Sorted.
    pub fn of(&self, kind: Kind) -> &[Peer] {
        self.members.of_kind.get(&kind).map_or(&[], Vec::as_slice)
    }

    pub fn committed(&mut self) {
        self.numbers.committed();
    }

    pub fn update(&mut self, ground: Ground) -> Result<Update, Vec<Fault>> {
        if self.made && *self.ground == ground {
            return Ok(Update::default());
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
        let numbers = &mut self.numbers;
        let wanted: BTreeSet<ClassKey> = regions.iter().map(|(_, class)| class.clone()).collect();
        let without = numbers.assign(wanted.iter().cloned()).len();
        if without > 0 {
            let what = format!("there are no numbers left for {without} address classes");
            return Err(vec![Fault::whole(what)]);
        }
        self.ground = Arc::new(ground);
        self.made = true;
        let before = Arc::clone(&self.members);
        self.describe(&wanted);
        self.fill(regions);
        Ok(Update { made: true, members: before != self.members })
    }

    fn describe(&mut self, wanted: &BTreeSet<ClassKey>) {
        let mut names = BTreeMap::new();
        let mut members = Members::default();
        let mut texts: HashMap<*const SetName, Arc<str>> = HashMap::new();
        for class in wanted {
            let Some(peer) = self.numbers.number(class).map(Peer) else { continue };
            members.of_kind.entry(class.kind).or_default().push(peer);
            for set in &*class.sets {
                match members.of_set.get_mut(&**set) {
                    Some(peers) => peers.push(peer),
                    None => drop(members.of_set.insert((**set).clone(), vec![peer])),
                }
            }
            // The names are shared by all classes, so the pointers tell them apart.
            let text = |set: &Arc<SetName>| {
                Arc::clone(texts.entry(Arc::as_ptr(set)).or_insert_with(|| set.written().into()))
            };
            let cidrs = class.sets.iter().map(text).collect();
            names.insert(peer, Class { kind: class.kind.name(), cidrs });
        }
        members.of_set.values_mut().for_each(|peers| peers.sort_unstable());
        members.of_kind.values_mut().for_each(|peers| peers.sort_unstable());
        self.names = Arc::new(names);
        if *self.members != members {
            self.members = Arc::new(members);
        }
    }

    fn fill(&mut self, regions: Vec<(IpNet, ClassKey)>) {
        let mut entries = BTreeMap::new();
        let mut bytes = Vec::with_capacity(regions.len() * 22);
        for (prefix, class) in regions {
            let Some(peer) = self.numbers.number(&class).map(Peer) else { continue };
            let (host, pool) = (class.kind == Kind::Host, class.kind == Kind::Pool);
            let family = u8::from(prefix.addr().is_ipv6());
            bytes.extend(AddressKey::from(prefix.addr()).0);
            bytes.extend([family, prefix.prefix_len(), u8::from(host) | u8::from(pool) << 1]);
            bytes.extend(peer.0.to_be_bytes());
            entries.insert(prefix, PrefixValue { peer, host, pool });
        }
        let digest = digest::head(digest::digest([b"prefixes".as_slice(), &bytes]));
        self.prefixes = Arc::new(PrefixTable { entries, digest });
    }
}

/// The kinds that a prefix makes its addresses.
#[derive(Debug, Clone, Copy, Default)]
struct Marks([bool; Kind::ALL.len()]);

impl Marks {
    fn set(&mut self, kind: Kind) {
        self.0[kind as usize] = true;
    }

    fn or(self, outer: Marks) -> Marks {
        Marks(std::array::from_fn(|kind| self.0[kind] || outer.0[kind]))
    }

    fn kind(self, prefix: &IpNet) -> Kind {
        let found = Kind::ALL.into_iter().rev().find(|kind| self.0[*kind as usize]);
        found.unwrap_or(match prefix {
            IpNet::V6(_) => Kind::WorldIpv6,
            IpNet::V4(_) => Kind::WorldIpv4,
        })
    }
}

/// Every class that the ground makes, for who wants no numbers.
pub(super) fn distinct(ground: &Ground) -> Result<Vec<(Kind, SetNames)>, Box<Fault>> {
    let classes: BTreeSet<ClassKey> =
        regions(ground)?.into_iter().map(|(_, class)| class).collect();
    Ok(classes.into_iter().map(|class| (class.kind, class.sets)).collect())
}

/// The prefixes such that an address is of the class of the longest that contains it; none that says what the next wider one says.
fn regions(ground: &Ground) -> Result<Vec<(IpNet, ClassKey)>, Box<Fault>> {
    let mut field: Field<Marks> = Field::new(&ground.sets);
    for root in [IpNet::V6(Ipv6Net::default()), IpNet::V4(Ipv4Net::default())] {
        field.at(root);
    }
    let host: BTreeSet<IpNet> = ground.host.iter().map(|host| IpNet::from(*host)).collect();
    for (kind, networks) in [
        (Kind::Pool, &ground.pools),
        (Kind::Host, &host),
        (Kind::RemoteHost, &ground.remote_hosts),
        (Kind::Unmanaged, &ground.unmanaged),
    ] {
        for network in networks {
            field.at(*network).mark.set(kind);
        }
    }
    let nothing = SetNames::default();
    let mut regions = Vec::new();
    let walked =
        field.walk(MEMBERSHIPS, |prefix, marks, outer: Option<&(Marks, ClassKey)>, sets| {
            let marks = outer.map_or(*marks, |(outer, _)| marks.or(*outer));
            let kind = marks.kind(prefix);
            // Rules never pick what nobody has.
            let sets = if kind == Kind::Pool { &nothing } else { sets };
            let class = ClassKey { kind, sets: Arc::clone(sets) };
            if outer.is_none_or(|(_, outer)| *outer != class) {
                regions.push((*prefix, class.clone()));
            }
            (marks, class)
        });
    walked.map_err(|_| Box::new(too_mixed(field.sets())))?;
    Ok(regions)
}

fn too_mixed(sets: usize) -> Fault {
    let what = format!(
        "the {sets} different CIDR peers of all rules split each other into too many parts: an address is in \
         too many of them at once, more than {MEMBERSHIPS} times over all parts"
    );
    Fault::whole(what).hint("give rules the same `except`, or let them name only what they mean")
}
