//! Measuring, for the bench and for whoever keeps a record.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use porin::kernel::datapath::{self as dp, Maps, TestContext, abi};

use crate::frame::{ACK, Frame, SYN};
use crate::world::{World, all_features, container, default_entries};

pub struct Costs {
    pub established_ns: u32,
    pub established_lookups: u32,
    pub first_ns: u32,
    pub first_samples: usize,
    /// An established packet in runs of one, as the first ones are: what of their cost is
    /// the measuring, and cold caches.
    pub single_ns: u32,
}

/// A packet from container 1 to container 2. Over and over the same buffer comes
/// back with the gateway's MAC as its source, so container 1's gate takes that one.
pub fn packets(v6: bool) -> Costs {
    let lookups = {
        let mut w = World::new();
        let (ca, cb) = ((container(1).ip(v6), 40000), (container(2).ip(v6), 80));
        w.from(1, Frame::tcp(ca, cb, SYN, b""));
        w.from(1, Frame::tcp(ca, cb, ACK, b"")).outcome.context.cb[4]
    };
    // Every first packet is told of, which is part of its cost.
    // As on a host that adopts nobody.
    let features = abi::Features { count_lookups: 0, adopts: 0, ..all_features() };
    let w = World::with_limits(features, &dp::MapLimits::default());
    let a = w.container(1);
    let (ca, cb) = (a.ip(v6), (container(2).ip(v6), 80));
    let gate = abi::Gate {
        slot: 1,
        mac: abi::GATEWAY_MAC,
        has4: 1,
        has6: 1,
        address4: a.ip4.bytes().try_into().expect("IPv4"),
        address6: a.ip6.mapped(),
        event_rate: 100,
        ..abi::Gate::default()
    };
    let gate = dp::load_gate(&w.maps, &gate).expect("loads");
    let context = TestContext { ifindex: a.ifindex, ..Default::default() };
    let frame = |port, flags, payload: &[u8]| {
        Frame::tcp((ca, port), cb, flags, payload).with(|f| f.source_mac = abi::GATEWAY_MAC).bytes()
    };
    let run = |frame: &[u8], repeat| {
        dp::test_run(gate.ingress.as_fd(), frame, repeat, context).expect("runs").duration_ns
    };

    let samples = 8000;
    let mut first: Vec<u32> = (0..samples).map(|i| run(&frame(10_000 + i, SYN, b""), 1)).collect();
    first.sort_unstable();
    let mut single: Vec<u32> = (0..samples).map(|_| run(&frame(10_000, ACK, b"x"), 1)).collect();
    single.sort_unstable();
    // Runs shorter than a tick of the scheduler, and the best of many: a busy machine
    // would be measured otherwise.
    let established = (0..200).map(|_| run(&frame(10_000, ACK, b"x"), 10_000)).min();
    Costs {
        established_ns: established.unwrap_or_default(),
        established_lookups: lookups,
        first_ns: first[first.len() / 2],
        first_samples: first.len(),
        single_ns: single[single.len() / 2],
    }
}

/// Mean time to load the two gates of an endpoint.
pub fn gates() -> Duration {
    let maps = Maps::create(&dp::MapLimits::default()).expect("maps");
    let start = Instant::now();
    let pairs: Vec<_> = (1..=200)
        .map(|slot| dp::load_gate(&maps, &abi::Gate { slot, ..Default::default() }).expect("loads"))
        .collect();
    start.elapsed() / pairs.len() as u32
}

/// What 200 policy tables cost: to make ahead, to fill, and to refer to.
pub fn policies() {
    let maps = Maps::create(&dp::MapLimits::default()).expect("maps");
    let numbers: Vec<u32> = (1..=200).collect();
    let start = Instant::now();
    maps.make_tables(dp::TableKind::Policy, &numbers).expect("made");
    println!("make 200 policy tables: {:?}, a grace period among it", start.elapsed());
    let entries = default_entries(true, true);
    let start = Instant::now();
    for number in &numbers {
        maps.fill_policy_table(*number, &entries).expect("filled");
    }
    println!("fill a policy table: {:?}", start.elapsed() / 200);
    let batch: Vec<_> = numbers.iter().map(|n| (abi::policy_index(*n, 0), *n)).collect();
    let start = Instant::now();
    maps.set_policies(&batch).expect("set");
    println!("refer to 200 policy tables: {:?}", start.elapsed());
}
