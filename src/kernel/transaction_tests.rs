//! Random sequences of plans, with a failure or a death at any op, before or after the commit, against
//! the fake kernel.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;

use super::fake::{Fake, Trouble, View, World};
use super::mirror::{Mirror, SocketPrograms};
use super::numbers::Content;
use super::ops::Op;
use super::transaction::{Applied, Refused, apply, settle};
use crate::compile::plan::{
    Features, Plan, PlannedEndpoint, PlannedUplink, PolicyTable, PrefixTable, PublishedKey,
    PublishedPort, SourceTable,
};
use crate::desired::snapshot::{Adopted, Attachment, Endpoint, Made, Namespace, Uplink};
use crate::types::{
    AddressKey, Generation, Identity, Labels, Mac, Peer, PolicySlot, Protocol, Slot,
};

const NAMES: u8 = 4;
/// The one of them whose interface is another's.
const ADOPTED: u8 = 3;

/// What a plan is made from: small numbers, so that things coincide.
#[derive(Debug, Clone, Default)]
struct Spec {
    /// Per name: incarnation, policy slot, features, MTU.
    endpoints: [Option<(u8, u32, bool, bool)>; NAMES as usize],
    /// Digest of each policy slot's table.
    policies: BTreeMap<u32, u8>,
    prefixes: u8,
    uplink: Option<(bool, bool)>,
    sources: u8,
    /// Digest of the classes of source ports; shadow table and role of all endpoints.
    language: (u8, Option<u32>, u32),
}

fn specs() -> impl Strategy<Value = Spec> {
    let endpoint = proptest::option::of((0..2u8, 1..4u32, any::<bool>(), any::<bool>()));
    let endpoints = [endpoint.clone(), endpoint.clone(), endpoint.clone(), endpoint];
    let policies = proptest::collection::btree_map(1..4u32, 0..3u8, 0..4);
    let uplink = proptest::option::of((any::<bool>(), any::<bool>()));
    let language = (0..3u8, proptest::option::of(1..4u32), 0..2u32);
    (endpoints, policies, 0..3u8, uplink, 0..3u8, language).prop_map(
        |(endpoints, policies, prefixes, uplink, sources, language)| Spec {
            endpoints,
            policies,
            prefixes,
            uplink,
            sources,
            language,
        },
    )
}

fn troubles() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        Just(Trouble::None),
        (0..60usize, 1..4usize).prop_map(|(first, count)| Trouble::Fail { first, count }),
        (0..60usize).prop_map(Trouble::Die),
    ]
}

