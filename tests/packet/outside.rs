//! To and from the host, and the world beyond its uplink.

use crate::frame::{ACK, Frame, Ip, RST, SYN, assert_checksums, ip};
use crate::world::{
    HOST, IN, Move, Move::*, NAT, NEXT, OUT, PASS, REDIRECT, SHOT, Shot, UPLINK, World,
    default_entries, entry,
};
use porin::kernel::datapath::abi::{self, INGRESS};

const REMOTE4: &str = "198.51.100.7";
const REMOTE6: &str = "2001:db8::7";

fn remote(v6: bool) -> Ip {
    ip(if v6 { REMOTE6 } else { REMOTE4 })
}

fn flow(v6: bool) -> Move {
    if v6 { Flow6(1) } else { Flow4(1) }
}

#[test]
fn host_out_and_in() {
    let mut w = World::new();
    let a = w.container(1);
    for v6 in [false, true] {
        let host = (if v6 { ip("fd01::1") } else { ip(NAT) }, 22);
        let ca = (a.ip(v6), 40000);
        w.from(1, Frame::tcp(ca, host, SYN, b""))
            .is(PASS, &[Traffic(1, IN), flow(v6), Allowed(0, 0)]);
        w.to(1, Frame::tcp(host, ca, SYN | ACK, b"")).is(PASS, &[Traffic(1, OUT)]);
        w.from(1, Frame::tcp(ca, host, ACK, b"")).is(PASS, &[Traffic(1, IN)]);

        let mut entries = default_entries(true, true);
        entries.push(entry(HOST, INGRESS, None, 5, 55, false));
        w.policy(1, &entries);
        let from_host = Frame::udp((host.0, 1000), (a.ip(v6), 53), b"");
        w.to(1, from_host.clone()).is(SHOT, &[Drop(1, OUT, "policy-ingress"), Denied(0, 55)]);
        w.policy(1, &default_entries(true, true));
        w.to(1, from_host).is(PASS, &[Traffic(1, OUT), flow(v6), Allowed(0, 0)]);
        let reply = Frame::udp((a.ip(v6), 53), (host.0, 1000), b"");
        w.from(1, reply).is(PASS, &[Traffic(1, IN)]);
        // The host does not send in another endpoint's name.
        let b = w.container(2);
        w.to(1, Frame::udp((b.ip(v6), 1), (a.ip(v6), 2), b"")).dropped(1, OUT, "spoofed-address");
    }
}

#[test]
fn out_by_the_uplink_v6() {
    let mut w = World::new();
    let a = w.container(1);
    let (ca, r) = ((a.ip6, 40000), (remote(true), 443));
    let shot = w
        .from(1, Frame::tcp(ca, r, SYN, b""))
        .is(REDIRECT, &[Traffic(1, IN), Flow6(1), Allowed(0, 0)]);
    let want = Frame::tcp(ca, r, SYN, b"").with(|f| f.hop_limit = 63);
    assert_eq!(shot.l3(), want.l3());
    assert_eq!(w.flow6().deliver[0].ifindex, w.uplink_ifindex);
    // The same packet leaves by the uplink, where it is known.
    w.send(UPLINK, OUT, &want.bytes()).is(NEXT, &[]);
    let shot = w.uplink_in(Frame::tcp(r, ca, SYN | ACK, b"")).delivered(&a, &[Traffic(UPLINK, IN)]);
    assert_eq!(shot.l3(), Frame::tcp(r, ca, SYN | ACK, b"").with(|f| f.hop_limit = 63).l3());
    w.from(1, Frame::tcp(ca, r, ACK, b"")).is(REDIRECT, &[Traffic(1, IN)]);
    assert_eq!(w.flow6().packets, [2, 1], "counted at one hook");
}

fn nat_port(w: &World) -> u16 {
    let port = u16::from_be(w.flow4().nat_port);
    assert!((w.features.nat_port_first..=w.features.nat_port_last).contains(&port));
    port
}

