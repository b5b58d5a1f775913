//! Fragments, in order and out of it, near and far.

use crate::frame::{Frame, ip};
use crate::world::{Container, IN, Move::*, NAT, REDIRECT, SHOT, UPLINK, World, default_entries};

/// A datagram of 24 bytes of payload in two fragments, the second at 16.
fn halves(whole: &Frame) -> (Frame, Frame) {
    let split = |range: std::ops::Range<usize>, at, more| {
        whole.clone().with(|f| {
            f.l4 = f.l4[range].to_vec();
            f.fragment = Some((at, more));
        })
    };
    (split(0..16, 0, true), split(16..32, 16, false))
}

fn near(a: &Container, b: &Container, v6: bool) -> Frame {
    Frame::udp((a.ip(v6), 5000), (b.ip(v6), 53), &[7; 24])
}

#[test]
fn in_order_and_out_of_order() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    for v6 in [false, true] {
        let moved = if v6 { Flow6(1) } else { Flow4(1) };
        let (first, later) = halves(&near(&a, &b, v6));
        w.from(1, later.clone()).dropped(1, IN, "fragment-unknown");
        w.from(1, first).delivered(&b, &[Traffic(1, IN), moved, Fragment(1), Allowed(0, 0)]);
        let shot = w.from(1, later.clone()).delivered(&b, &[Traffic(1, IN)]);
        assert_eq!(shot.l3(), later.l3());
        // Of another datagram.
        w.from(1, later.with(|f| f.id += 1)).dropped(1, IN, "fragment-unknown");
    }
    // A fragment that would overwrite TCP's flags.
    let overlap =
        Frame::tcp((a.ip4, 1), (b.ip4, 2), 0x10, &[0; 20]).with(|f| f.fragment = Some((8, false)));
    w.from(1, overlap).dropped(1, IN, "malformed");
    // One fragment that is the whole (RFC 6946).
    let atomic = near(&a, &b, true).with(|f| f.fragment = Some((0, false)));
    w.from(1, atomic).delivered(&b, &[Traffic(1, IN)]);
}

#[test]
fn masqueraded() {
    let mut w = World::new();
    let a = w.container(1);
    let (ca, r) = ((a.ip4, 40000), (ip("198.51.100.7"), 443));
    let payload = [9; 24];
    let (first, later) = halves(&Frame::udp(ca, r, &payload));
    let moved = [Traffic(1, IN), Flow4(1), Nat(1), Fragment(1), Allowed(0, 0)];
    let shot = w.from(1, first).is(REDIRECT, &moved);
    let n = (ip(NAT), u16::from_be(w.flow4().nat_port));
    let out = halves(&Frame::udp(n, r, &payload).with(|f| f.hop_limit = 63));
    assert_eq!(shot.l3(), out.0.l3());
    let shot = w.from(1, later).is(REDIRECT, &[Traffic(1, IN)]);
    assert_eq!(shot.l3(), out.1.l3());

    let back = halves(&Frame::udp(r, n, &payload));
    let inside = halves(&Frame::udp(r, ca, &payload).with(|f| f.hop_limit = 63));
    w.uplink_in(back.1.clone()).is(crate::world::NEXT, &[]);
    let shot = w.uplink_in(back.0).delivered(&a, &[Traffic(UPLINK, IN), Fragment(1)]);
    assert_eq!(shot.l3(), inside.0.l3());
    let shot = w.uplink_in(back.1).delivered(&a, &[Traffic(UPLINK, IN)]);
    assert_eq!(shot.l3(), inside.1.l3());
}

#[test]
fn denied_fragments_are_not_noted() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    let (first, later) = halves(&near(&a, &b, true));
    w.policy(1, &default_entries(false, true));
    w.from(1, first).is(SHOT, &[Drop(1, IN, "policy-egress"), Denied(901, 0)]);
    w.from(1, later).dropped(1, IN, "fragment-unknown");
    w.policy(2, &default_entries(true, false));
    let outside = Frame::udp((ip("2001:db8::7"), 1), (b.ip6, 53), &[7; 24]);
    let denied = [Drop(UPLINK, IN, "policy-ingress"), Denied(0, 902)];
    w.uplink_in(halves(&outside).0).is(SHOT, &denied);
    // A later fragment of an ICMP error is no echo, nor anything else.
    let error = Frame::icmp(a.ip6, b.ip6, 1, 4, [0; 4], &[0; 24]);
    w.from(1, halves(&error).0).dropped(1, IN, "untracked-error");
    w.from(1, halves(&error).1).dropped(1, IN, "fragment-unknown");
}
