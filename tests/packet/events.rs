//! How many events may be told: each kind has a budget, per CPU.

use std::os::fd::AsFd;
use std::time::Instant;

use porin::kernel::datapath::{self as dp, TestContext, abi};

use crate::frame::{Frame, SYN};
use crate::world::{IN, Move::*, SHOT, World, all_features, container, default_entries};

/// Events that were told of `seconds`, if so many may be per second and a bucket was full.
fn at_most(rate: u64, since: Instant) -> u64 {
    rate * (since.elapsed().as_secs() + 2)
}

fn stay_on_this_cpu() {
    let mut cpus = rustix::thread::CpuSet::new();
    cpus.set(rustix::thread::sched_getcpu());
    rustix::thread::sched_setaffinity(None, &cpus).expect("pinned");
}

/// Gates have the fine clock, variants the coarse one, which is behind it.
#[test]
fn two_clocks_fill_one_bucket() {
    stay_on_this_cpu();
    let mut w = World::with_features(abi::Features { event_rate: 1, ..all_features() });
    w.policy(1, &default_entries(false, true));
    let (a, b) = (w.container(1), container(2));
    let gate = abi::Gate { slot: 1, mac: a.mac, event_rate: 1, ..Default::default() };
    let strict = dp::load_gate(&w.maps, &gate).expect("loads");
    let frame = Frame::udp((a.ip6, 1), (b.ip6, 2), b"").with(|f| f.source_mac = a.mac).bytes();
    let context = TestContext { ifindex: a.ifindex, ..Default::default() };
    let start = Instant::now();
    for _ in 0..500 {
        for gate in [&strict, w.gate(1)] {
            let run = dp::test_run(gate.ingress.as_fd(), &frame, 1, context).expect("runs");
            assert_eq!(run.retval, SHOT);
        }
    }
    let told = w.send(1, IN, &frame).events.len() as u64;
    assert!(told <= at_most(1, start), "{told} of 1001");
    assert!(w.maps.suppressed_events().expect("budgets") >= 1001 - told);
}

/// Flows have a limit of their own: a scan of ports does not hide a denial.
#[test]
fn flows_do_not_crowd_out_denials() {
    stay_on_this_cpu();
    let mut w = World::with_features(abi::Features { event_rate: 2, ..all_features() });
    let (a, b) = (w.container(1), container(2));
    let context = TestContext { ifindex: a.ifindex, ..Default::default() };
    let start = Instant::now();
    for port in 1..=500 {
        let frame = Frame::tcp((a.ip6, 40000), (b.ip6, port), SYN, b"");
        let frame = frame.with(|f| f.source_mac = a.mac).bytes();
        dp::test_run(w.gate(1).ingress.as_fd(), &frame, 1, context).expect("runs");
    }
    w.policy(1, &default_entries(false, true));
    let shot = w.from(1, Frame::tcp((a.ip6, 40000), (b.ip6, 999), SYN, b""));
    assert!(shot.moves.contains(&Denied(901, 0)), "{:?}", shot.outcome.retval);
    let told = shot.events.len() as u64 - 1;
    assert!((20..=at_most(20, start)).contains(&told), "{told} of 500");
    assert_eq!(w.maps.suppressed_events().expect("budgets"), 500 - told);
}
