//! What is denied out loud: resets and ICMP errors, byte by byte, and how they get past the gates.

use std::os::fd::AsFd;
use std::time::Instant;

use porin::kernel::datapath::{TestContext, abi};

use crate::frame::{ACK, FIN, Frame, Ip, RST, SYN, TCP, assert_checksums, ip};
use crate::outside::assert_answer;
use crate::world::{
    Entry, IN, Move::*, NAT, NEXT, OUT, PASS, REDIRECT, SHOT, Shot, UPLINK, UPLINK_MAC, World,
    all_features, default_entries, rejecting,
};

/// Rejects all in one direction, by the same cookies as `default_entries`.
fn rejects(egress: bool, ingress: bool) -> Vec<Entry> {
    let entries = default_entries(egress, ingress).into_iter();
    let deny = |entry: &Entry| entry.1.verdict == abi::VERDICT_DENY;
    entries.map(|entry| if deny(&entry) { rejecting(entry) } else { entry }).collect()
}

fn flow(v6: bool) -> crate::world::Move {
    if v6 { Flow6(1) } else { Flow4(1) }
}

/// What was told was a rejection; the frame goes back to `mac`.
#[track_caller]
fn answered(shot: &Shot, mac: &[u8; 6]) {
    assert_eq!(shot.events.len(), 1);
    assert_eq!(shot.events[0].verdict, abi::VERDICT_REJECT);
    assert_eq!(shot.events[0].r#type, abi::EVENT_DENY);
    assert_eq!(shot.outcome.data[..6], *mac);
    assert_checksums(shot.l3());
}

fn unreachable(v6: bool) -> (u8, u8) {
    if v6 { (1, 1) } else { (3, 13) }
}

#[test]
fn a_container_is_answered_by_the_address_that_it_tried() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    for (egress, cookies) in [(true, (901, 0)), (false, (0, 902))] {
        w.policy(1, &rejects(!egress, true));
        w.policy(2, &rejects(true, egress));
        let reason = if egress { "policy-egress" } else { "policy-ingress" };
        let moves = [Drop(1, IN, reason), Denied(cookies.0, cookies.1)];
        for v6 in [false, true] {
            let (ca, cb) = ((a.ip(v6), 40000), (b.ip(v6), 80));
            // RFC 9293 section 3.10.7.1: what has no ACK is acknowledged, with its payload and SYN.
            for (payload, ack) in [(&b""[..], 2), (b"early", 7)] {
                let shot = w.from(1, Frame::tcp(ca, cb, SYN, payload)).is(REDIRECT, &moves);
                answered(&shot, &a.mac);
                assert_eq!(shot.outcome.data[6..12], abi::GATEWAY_MAC);
                assert_eq!(shot.l3(), Frame::reset(cb, ca, 0, Some(ack)).l3());
            }
            // What has one is answered from where it says the answer should begin.
            for flags in [ACK, ACK | FIN] {
                let shot = w.from(1, Frame::tcp(ca, cb, flags, b"data")).is(REDIRECT, &moves);
                assert_eq!(shot.l3(), Frame::reset(cb, ca, 2, None).l3());
            }
            let (ty, code) = unreachable(v6);
            let datagram = Frame::udp(ca, cb, &[7; 900]);
            let shot = w.from(1, datagram.clone()).is(REDIRECT, &moves);
            answered(&shot, &a.mac);
            assert_answer(&shot, (&a.mac, ca.0), cb.0, ty, code, 0, &datagram.l3());
            let echo = Frame::echo(ca.0, cb.0, 9, false);
            let shot = w.from(1, echo.clone()).is(REDIRECT, &moves);
            assert_answer(&shot, (&a.mac, ca.0), cb.0, ty, code, 0, &echo.l3());
        }
    }
}

