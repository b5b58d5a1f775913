//! A small world: maps of its own, endpoints in slots, policies, and a network
//! namespace of its own with the interfaces that routing needs. Packets go in at a
//! gate, and after each the test states every counter that moved.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use libbpf_rs::RingBufferBuilder;
use porin::compile::plan::PublishedKey;
use porin::kernel::datapath::{self as dp, Maps, Program, TestContext, TestOutcome, abi};
use porin::kernel::layout;
use porin::types::{AddressKey, Protocol};

use crate::frame::{Frame, Ip, ip};

pub const IN: u32 = abi::HOOK_INGRESS;
pub const OUT: u32 = abi::HOOK_EGRESS;

pub const PASS: u32 = 0;
pub const SHOT: u32 = 2;
pub const REDIRECT: u32 = 7;
pub const NEXT: u32 = u32::MAX; // TC_ACT_UNSPEC

pub const WORLD4: u32 = abi::PEER_CLASS;
pub const WORLD6: u32 = abi::PEER_CLASS + 1;
pub const HOST: u32 = abi::PEER_CLASS + 2;

pub const LIMITS: dp::MapLimits =
    dp::MapLimits { flows: 1024, nat: 1024, fragments: 64, hits: 1024 };

pub type Entry = (abi::PolicyKey, abi::PolicyValue);

/// An endpoint of the test world.
#[derive(Clone, Copy, Debug)]
pub struct Container {
    pub identity: u32,
    pub mac: [u8; 6],
    pub ip4: Ip,
    pub ip6: Ip,
    pub ifindex: u32,
}

impl Container {
    pub fn ip(&self, v6: bool) -> Ip {
        if v6 { self.ip6 } else { self.ip4 }
    }
}

/// Slot of the uplink.
pub const UPLINK: u32 = 9;
pub const UPLINK_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// The uplink's address, with which endpoints are masqueraded.
pub const NAT: &str = "192.0.2.1";

/// Something that moved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Move {
    /// Slot, hook, reason; one packet.
    Drop(u32, u32, &'static str),
    /// Slot and hook; one packet.
    Traffic(u32, u32),
    Flow4(i64),
    Flow6(i64),
    Nat(i64),
    Fragment(i64),
    /// A flow was allowed: egress and ingress cookie.
    Allowed(u32, u32),
    /// A packet was denied: egress and ingress cookie.
    Denied(u32, u32),
    /// A packet was dropped, for a reason that is in Drop.
    Dropped,
    /// Events that were not told.
    Suppressed(u64),
}

struct Snapshot {
    /// By cookie and whether in the shadow.
    hits: Hits,
    drops: BTreeMap<(u32, u32, u32), u64>,
    traffic: BTreeMap<(u32, u32), u64>,
    sizes: [i64; 4],
    suppressed: u64,
}

pub struct World {
    pub maps: Maps,
    pub features: abi::Features,
    pub uplink_ifindex: u32,
    gates: BTreeMap<u32, dp::GatePair>,
    variants: Vec<dp::LoadedProgram>,
    /// Of policy tables: how many were made, and the last that was filled.
    tables: (u32, u32),
    events: Arc<Mutex<Vec<abi::Event>>>,
    ring: libbpf_rs::RingBuffer<'static>,
}

pub fn container(slot: u32) -> Container {
    Container {
        identity: 256 + slot,
        mac: [2, 0, 0, 0, 1, slot as u8],
        ip4: ip(&format!("10.0.0.{slot}")),
        ip6: ip(&format!("fd00::{slot}")),
        ifindex: 0,
    }
}

pub fn all_features() -> abi::Features {
    abi::Features {
        ipv4: 1,
        ipv6: 1,
        egress_policy: 1,
        ingress_policy: 1,
        source_ports: 1,
        reject: 1,
        shadow: 1,
        masquerade: 1,
        publishes: 1,
        adopts: 1,
        adopted: 0,
        accounting: 1,
        events: 1,
        coarse_clock: 1,
        nat_port_first: 61000,
        nat_port_last: 65535,
        event_rate: 1_000_000,
        count_lookups: 1,
        judges_requests: 1,
    }
}

