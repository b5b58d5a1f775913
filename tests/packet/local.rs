//! Between two containers of the host.

use crate::frame::{ACK, FIN, Frame, Ip, RST, SYN, TCP, ip};
use crate::world::{IN, Move::*, OUT, SHOT, World, container, default_entries, entry};
use porin::kernel::datapath::abi::{EGRESS, INGRESS};

fn flow(v6: bool, n: i64) -> crate::world::Move {
    if v6 { Flow6(n) } else { Flow4(n) }
}

/// A connection's life: handshake, data, close.
fn connection(v6: bool) {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    let (ca, cb) = ((a.ip(v6), 40000), (b.ip(v6), 80));

    w.from(1, Frame::tcp(ca, cb, SYN, b""))
        .delivered(&b, &[Traffic(1, IN), flow(v6, 1), Allowed(0, 0)]);
    w.from(2, Frame::tcp(cb, ca, SYN | ACK, b"")).delivered(&a, &[Traffic(2, IN)]);
    w.from(1, Frame::tcp(ca, cb, ACK, b"")).delivered(&b, &[Traffic(1, IN)]);
    let shot = w.from(1, Frame::tcp(ca, cb, ACK, b"GET /")).delivered(&b, &[Traffic(1, IN)]);
    let sent = Frame::tcp(ca, cb, ACK, b"GET /").l3();
    assert_eq!(shot.l3(), sent, "nothing but the MACs changed");
    w.from(2, Frame::tcp(cb, ca, ACK, b"200 OK")).delivered(&a, &[Traffic(2, IN)]);
    w.from(1, Frame::tcp(ca, cb, FIN | ACK, b"")).delivered(&b, &[Traffic(1, IN)]);
    w.from(2, Frame::tcp(cb, ca, FIN | ACK, b"")).delivered(&a, &[Traffic(2, IN)]);
    w.from(1, Frame::tcp(ca, cb, ACK, b"")).delivered(&b, &[Traffic(1, IN)]);

    let f = if v6 { w.flow6() } else { w.flow4() };
    assert_eq!(f.packets, [5, 3]);
    assert_eq!(f.identity, [a.identity, b.identity]);
    assert_eq!(f.flags & 0x370, 0x370, "SYN, SYN-ACK, established, both FINs");
    // A SYN upon the closed entry is a new flow in the same place.
    w.from(1, Frame::tcp(ca, cb, SYN, b"")).delivered(&b, &[Traffic(1, IN), Allowed(0, 0)]);
}

#[test]
fn connection_v4() {
    connection(false);
}

#[test]
fn connection_v6() {
    connection(true);
}

#[test]
fn denied_by_either_end() {
    let mut w = World::new();
    let (a, b) = (container(1), container(2));
    for v6 in [false, true] {
        let syn = Frame::tcp((a.ip(v6), 40000), (b.ip(v6), 80), SYN, b"");

        let mut entries = default_entries(true, true);
        entries.push(entry(b.identity, EGRESS, Some((TCP, Some((80, 16)))), 5, 77, false));
        w.policy(1, &entries);
        let shot = w.from(1, syn.clone()).is(SHOT, &[Drop(1, IN, "policy-egress"), Denied(77, 0)]);
        let e = shot.events[0];
        assert_eq!((e.source_peer, e.destination_peer), (a.identity, b.identity));
        assert_eq!((u16::from_be(e.source_port), u16::from_be(e.destination_port)), (40000, 80));
        assert_eq!((e.source, e.destination), (a.ip(v6).mapped(), b.ip(v6).mapped()));
        assert_eq!((e.slot, e.hook, e.generation), (1, IN, 2));

        w.policy(1, &default_entries(true, true));
        let mut entries = default_entries(true, true);
        entries.push(entry(a.identity, INGRESS, None, 5, 88, false));
        w.policy(2, &entries);
        w.from(1, syn.clone()).is(SHOT, &[Drop(1, IN, "policy-ingress"), Denied(0, 88)]);
        w.policy(2, &default_entries(true, true));
    }
}