#[test]
fn options_and_joined_segments() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    w.policy(1, &rejects(false, true));
    let moves = [Drop(1, IN, "policy-egress"), Denied(901, 0)];
    let (ca, cb) = ((a.ip4, 40000), (b.ip4, 80));
    let optional = Frame::tcp(ca, cb, SYN, b"").with(|f| f.options = vec![1; 8]);
    let shot = w.from(1, optional).is(REDIRECT, &moves);
    assert_eq!(shot.l3(), Frame::reset(cb, ca, 0, Some(2)).l3());
    let (ca, cb) = ((a.ip6, 40000), (b.ip6, 80));
    let optional = Frame::tcp(ca, cb, SYN, b"").with(|f| f.extensions = vec![(60, vec![0; 7])]);
    let shot = w.from(1, optional).is(REDIRECT, &moves);
    assert_eq!(shot.l3(), Frame::reset(cb, ca, 0, Some(2)).l3());
    let joined = Frame::tcp(ca, cb, ACK, &[0; 3000]).with(|f| f.source_mac = a.mac).bytes();
    let context = TestContext { gso_size: 1400, gso_segs: 3, ..Default::default() };
    let shot = w.send_with(1, IN, &joined, context).is(REDIRECT, &moves);
    assert_eq!(shot.l3(), Frame::reset(cb, ca, 2, None).l3());
    assert_eq!(shot.outcome.context.gso_segs, 0, "not joined any more");
}

#[test]
fn what_must_not_be_answered_is_dropped() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    for v6 in [false, true] {
        w.policy(1, &default_entries(true, true));
        let generation = w.maps.generation();
        let (ca, cb) = ((a.ip(v6), 40000), (b.ip(v6), 80));
        w.from(1, Frame::tcp(ca, cb, SYN, b""))
            .delivered(&b, &[Traffic(1, IN), flow(v6), Allowed(0, 0)]);
        let datagram = Frame::udp(ca, cb, b"");
        w.from(1, datagram.clone()).delivered(&b, &[Traffic(1, IN), flow(v6), Allowed(0, 0)]);
        w.policy(1, &rejects(false, true));
        w.maps.commit(generation + 1);
        let moves = [Drop(1, IN, "policy-egress"), Denied(901, 0)];
        w.from(1, Frame::tcp(ca, cb, RST, b"")).is(SHOT, &moves);
        // Errors are judged by what they quote.
        let (ty, code) = unreachable(v6);
        let error = Frame::icmp(cb.0, ca.0, ty, code, [0; 4], &datagram.l3());
        w.from(2, error).dropped(2, IN, "untracked-error");
        // In a fragment a segment's length cannot be told; a datagram's first is answered.
        let first = Frame::tcp((ca.0, 1), cb, SYN, &[0; 12]).with(|f| f.fragment = Some((0, true)));
        w.from(1, first).is(SHOT, &moves);
        let first = Frame::udp((ca.0, 1), cb, &[0; 24]).with(|f| f.fragment = Some((0, true)));
        w.from(1, first).is(REDIRECT, &moves);
    }
    // Without the feature a rejection is a denial.
    let mut w = World::with_features(abi::Features { reject: 0, ..all_features() });
    w.policy(1, &rejects(false, true));
    let shot = w.from(1, Frame::tcp((a.ip4, 1), (b.ip4, 2), SYN, b""));
    shot.is(SHOT, &[Drop(1, IN, "policy-egress"), Denied(901, 0)]);
}

#[test]
fn errors_are_limited_resets_to_containers_are_not() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    w.policy(1, &rejects(false, true));
    let sent = |frame: Frame| frame.with(|f| f.source_mac = a.mac).bytes();
    let context = TestContext { ifindex: a.ifindex, ..Default::default() };
    let start = Instant::now();
    let datagrams = answers(&w, 1, &sent(Frame::udp((a.ip6, 1), (b.ip6, 2), b"")), context);
    let most = most_errors(start);
    assert!(datagrams as u64 <= most && datagrams > 0, "{datagrams} of at most {most}");
    let segments = sent(Frame::tcp((a.ip6, 1), (b.ip6, 2), SYN, b""));
    assert_eq!(answers(&w, 1, &segments, context), 20_000);
}