#[test]
fn masquerade_and_back() {
    let nat = ip(NAT);
    for udp in [false, true] {
        let mut w = World::new();
        let a = w.container(1);
        let make = |s, d, first: bool, payload: &[u8]| {
            if udp {
                Frame::udp(s, d, payload)
            } else {
                Frame::tcp(s, d, if first { SYN } else { SYN | ACK }, payload)
            }
        };
        let (ca, r) = ((a.ip4, 40000), (remote(false), 443));
        let shot = w
            .from(1, make(ca, r, true, b"hello"))
            .is(REDIRECT, &[Traffic(1, IN), Flow4(1), Nat(1), Allowed(0, 0)]);
        let n = (nat, nat_port(&w));
        let want = make(n, r, true, b"hello").with(|f| f.hop_limit = 63);
        assert_eq!(shot.l3(), want.l3());
        assert_checksums(shot.l3());
        w.send(UPLINK, OUT, &want.bytes()).is(NEXT, &[]);

        let shot = w.uplink_in(make(r, n, false, b"world")).delivered(&a, &[Traffic(UPLINK, IN)]);
        assert_eq!(shot.l3(), make(r, ca, false, b"world").with(|f| f.hop_limit = 63).l3());
        assert_checksums(shot.l3());
        // The second packet out bears the same port.
        let shot = w.from(1, make(ca, r, false, b"!")).is(REDIRECT, &[Traffic(1, IN)]);
        assert_eq!(shot.l3(), make(n, r, false, b"!").with(|f| f.hop_limit = 63).l3());
        // Another remote end is none of this mapping's.
        w.uplink_in(make((ip("198.51.100.8"), 443), n, false, b"")).is(NEXT, &[]);
        // Neither is a SYN.
        w.uplink_in(Frame::tcp(r, n, SYN, b"")).is(NEXT, &[]);
    }
}

#[test]
fn masquerade_udp_without_checksum() {
    let mut w = World::new();
    let a = w.container(1);
    let frame = Frame::udp((a.ip4, 4000), (remote(false), 53), b"q").with(|f| f.l4[6..8].fill(0));
    let shot = w.from(1, frame).is(REDIRECT, &[Traffic(1, IN), Flow4(1), Nat(1), Allowed(0, 0)]);
    assert_eq!(shot.l3()[26..28], [0, 0]);
    assert_checksums(shot.l3());
}

#[test]
fn masquerade_echo() {
    let mut w = World::new();
    let a = w.container(1);
    let r = remote(false);
    let shot = w
        .from(1, Frame::echo(a.ip4, r, 7, false))
        .is(REDIRECT, &[Traffic(1, IN), Flow4(1), Nat(1), Allowed(0, 0)]);
    let id = nat_port(&w);
    assert_eq!(shot.l3(), Frame::echo(ip(NAT), r, id, false).with(|f| f.hop_limit = 63).l3());
    let shot = w.uplink_in(Frame::echo(r, ip(NAT), id, true)).delivered(&a, &[Traffic(UPLINK, IN)]);
    assert_eq!(shot.l3(), Frame::echo(r, a.ip4, 7, true).with(|f| f.hop_limit = 63).l3());
    // The remote's own request to the host is the host's.
    w.uplink_in(Frame::echo(r, ip(NAT), id, false)).is(NEXT, &[]);
}

/// A mapping whose flow is gone lets nobody in, nor does the flow without it.
#[test]
fn a_mapping_is_no_door() {
    let mut w = World::new();
    let a = w.container(1);
    let (ca, r) = ((a.ip4, 40000), (remote(false), 53));
    w.from(1, Frame::udp(ca, r, b""))
        .is(REDIRECT, &[Traffic(1, IN), Flow4(1), Nat(1), Allowed(0, 0)]);
    let n = (ip(NAT), nat_port(&w));
    w.uplink_in(Frame::udp(r, ca, b"")).dropped(UPLINK, IN, "invalid-state");
    let (key, mut flow) = w.maps.flows4().expect("flows")[0];
    flow.last_seen = flow.last_seen.saturating_sub((abi::TIMEOUT_UDP + 1) * 1_000_000_000);
    w.maps.set_flow4(&key, &flow).expect("set");
    w.uplink_in(Frame::udp(r, n, b"")).is(NEXT, &[]);
    w.maps.delete_flow4(&key).expect("deleted");
    w.uplink_in(Frame::udp(r, n, b"")).is(NEXT, &[]);
}

#[test]
fn nat_exhausted() {
    let features = abi::Features {
        nat_port_first: 61000,
        nat_port_last: 61001,
        ..crate::world::all_features()
    };
    let mut w = World::with_features(features);
    let r = (remote(false), 443);
    let a = w.container(1).ip4;
    let mut syn = |port| w.from(1, Frame::tcp((a, port), r, SYN, b""));
    syn(1).is(REDIRECT, &[Traffic(1, IN), Flow4(1), Nat(1), Allowed(0, 0)]);
    syn(2).is(REDIRECT, &[Traffic(1, IN), Flow4(1), Nat(1), Allowed(0, 0)]);
    syn(3).is(SHOT, &[Flow4(1), Allowed(0, 0), Drop(1, IN, "nat-exhausted"), Dropped]);
    syn(3).dropped(1, IN, "nat-exhausted");
}