/// Moves this thread into a network namespace of its own, with veths pn1, pn2, pn3
/// for endpoints and up0 as the uplink, towards a router at 192.0.2.254 and fd01::fe.
pub fn private_network() {
    #[allow(unsafe_code)]
    // SAFETY: leaves file descriptors and memory alone.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("root");
    run_ip(
        "link set lo up
         link add pn1 type veth peer name c1
         link add pn2 type veth peer name c2
         link add pn3 type veth peer name c3
         link add up0 address 02:00:00:00:00:09 type veth peer name wire
         link set c1 up
         link set c2 up
         link set c3 up
         link set wire up
         link set pn1 address 02:70:6f:72:69:6e up
         link set pn2 address 02:70:6f:72:69:6e up
         link set pn3 address 02:70:6f:72:69:6e up
         link set up0 up
         address add 192.0.2.1/24 dev up0
         address add fd01::1/64 dev up0 nodad
         neighbour add 192.0.2.254 lladdr 02:00:00:00:00:fe dev up0 nud permanent
         neighbour add fd01::fe lladdr 02:00:00:00:00:fe dev up0 nud permanent
         route add default via 192.0.2.254
         route add default via fd01::fe",
    );
    for name in ["pn1", "pn2", "pn3"] {
        for family in ["ipv4", "ipv6"] {
            let path = format!("/proc/sys/net/{family}/conf/{name}/forwarding");
            std::fs::write(path, "1").expect("sysctl");
        }
    }
}

pub fn run_ip(commands: &str) {
    let mut child =
        Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("ip");
    child.stdin.take().expect("piped").write_all(commands.as_bytes()).expect("written");
    assert!(child.wait().expect("waited for").success(), "{commands}");
}

pub fn ifindex(name: &str) -> u32 {
    use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).expect("a socket");
    name_to_index(&socket, name).expect("an interface")
}

/// A policy entry: peer, direction, protocol and port (0 and none: any).
pub fn entry(
    peer: u32,
    direction: u8,
    what: Option<(u8, Option<(u16, u32)>)>,
    precedence: u32,
    cookie: u32,
    allow: bool,
) -> Entry {
    let (prefixlen, protocol, port) = match what {
        None => (40, 0, 0),
        Some((protocol, None)) => (48, protocol, 0),
        Some((protocol, Some((port, bits)))) => (48 + bits, protocol, port),
    };
    let (peer, port) = (peer.to_be(), port.to_be());
    let key = abi::PolicyKey { prefixlen, peer, scope: direction, protocol, port };
    let verdict = if allow { abi::VERDICT_ALLOW } else { abi::VERDICT_DENY };
    (key, abi::PolicyValue { precedence, cookie, verdict, ..Default::default() })
}

/// An entry made one that rejects.
pub fn rejecting(mut entry: Entry) -> Entry {
    entry.1.verdict = abi::VERDICT_REJECT;
    entry
}

/// An entry made one of a class of source ports.
pub fn from_class(mut entry: Entry, class: u8) -> Entry {
    entry.0.scope |= class << 1;
    entry
}

pub fn default_entries(egress: bool, ingress: bool) -> Vec<Entry> {
    vec![
        entry(0, abi::EGRESS, None, 1, if egress { 0 } else { 901 }, egress),
        entry(0, abi::INGRESS, None, 1, if ingress { 0 } else { 902 }, ingress),
    ]
}

/// The row of a container, alike on both sides.
pub fn endpoint(slot: u32, c: &Container) -> abi::Endpoint {
    let side =
        abi::EndpointSide { identity: c.identity, policy: slot, shadow: 0, peer: [c.identity; 2] };
    abi::Endpoint {
        address6: c.ip6.mapped(),
        address4: c.ip4.bytes().try_into().expect("IPv4"),
        ifindex: c.ifindex,
        mac: c.mac,
        side: [side, side],
        ..Default::default()
    }
}