/// How many of 20,000 such frames are answered.
fn answers(w: &World, slot: u32, frame: &[u8], context: TestContext) -> usize {
    let gate = w.gate(slot).ingress.as_fd();
    let run = |_| porin::kernel::datapath::test_run(gate, frame, 1, context).expect("runs");
    (0..20_000).map(run).filter(|run| run.retval == REDIRECT).count()
}

/// How many the budgets of all CPUs allow since `start`.
fn most_errors(start: Instant) -> u64 {
    let cpus = std::thread::available_parallelism().expect("known").get() as u64;
    1000 * cpus * (start.elapsed().as_secs() + 2)
}

/// Whose address is in a segment from outside need not have sent it.
#[test]
fn resets_to_the_outside_are_limited() {
    let mut w = World::new();
    let a = w.container(1);
    w.policy(1, &rejects(true, false));
    let syn = Frame::tcp((ip("2001:db8::7"), 443), (a.ip6, 80), SYN, b"");
    let frame = syn.with(|f| f.destination_mac = UPLINK_MAC).bytes();
    let context = TestContext { ifindex: w.uplink_ifindex, ..Default::default() };
    let start = Instant::now();
    let resets = answers(&w, UPLINK, &frame, context);
    let most = most_errors(start);
    assert!(resets as u64 <= most && resets > 0, "{resets} of at most {most}");
}

/// The verdict is remembered: both ends of a flow that may no longer be are told, again and again.
#[test]
fn a_flow_that_loses_its_permission() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    for v6 in [false, true] {
        w.policy(2, &default_entries(true, true));
        let generation = w.maps.generation();
        let (ca, cb) = ((a.ip(v6), 40000), (b.ip(v6), 80));
        w.from(1, Frame::tcp(ca, cb, SYN, b""))
            .delivered(&b, &[Traffic(1, IN), flow(v6), Allowed(0, 0)]);
        w.policy(2, &rejects(true, false));
        w.maps.commit(generation + 1);
        for _ in 0..2 {
            let shot = w
                .from(2, Frame::tcp(cb, ca, SYN | ACK, b""))
                .is(REDIRECT, &[Drop(2, IN, "policy-ingress"), Denied(0, 902)]);
            answered(&shot, &b.mac);
            assert_eq!(shot.l3(), Frame::reset(ca, cb, 2, None).l3());
            let shot = w
                .from(1, Frame::tcp(ca, cb, ACK, b""))
                .is(REDIRECT, &[Drop(1, IN, "policy-ingress"), Denied(0, 902)]);
            answered(&shot, &a.mac);
        }
        let judged = if v6 { w.flow6().judged } else { w.flow4().judged };
        assert_eq!(abi::judged_verdict(judged), abi::VERDICT_REJECT);
        // As far as anyone else is concerned it is denied.
        w.policy(2, &default_entries(true, false));
        w.maps.commit(generation + 2);
        let shot = w.from(1, Frame::tcp(ca, cb, ACK, b""));
        let shot = shot.is(SHOT, &[Drop(1, IN, "policy-ingress"), Denied(0, 902)]);
        assert_eq!(shot.events[0].verdict, abi::VERDICT_DENY);
    }
}

