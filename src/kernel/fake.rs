//! A kernel in memory that runs the same ops, and can fail or lose its daemon at any of them.
//!
//! Programs are counted as the kernel counts them: one lives while the daemon has a handle of it or a
//! place refers to it. Tables live under their numbers. It panics when an op does what packets could
//! notice: packets may be under way on the old side until a grace period has passed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::datapath::TableKind;
use super::mirror::{
    EndpointSide, GateState, Held, Interface, Mirror, Row, SocketPrograms, UplinkRow,
};
use super::numbers::Content;
use super::ops::{Op, Variant};
use super::transaction::{Backend, Reason};
use crate::compile::plan::{Digest, PublishedKey, PublishedPort};
use crate::types::{AddressKey, Generation, Side, Slot};

type Id = u32;

/// What outlives the daemon.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// 0: nothing committed.
    pub generation: u32,
    /// ifindex, incarnation, up.
    pub interfaces: BTreeMap<String, (u32, [u8; 16], bool)>,
    pub gates: BTreeMap<String, (Slot, u32)>,
    pub host_addresses: BTreeSet<IpAddr>,
    /// Programs at the host's own sockets; None: there can be none.
    pub sockets: Option<bool>,
    /// The row as written, and the ifindex that it was given.
    pub endpoints: BTreeMap<Slot, (Row, u32)>,
    pub addresses: BTreeMap<AddressKey, [Slot; 2]>,
    pub published: BTreeMap<PublishedKey, [Option<PublishedPort>; 2]>,
    pub uplinks: BTreeMap<u32, UplinkRow>,
    pub programs: BTreeMap<u32, Id>,
    /// The numbers of tables.
    pub policies: BTreeMap<u32, u32>,
    pub prefixes: [u32; 2],
    /// Of what was half written nothing is known.
    pub sources: [Option<Digest>; 2],
    pub variants: BTreeMap<Id, Variant>,
    /// What is in the tables; of half-filled ones nothing is known.
    pub tables: BTreeMap<(TableKind, u32), Content>,
    /// That packets may still be in: what the old side referred to at the last commit, until a grace period
    /// has passed.
    under_way: BTreeSet<(TableKind, u32)>,
    /// Packets may be on the inactive side.
    crowded: bool,
    made: u32,
}

/// What dies with the daemon.
#[derive(Debug, Default)]
pub struct Fake {
    pub world: World,
    pub variants: BTreeMap<Variant, Id>,
    pub runs: usize,
    /// Of them, those that the kernel makes wait for a grace period.
    pub waits: usize,
    pub trouble: Trouble,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Trouble {
    #[default]
    None,
    /// The ops so numbered fail.
    Fail { first: usize, count: usize },
    /// From this op on nothing happens any more.
    Die(usize),
}

/// What one side says, without the numbers of kernel objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    pub endpoints: BTreeMap<Slot, (EndpointSide, [u8; 16])>,
    pub addresses: BTreeMap<AddressKey, Slot>,
    pub published: BTreeMap<PublishedKey, PublishedPort>,
    pub programs: BTreeMap<u32, Variant>,
    pub policies: BTreeMap<u32, Digest>,
    pub prefixes: Option<Digest>,
    pub sources: Option<Digest>,
}

impl World {
    /// Of a kernel that can have programs at its sockets.
    pub fn new() -> Self {
        World { sockets: Some(false), ..World::default() }
    }