impl World {
    /// Three endpoints in slots 1 to 3, policy slots alike, everything allowed,
    /// generation 2 in force.
    pub fn new() -> Self {
        Self::with_features(all_features())
    }

    pub fn with_features(features: abi::Features) -> Self {
        Self::with_limits(features, &LIMITS)
    }

    pub fn with_limits(features: abi::Features, limits: &dp::MapLimits) -> Self {
        private_network();
        let maps = Maps::create(limits).expect("maps");
        let uplink_ifindex = ifindex("up0");
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&events);
        let mut builder = RingBufferBuilder::new();
        let take = move |bytes: &[u8]| {
            sink.lock().expect("not poisoned").push(dp::from_bytes(bytes).expect("an event"));
            0
        };
        builder.add(maps.events().expect("events"), take).expect("ring");
        let ring = builder.build().expect("ring");
        let mut w = Self {
            maps,
            features,
            uplink_ifindex,
            gates: BTreeMap::new(),
            variants: Vec::new(),
            tables: (0, 0),
            events,
            ring,
        };
        for slot in 1..=3 {
            w.add_container(slot);
        }
        w.add_uplink();
        w.prefixes();
        w.load_variants();
        w.maps.commit(2);
        w
    }

    pub fn container(&self, slot: u32) -> Container {
        Container { ifindex: ifindex(&format!("pn{slot}")), ..container(slot) }
    }

    fn add_container(&mut self, slot: u32) {
        let c = self.container(slot);
        let endpoint = endpoint(slot, &c);
        self.maps.set_endpoint(slot, &endpoint).expect("endpoint");
        self.maps.set_address(c.ip4.mapped(), [slot; 2]).expect("address");
        self.maps.set_address(c.ip6.mapped(), [slot; 2]).expect("address");
        let gate = abi::Gate {
            slot,
            mac: c.mac,
            has4: 1,
            has6: 1,
            address4: endpoint.address4,
            address6: endpoint.address6,
            event_rate: 1_000_000,
            ..Default::default()
        };
        self.gates.insert(slot, dp::load_gate(&self.maps, &gate).expect("gate"));
        self.policy(slot, &default_entries(true, true));
    }

    /// Makes the container one whose network is another's: pn3 becomes a port of the bridge br0,
    /// and the other container of the bridge is in slot 2.
    pub fn adopt(&mut self, slots: &[u32]) {
        run_ip(
            "link add br0 type bridge
             link set br0 up
             address add 10.0.0.250/24 dev br0
             address add fd00::250/64 dev br0 nodad",
        );
        let features = abi::Features { adopted: 1, ..self.features };
        let variants = [(Program::FromEndpoint, IN), (Program::ToEndpoint, OUT)]
            .map(|(p, hook)| (dp::load_variant(&self.maps, p, &features).expect("loads"), hook));
        for slot in slots.iter().copied() {
            let c = self.container(slot);
            let mut row = endpoint(slot, &c);
            row.adopted = 1;
            row.mac = [0; 6];
            row.mac[2..].copy_from_slice(&ifindex("br0").to_ne_bytes());
            self.maps.set_endpoint(slot, &row).expect("endpoint");
            self.open_gate(slot, false);
            for (variant, hook) in &variants {
                for side in 0..2 {
                    let index = abi::program_index(slot, *hook, side);
                    self.maps.set_program(index, variant.fd.as_fd()).expect("set");
                }
            }
        }
        self.variants.extend(variants.map(|(variant, _)| variant));
    }

    /// Puts another gate onto an adopted interface: does it let pass what no generation knows?
    pub fn open_gate(&mut self, slot: u32, open: bool) {
        let row = endpoint(slot, &container(slot));
        let gate = abi::Gate {
            slot,
            has4: 1,
            has6: 1,
            address4: row.address4,
            address6: row.address6,
            event_rate: 1_000_000,
            open: open.into(),
            ..Default::default()
        };
        self.gates.insert(slot, dp::load_adopted_gate(&self.maps, &gate).expect("gate"));
    }

    /// At the gate before a container in another's network; where the packet came into the host.
    pub fn arrive(&mut self, slot: u32, ingress_ifindex: u32, frame: Frame) -> Shot {
        let context = TestContext { ingress_ifindex, ..TestContext::default() };
        self.send_with(slot, OUT, &frame.bytes(), context)
    }

    fn add_uplink(&mut self) {
        let uplink = abi::Uplink {
            mac: UPLINK_MAC,
            slot: UPLINK,
            masquerade4: ip(NAT).bytes().try_into().expect("IPv4"),
            ..Default::default()
        };
        self.maps.set_uplink(self.uplink_ifindex, &uplink).expect("uplink");
        self.gates.insert(UPLINK, dp::load_uplink_gate(&self.maps, UPLINK).expect("gate"));
    }

    fn prefixes(&mut self) {
        let prefix = |text: &str, len, peer, flags| {
            let key = abi::PrefixKey { prefixlen: len, address: ip(text).mapped() };
            (key, abi::PrefixValue { peer, flags })
        };
        self.maps.make_tables(dp::TableKind::Prefix, &[1]).expect("table");
        let entries = [
            prefix("::", 0, WORLD6, 0),
            prefix("0.0.0.0", 96, WORLD4, 0),
            prefix("10.0.0.0", 96 + 24, WORLD4, abi::PREFIX_POOL),
            prefix("fd00::", 64, WORLD6, abi::PREFIX_POOL),
            prefix(NAT, 128, HOST, abi::PREFIX_HOST),
            prefix("fd01::1", 128, HOST, abi::PREFIX_HOST),
        ];
        self.maps.fill_prefix_table(1, &entries).expect("filled");
        self.maps.set_prefixes(0, 1).expect("set");
        self.maps.set_prefixes(1, 1).expect("set");
    }

    pub fn load_variants(&mut self) {
        for program in Program::ALL {
            let loaded = dp::load_variant(&self.maps, program, &self.features).expect("loads");
            let (slots, hook) = match program {
                Program::FromEndpoint => (vec![1, 2, 3], IN),
                Program::ToEndpoint => (vec![1, 2, 3], OUT),
                Program::FromUplink => (vec![UPLINK], IN),
                Program::ToUplink => (vec![UPLINK], OUT),
            };
            for slot in slots {
                for side in 0..2 {
                    let index = abi::program_index(slot, hook, side);
                    self.maps.set_program(index, loaded.fd.as_fd()).expect("set");
                }
            }
            self.variants.push(loaded);
        }
    }

    /// Gives a policy slot the same table on both sides.
    pub fn policy(&mut self, slot: u32, entries: &[Entry]) {
        self.policy_of_side(slot, 0, entries);
        self.policy_of_side(slot, 1, entries);
    }

    pub fn policy_of_side(&mut self, slot: u32, side: u32, entries: &[Entry]) {
        let (made, last) = &mut self.tables;
        if last == made {
            let numbers: Vec<u32> = (*made + 1..=*made + 16).collect();
            self.maps.make_tables(dp::TableKind::Policy, &numbers).expect("tables");
            *made += 16;
        }
        *last += 1;
        self.maps.fill_policy_table(*last, entries).expect("filled");
        self.maps.set_policies(&[(abi::policy_index(slot, side), *last)]).expect("set");
    }

    /// Publishes an endpoint's port at an address and port of the host, on both sides; slot 0: nobody's.
    pub fn publish(&mut self, at: (Ip, u16), protocol: u8, slot: u32, port: u16) {
        self.publish_on_sides(at, protocol, [(slot, port); 2]);
    }

    pub fn publish_on_sides(&mut self, at: (Ip, u16), protocol: u8, sides: [(u32, u16); 2]) {
        let key = layout::published_key(&PublishedKey {
            address: AddressKey(at.0.mapped()),
            protocol: Protocol(protocol),
            port: at.1,
        });
        let side = |(slot, port): (u32, u16)| abi::PublishedSide {
            slot,
            port: port.to_be(),
            ..Default::default()
        };
        let to = abi::Published { side: sides.map(side) };
        self.maps.set_published(&key, &to).expect("published");
    }

    pub fn gate(&self, slot: u32) -> &dp::GatePair {
        &self.gates[&slot]
    }

    fn snapshot(&self) -> Snapshot {
        let drops = self.maps.drops().expect("drops");
        let drops =
            drops.iter().map(|(k, n)| ((k.slot, u32::from(k.hook), u32::from(k.reason)), *n));
        let at = [1, 2, 3, UPLINK].into_iter().flat_map(|slot| [(slot, IN), (slot, OUT)]);
        let traffic = at.map(|(slot, hook)| {
            ((slot, hook), self.maps.traffic_of(slot, hook).expect("traffic").packets)
        });
        let hits = self.maps.hits().expect("hits");
        let hits = hits.iter().map(|(key, n)| ((key.cookie, key.shadow != 0), *n));
        let sizes = [
            self.maps.flows4().expect("flows4").len() as i64,
            self.maps.flows6().expect("flows6").len() as i64,
            self.maps.nat4().expect("nat4").len() as i64,
            self.maps.fragments().expect("fragments").len() as i64,
        ];
        Snapshot {
            hits: hits.collect(),
            drops: drops.collect(),
            traffic: traffic.collect(),
            sizes,
            suppressed: self.maps.suppressed_events().expect("budgets"),
        }
    }

    /// Sends a frame through a gate and finds out what moved.
    pub fn send(&mut self, slot: u32, hook: u32, frame: &[u8]) -> Shot {
        self.send_with(slot, hook, frame, TestContext::default())
    }

    pub fn send_with(&mut self, slot: u32, hook: u32, frame: &[u8], context: TestContext) -> Shot {
        let pair = &self.gates[&slot];
        let gate = if hook == IN { pair.ingress.as_fd() } else { pair.egress.as_fd() };
        let device =
            if slot == UPLINK { self.uplink_ifindex } else { ifindex(&format!("pn{slot}")) };
        let before = self.snapshot();
        let context = TestContext { ifindex: device, ..context };
        let outcome = dp::test_run(gate, frame, 1, context).expect("runs");
        let after = self.snapshot();
        self.ring.consume().expect("ring");
        let events = std::mem::take(&mut *self.events.lock().expect("not poisoned"));
        let moves = moves(&before, &after, &events);
        let hits = grown(&before.hits, &after.hits);
        if self.features.events == 1 && before.suppressed == after.suppressed {
            assert_eq!(hits, hits_of(&events), "what rules decided is counted");
        }
        Shot { outcome, moves, events }
    }

    /// From a container, whose MAC it bears.
    pub fn from(&mut self, slot: u32, frame: Frame) -> Shot {
        let mac = container(slot).mac;
        self.send(slot, IN, &frame.with(|f| f.source_mac = mac).bytes())
    }

    /// From the host's stack to a container.
    pub fn to(&mut self, slot: u32, frame: Frame) -> Shot {
        self.send(slot, OUT, &frame.bytes())
    }

    /// From outside.
    pub fn uplink_in(&mut self, frame: Frame) -> Shot {
        self.send(UPLINK, IN, &frame.with(|f| f.destination_mac = UPLINK_MAC).bytes())
    }

    pub fn flow4(&self) -> abi::Flow {
        self.maps.flows4().expect("flows4")[0].1
    }

    pub fn flow6(&self) -> abi::Flow {
        self.maps.flows6().expect("flows6")[0].1
    }
}