#[test]
fn from_outside() {
    let mut w = World::new();
    let a = w.container(1);
    for v6 in [false, true] {
        let (r, ca) = ((remote(v6), 999), (a.ip(v6), 80));
        let delivered = [Traffic(UPLINK, IN), flow(v6), Allowed(0, 0)];
        let shot = w.uplink_in(Frame::tcp(r, ca, SYN, b"")).delivered(&a, &delivered);
        assert_eq!(shot.l3(), Frame::tcp(r, ca, SYN, b"").with(|f| f.hop_limit = 63).l3());
        // What answers is not masqueraded.
        let shot = w.from(1, Frame::tcp(ca, r, SYN | ACK, b"")).is(REDIRECT, &[Traffic(1, IN)]);
        assert_eq!(shot.l3(), Frame::tcp(ca, r, SYN | ACK, b"").with(|f| f.hop_limit = 63).l3());
        // Ours do not come from there.
        let b = w.container(2);
        w.uplink_in(Frame::udp((b.ip(v6), 1), (a.ip(v6), 2), b"")).dropped(
            UPLINK,
            IN,
            "spoofed-address",
        );
        let host = if v6 { ip("fd01::1") } else { ip(NAT) };
        w.uplink_in(Frame::udp((host, 1), (a.ip(v6), 2), b"")).dropped(
            UPLINK,
            IN,
            "spoofed-address",
        );
        // Nor on a flow that is there.
        let (sa, sb) = ((a.ip(v6), 5), (b.ip(v6), 6));
        w.from(1, Frame::udp(sa, sb, b""))
            .delivered(&b, &[Traffic(1, IN), flow(v6), Allowed(0, 0)]);
        w.uplink_in(Frame::udp(sa, sb, b"")).dropped(UPLINK, IN, "spoofed-address");
        w.uplink_in(Frame::udp(sb, sa, b"")).dropped(UPLINK, IN, "spoofed-address");
        w.to(1, Frame::udp(sb, sa, b"")).dropped(1, OUT, "spoofed-address");
        // The host's own is the host's.
        w.uplink_in(Frame::tcp((remote(v6), 1), (host, 22), SYN, b"")).is(NEXT, &[]);
        let nobody = if v6 { ip("fd00::77") } else { ip("10.0.0.77") };
        w.uplink_in(Frame::udp((remote(v6), 1), (nobody, 2), b"")).dropped(
            UPLINK,
            IN,
            "no-endpoint",
        );
        w.policy(1, &default_entries(true, false));
        let denied = [Drop(UPLINK, IN, "policy-ingress"), Denied(0, 902)];
        w.uplink_in(Frame::udp((remote(v6), 3), (a.ip(v6), 4), b"")).is(SHOT, &denied);
        w.policy(1, &default_entries(true, true));
    }
}