    pub fn active(&self) -> View {
        let side = Generation(self.generation).side();
        let on = |index: &&u32| **index & 1 == side.index() as u32;
        let programs = self.programs.keys().filter(on);
        let policies = self.policies.iter().filter(|(index, _)| on(index));
        let whole = |kind, number: u32| match self.tables[&(kind, number)] {
            Content::Whole(digest) => digest,
            other => panic!("the active side refers to table {number}, which is {other:?}"),
        };
        let prefixes = self.prefixes[side.index()];
        View {
            endpoints: self
                .endpoints
                .iter()
                .filter_map(|(slot, (row, _))| {
                    Some((*slot, (row.sides[side.index()]?, row.incarnation)))
                })
                .collect(),
            addresses: self
                .addresses
                .iter()
                .map(|(key, slots)| (*key, slots[side.index()]))
                .filter(|(_, slot)| slot.0 != 0)
                .collect(),
            published: self
                .published
                .iter()
                .filter_map(|(key, sides)| Some((*key, sides[side.index()]?)))
                .collect(),
            programs: programs.map(|i| (i >> 1, self.variants[&self.programs[i]])).collect(),
            policies: policies.map(|(i, n)| (i >> 1, whole(TableKind::Policy, *n))).collect(),
            prefixes: (prefixes != 0).then(|| whole(TableKind::Prefix, prefixes)),
            sources: self.sources[side.index()],
        }
    }

    /// What a daemon that starts can know.
    pub fn read(&self) -> Mirror {
        let name_of = |ifindex: &u32| {
            let found = self.interfaces.iter().find(|(_, (index, ..))| index == ifindex);
            found.map(|(name, _)| name.clone()).unwrap_or_default()
        };
        let mut mirror = Mirror { generation: Generation(self.generation), ..Mirror::default() };
        for (slot, (row, ifindex)) in &self.endpoints {
            // Interfaces of others stay for ever here.
            let interface = match row.adopted {
                Some(_) if *ifindex != 0 => row.interface.clone(),
                _ => name_of(ifindex),
            };
            mirror.endpoints.insert(*slot, Row { interface, ..row.clone() });
        }
        for name in self.interfaces.keys() {
            let row = mirror.endpoints.values().find(|row| row.interface == *name);
            let incarnation = row.map(|row| row.incarnation);
            let interface = Interface { incarnation, ..Interface::default() };
            mirror.interfaces.insert(name.clone(), interface);
        }
        for (name, (slot, rate)) in &self.gates {
            let is_it = |row: &Row| row.adopted.is_some() && row.interface == *name;
            let adopted = mirror.endpoints.values().any(is_it);
            let slot = if adopted { Slot(0) } else { *slot };
            let state = GateState { slot, event_rate: Some(*rate) };
            mirror.gates.insert(name.clone(), state);
        }
        mirror.sockets = match self.sockets {
            None => SocketPrograms::Without,
            Some(false) => SocketPrograms::Absent,
            Some(true) => SocketPrograms::Old,
        };
        mirror.host_addresses = self.host_addresses.clone();
        mirror.addresses = self.addresses.clone();
        mirror.published = self.published.clone();
        mirror.uplinks = self.uplinks.clone();
        mirror.programs = self.programs.keys().map(|i| (*i, Held::Unknown)).collect();
        mirror.policies = self.policies.clone();
        mirror.prefixes = self.prefixes;
        for (kind, number) in self.tables.keys() {
            match kind {
                TableKind::Policy => mirror.policy_tables.note(*number, Content::Unknown),
                TableKind::Prefix => mirror.prefix_tables.note(*number, Content::Unknown),
            }
        }
        mirror
    }

    fn referenced(&self) -> BTreeSet<Id> {
        self.programs.values().copied().collect()
    }

    /// What a side refers to, or both.
    fn tables_of(&self, sides: &[Side]) -> BTreeSet<(TableKind, u32)> {
        let on = |index: &u32| sides.contains(&Side::BOTH[(*index & 1) as usize]);
        let policies = self.policies.iter().filter(|(index, _)| on(index));
        let policies = policies.map(|(_, number)| (TableKind::Policy, *number));
        let prefixes = sides.iter().map(|side| (TableKind::Prefix, self.prefixes[side.index()]));
        policies.chain(prefixes.filter(|(_, number)| *number != 0)).collect()
    }

    fn id(&mut self) -> Id {
        self.made += 1;
        self.made
    }
}