fn plan(spec: &Spec) -> Plan {
    let features = |egress_policy: bool| Features {
        ipv4: true,
        ipv6: true,
        egress_policy,
        ingress_policy: true,
        source_ports: false,
        reject: false,
        shadow: false,
        masquerade: true,
        publishes: false,
        judges_requests: false,
        adopts: false,
        adopted: false,
        accounting: true,
        events: true,
        nat_ports: (61000, 65535),
        event_rate: 1000,
    };
    let mut endpoints = BTreeMap::new();
    let mut addresses = BTreeMap::new();
    let mut published = BTreeMap::new();
    for (name, wish) in (0u8..).zip(&spec.endpoints) {
        let Some((incarnation, policy, egress, jumbo)) = *wish else { continue };
        // Each incarnation has a slot of its own for ever, as if slots never came back.
        let slot = Slot(1 + u32::from(name) * 2 + u32::from(incarnation));
        let ipv4 = Ipv4Addr::new(10, 0, 0, name + 1);
        // Of these and no others: shut ones are nobody's to others.
        let shut = jumbo && egress && name != ADOPTED;
        if !shut {
            addresses.insert(AddressKey::from(IpAddr::V4(ipv4)), slot);
        }
        // One port of its own, and one that the last of those has who want it.
        if egress {
            for port in [8000 + u16::from(name), 9000] {
                let address = AddressKey::from(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
                let key = PublishedKey { address, protocol: Protocol::TCP, port };
                let port = if jumbo { 80 } else { 81 };
                published.insert(key, PublishedPort { slot, port });
            }
        }
        let endpoint = Endpoint {
            name: format!("e{name}").parse().unwrap(),
            slot,
            labels: Arc::new(Labels::default()),
            identity: Identity(255 + policy),
            ipv6: None,
            ipv4: Some(ipv4),
            ports: BTreeMap::new(),
            publish: Vec::new(),
            shut,
            attachment: match name {
                // Each incarnation is behind the same interface.
                ADOPTED => Attachment::Adopted(Adopted { ifindex: 50, via: 51 }),
                _ => Attachment::Made(Made {
                    namespace: Some(Namespace {
                        path: PathBuf::from(format!("/run/netns/e{name}")),
                        device: 4,
                        inode: u64::from(name) * 2 + u64::from(incarnation),
                    }),
                    interface: "eth0".to_owned(),
                    mac: Mac([2, 0, 0, 0, 0, name]),
                    mtu: if jumbo { 9000 } else { 1500 },
                }),
            },
            host_interface: format!("{}{name}", if name == ADOPTED { "veth" } else { "pn" }),
            incarnation: [name * 2 + incarnation + 1; 16],
        };
        let planned = PlannedEndpoint {
            endpoint: Arc::new(endpoint),
            policy: PolicySlot(policy),
            shadow: spec.language.1.map(PolicySlot),
            peers: [Peer(255 + policy), Peer(0x80_0000 + spec.language.2)],
            features: features(egress),
        };
        endpoints.insert(slot, planned);
    }
    let mut uplinks = BTreeMap::new();
    if let Some((second, addressed)) = spec.uplink {
        let slot = Slot(100 + u32::from(second));
        let uplink = Uplink {
            interface: format!("wan{}", u8::from(second)),
            ifindex: 2 + u32::from(second),
            mac: Mac([2, 0, 0, 0, 1, 0]),
            mtu: 1500,
            slot,
            address4: addressed.then_some(Ipv4Addr::new(192, 0, 2, 1)),
        };
        uplinks.insert(slot, PlannedUplink { uplink, features: features(false) });
    }
    let policies = spec.policies.iter().map(|(slot, digest)| {
        let table = PolicyTable { entries: Vec::new(), digest: [*digest; 16] };
        (PolicySlot(*slot), Arc::new(table))
    });
    let prefixes = PrefixTable { entries: BTreeMap::new(), digest: [100 + spec.prefixes; 16] };
    let sources = [
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)),
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, 254)),
    ];
    Plan {
        endpoints: endpoints.into_iter().collect(),
        uplinks,
        addresses: Arc::new(addresses),
        published: Arc::new(published),
        prefixes: Arc::new(prefixes),
        policies: policies.collect(),
        rules: Arc::default(),
        classes: Arc::new(BTreeMap::new()),
        sources: Arc::new(SourceTable { runs: Vec::new(), digest: [spec.language.0; 16] }),
        rulesets: Arc::default(),
        undecided: Arc::default(),
        roles: Arc::default(),
        host_sources: sources[..usize::from(spec.sources)].to_vec(),
    }
}

/// A daemon and the kernel that it works on.
struct Run {
    fake: Fake,
    mirror: Mirror,
    /// What this daemon committed last.
    plan: Option<Plan>,
    /// As `Kernel` has it.
    unsettled: bool,
    /// The last commit was not refused: nothing may be left of one that was.
    whole: bool,
    /// What is in force.
    in_force: View,
}

impl Run {
    fn new() -> Self {
        Run {
            fake: Fake::over(World::new()),
            mirror: Mirror { sockets: SocketPrograms::Absent, ..Mirror::default() },
            plan: None,
            unsettled: true,
            whole: false,
            in_force: View::default(),
        }
    }

    /// What is done for one commit, in the given trouble, with all that must hold afterwards.
    fn step(&mut self, spec: &Spec, trouble: Trouble) -> Result<(), Refused> {
        self.begin(trouble);
        let applied = self.apply(spec);
        self.check(applied.as_ref().err());
        self.settle();
        let dead = self.fake.dead();
        self.fake.trouble = Trouble::None;
        if dead {
            self.reopen();
            return Ok(());
        }
        applied.map(|_| ())
    }

    fn begin(&mut self, trouble: Trouble) {
        (self.fake.runs, self.fake.waits, self.fake.trouble) = (0, 0, trouble);
    }

    fn apply(&mut self, spec: &Spec) -> Result<Applied, Refused> {
        self.settle();
        self.unsettled = true;
        let plan = plan(spec);
        let generation = self.fake.world.generation;
        let applied = apply(&mut self.fake, &mut self.mirror, &plan);
        if self.fake.world.generation != generation {
            self.in_force = scratch(&plan).active();
            self.plan = Some(plan);
        }
        self.whole = applied.is_ok();
        if self.whole && !self.fake.dead() {
            self.check_gates();
        }
        applied
    }

    fn settle(&mut self) {
        if !self.unsettled {
            return;
        }
        let settled = settle(&mut self.fake, &mut self.mirror, self.plan.as_ref());
        self.unsettled = !settled.leftovers.is_empty();
        self.check(None);
        let complete = self.whole && !self.unsettled && !self.fake.dead();
        if let Some(plan) = self.plan.as_ref().filter(|_| complete) {
            assert_eq!(facts(&self.fake.world), facts(&scratch(plan)));
            self.check_ifindexes(plan);
        }
    }

