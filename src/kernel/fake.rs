//! A kernel in memory that runs the same ops, and can fail or lose its daemon at any of them.
//!
//! Objects are counted as the kernel counts them: one lives while the daemon has a handle of it or a
//! table refers to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::mirror::{GateState, Held, Interface, Mirror, Row, UplinkRow};
use super::ops::{Op, Variant};
use super::transaction::{Backend, Reason};
use crate::compile::plan::Digest;
use crate::types::{AddressKey, Generation, Identity, PolicySlot, Side, Slot};

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
    /// The row as written, and the ifindex that it was given.
    pub endpoints: BTreeMap<Slot, (Row, u32)>,
    pub addresses: BTreeMap<AddressKey, [Slot; 2]>,
    pub uplinks: BTreeMap<u32, UplinkRow>,
    pub programs: BTreeMap<u32, Id>,
    pub policies: BTreeMap<u32, Id>,
    pub prefixes: [Option<Id>; 2],
    pub variants: BTreeMap<Id, Variant>,
    pub tables: BTreeMap<Id, Digest>,
    made: u32,
}

/// What dies with the daemon.
#[derive(Debug, Default)]
pub struct Fake {
    pub world: World,
    pub variants: BTreeMap<Variant, Id>,
    pub policies: BTreeMap<Digest, Id>,
    pub prefixes: BTreeMap<Digest, Id>,
    pub runs: usize,
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
    pub endpoints: BTreeMap<Slot, (Identity, PolicySlot, [u8; 16])>,
    pub addresses: BTreeMap<AddressKey, Slot>,
    pub programs: BTreeMap<u32, Variant>,
    pub policies: BTreeMap<u32, Digest>,
    pub prefixes: Option<Digest>,
}

impl World {
    pub fn active(&self) -> View {
        let side = Generation(self.generation).side();
        let on = |index: &&u32| **index & 1 == side.index() as u32;
        let programs = self.programs.keys().filter(on);
        let policies = self.policies.keys().filter(on);
        View {
            endpoints: self
                .endpoints
                .iter()
                .filter_map(|(slot, (row, _))| {
                    let (identity, policy) = row.sides[side.index()]?;
                    Some((*slot, (identity, policy, row.incarnation)))
                })
                .collect(),
            addresses: self
                .addresses
                .iter()
                .map(|(key, slots)| (*key, slots[side.index()]))
                .filter(|(_, slot)| slot.0 != 0)
                .collect(),
            programs: programs.map(|i| (i >> 1, self.variants[&self.programs[i]])).collect(),
            policies: policies.map(|i| (i >> 1, self.tables[&self.policies[i]])).collect(),
            prefixes: self.prefixes[side.index()].map(|id| self.tables[&id]),
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
            mirror.endpoints.insert(*slot, Row { interface: name_of(ifindex), ..row.clone() });
        }
        for name in self.interfaces.keys() {
            let row = mirror.endpoints.values().find(|row| row.interface == *name);
            let incarnation = row.map(|row| row.incarnation);
            let interface = Interface { incarnation, ..Interface::default() };
            mirror.interfaces.insert(name.clone(), interface);
        }
        for (name, (slot, rate)) in &self.gates {
            let state = GateState { slot: *slot, event_rate: Some(*rate) };
            mirror.gates.insert(name.clone(), state);
        }
        mirror.host_addresses = self.host_addresses.clone();
        mirror.addresses = self.addresses.clone();
        mirror.uplinks = self.uplinks.clone();
        mirror.programs = self.programs.keys().map(|i| (*i, Held::Unknown)).collect();
        mirror.policies = self.policies.keys().map(|i| (*i, Held::Unknown)).collect();
        mirror.prefixes = self.prefixes.map(|held| held.map(|_| Held::Unknown));
        mirror
    }

    fn referenced(&self) -> BTreeSet<Id> {
        let tables = self.policies.values().chain(self.prefixes.iter().flatten());
        self.programs.values().chain(tables).copied().collect()
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
        let live: BTreeSet<Id> =
            self.world.variants.keys().chain(self.world.tables.keys()).copied().collect();
        assert_eq!(live, referenced);
    }

