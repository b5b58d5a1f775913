//! ICMP errors about flows, tracked and not, translated and not.

use crate::frame::{Frame, Ip, SYN, assert_checksums, ip};
use crate::world::{IN, Move::*, NAT, NEXT, OUT, PASS, REDIRECT, UPLINK, World, default_entries};

/// An error of the right family about `quoted`, cut to `keep` bytes.
pub fn error(from: Ip, to: Ip, too_big: bool, quoted: &Frame, keep: usize) -> Frame {
    let (ty, code) = match (from.is4(), too_big) {
        (true, false) => (3, 3),
        (true, true) => (3, 4),
        (false, false) => (1, 4),
        (false, true) => (2, 0),
    };
    let l3 = quoted.l3();
    Frame::icmp(from, to, ty, code, [0, 0, 5, 0], &l3[..keep.min(l3.len())])
}

#[test]
fn between_containers() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    for v6 in [false, true] {
        let (ca, cb) = ((a.ip(v6), 5000), (b.ip(v6), 53));
        let sent = Frame::udp(ca, cb, b"question");
        let unreachable = error(cb.0, ca.0, false, &sent, 28 + 40);
        w.from(2, unreachable.clone()).dropped(2, IN, "untracked-error");
        let moved = if v6 { Flow6(1) } else { Flow4(1) };
        w.from(1, sent.clone()).delivered(&b, &[Traffic(1, IN), moved, Allowed(0, 0)]);
        let shot = w.from(2, unreachable.clone()).delivered(&a, &[Traffic(2, IN)]);
        assert_eq!(shot.l3(), unreachable.l3());
        // Cut after the ports, which is the least that RFC 792 asks for.
        let header = if v6 { 40 } else { 20 };
        w.from(2, error(cb.0, ca.0, false, &sent, header + 8)).delivered(&a, &[Traffic(2, IN)]);
        w.from(2, error(cb.0, ca.0, false, &sent, header + 3)).dropped(2, IN, "untracked-error");
        // A third party knows nothing of it, and the wrong end has sent nothing.
        let c = w.container(3);
        w.from(3, error(c.ip(v6), ca.0, false, &sent, 68)).dropped(3, IN, "untracked-error");
        w.from(1, error(ca.0, cb.0, false, &sent, 68)).dropped(1, IN, "untracked-error");
        // The host's stack tells of a path; of nothing else it knows.
        let host = if v6 { ip("fd01::1") } else { ip(NAT) };
        let out = Frame::udp(ca, (host, 7), b"");
        w.from(1, out.clone())
            .is(PASS, &[Traffic(1, IN), if v6 { Flow6(1) } else { Flow4(1) }, Allowed(0, 0)]);
        w.to(1, error(host, ca.0, true, &out, 68)).is(PASS, &[Traffic(1, OUT)]);
        w.to(1, error(host, ca.0, true, &Frame::udp(ca, (host, 8), b""), 68)).dropped(
            1,
            OUT,
            "untracked-error",
        );
        w.to(1, error(cb.0, ca.0, true, &sent, 68)).dropped(1, OUT, "spoofed-address");
    }
}

#[test]
fn only_too_big_outlives_permission() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    for v6 in [false, true] {
        w.policy(1, &default_entries(true, true));
        let g = w.maps.generation();
        let (ca, cb) = ((a.ip(v6), 5000), (b.ip(v6), 53));
        let sent = Frame::udp(ca, cb, b"question");
        let moved = if v6 { Flow6(1) } else { Flow4(1) };
        w.from(1, sent.clone()).delivered(&b, &[Traffic(1, IN), moved, Allowed(0, 0)]);
        w.policy(1, &default_entries(false, true));
        w.maps.commit(g + 1);
        w.from(2, error(cb.0, ca.0, false, &sent, 68)).dropped(2, IN, "untracked-error");
        w.from(2, error(cb.0, ca.0, true, &sent, 68)).delivered(&a, &[Traffic(2, IN)]);
    }
}