    fn check(&self, refused: Option<&Refused>) {
        let active = self.fake.world.active();
        assert_eq!(active, self.in_force, "the active side is a whole plan ({refused:?})");
        if !self.fake.dead() {
            self.fake.check_mirror(&self.mirror);
        }
    }

    /// Whoever is behind another's interface has the gates that are there, and whoever publishes is found by the host.
    fn check_gates(&self) {
        let world = &self.fake.world;
        assert!(self.in_force.published.is_empty() || world.sockets == Some(true), "{world:?}");
        for slot in self.in_force.endpoints.keys() {
            let row = &world.endpoints[slot].0;
            if row.adopted.is_some() {
                assert_eq!(world.gates[&row.interface].0, *slot, "{world:?}");
            }
        }
    }

    fn reopen(&mut self) {
        self.fake = Fake::over(std::mem::take(&mut self.fake.world));
        self.mirror = self.fake.world.read();
        self.plan = None;
        self.unsettled = true;
    }

    fn check_ifindexes(&self, plan: &Plan) {
        for (slot, planned) in &plan.endpoints {
            if let Some(adopted) = planned.endpoint.adopted() {
                assert_eq!(self.fake.world.endpoints[slot].1, adopted.ifindex);
                continue;
            }
            let (ifindex, incarnation, _) =
                self.fake.world.interfaces[&planned.endpoint.host_interface];
            assert_eq!(self.fake.world.endpoints[slot].1, ifindex);
            assert_eq!(incarnation, planned.endpoint.incarnation);
        }
    }
}

/// The world after this plan alone.
fn scratch(plan: &Plan) -> World {
    let mut fake = Fake::over(World::new());
    let sockets = SocketPrograms::Absent;
    let mut mirror = Mirror { settled: true, sockets, ..Mirror::default() };
    apply(&mut fake, &mut mirror, plan).unwrap();
    fake.world
}

/// What has no sides.
fn facts(world: &World) -> impl PartialEq + std::fmt::Debug + use<> {
    let interfaces: Vec<_> =
        world.interfaces.iter().map(|(name, (_, i, up))| (name.clone(), *i, *up)).collect();
    let host = world.host_addresses.clone();
    (interfaces, world.gates.clone(), host, world.uplinks.clone(), world.sockets)
}

proptest! {
    #[test]
    fn whatever_happens_a_whole_plan_is_in_force_and_the_next_apply_mends_all(
        steps in proptest::collection::vec((specs(), troubles()), 1..8),
        last in specs(),
    ) {
        let mut run = Run::new();
        for (spec, trouble) in &steps {
            let _ = run.step(spec, *trouble);
        }
        run.step(&last, Trouble::None).unwrap();
        // Twice, so that nothing of before is on either side.
        run.step(&last, Trouble::None).unwrap();
        run.fake.check_nothing_leaks();
        for number in run.mirror.policies.values() {
            let content = run.mirror.policy_tables.content(*number);
            prop_assert!(matches!(content, Some(Content::Whole(_))), "{:?}", content);
        }
        let scratch = scratch(&plan(&last));
        prop_assert_eq!(run.fake.world.active(), scratch.active());
        prop_assert_eq!(facts(&run.fake.world), facts(&scratch));
    }
}

fn before_and_after() -> (Spec, Spec) {
    let before = Spec {
        endpoints: [
            Some((0, 1, false, false)),
            Some((0, 2, true, false)),
            None,
            Some((0, 1, false, false)),
        ],
        policies: BTreeMap::from([(1, 0), (2, 1)]),
        prefixes: 0,
        uplink: Some((false, true)),
        sources: 2,
        language: (0, None, 0),
    };
    // Two endpoints, of which one is adopted, have become others, one is gone, one is new.
    let after = Spec {
        endpoints: [
            Some((1, 1, true, true)),
            None,
            Some((0, 3, false, false)),
            Some((1, 1, false, false)),
        ],
        policies: BTreeMap::from([(1, 2), (3, 1)]),
        prefixes: 1,
        uplink: Some((true, true)),
        sources: 1,
        language: (1, Some(2), 1),
    };
    (before, after)
}

/// What may fail for reasons of its own does so before an endpoint's interface is touched.
#[test]
fn interfaces_are_touched_after_all_that_packets_cannot_see() {
    let (before, after) = before_and_after();
    let mut run = Run::new();
    run.step(&before, Trouble::None).unwrap();
    run.mirror.settled = false;
    let ops = super::diff::prepare(&run.mirror, &plan(&after)).unwrap();
    let touches = |op: &Op| matches!(op, Op::CreateInterface(_) | Op::RemoveInterface(_));
    let first = ops.iter().position(touches).unwrap();
    assert!(ops.iter().any(|op| matches!(op, Op::RemoveInterface(_))));
    assert!(ops[..first].iter().any(|op| matches!(op, Op::Grace)));
    for op in &ops[first..] {
        let visible = matches!(
            op,
            Op::CreateInterface(_)
                | Op::RemoveInterface(_)
                | Op::ConfigureInterface { .. }
                | Op::AttachGate(_)
                | Op::SetEndpoint(..)
                | Op::SetUplink(..)
        );
        assert!(visible, "{op} after interfaces were touched");
    }
}