fn moves(before: &Snapshot, after: &Snapshot, events: &[abi::Event]) -> Vec<Move> {
    let names = dp::drop_reason_names();
    let mut moves = Vec::new();
    for (key, n) in &after.drops {
        for _ in before.drops.get(key).copied().unwrap_or(0)..*n {
            moves.push(Move::Drop(key.0, key.1, names[key.2 as usize].as_str()));
        }
    }
    for (key, n) in &after.traffic {
        for _ in before.traffic.get(key).copied().unwrap_or(0)..*n {
            moves.push(Move::Traffic(key.0, key.1));
        }
    }
    let makers = [Move::Flow4 as fn(i64) -> Move, Move::Flow6, Move::Nat, Move::Fragment];
    for (i, make) in makers.into_iter().enumerate() {
        if after.sizes[i] != before.sizes[i] {
            moves.push(make(after.sizes[i] - before.sizes[i]));
        }
    }
    if after.suppressed != before.suppressed {
        moves.push(Move::Suppressed(after.suppressed - before.suppressed));
    }
    moves.extend(events.iter().map(|e| match e.r#type {
        abi::EVENT_FLOW => Move::Allowed(e.egress_cookie, e.ingress_cookie),
        abi::EVENT_DENY => Move::Denied(e.egress_cookie, e.ingress_cookie),
        _ => Move::Dropped,
    }));
    moves.sort();
    moves
}