    /// What the mirror says is so.
    pub fn check_mirror(&self, mirror: &Mirror) {
        let world = &self.world;
        let read = world.read();
        assert_eq!(mirror.generation, read.generation);
        assert_eq!(mirror.gates, read.gates);
        assert_eq!(mirror.host_addresses, read.host_addresses);
        assert_eq!(mirror.addresses, read.addresses);
        assert_eq!(mirror.uplinks, read.uplinks);
        let names = |mirror: &Mirror| mirror.interfaces.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(mirror), names(&read));
        let rows = |mirror: &Mirror| {
            let rows = mirror.endpoints.iter();
            rows.map(|(slot, row)| (*slot, row.incarnation, row.sides)).collect::<Vec<_>>()
        };
        assert_eq!(rows(mirror), rows(&read));
        let agree = |index: &u32, held: Option<&Digest>, ids: &BTreeMap<u32, Id>| {
            if let Some(digest) = held {
                assert_eq!(world.tables[&ids[index]], *digest);
            }
        };
        assert!(mirror.policies.keys().eq(world.policies.keys()));
        for (index, held) in &mirror.policies {
            agree(index, held.known(), &world.policies);
        }
        assert!(mirror.programs.keys().eq(world.programs.keys()));
        for (index, held) in &mirror.programs {
            if let Some(variant) = held.known() {
                assert_eq!(world.variants[&world.programs[index]], *variant);
            }
        }
        for (held, id) in mirror.prefixes.iter().zip(&world.prefixes) {
            assert_eq!(held.is_some(), id.is_some());
            if let Some((Held::Known(digest), id)) = held.as_ref().zip(*id) {
                assert_eq!(world.tables[&id], *digest);
            }
        }
    }

    fn handles(&self) -> BTreeSet<Id> {
        let tables = self.policies.values().chain(self.prefixes.values());
        self.variants.values().chain(tables).copied().collect()
    }

    /// The kernel frees what nobody refers to.
    fn collect(&mut self) {
        let live: BTreeSet<Id> = &self.world.referenced() | &self.handles();
        self.world.variants.retain(|id, _| live.contains(id));
        self.world.tables.retain(|id, _| live.contains(id));
    }

    fn carry_out(&mut self, op: &Op) -> Result<(), Reason> {
        let missing = |what: &str| Reason(format!("no handle of this {what}"));
        let world = &mut self.world;
        match op {
            Op::Grace => {}
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
            Op::LoadVariant(variant) => {
                let id = world.id();
                world.variants.insert(id, *variant);
                self.variants.insert(*variant, id);
            }
            Op::DropVariant(variant) => {
                self.variants.remove(variant);
            }
            Op::MakePolicy(table) => {
                let id = world.id();
                world.tables.insert(id, table.digest);
                self.policies.insert(table.digest, id);
            }
            Op::DropPolicy(digest) => {
                self.policies.remove(digest);
            }
            Op::MakePrefixes(table) => {
                let id = world.id();
                world.tables.insert(id, table.digest);
                self.prefixes.insert(table.digest, id);
            }
            Op::DropPrefixes(digest) => {
                self.prefixes.remove(digest);
            }
            Op::SetEndpoint(slot, Some(row)) => {
                let interface = world.interfaces.get(&row.interface);
                let own = interface.filter(|(_, incarnation, _)| *incarnation == row.incarnation);
                let ifindex = own.map_or(0, |(ifindex, ..)| *ifindex);
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
                for (index, digest) in batch {
                    match digest {
                        Some(digest) => {
                            let id = self.policies.get(digest).ok_or_else(|| missing("policy"))?;
                            world.policies.insert(*index, *id);
                        }
                        None => {
                            world.policies.remove(index);
                        }
                    }
                }
            }
            Op::SetPrefixes(side, digest) => {
                let id = match digest {
                    Some(digest) => {
                        Some(*self.prefixes.get(digest).ok_or_else(|| missing("prefix table"))?)
                    }
                    None => None,
                };
                world.prefixes[side.index()] = id;
            }
        }
        Ok(())
    }

    fn check_inactive(&self, side: Side) {
        assert_ne!(side, Generation(self.world.generation).side(), "a write to the active side");
    }

    /// No op ever writes to what packets are judged by.
    fn check_visibility(&self, op: &Op) {
        let side = |index: &u32| Side::BOTH[(*index & 1) as usize];
        match op {
            Op::SetProgram(index, _) => self.check_inactive(side(index)),
            Op::SetPolicies(batch) => batch.iter().for_each(|(i, _)| self.check_inactive(side(i))),
            Op::SetPrefixes(side, _) => self.check_inactive(*side),
            _ => {}
        }
    }
}

impl Backend for Fake {
    fn run(&mut self, op: &Op) -> Result<(), Reason> {
        let number = self.runs;
        self.runs += 1;
        match self.trouble {
            Trouble::Die(at) if number >= at => return Err(Reason("dead".to_owned())),
            Trouble::Fail { first, count } if (first..first + count).contains(&number) => {
                return Err(Reason("told to fail".to_owned()));
            }
            _ => {}
        }
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
            self.world.generation = generation.0;
        }
    }
}