#[test]
fn default_deny_and_port_prefixes() {
    let mut w = World::new();
    let (a, b) = (container(1), w.container(2));
    let mut entries = default_entries(true, false);
    // 8000/13: 8000 to 8007; and 8004 not.
    entries.push(entry(a.identity, INGRESS, Some((TCP, Some((8000, 13)))), 5, 41, true));
    entries.push(entry(a.identity, INGRESS, Some((TCP, Some((8004, 16)))), 6, 42, false));
    // Anyone, by a rule of higher precedence than any of a peer's own.
    entries.push(entry(0, INGRESS, Some((TCP, Some((8005, 16)))), 9, 43, false));
    w.policy(2, &entries);
    let mut syn = |port| w.from(1, Frame::tcp((a.ip6, 40000), (b.ip6, port), SYN, b""));

    syn(80).is(SHOT, &[Drop(1, IN, "policy-ingress"), Denied(0, 902)]);
    syn(7999).is(SHOT, &[Drop(1, IN, "policy-ingress"), Denied(0, 902)]);
    syn(8008).is(SHOT, &[Drop(1, IN, "policy-ingress"), Denied(0, 902)]);
    syn(8004).is(SHOT, &[Drop(1, IN, "policy-ingress"), Denied(0, 42)]);
    syn(8005).is(SHOT, &[Drop(1, IN, "policy-ingress"), Denied(0, 43)]);
    syn(8000).delivered(&b, &[Traffic(1, IN), Flow6(1), Allowed(0, 41)]);
    syn(8007).delivered(&b, &[Traffic(1, IN), Flow6(1), Allowed(0, 41)]);
    let udp = Frame::udp((a.ip6, 40000), (b.ip6, 8000), b"?");
    w.from(1, udp).is(SHOT, &[Drop(1, IN, "policy-ingress"), Denied(0, 902)]);
    // Replies need no permission of their own.
    w.policy(1, &default_entries(true, false));
    let reply = Frame::tcp((b.ip6, 8000), (a.ip6, 40000), SYN | ACK, b"");
    w.from(2, reply).delivered(&a_with(&w), &[Traffic(2, IN)]);
}

fn a_with(w: &World) -> crate::world::Container {
    w.container(1)
}

#[test]
fn udp_and_echo() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    for v6 in [false, true] {
        let (ca, cb) = ((a.ip(v6), 5000), (b.ip(v6), 53));
        w.from(1, Frame::udp(ca, cb, b"q"))
            .delivered(&b, &[Traffic(1, IN), flow(v6, 1), Allowed(0, 0)]);
        w.from(2, Frame::udp(cb, ca, b"r")).delivered(&a, &[Traffic(2, IN)]);
        w.from(1, Frame::echo(ca.0, cb.0, 7, false))
            .delivered(&b, &[Traffic(1, IN), flow(v6, 1), Allowed(0, 0)]);
        w.from(2, Frame::echo(cb.0, ca.0, 7, true)).delivered(&a, &[Traffic(2, IN)]);
        // An answer that nobody asked for.
        w.from(2, Frame::echo(cb.0, ca.0, 8, true)).dropped(2, IN, "invalid-state");

        // A request the other way is no reply, even with the same identifier.
        let (icmp, ty) = if v6 { (58, 128) } else { (1, 8) };
        let mut entries = default_entries(true, true);
        entries.push(entry(0, INGRESS, Some((icmp, Some((ty << 8, 16)))), 5, 66, false));
        w.policy(1, &entries);
        w.from(2, Frame::echo(cb.0, ca.0, 7, false))
            .is(SHOT, &[Drop(2, IN, "policy-ingress"), Denied(0, 66)]);
        w.policy(1, &default_entries(true, true));
    }
}

#[test]
fn segments_that_fit_no_flow() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    let (ca, cb) = ((a.ip6, 40000), (b.ip6, 80));
    for flags in [SYN | ACK, RST, RST | ACK, 0, FIN, SYN | FIN, SYN | RST] {
        w.from(1, Frame::tcp(ca, cb, flags, b"")).dropped(1, IN, "invalid-state");
    }
    // Picked up in mid-stream.
    w.from(1, Frame::tcp(ca, cb, ACK, b"x"))
        .delivered(&b, &[Traffic(1, IN), Flow6(1), Allowed(0, 0)]);
    assert_eq!(w.flow6().flags & 0x40, 0, "nobody has answered yet");
    // Absurd flags do not pass on an entry's permission.
    w.from(1, Frame::tcp(ca, cb, 0, b"")).dropped(1, IN, "invalid-state");
    // A SYN back is no reply.
    w.policy(1, &default_entries(true, false));
    w.from(2, Frame::tcp(cb, ca, SYN, b""))
        .is(SHOT, &[Drop(2, IN, "policy-ingress"), Denied(0, 902)]);
    w.from(2, Frame::tcp(cb, ca, ACK, b"")).delivered(&a, &[Traffic(2, IN)]);
    w.policy(1, &default_entries(true, true));
    w.from(2, Frame::tcp(cb, ca, SYN, b"")).delivered(&a, &[Traffic(2, IN), Allowed(0, 0)]);
    assert_eq!(w.flow6().identity, [b.identity, a.identity], "turned round");
}