fn grown(before: &Hits, after: &Hits) -> Hits {
    let grown = after.iter().map(|(key, n)| (*key, n - before.get(key).copied().unwrap_or(0)));
    grown.filter(|(_, n)| *n != 0).collect()
}

type Hits = BTreeMap<(u32, bool), u64>;

/// What must have been counted, from what was told.
fn hits_of(events: &[abi::Event]) -> Hits {
    let mut hits = Hits::new();
    for e in events.iter().filter(|e| e.r#type != abi::EVENT_DROP) {
        let is = [e.egress_cookie, e.ingress_cookie];
        let would = [e.shadow_egress_cookie, e.shadow_ingress_cookie];
        for (is, would) in is.into_iter().zip(would) {
            let all = [(is, false, is != 0), (would, true, would != 0 && would != is)];
            for (cookie, shadow, _) in all.into_iter().filter(|(_, _, counts)| *counts) {
                *hits.entry((cookie, shadow)).or_default() += 1;
            }
        }
    }
    hits
}

/// A packet's fate, and what moved.
#[derive(Debug)]
pub struct Shot {
    pub outcome: TestOutcome,
    pub moves: Vec<Move>,
    pub events: Vec<abi::Event>,
}

impl Shot {
    /// Panics unless this and nothing else happened.
    #[track_caller]
    pub fn is(self, action: u32, moves: &[Move]) -> Self {
        let mut wanted = moves.to_vec();
        wanted.sort();
        assert_eq!((self.outcome.retval, &self.moves), (action, &wanted));
        self
    }