impl Fake {
    pub fn over(world: World) -> Self {
        let mut fake = Fake { world, ..Fake::default() };
        fake.collect();
        fake
    }

    pub fn dead(&self) -> bool {
        matches!(self.trouble, Trouble::Die(at) if self.runs > at)
    }

    /// Every handle is of something in use, and nothing lives that is neither.
    pub fn check_nothing_leaks(&self) {
        let referenced = self.world.referenced();
        for id in self.handles() {
            assert!(referenced.contains(&id), "a handle of object {id}, which nothing uses");
        }
        let live: BTreeSet<Id> = self.world.variants.keys().copied().collect();
        assert_eq!(live, referenced);
        let used = self.world.tables_of(&Side::BOTH);
        for (kind, most) in [(TableKind::Policy, 32), (TableKind::Prefix, 2)] {
            let stale = self.world.tables.iter().filter(|(table, content)| {
                table.0 == kind && **content != Content::Empty && !used.contains(table)
            });
            assert!(stale.count() <= most, "stale tables pile up: {:?}", self.world.tables);
        }
    }

    /// What the mirror says is so.
    pub fn check_mirror(&self, mirror: &Mirror) {
        let world = &self.world;
        let read = world.read();
        assert_eq!(mirror.generation, read.generation);
        assert!(mirror.gates.keys().eq(read.gates.keys()));
        for (name, state) in &mirror.gates {
            let (slot, rate) = world.gates[name];
            assert_eq!(state.event_rate, Some(rate));
            // Whose an earlier daemon's is on another's interface is not known.
            assert!(state.slot == slot || state.slot == Slot(0), "{name}: {state:?}");
        }
        match mirror.sockets {
            SocketPrograms::Without => assert_eq!(world.sockets, None),
            SocketPrograms::Absent => assert_eq!(world.sockets, Some(false)),
            SocketPrograms::Attached => assert_eq!(world.sockets, Some(true)),
            SocketPrograms::Old => assert!(world.sockets.is_some()),
        }
        assert_eq!(mirror.host_addresses, read.host_addresses);
        assert_eq!(mirror.addresses, read.addresses);
        assert_eq!(mirror.published, read.published);
        assert_eq!(mirror.uplinks, read.uplinks);
        let names = |mirror: &Mirror| mirror.interfaces.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(mirror), names(&read));
        let rows = |mirror: &Mirror| {
            let rows = mirror.endpoints.iter();
            rows.map(|(slot, row)| (*slot, row.incarnation, row.sides)).collect::<Vec<_>>()
        };
        assert_eq!(rows(mirror), rows(&read));
        assert_eq!(mirror.policies, world.policies);
        assert_eq!(mirror.prefixes, world.prefixes);
        for (known, is) in mirror.sources.iter().zip(&world.sources) {
            assert!(known.is_none() || known == is, "classes of source ports");
        }
        for ((kind, number), content) in &world.tables {
            let known = match kind {
                TableKind::Policy => mirror.policy_tables.content(*number),
                TableKind::Prefix => mirror.prefix_tables.content(*number),
            };
            let known = known.expect("a table that the mirror knows nothing of");
            assert!(known == Content::Unknown || known == *content, "table {number}");
        }
        assert!(mirror.programs.keys().eq(world.programs.keys()));
        for (index, held) in &mirror.programs {
            if let Some(variant) = held.known() {
                assert_eq!(world.variants[&world.programs[index]], *variant);
            }
        }
    }

    fn handles(&self) -> BTreeSet<Id> {
        self.variants.values().copied().collect()
    }

    /// The kernel frees what nobody refers to.
    fn collect(&mut self) {
        let live: BTreeSet<Id> = &self.world.referenced() | &self.handles();
        self.world.variants.retain(|id, _| live.contains(id));
    }

    fn carry_out(&mut self, op: &Op) -> Result<(), Reason> {
        let missing = |what: &str| Reason(format!("no handle of this {what}"));
        let world = &mut self.world;
        match op {
            Op::Grace => {
                world.under_way.clear();
                world.crowded = false;
            }
            Op::AddHostAddress(address) => {
                world.host_addresses.insert(*address);
            }
            Op::RemoveHostAddress(address) => {
                world.host_addresses.remove(address);
            }
            Op::CreateInterface(endpoint) => {
                let name = endpoint.host_interface.clone();
                if world.interfaces.contains_key(&name) {
                    return Err(Reason("File exists".to_owned()));
                }
                let ifindex = world.id();
                world.interfaces.insert(name, (ifindex, endpoint.incarnation, false));
            }
            Op::ConfigureInterface { endpoint, .. } => {
                match world.interfaces.get_mut(&endpoint.host_interface) {
                    Some((_, _, up)) => *up = true,
                    None => return Err(Reason("No such device".to_owned())),
                }
            }
            Op::RemoveInterface(name) => {
                world.interfaces.remove(name);
                world.gates.remove(name);
            }
            Op::AttachGate(gate) => {
                let state = (gate.slot(), gate.event_rate);
                world.gates.insert(gate.interface().to_owned(), state);
            }
            Op::DetachGate(name) => {
                world.gates.remove(name);
            }
            Op::AttachSockets | Op::DetachSockets => {
                assert!(world.sockets.is_some(), "there can be none");
                world.sockets = Some(matches!(op, Op::AttachSockets));
            }
            Op::LoadVariant(variant) => {
                let id = world.id();
                world.variants.insert(id, *variant);
                self.variants.insert(*variant, id);
            }
            Op::DropVariant(variant) => {
                self.variants.remove(variant);
            }
            Op::MakeSpares(kind, numbers) => {
                for number in numbers {
                    world.tables.insert((*kind, *number), Content::Empty);
                }
            }
            Op::FillPolicy(number, table) => {
                self.fill((TableKind::Policy, *number), table.digest);
            }
            Op::FillPrefixes(number, table) => {
                self.fill((TableKind::Prefix, *number), table.digest);
            }
            Op::SetEndpoint(slot, Some(row)) => {
                let interface = world.interfaces.get(&row.interface);
                let own = interface.filter(|(_, incarnation, _)| *incarnation == row.incarnation);
                let ifindex = match row.adopted {
                    Some(adopted) if !row.interface.is_empty() => adopted.ifindex,
                    Some(_) => 0,
                    None => own.map_or(0, |(ifindex, ..)| *ifindex),
                };
                world.endpoints.insert(*slot, (row.clone(), ifindex));
            }
            Op::SetEndpoint(slot, None) => {
                world.endpoints.remove(slot);
            }
            Op::SetAddress(key, slots) if *slots == [Slot(0); 2] => {
                world.addresses.remove(key);
            }
            Op::SetAddress(key, slots) => {
                world.addresses.insert(*key, *slots);
            }
            Op::SetPublished(key, [None, None]) => {
                world.published.remove(key);
            }
            Op::SetPublished(key, sides) => {
                world.published.insert(*key, *sides);
            }
            Op::SetUplink(ifindex, Some(row)) => {
                world.uplinks.insert(*ifindex, row.clone());
            }
            Op::SetUplink(ifindex, None) => {
                world.uplinks.remove(ifindex);
            }
            Op::SetProgram(index, Some(variant)) => {
                let id = self.variants.get(variant).ok_or_else(|| missing("variant"))?;
                world.programs.insert(*index, *id);
            }
            Op::SetProgram(index, None) => {
                world.programs.remove(index);
            }
            Op::SetPolicies(batch) => {
                for (index, number) in batch {
                    match number {
                        0 => world.policies.remove(index),
                        _ => world.policies.insert(*index, *number),
                    };
                }
            }
            Op::SetPrefixes(side, number) => world.prefixes[side.index()] = *number,
            Op::SetSources(side, table) => world.sources[side.index()] = Some(table.digest),
        }
        Ok(())
    }

    fn fill(&mut self, table: (TableKind, u32), digest: Digest) {
        let before = self.world.tables.insert(table, Content::Whole(digest));
        assert_eq!(before, Some(Content::Empty), "{table:?} is not empty");
    }

    /// Tables are made in some order: a failure leaves the first half of them.
    fn fail(&mut self, op: &Op) {
        if matches!(op, Op::AttachSockets | Op::DetachSockets) {
            self.world.sockets = Some(true); // some of them
        }
        if let Op::SetSources(side, _) = op {
            self.world.sources[side.index()] = None;
        }
        let tables = &mut self.world.tables;
        let mut half = |kind, number: &u32| _ = tables.insert((kind, *number), Content::Unknown);
        match op {
            Op::FillPolicy(number, _) => half(TableKind::Policy, number),
            Op::FillPrefixes(number, _) => half(TableKind::Prefix, number),
            Op::MakeSpares(kind, numbers) => {
                for number in &numbers[..numbers.len() / 2] {
                    tables.insert((*kind, *number), Content::Empty);
                }
            }
            _ => {}
        }
    }

    fn check_inactive(&self, side: Side) {
        assert_ne!(side, Generation(self.world.generation).side(), "a write to the active side");
        assert!(!self.world.crowded, "a write to a side that packets may be on");
    }

    fn check_unused(&self, table: (TableKind, u32)) {
        let used = self.world.tables_of(&Side::BOTH);
        assert!(!used.contains(&table), "{table:?} is referred to");
        assert!(!self.world.under_way.contains(&table), "packets may be in {table:?}");
        assert!(table.1 != 0 && table.1 < table.0.numbers());
    }

    /// No op ever writes to what packets are judged by.
    fn check_visibility(&self, op: &Op) {
        let side = |index: &u32| Side::BOTH[(*index & 1) as usize];
        match op {
            Op::SetPublished(key, sides) => {
                let old = self.world.published.get(key).copied().unwrap_or_default();
                for side in Side::BOTH.into_iter().filter(|s| old[s.index()] != sides[s.index()]) {
                    self.check_inactive(side);
                }
            }
            Op::SetProgram(index, _) => self.check_inactive(side(index)),
            Op::SetPolicies(batch) => batch.iter().for_each(|(i, _)| self.check_inactive(side(i))),
            Op::SetPrefixes(side, _) | Op::SetSources(side, _) => self.check_inactive(*side),
            Op::MakeSpares(kind, numbers) => {
                numbers.iter().for_each(|number| self.check_unused((*kind, *number)));
            }
            Op::FillPolicy(number, _) => self.check_unused((TableKind::Policy, *number)),
            Op::FillPrefixes(number, _) => self.check_unused((TableKind::Prefix, *number)),
            _ => {}
        }
    }
}

impl Backend for Fake {
    fn run(&mut self, op: &Op) -> Result<(), Reason> {
        let number = self.runs;
        self.runs += 1;
        match self.trouble {
            Trouble::Die(at) if number >= at => {
                if number == at {
                    self.fail(op);
                }
                return Err(Reason("dead".to_owned()));
            }
            Trouble::Fail { first, count } if (first..first + count).contains(&number) => {
                self.fail(op);
                return Err(Reason("told to fail".to_owned()));
            }
            _ => {}
        }
        self.waits += usize::from(matches!(op, Op::Grace | Op::MakeSpares(..)));
        self.check_visibility(op);
        let done = self.carry_out(op);
        self.collect();
        for (name, (_, _, up)) in &self.world.interfaces {
            assert!(!up || self.world.gates.contains_key(name), "{name} is open after {op}");
        }
        done
    }

    fn commit(&mut self, generation: Generation) {
        let number = self.runs;
        self.runs += 1;
        if !matches!(self.trouble, Trouble::Die(at) if number >= at) {
            let old = Generation(self.world.generation).side();
            self.world.under_way.extend(self.world.tables_of(&[old]));
            self.world.crowded = true;
            self.world.generation = generation.0;
        }
    }
}