#[test]
fn a_failure_at_every_op_undoes_all_that_was_made() {
    let (before, after) = before_and_after();
    for first in 0.. {
        let mut run = Run::new();
        run.step(&before, Trouble::None).unwrap();
        let was = facts(&run.fake.world);
        if run.step(&after, Trouble::Fail { first, count: 1 }).is_ok() {
            assert!(first > 20, "the plan needs more ops than {first}");
            return;
        }
        assert_eq!(facts(&run.fake.world), was, "after a failure of op {first}");
        run.fake.check_nothing_leaks();
        run.step(&after, Trouble::None).unwrap();
    }
}

#[test]
fn a_death_at_every_op_is_mended_by_the_next_daemon() {
    let (before, after) = before_and_after();
    for at in 0..200 {
        let mut run = Run::new();
        run.step(&before, Trouble::None).unwrap();
        run.step(&after, Trouble::Die(at)).unwrap();
        run.step(&after, Trouble::None).unwrap();
        run.step(&after, Trouble::None).unwrap();
        run.fake.check_nothing_leaks();
    }
}

#[test]
fn what_did_not_change_is_not_touched() {
    let (before, _) = before_and_after();
    let mut run = Run::new();
    run.step(&before, Trouble::None).unwrap();
    run.step(&before, Trouble::None).unwrap();
    run.step(&before, Trouble::None).unwrap();
    // The third time both sides are complete: only the grace period after the commit remains.
    assert_eq!(run.fake.runs, 2);
    assert_eq!(run.mirror.generation, Generation(3));
}

#[test]
fn an_edit_of_policies_is_committed_without_waiting() {
    let (mut spec, _) = before_and_after();
    let mut run = Run::new();
    run.step(&spec, Trouble::None).unwrap();
    run.step(&spec, Trouble::None).unwrap();
    let mut slow = 0;
    for edit in 10..=u8::MAX {
        spec.policies.insert(1, edit);
        spec.prefixes = edit / 2;
        run.begin(Trouble::None);
        run.apply(&spec).unwrap();
        assert_eq!(run.fake.waits, 0, "edit {edit}");
        // One table, perhaps the prefixes, the numbers, and the commit.
        assert!(run.fake.runs <= 5, "edit {edit}: {}", run.fake.runs);
        run.settle();
        assert!(run.fake.waits >= 1);
        slow += usize::from(run.fake.waits > 1);
        run.fake.check_nothing_leaks();
    }
    // Most of the time nothing is made anew after the commit either.
    assert!(slow < 80, "{slow} of 246");
}

#[test]
fn a_commit_that_needs_more_tables_than_there_are_waits_once() {
    let mut run = Run::new();
    // 80 tables, others each time.
    let edit = |round: u8| {
        let policies = (0..80).map(|n| (1 + u32::from(n), round % 3 * 80 + n)).collect();
        Spec { policies, ..Spec::default() }
    };
    // The third time the first ones become stale; from then on as many are spare as are needed.
    for (round, waits) in (0..).zip([1, 1, 1, 0, 0, 0]) {
        run.settle();
        run.begin(Trouble::None);
        run.apply(&edit(round)).unwrap();
        assert_eq!(run.fake.waits, waits, "round {round}");
        run.settle();
        run.fake.check_nothing_leaks();
    }
}

#[test]
fn faults_of_endpoints_are_found_all_at_once() {
    struct Vanished(Fake);
    impl super::transaction::Backend for Vanished {
        fn run(&mut self, op: &super::ops::Op) -> Result<(), super::transaction::Reason> {
            match op {
                super::ops::Op::CreateInterface(endpoint) if endpoint.slot != Slot(1) => {
                    Err(super::transaction::Reason("the namespace is gone".to_owned()))
                }
                op => self.0.run(op),
            }
        }
        fn commit(&mut self, generation: Generation) {
            self.0.commit(generation);
        }
    }
    let spec = Spec { endpoints: [Some((0, 1, false, false)); 4], ..Spec::default() };
    let mut backend = Vanished(Fake::default());
    let refused = apply(&mut backend, &mut Mirror::default(), &plan(&spec)).unwrap_err();
    let slots: Vec<Slot> = refused.endpoint_faults.iter().map(|(slot, _)| *slot).collect();
    assert_eq!(slots, [Slot(3), Slot(5)]);
    assert!(backend.0.world.interfaces.is_empty());
}