    /// Delivered straight to a container: MACs rewritten, the rest as given.
    #[track_caller]
    pub fn delivered(self, to: &Container, moves: &[Move]) -> Self {
        let shot = self.is(REDIRECT, moves);
        assert_eq!(shot.outcome.data[..6], to.mac);
        assert_eq!(shot.outcome.data[6..12], abi::GATEWAY_MAC);
        shot
    }

    /// Left to whatever comes next, as it is.
    #[track_caller]
    pub fn passed(self, frame: &Frame, moves: &[Move]) -> Self {
        let shot = self.is(NEXT, moves);
        assert_eq!(shot.l3(), frame.l3(), "nothing changed");
        shot
    }

    /// Dropped: for this reason, counted once, told once, and nothing else.
    #[track_caller]
    pub fn dropped(self, slot: u32, hook: u32, reason: &'static str) -> Self {
        self.is(SHOT, &[Move::Drop(slot, hook, reason), Move::Dropped])
    }

    /// Dropped and counted, but not told of.
    pub fn ignored(self, slot: u32, hook: u32, reason: &'static str) -> Self {
        self.is(SHOT, &[Move::Drop(slot, hook, reason)])
    }

    pub fn l3(&self) -> &[u8] {
        &self.outcome.data[14..]
    }
}