/// The answer meets the gate of the interface that it came to, which lets it pass by its mark.
#[test]
fn the_host_and_the_world_are_answered_past_the_gates() {
    let mut w = World::new();
    let a = w.container(1);
    w.policy(1, &rejects(true, false));
    for v6 in [false, true] {
        let host = ((if v6 { ip("fd01::1") } else { ip(NAT) }), 5000);
        let far = (if v6 { ip("2001:db8::7") } else { ip("198.51.100.7") }, 443);
        let ca = (a.ip(v6), 80);
        let (ty, code) = unreachable(v6);

        let denied = [Drop(1, OUT, "policy-ingress"), Denied(0, 902)];
        let syn = Frame::tcp(host, ca, SYN, b"").with(|f| {
            (f.source_mac, f.destination_mac) = (abi::GATEWAY_MAC, a.mac);
        });
        let shot = w.to(1, syn).is(REDIRECT, &denied);
        answered(&shot, &abi::GATEWAY_MAC);
        assert_eq!(shot.outcome.data[6..12], a.mac);
        assert_eq!(shot.l3(), Frame::reset(ca, host, 0, Some(2)).l3());
        passes(&mut w, 1, IN, PASS, &shot);
        let datagram = Frame::udp(host, ca, b"?").with(|f| f.source_mac = abi::GATEWAY_MAC);
        let shot = w.to(1, datagram.clone()).is(REDIRECT, &denied);
        assert_answer(&shot, (&abi::GATEWAY_MAC, host.0), ca.0, ty, code, 0, &datagram.l3());
        passes(&mut w, 1, IN, PASS, &shot);

        let denied = [Drop(UPLINK, IN, "policy-ingress"), Denied(0, 902)];
        let router = [2, 0, 0, 0, 0, 0xfe];
        let syn = Frame::tcp(far, ca, SYN, b"").with(|f| f.source_mac = router);
        let shot = w.uplink_in(syn).is(REDIRECT, &denied);
        answered(&shot, &router);
        assert_eq!(shot.outcome.data[6..12], UPLINK_MAC);
        assert_eq!(shot.l3(), Frame::reset(ca, far, 0, Some(2)).l3());
        passes(&mut w, UPLINK, OUT, NEXT, &shot);
    }
}

/// With the mark, which is taken off; not without, nor with another.
#[track_caller]
fn passes(w: &mut World, slot: u32, hook: u32, action: u32, answer: &Shot) {
    let mark = answer.outcome.context.mark;
    assert_ne!(mark, 0);
    let frame = &answer.outcome.data;
    let with = |mark| TestContext { mark, ..Default::default() };
    let shot = w.send_with(slot, hook, frame, with(mark)).is(action, &[]);
    assert_eq!(shot.outcome.context.mark, 0);
    for mark in [0, mark ^ 2] {
        assert_eq!(w.send_with(slot, hook, frame, with(mark)).outcome.retval, SHOT);
    }
}

/// Who answers on a masqueraded flow that is no longer allowed hears it from the address that it knows.
#[test]
fn what_was_masqueraded_is_answered_as_it_was_on_the_wire() {
    let mut w = World::new();
    let a = w.container(1);
    let (ca, far) = ((a.ip4, 40000), (ip("198.51.100.7"), 443));
    w.from(1, Frame::tcp(ca, far, SYN, b""))
        .is(REDIRECT, &[Traffic(1, IN), Flow4(1), Nat(1), Allowed(0, 0)]);
    let nat: (Ip, u16) = (ip(NAT), u16::from_be(w.flow4().nat_port));
    w.policy(1, &rejects(false, true));
    w.maps.commit(3);
    let shot = w
        .uplink_in(Frame::tcp(far, nat, SYN | ACK, b""))
        .is(REDIRECT, &[Drop(UPLINK, IN, "policy-egress"), Denied(901, 0)]);
    assert_eq!(shot.l3(), Frame::reset(nat, far, 2, None).l3());
    passes_as_hosts_own(&mut w, &shot);
    let shot = w
        .from(1, Frame::tcp(ca, far, ACK, b""))
        .is(REDIRECT, &[Drop(1, IN, "policy-egress"), Denied(901, 0)]);
    assert_eq!(shot.l3(), Frame::reset(far, ca, 2, None).l3());
    assert_eq!(shot.l3()[9], TCP);
}

/// The address is the host's, so that it would pass without a mark too.
fn passes_as_hosts_own(w: &mut World, answer: &Shot) {
    let mark = answer.outcome.context.mark;
    let context = TestContext { mark, ..Default::default() };
    w.send_with(UPLINK, OUT, &answer.outcome.data, context).is(NEXT, &[]);
}
