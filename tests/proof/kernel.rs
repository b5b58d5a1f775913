//! The kernel as a judge. Plans reach it as in the daemon, by the transaction with its diffs and sides, and packets go in
//! at gates by BPF_PROG_TEST_RUN; what was decided is read from the events. Only interfaces are left out: there is one for
//! all endpoints, and one uplink, neither attached to anything.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use libbpf_rs::RingBufferBuilder;

use porin::compile::explain::{Packet, Party, party};
use porin::compile::plan::{Features, Plan};
use porin::kernel::datapath::{self as dp, LoadedProgram, Maps, TestContext, abi};
use porin::kernel::layout;
use porin::kernel::mirror::Mirror;
use porin::kernel::ops::{Gate, GateOwner, Op, Variant};
use porin::kernel::transaction::{self, Backend, Reason};
use porin::types::{Cookie, Direction, Generation, Protocol, Slot, Verdict};

use crate::frame::{Frame, Ip, SYN};
use crate::world::{UPLINK_IFINDEX, UPLINK_MAC};
use crate::worlds::UPLINK;

/// Of all endpoints' host sides.
const IFINDEX: u32 = 8;

/// That are kept for worlds to come, at most.
const GATES: usize = 256;

/// Where a packet is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// It comes from a container.
    Container,
    /// The host's own stack sends it to a container.
    Host,
    /// It comes from outside.
    FromUplink,
    /// The host's own stack sends it on to the outside.
    ToUplink,
}

/// What became of a packet, and what would have, with shadow policies enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub outcome: Fate,
    /// None: nobody has shadow policies.
    pub shadow: Option<Fate>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    NoEndpoint,
    Judged {
        verdict: Verdict,
        /// Whose policy does not allow it, if so.
        refused: Option<Direction>,
        /// Of the sender's egress; none if that is not asked, or nobody's.
        egress: Cookie,
        ingress: Cookie,
    },
}

pub struct Kernel {
    tables: Tables,
    mirror: Mirror,
    events: Arc<Mutex<Vec<abi::Event>>>,
    ring: libbpf_rs::RingBuffer<'static>,
}

/// Carries out what is about tables and programs.
struct Tables {
    maps: Maps,
    gates: BTreeMap<Slot, Rc<dp::GatePair>>,
    /// Many that were loaded, by their constants.
    known_gates: HashMap<Vec<u8>, Rc<dp::GatePair>>,
    variants: BTreeMap<Variant, LoadedProgram>,
    /// Variants of one program, but for one more.
    most: usize,
}