/// An ICMP error that the datapath has made, in full.
pub fn assert_answer(
    shot: &Shot,
    to: (&[u8; 6], Ip),
    from: Ip,
    ty: u8,
    code: u8,
    info: u32,
    quoted: &[u8],
) {
    let v6 = !from.is4();
    assert_eq!(shot.outcome.data[..6], *to.0);
    assert_checksums(shot.l3());
    let limit = if v6 { 1280 - 48 } else { 576 - 28 };
    let quoted = &quoted[..quoted.len().min(limit)];
    let mut want = Frame::icmp(from, to.1, ty, code, info.to_be_bytes(), quoted);
    want.id = 0;
    let mut want = want.l3();
    if !v6 {
        want[1] = 0xc0;
        want[10..12].fill(0);
        let sum = crate::frame::checksum(&[&want[..20]]);
        want[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    assert_eq!(shot.l3(), want);
}

#[test]
fn too_big_and_hop_limit() {
    let mut w = World::new();
    let a = w.container(1);
    crate::world::run_ip(
        "link set up0 mtu 1400\nroute add 203.0.113.9 via 192.0.2.254 mtu lock 1300",
    );
    for v6 in [false, true] {
        let gateway = if v6 { ip("fe80::1") } else { ip("169.254.0.1") };
        let (ca, r) = ((a.ip(v6), 40000), (remote(v6), 443));
        let big = Frame::udp(ca, r, &[0x5a; 1401]);
        let (ty, code) = if v6 { (2, 0) } else { (3, 4) };
        let shot = w
            .from(1, big.clone())
            .is(REDIRECT, &[flow(v6), Allowed(0, 0), Drop(1, IN, "too-big"), Dropped]);
        assert_answer(&shot, (&a.mac, a.ip(v6)), gateway, ty, code, 1400, &big.l3());

        let last = Frame::udp(ca, r, b"odd").with(|f| f.hop_limit = 1);
        let (ty, code) = if v6 { (3, 0) } else { (11, 0) };
        let shot = w.from(1, last.clone()).is(REDIRECT, &[Drop(1, IN, "hop-limit"), Dropped]);
        assert_answer(&shot, (&a.mac, a.ip(v6)), gateway, ty, code, 0, &last.l3());
        // Between two containers there is no hop.
        let b = w.container(2);
        let near = Frame::udp(ca, (b.ip(v6), 5), b"").with(|f| f.hop_limit = 1);
        let shot =
            w.from(1, near.clone()).delivered(&b, &[Traffic(1, IN), flow(v6), Allowed(0, 0)]);
        assert_eq!(shot.l3(), near.l3());
        // Used up on the way in.
        let last = Frame::udp(r, ca, b"").with(|f| f.hop_limit = 1);
        w.uplink_in(last).is(REDIRECT, &[Drop(UPLINK, IN, "hop-limit"), Dropped]);
    }
    // Segments count, not the whole.
    let gso = Frame::tcp((a.ip4, 1), (remote(false), 2), ACK, &[0; 3000])
        .with(|f| f.source_mac = a.mac)
        .bytes();
    let context = |gso_size| porin::kernel::datapath::TestContext {
        gso_size,
        gso_segs: 3,
        ..Default::default()
    };
    let passed = [Traffic(1, IN), Flow4(1), Nat(1), Allowed(0, 0)];
    w.send_with(1, IN, &gso, context(1360)).is(REDIRECT, &passed);
    w.send_with(1, IN, &gso, context(1361)).is(REDIRECT, &[Drop(1, IN, "too-big"), Dropped]);
    // The route's own MTU.
    let big = Frame::udp((a.ip4, 1), (ip("203.0.113.9"), 2), &[0; 1300]);
    let shot = w
        .from(1, big.clone())
        .is(REDIRECT, &[Flow4(1), Allowed(0, 0), Drop(1, IN, "too-big"), Dropped]);
    assert_answer(&shot, (&a.mac, a.ip4), ip("169.254.0.1"), 3, 4, 1300, &big.l3());
    // No route at all.
    crate::world::run_ip("route del default");
    let lost = Frame::udp((a.ip4, 1), (ip("198.51.100.99"), 2), b"");
    w.from(1, lost).is(SHOT, &[Flow4(1), Allowed(0, 0), Drop(1, IN, "no-route"), Dropped]);
}

/// What has no port to tell it by would share it with the host's own traffic.
#[test]
fn only_what_has_a_port_is_masqueraded() {
    let mut w = World::new();
    let (a, r) = (w.container(1), remote(false));
    let refused = [Flow4(1), Allowed(0, 0), Drop(1, IN, "not-masqueradable"), Dropped];
    for protocol in [4, 47, 50, 51, 58, 132] {
        let frame = Frame::new(a.ip4, r, protocol, vec![7; 32]);
        w.from(1, frame.clone()).is(SHOT, &refused);
        w.from(1, frame.clone()).dropped(1, IN, "not-masqueradable");
        // Nor when the host's stack has sent it on.
        w.send(UPLINK, OUT, &frame.bytes()).dropped(UPLINK, OUT, "not-masqueradable");
        w.uplink_in(Frame::new(r, ip(NAT), protocol, vec![7; 32])).is(NEXT, &[]);
    }
    // A time stamp has an identifier, but is no echo.
    w.from(1, Frame::icmp(a.ip4, r, 13, 0, [0, 7, 0, 1], &[0; 12])).is(SHOT, &refused);
    // IPv6 is not masqueraded.
    w.from(1, Frame::new(a.ip6, remote(true), 50, vec![7; 32]))
        .is(REDIRECT, &[Traffic(1, IN), Flow6(1), Allowed(0, 0)]);
}

#[test]
fn only_uplinks_lead_outside() {
    let mut w = World::new();
    crate::world::run_ip(
        "link add lan0 type veth peer name lan1
         link set lan0 up
         link set lan1 up
         address add 203.0.113.1/24 dev lan0
         address add fd02::1/64 dev lan0 nodad
         neighbour add 203.0.113.9 lladdr 02:00:00:00:00:fd dev lan0 nud permanent
         neighbour add fd02::9 lladdr 02:00:00:00:00:fd dev lan0 nud permanent",
    );
    let a = w.container(1);
    for (v6, lan) in [(false, "203.0.113.9"), (true, "fd02::9")] {
        let frame = Frame::udp((a.ip(v6), 1), (ip(lan), 2), b"");
        w.from(1, frame.clone())
            .is(SHOT, &[flow(v6), Allowed(0, 0), Drop(1, IN, "not-uplink"), Dropped]);
        w.from(1, frame).dropped(1, IN, "not-uplink");
        let host = ip(if v6 { "fd01::1" } else { NAT });
        w.from(1, Frame::udp((a.ip(v6), 1), (host, 2), b""))
            .is(PASS, &[Traffic(1, IN), flow(v6), Allowed(0, 0)]);
    }
}

/// The uplink gets another address, and then none.
#[test]
fn another_address_to_masquerade_with() {
    let mut w = World::new();
    let a = w.container(1);
    let r = (remote(false), 443);
    let udp = |w: &mut World| w.from(1, Frame::udp((a.ip4, 40000), r, b""));
    let tcp = |w: &mut World, flags| w.from(1, Frame::tcp((a.ip4, 40000), r, flags, b""));
    let made = [Traffic(1, IN), Flow4(1), Nat(1), Allowed(0, 0)];
    udp(&mut w).is(REDIRECT, &made);
    tcp(&mut w, SYN).is(REDIRECT, &made);

    let set = |w: &World, address: &str| {
        let uplink = abi::Uplink {
            slot: UPLINK,
            masquerade4: ip(address).bytes().try_into().expect("IPv4"),
            ..Default::default()
        };
        w.maps.set_uplink(w.uplink_ifindex, &uplink).expect("uplink");
        w.maps.commit(w.maps.generation() + 1);
    };
    set(&w, "192.0.2.2");
    let shot = udp(&mut w).is(REDIRECT, &[Traffic(1, IN), Nat(1)]);
    assert_eq!(shot.l3()[12..16], [192, 0, 2, 2]);
    assert_checksums(shot.l3());
    tcp(&mut w, ACK).dropped(1, IN, "not-masqueradable");
    // It may begin again, under the new one.
    let shot = tcp(&mut w, SYN).is(REDIRECT, &[Traffic(1, IN), Nat(1)]);
    assert_eq!(shot.l3()[12..16], [192, 0, 2, 2]);

    set(&w, "0.0.0.0");
    udp(&mut w).dropped(1, IN, "not-masqueradable");
    tcp(&mut w, SYN).dropped(1, IN, "not-masqueradable");
    w.from(1, Frame::echo(a.ip4, r.0, 7, false))
        .is(SHOT, &[Flow4(1), Allowed(0, 0), Drop(1, IN, "not-masqueradable"), Dropped]);
}

/// A flow whose entry was lost finds its port again, be its mapping there or not.
#[test]
fn a_lost_flow_finds_its_port_again() {
    let mut w = World::new();
    let (a, r) = (w.container(1), (remote(false), 443));
    let send = |w: &mut World| {
        let shot = w.from(1, Frame::tcp((a.ip4, 40000), r, ACK, b"x"));
        assert_eq!(shot.outcome.retval, REDIRECT);
        u16::from_be(w.flow4().nat_port)
    };
    let port = send(&mut w);
    w.maps.delete_flow4(&w.maps.flows4().expect("flows")[0].0).expect("deleted");
    assert_eq!(send(&mut w), port);
    w.maps.delete_flow4(&w.maps.flows4().expect("flows")[0].0).expect("deleted");
    w.maps.delete_nat4(&w.maps.nat4().expect("nat")[0].0).expect("deleted");
    assert_eq!(send(&mut w), port);
    assert_eq!(w.maps.nat4().expect("nat").len(), 1);
}

/// A port is its holder's for as long as the holder's flow lives, and no longer.
#[test]
fn ports_of_stray_segments_are_soon_free() {
    let features = abi::Features {
        nat_port_first: 61000,
        nat_port_last: 61000,
        ..crate::world::all_features()
    };
    let mut w = World::with_features(features);
    let (a, r) = (w.container(1).ip4, (remote(false), 443));
    let age = |w: &World, seconds: u64| {
        for (key, mut flow) in w.maps.flows4().expect("flows") {
            flow.last_seen = flow.last_seen.saturating_sub(seconds * 1_000_000_000);
            w.maps.set_flow4(&key, &flow).expect("set");
        }
        for (key, mut nat) in w.maps.nat4().expect("nat") {
            nat.last_seen = nat.last_seen.saturating_sub(seconds * 1_000_000_000);
            w.maps.set_nat4(&key, &nat).expect("set");
        }
    };
    // A stray ACK makes no connection.
    w.from(1, Frame::tcp((a, 1), r, ACK, b""))
        .is(REDIRECT, &[Traffic(1, IN), Flow4(1), Nat(1), Allowed(0, 0)]);
    w.from(1, Frame::tcp((a, 1), r, ACK, b"")).is(REDIRECT, &[Traffic(1, IN)]);
    assert_eq!(w.flow4().flags & abi::FLOW_ESTABLISHED, 0);
    age(&w, abi::TIMEOUT_TCP_SYN - 10);
    w.from(1, Frame::tcp((a, 2), r, ACK, b""))
        .is(SHOT, &[Flow4(1), Allowed(0, 0), Drop(1, IN, "nat-exhausted"), Dropped]);
    age(&w, 11);
    w.from(1, Frame::tcp((a, 2), r, ACK, b"")).is(REDIRECT, &[Traffic(1, IN)]);
    // Answered, it is one.
    w.uplink_in(Frame::tcp(r, (ip(NAT), 61000), ACK, b""))
        .delivered(&w.container(1), &[Traffic(UPLINK, IN)]);
    w.from(1, Frame::tcp((a, 2), r, ACK, b"")).is(REDIRECT, &[Traffic(1, IN)]);
    age(&w, abi::TIMEOUT_TCP_SYN + 1);
    w.from(1, Frame::tcp((a, 3), r, ACK, b""))
        .is(SHOT, &[Flow4(1), Allowed(0, 0), Drop(1, IN, "nat-exhausted"), Dropped]);
    // And closed, it is over.
    w.from(1, Frame::tcp((a, 2), r, RST, b"")).is(REDIRECT, &[Traffic(1, IN)]);
    age(&w, abi::TIMEOUT_TCP_CLOSING + 1);
    w.from(1, Frame::tcp((a, 3), r, ACK, b"")).is(REDIRECT, &[Traffic(1, IN)]);
}

/// A network that the host is in overlaps the pool.
#[test]
fn an_overlapping_pool_leaves_the_host_alone() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    for v6 in [false, true] {
        let neighbour = (ip(if v6 { "fd00::77" } else { "10.0.0.77" }), 1);
        let host = (if v6 { ip("fd01::1") } else { ip(NAT) }, 22);
        w.uplink_in(Frame::tcp(neighbour, host, SYN, b"")).is(NEXT, &[]);
        w.uplink_in(Frame::tcp(neighbour, (remote(v6), 1), SYN, b"")).is(NEXT, &[]);
        for frame in [
            Frame::tcp(neighbour, (a.ip(v6), 22), SYN, b""),
            Frame::tcp((b.ip(v6), 1), host, SYN, b""),
            Frame::tcp((b.ip(v6), 1), (a.ip(v6), 22), SYN, b""),
        ] {
            w.uplink_in(frame).dropped(UPLINK, IN, "spoofed-address");
        }
    }
}

/// What a promiscuous uplink overhears, and what is for all, is not forwarded.
#[test]
fn frames_for_others() {
    let mut w = World::new();
    let a = w.container(1);
    let frame = Frame::udp((remote(true), 1), (a.ip6, 2), b"");
    for mac in [[2, 0, 0, 0, 0, 8], [0xff; 6], [0x33, 0x33, 0, 0, 0, 1]] {
        let other = frame.clone().with(|f| f.destination_mac = mac).bytes();
        w.send(UPLINK, IN, &other).is(NEXT, &[]);
    }
    w.uplink_in(frame).delivered(&a, &[Traffic(UPLINK, IN), Flow6(1), Allowed(0, 0)]);
}