#[test]
fn gate_refuses() {
    let mut w = World::new();
    let (a, b) = (container(1), container(2));
    for v6 in [false, true] {
        let udp = Frame::udp((a.ip(v6), 1), (b.ip(v6), 2), b"");
        let spoofed = udp.clone().with(|f| f.source_mac = b.mac).bytes();
        w.send(1, IN, &spoofed).dropped(1, IN, "spoofed-mac");
        let spoofed = Frame::udp((b.ip(v6), 1), (a.ip(v6), 2), b"");
        w.from(1, spoofed).dropped(1, IN, "spoofed-address");
        let link = if v6 { ip("fe80::1") } else { ip("169.254.0.1") };
        w.from(1, Frame::udp((link, 1), (b.ip(v6), 2), b"")).dropped(1, IN, "link-local");
        w.from(1, Frame::udp((a.ip(v6), 1), (link, 2), b"")).dropped(1, IN, "link-local");
        // To itself.
        w.from(1, Frame::udp((a.ip(v6), 1), (a.ip(v6), 2), b"")).dropped(1, IN, "malformed");
    }
    let group = [(a.ip4, "224.0.0.251"), (a.ip6, "ff02::fb"), (ip("::"), "ff02::16")];
    for (from, to) in group {
        w.from(1, Frame::udp((from, 1), (ip(to), 2), b"")).ignored(1, IN, "link-local");
    }
    for to in ["255.255.255.255", "127.0.0.1", "0.0.0.0", "240.0.0.1"] {
        w.from(1, Frame::udp((a.ip4, 1), (ip(to), 2), b"")).dropped(1, IN, "link-local");
    }
    let mapped = Ip::V6("::ffff:10.0.0.2".parse().expect("an address"));
    for to in [ip("::1"), ip("::"), mapped] {
        w.from(1, Frame::udp((a.ip6, 1), (to, 2), b"")).dropped(1, IN, "link-local");
    }
    let mut arp = [[0xff; 6], a.mac].concat();
    arp.extend([0x08, 0x06]);
    arp.extend([0; 28]);
    w.send(1, IN, &arp).dropped(1, IN, "not-ip");
    // An address of the pool that nobody has.
    let nobody = Frame::udp((a.ip4, 1), (ip("10.0.0.77"), 2), b"");
    w.from(1, nobody).dropped(1, IN, "no-endpoint");
}

#[test]
fn not_ready() {
    let mut w = World::new();
    let (a, b) = (container(1), container(2));
    let udp = Frame::udp((a.ip6, 1), (b.ip6, 2), b"");
    w.maps.commit(0);
    w.from(1, udp.clone()).dropped(1, IN, "not-ready");
    w.to(1, udp.clone()).dropped(1, OUT, "not-ready");
    w.maps.commit(2);
    w.maps.clear_program(porin::kernel::datapath::abi::program_index(1, IN, 0)).expect("cleared");
    w.from(1, udp).dropped(1, IN, "not-ready");
    let udp = Frame::udp((b.ip6, 1), (a.ip6, 2), b"");
    let index = porin::kernel::datapath::abi::policy_index(1, 0);
    w.maps.set_policies(&[(index, 0)]).expect("cleared");
    w.from(2, udp).dropped(2, IN, "no-policy");
}

/// The other family's ICMP is no echo to policy, nor are later fragments of an error.
#[test]
fn foreign_icmp_is_no_echo() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    let mut entries = default_entries(true, false);
    for (icmp, ty) in [(1, 8), (58, 128)] {
        entries.push(entry(0, INGRESS, Some((icmp, Some((ty << 8, 16)))), 5, 66, true));
    }
    w.policy(2, &entries);
    for v6 in [false, true] {
        w.from(1, Frame::echo(a.ip(v6), b.ip(v6), 7, false))
            .delivered(&b, &[Traffic(1, IN), flow(v6, 1), Allowed(0, 66)]);
        let foreign = Frame::new(a.ip(v6), b.ip(v6), if v6 { 1 } else { 58 }, vec![0; 32]);
        w.from(1, foreign).is(SHOT, &[Drop(1, IN, "policy-ingress"), Denied(0, 902)]);
    }
}