impl Kernel {
    /// Moves this thread into a network namespace of its own. None: that needs root. `most`: variants of one program.
    pub fn new(most: usize) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: this test needs root");
            return None;
        }
        private_network();
        let limits = dp::MapLimits { flows: 1024, nat: 64, fragments: 64, hits: 1024 };
        let maps = Maps::create(&limits).expect("maps");
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&events);
        let mut builder = RingBufferBuilder::new();
        let take = move |bytes: &[u8]| {
            sink.lock().expect("not poisoned").push(dp::from_bytes(bytes).expect("an event"));
            0
        };
        builder.add(maps.events().expect("events"), take).expect("ring");
        let ring = builder.build().expect("ring");
        let (gates, known_gates, variants) = Default::default();
        let tables = Tables { maps, gates, known_gates, variants, most };
        Some(Kernel { tables, mirror: Mirror::default(), events, ring })
    }

    /// Makes a plan the one in force.
    pub fn commit(&mut self, plan: &Plan) {
        let (tables, mirror) = (&mut self.tables, &mut self.mirror);
        transaction::apply(tables, mirror, plan).expect("applied");
        let settled = transaction::settle(tables, mirror, Some(plan));
        assert!(settled.leftovers.is_empty(), "{:?}", settled.leftovers);
    }

    /// Programs that were loaded, gates apart.
    pub fn variants(&self) -> usize {
        self.tables.variants.len()
    }

    /// How often each rule decided since the last time, and would have in shadow mode.
    pub fn take_hits(&mut self) -> BTreeMap<(Cookie, bool), u64> {
        let maps = &self.tables.maps;
        let hits = maps.hits().expect("hits");
        let taken = hits.iter().map(|(key, count)| {
            maps.delete_hits(key).expect("deleted");
            ((Cookie(key.cookie), key.shadow != 0), *count)
        });
        taken.collect()
    }

    /// The ways by which the datapath would get to judge a packet as the first of a flow.
    pub fn ways(plan: &Plan, packet: &Packet) -> Vec<Way> {
        let ends = [packet.source, packet.destination].map(|address| party(plan, address));
        if ends[0] == ends[1] || !judged_as_it_is(packet) {
            return Vec::new();
        }
        match ends.map(|end| end.expect("a complete plan")) {
            [Party::Endpoint { .. }, Party::World { .. }] => vec![Way::Container, Way::ToUplink],
            [Party::Endpoint { .. }, _] => vec![Way::Container],
            [Party::Host { .. }, Party::Endpoint { .. }] => vec![Way::Host],
            [Party::World { .. }, Party::Endpoint { .. }] => vec![Way::Host, Way::FromUplink],
            _ => Vec::new(),
        }
    }

    /// Sends a packet on its way and finds out what was decided. It leaves no flow behind.
    pub fn ask(&mut self, plan: &Plan, packet: &Packet, way: Way) -> Answer {
        let slot = |address| match party(plan, address) {
            Some(Party::Endpoint { slot, .. }) => slot,
            other => panic!("{address} is {other:?}"),
        };
        let mut frame = frame(packet);
        let gates = &self.tables.gates;
        let (gate, ifindex): (BorrowedFd<'_>, u32) = match way {
            Way::Container => {
                let slot = slot(packet.source);
                frame.source_mac =
                    plan.endpoints[&slot].endpoint.made().expect("porin's own").mac.0;
                (gates[&slot].ingress.as_fd(), IFINDEX)
            }
            Way::Host => (gates[&slot(packet.destination)].egress.as_fd(), IFINDEX),
            Way::FromUplink | Way::ToUplink => {
                frame.destination_mac = UPLINK_MAC.0;
                let pair = &gates[plan.uplinks.keys().next().expect("an uplink")];
                let gate = if way == Way::ToUplink { &pair.egress } else { &pair.ingress };
                (gate.as_fd(), UPLINK_IFINDEX)
            }
        };
        let context = TestContext { ifindex, ..TestContext::default() };
        dp::test_run(gate, &frame.bytes(), 1, context).expect("runs");
        self.ring.consume().expect("ring");
        let events = std::mem::take(&mut *self.events.lock().expect("not poisoned"));
        let told = |event: &&abi::Event| {
            matches!(event.r#type, abi::EVENT_FLOW | abi::EVENT_DENY)
                || event.reason == dp::abi::DropReason::PORIN_DROP_NO_ENDPOINT.0
        };
        let told: Vec<&abi::Event> = events.iter().filter(told).collect();
        let [event] = told[..] else { panic!("{packet:?} {way:?}: {events:?}") };
        self.forget(event);
        assert_eq!(event.generation, self.tables.maps.generation());
        answer(event)
    }

    /// Whichever end comes first in the key.
    fn forget(&self, event: &abi::Event) {
        let ends = [(event.source, event.source_port), (event.destination, event.destination_port)];
        for [a, b] in [[ends[0], ends[1]], [ends[1], ends[0]]] {
            let (port, protocol) = ([a.1, b.1], event.protocol);
            let mapped = |address: [u8; 16]| -> [u8; 4] { address[12..].try_into().expect("four") };
            let ipv4 = a.0[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
            let done = if ipv4 {
                let address = [mapped(a.0), mapped(b.0)];
                let key = abi::Flow4Key { address, port, protocol, ..Default::default() };
                self.tables.maps.delete_flow4(&key)
            } else {
                let key =
                    abi::Flow6Key { address: [a.0, b.0], port, protocol, ..Default::default() };
                self.tables.maps.delete_flow6(&key)
            };
            done.expect("deleted");
        }
    }

    /// Whether no flow is left that could answer in the policies' place.
    pub fn has_no_flows(&self) -> bool {
        let maps = &self.tables.maps;
        maps.flows4().expect("flows4").is_empty() && maps.flows6().expect("flows6").is_empty()
    }
}

fn answer(event: &abi::Event) -> Answer {
    let verdict = |number| match number {
        abi::VERDICT_ALLOW => Verdict::Allow,
        abi::VERDICT_DENY => Verdict::Deny,
        abi::VERDICT_REJECT => Verdict::Reject,
        other => panic!("verdict {other}"),
    };
    let judged = |verdict, refused, egress, ingress| {
        let (egress, ingress) = (Cookie(egress), Cookie(ingress));
        Fate::Judged { verdict, refused, egress, ingress }
    };
    let reason = |reason: abi::DropReason| event.reason == reason.0;
    let refused = match () {
        () if event.r#type == abi::EVENT_FLOW => None,
        () if reason(abi::DropReason::PORIN_DROP_POLICY_EGRESS) => Some(Direction::Egress),
        () if reason(abi::DropReason::PORIN_DROP_POLICY_INGRESS) => Some(Direction::Ingress),
        () => return Answer { outcome: Fate::NoEndpoint, shadow: None },
    };
    let (egress, ingress) = (event.egress_cookie, event.ingress_cookie);
    let outcome = judged(verdict(event.verdict), refused, egress, ingress);
    let (egress, ingress) = (event.shadow_egress_cookie, event.shadow_ingress_cookie);
    let shadow = (event.shadow != 0).then(|| {
        let verdict = verdict(event.shadow);
        // Whoever refuses has a cookie; who was not asked has none.
        let by = if ingress == 0 { Direction::Egress } else { Direction::Ingress };
        judged(verdict, (verdict != Verdict::Allow).then_some(by), egress, ingress)
    });
    Answer { outcome, shadow }
}

/// Not what is link-local, an answer, or about another packet: no policy is asked about those. An echo has but one code.
fn judged_as_it_is(packet: &Packet) -> bool {
    let special = |address: IpAddr| match address {
        IpAddr::V4(a) => {
            let [first, second, ..] = a.octets();
            matches!(first, 0 | 127 | 224..) || (first, second) == (169, 254)
        }
        IpAddr::V6(a) => {
            let [first, ..] = a.octets();
            let begin = &a.octets()[..8];
            begin == [0; 8] || first == 0xff || a.segments()[0] & 0xffc0 == 0xfe80
        }
    };
    let [kind, code] = packet.port.to_be_bytes();
    let sound = match packet.protocol {
        Protocol::ICMP => {
            packet.source.is_ipv4()
                && !matches!(kind, 0 | 3 | 4 | 5 | 9 | 10 | 11 | 12)
                && (kind != 8 || code == 0)
        }
        Protocol::ICMPV6 => {
            packet.source.is_ipv6()
                && kind >= 128
                && !matches!(kind, 129..=153)
                && (kind != 128 || code == 0)
        }
        _ => true,
    };
    sound && !special(packet.source) && !special(packet.destination)
}

fn frame(packet: &Packet) -> Frame {
    let ip = |address| match address {
        IpAddr::V4(a) => Ip::V4(a),
        IpAddr::V6(a) => Ip::V6(a),
    };
    let (source, destination) = (ip(packet.source), ip(packet.destination));
    let (from, to) = ((source, packet.source_port), (destination, packet.port));
    let [kind, code] = packet.port.to_be_bytes();
    match packet.protocol {
        Protocol::TCP => Frame::tcp(from, to, SYN, b""),
        Protocol::UDP => Frame::udp(from, to, b"?"),
        Protocol::ICMP if kind == 8 => Frame::echo(source, destination, 7, false),
        Protocol::ICMPV6 if kind == 128 => Frame::echo(source, destination, 7, false),
        Protocol::ICMP | Protocol::ICMPV6 => {
            Frame::icmp(source, destination, kind, code, [0; 4], b"")
        }
        other => {
            // Those that have ports have them first.
            let mut l4 = [packet.source_port.to_be_bytes(), packet.port.to_be_bytes()].concat();
            l4.extend([0; 20]);
            Frame::new(source, destination, other.0, l4)
        }
    }
}

fn reason(error: dp::Error) -> Reason {
    Reason(error.to_string())
}

impl Tables {
    /// The verifier takes its time with each, so once there are many of a program, the one that can do everything does.
    fn chosen(&self, variant: Variant) -> Variant {
        let of_program = self.variants.keys().filter(|known| known.program == variant.program);
        if self.variants.contains_key(&variant) || of_program.count() < self.most {
            return variant;
        }
        let features = Features {
            ipv4: true,
            ipv6: true,
            egress_policy: true,
            ingress_policy: true,
            source_ports: true,
            reject: true,
            shadow: true,
            ..variant.features
        };
        Variant { features, ..variant }
    }

    fn attach(&mut self, gate: &Gate) -> Result<(), Reason> {
        let (constants, load): (_, fn(&Maps, &abi::Gate) -> dp::Result<dp::GatePair>) =
            match &gate.owner {
                GateOwner::Endpoint(e) => (layout::gate(e, gate.event_rate), dp::load_gate),
                GateOwner::Adopted(adopted) => {
                    (layout::adopted_gate(adopted, gate.event_rate), dp::load_adopted_gate)
                }
                GateOwner::Uplink(uplink) => {
                    let constants = abi::Gate { slot: uplink.slot.0, ..Default::default() };
                    (constants, |maps, gate| dp::load_uplink_gate(maps, gate.slot))
                }
            };
        let uplink = matches!(gate.owner, GateOwner::Uplink(_));
        let key = [&[u8::from(uplink)], dp::bytes_of(&constants)].concat();
        let pair = match self.known_gates.get(&key) {
            Some(pair) => Rc::clone(pair),
            None => Rc::new(load(&self.maps, &constants).map_err(reason)?),
        };
        // Descriptors are not without end.
        if self.known_gates.len() >= GATES {
            self.known_gates.clear();
        }
        self.known_gates.insert(key, Rc::clone(&pair));
        self.gates.insert(gate.slot(), pair);
        Ok(())
    }
}

impl Backend for Tables {
    fn run(&mut self, op: &Op) -> Result<(), Reason> {
        let maps = &self.maps;
        match op {
            // No packet is under way but those that this thread sends; no interface is anybody's.
            Op::Grace
            | Op::AddHostAddress(_)
            | Op::RemoveHostAddress(_)
            | Op::CreateInterface(_)
            | Op::ConfigureInterface { .. }
            | Op::RemoveInterface(_)
            | Op::AttachSockets
            | Op::DetachSockets
            | Op::DetachGate(_) => return Ok(()),
            // Loading takes long, and worlds are alike in what they need.
            Op::DropVariant(_) => return Ok(()),
            Op::AttachGate(gate) => return self.attach(gate),
            Op::LoadVariant(variant) => {
                let variant = self.chosen(*variant);
                if let Entry::Vacant(vacant) = self.variants.entry(variant) {
                    let features = layout::features(&variant.features, true);
                    let loaded = dp::load_variant(maps, variant.program, &features);
                    vacant.insert(loaded.map_err(reason)?);
                }
                return Ok(());
            }
            Op::MakeSpares(kind, numbers) => maps.make_tables(*kind, numbers),
            Op::FillPolicy(number, table) => {
                maps.fill_policy_table(*number, &layout::policy(table))
            }
            Op::FillPrefixes(number, table) => {
                maps.fill_prefix_table(*number, &layout::prefixes(table))
            }
            Op::SetEndpoint(slot, Some(row)) => {
                maps.set_endpoint(slot.0, &layout::endpoint(row, IFINDEX))
            }
            Op::SetEndpoint(slot, None) => maps.clear_endpoint(slot.0),
            Op::SetAddress(key, slots) if *slots == [Slot(0); 2] => maps.delete_address(key.0),
            Op::SetAddress(key, slots) => maps.set_address(key.0, slots.map(|slot| slot.0)),
            Op::SetPublished(key, [None, None]) => {
                maps.delete_published(&layout::published_key(key))
            }
            Op::SetPublished(key, sides) => {
                maps.set_published(&layout::published_key(key), &layout::published(sides))
            }
            Op::SetUplink(ifindex, Some(row)) => maps.set_uplink(*ifindex, &layout::uplink(row)),
            Op::SetUplink(ifindex, None) => maps.delete_uplink(*ifindex),
            Op::SetProgram(index, Some(variant)) => {
                maps.set_program(*index, self.variants[&self.chosen(*variant)].fd.as_fd())
            }
            Op::SetProgram(index, None) => maps.clear_program(*index),
            Op::SetPolicies(batch) => maps.set_policies(batch),
            Op::SetPrefixes(side, number) => maps.set_prefixes(side.index() as u32, *number),
            Op::SetSources(side, table) => maps.set_sources(&layout::sources(table, *side)),
        }
        .map_err(reason)
    }

    fn commit(&mut self, generation: Generation) {
        self.maps.commit(generation.0);
    }
}

fn private_network() {
    #[allow(unsafe_code)]
    // SAFETY: leaves file descriptors and memory alone.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("root");
    let commands = format!(
        "link set lo up
         link add pn0 index {IFINDEX} type veth peer name c0 index 18
         link add {UPLINK} index {UPLINK_IFINDEX} address {UPLINK_MAC} type veth peer name wire index 19
         link set pn0 up
         link set {UPLINK} up"
    );
    let mut ip =
        Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("ip");
    ip.stdin.take().expect("piped").write_all(commands.as_bytes()).expect("written");
    assert!(ip.wait().expect("waited for").success(), "{commands}");
}