#[test]
fn from_outside_and_translated() {
    let mut w = World::new();
    let a = w.container(1);
    let (ca, r, router) = ((a.ip4, 40000), (ip("198.51.100.7"), 443), ip("203.0.113.1"));
    for udp in [true, false] {
        let make =
            |s, d| if udp { Frame::udp(s, d, b"payload") } else { Frame::tcp(s, d, SYN, b"") };
        let moved = [Traffic(1, IN), Flow4(1), Nat(1), Allowed(0, 0)];
        w.from(1, make(ca, r)).is(REDIRECT, &moved);
        let flow = w.maps.flows4().expect("flows");
        let flow = flow.iter().find(|f| f.0.protocol == if udp { 17 } else { 6 }).expect("ours").1;
        let n = (ip(NAT), u16::from_be(flow.nat_port));
        let outside = make(n, r).with(|f| f.hop_limit = 63);
        let inside = make(ca, r).with(|f| f.hop_limit = 63);
        for keep in [28, 40, 100] {
            let shot = w
                .uplink_in(error(router, n.0, false, &outside, keep))
                .delivered(&a, &[Traffic(UPLINK, IN)]);
            assert_checksums(shot.l3());
            let want = error(router, a.ip4, false, &inside, keep).with(|f| f.hop_limit = 63);
            assert_eq!(shot.l3(), want.l3(), "udp {udp}, {keep} bytes quoted");
        }
        // About no flow of ours: the host's.
        let other = make((n.0, 2), r);
        w.uplink_in(error(router, n.0, false, &other, 28)).is(NEXT, &[]);
        // A remote's answer that the endpoint has no use for.
        let answer_outside = make(r, n);
        let answer_inside = make(r, ca);
        let shot = w
            .from(1, error(a.ip4, r.0, false, &answer_inside, 100))
            .is(REDIRECT, &[Traffic(1, IN)]);
        assert_checksums(shot.l3());
        let want = error(n.0, r.0, false, &answer_outside, 100).with(|f| f.hop_limit = 63);
        assert_eq!(shot.l3(), want.l3(), "udp {udp}");
    }
    // An echo's error.
    w.from(1, Frame::echo(a.ip4, r.0, 9, false))
        .is(REDIRECT, &[Traffic(1, IN), Flow4(1), Nat(1), Allowed(0, 0)]);
    let flow = w.maps.flows4().expect("flows");
    let flow = flow.iter().find(|f| f.0.protocol == 1).expect("ours").1;
    let id = u16::from_be(flow.nat_port);
    let shot = w
        .uplink_in(error(router, ip(NAT), false, &Frame::echo(ip(NAT), r.0, id, false), 100))
        .delivered(&a, &[Traffic(UPLINK, IN)]);
    let want = error(router, a.ip4, false, &Frame::echo(a.ip4, r.0, 9, false), 100)
        .with(|f| f.hop_limit = 63);
    assert_eq!(shot.l3(), want.l3());
    assert_checksums(shot.l3());
}

#[test]
fn from_outside_v6() {
    let mut w = World::new();
    let a = w.container(1);
    let (ca, r, router) = ((a.ip6, 40000), (ip("2001:db8::7"), 443), ip("2001:db8::1"));
    let sent = Frame::tcp(ca, r, SYN, b"");
    let too_big = error(router, a.ip6, true, &sent, 500);
    w.uplink_in(too_big.clone()).dropped(UPLINK, IN, "untracked-error");
    w.from(1, sent).is(REDIRECT, &[Traffic(1, IN), Flow6(1), Allowed(0, 0)]);
    let shot = w.uplink_in(too_big.clone()).delivered(&a, &[Traffic(UPLINK, IN)]);
    assert_eq!(shot.l3(), too_big.with(|f| f.hop_limit = 63).l3());
    // An outsider does not speak of flows between containers.
    let b = w.container(2);
    let near = Frame::udp((a.ip6, 1), (b.ip6, 2), b"");
    w.from(1, near.clone()).delivered(&b, &[Traffic(1, IN), Flow6(1), Allowed(0, 0)]);
    w.uplink_in(error(router, a.ip6, true, &near, 500)).dropped(UPLINK, IN, "untracked-error");
    // Nor does one with an address of ours.
    let sent = Frame::tcp(ca, r, SYN, b"");
    w.uplink_in(error(b.ip6, a.ip6, true, &sent, 500)).dropped(UPLINK, IN, "spoofed-address");
}
