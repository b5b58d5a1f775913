//! Published ports: in, back, from other containers, from the container itself.

use porin::kernel::datapath::abi::{self, EGRESS, INGRESS};

use crate::frame::{ACK, Frame, Ip, RST, SYN, TCP, UDP, assert_checksums, ip};
use crate::world::{
    Container, IN, Move, Move::*, NAT, NEXT, PASS, REDIRECT, SHOT, UPLINK, World, all_features,
    default_entries, entry, rejecting,
};

const BOTH: [bool; 2] = [false, true];

fn client(v6: bool) -> (Ip, u16) {
    (ip(if v6 { "2001:db8::7" } else { "198.51.100.7" }), 40000)
}

fn host(v6: bool) -> Ip {
    ip(if v6 { "fd01::1" } else { NAT })
}

/// Where the port is published.
fn door(v6: bool) -> (Ip, u16) {
    (host(v6), 8080)
}

fn flow(v6: bool) -> Move {
    if v6 { Flow6(1) } else { Flow4(1) }
}

fn the_flow(w: &World, v6: bool) -> abi::Flow {
    if v6 { w.flow6() } else { w.flow4() }
}

/// A world in which container 1's port 80 is at the host's port 8080.
fn world() -> (World, Container) {
    let mut w = World::new();
    for v6 in BOTH {
        for protocol in [TCP, UDP] {
            w.publish(door(v6), protocol, 1, 80);
        }
    }
    let a = w.container(1);
    (w, a)
}

fn hop(frame: Frame) -> Frame {
    frame.with(|f| f.hop_limit = 63)
}

#[test]
fn in_and_back() {
    let (mut w, a) = world();
    for v6 in BOTH {
        for udp in BOTH {
            let make = |s, d, flags, payload: &[u8]| match udp {
                true => Frame::udp(s, d, payload),
                false => Frame::tcp(s, d, flags, payload),
            };
            let (c, ca) = (client(v6), (a.ip(v6), 80));
            let new = [Traffic(UPLINK, IN), flow(v6), Allowed(0, 0)];
            let shot = w.uplink_in(make(c, door(v6), SYN, b"hello")).delivered(&a, &new);
            assert_eq!(shot.l3(), hop(make(c, ca, SYN, b"hello")).l3());
            assert_checksums(shot.l3());
            // Back by the uplink, from where it was sent to, and not masqueraded.
            let shot = w.from(1, make(ca, c, SYN | ACK, b"odd")).is(REDIRECT, &[Traffic(1, IN)]);
            assert_eq!(shot.l3(), hop(make(door(v6), c, SYN | ACK, b"odd")).l3());
            assert_checksums(shot.l3());
            // It leaves by the uplink as the host's own.
            let out = make(door(v6), c, ACK, b"");
            w.send(UPLINK, crate::world::OUT, &out.bytes()).is(NEXT, &[]);
            let shot =
                w.uplink_in(make(c, door(v6), ACK, b"more")).delivered(&a, &[Traffic(UPLINK, IN)]);
            assert_eq!(shot.l3(), hop(make(c, ca, ACK, b"more")).l3());
        }
        let flows =
            if v6 { w.maps.flows6().unwrap().len() } else { w.maps.flows4().unwrap().len() };
        assert_eq!(flows, 2);
        let known = the_flow(&w, v6);
        assert_ne!(known.flags & abi::FLOW_PUBLISHED, 0);
        assert_eq!(known.published_address, host(v6).mapped());
        assert_eq!(u16::from_be(known.published_port), 8080);
        // Other ports of the host, protocols, and other addresses' ports are as they were.
        for other in [
            Frame::tcp(client(v6), (host(v6), 8081), SYN, b""),
            Frame::new(
                client(v6).0,
                host(v6),
                132,
                vec![0x1f, 0x90, 0x1f, 0x90, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
            Frame::echo(client(v6).0, host(v6), 8080, false),
        ] {
            w.uplink_in(other.clone()).passed(&other, &[]);
        }
    }
}

#[test]
fn policy_judges_the_client_and_the_container_s_own_port() {
    let (mut w, a) = world();
    let mut entries = default_entries(true, false);
    entries.push(entry(crate::world::WORLD4, INGRESS, Some((TCP, Some((80, 16)))), 5, 55, true));
    entries.push(entry(crate::world::WORLD6, INGRESS, Some((TCP, Some((8080, 16)))), 5, 66, true));
    w.policy(1, &entries);
    let new = [Traffic(UPLINK, IN), Flow4(1), Allowed(0, 55)];
    w.uplink_in(Frame::tcp(client(false), door(false), SYN, b"")).delivered(&a, &new);
    let denied = [Drop(UPLINK, IN, "policy-ingress"), Denied(0, 902)];
    w.uplink_in(Frame::tcp(client(true), door(true), SYN, b"")).is(SHOT, &denied);
    w.uplink_in(Frame::udp(client(false), door(false), b"")).is(SHOT, &denied);
    // The flow log knows the endpoint's own end.
    let shot = w.uplink_in(Frame::tcp(client(true), door(true), SYN, b""));
    assert_eq!(shot.events[0].destination, a.ip6.mapped());
    assert_eq!(u16::from_be(shot.events[0].destination_port), 80);
    // A rejection comes from what was tried.
    let rejects = default_entries(true, false).into_iter().map(|e| match e.1.verdict {
        abi::VERDICT_DENY => rejecting(e),
        _ => e,
    });
    w.policy(1, &rejects.collect::<Vec<_>>());
    for v6 in BOTH {
        let other = (client(v6).0, 40001);
        let shot = w.uplink_in(Frame::tcp(other, door(v6), SYN, b"")).is(REDIRECT, &denied);
        assert_eq!(shot.l3(), Frame::reset(door(v6), other, 0, Some(2)).l3());
        // So does one to a container.
        let cb = (w.container(2).ip(v6), 40001);
        let denied = [Drop(2, IN, "policy-ingress"), Denied(0, 902)];
        let shot = w.from(2, Frame::tcp(cb, door(v6), SYN, b"")).is(REDIRECT, &denied);
        assert_eq!(shot.l3(), Frame::reset(door(v6), cb, 0, Some(2)).l3());
    }
}

/// Two doors to one room: the second is shut as long as somebody is in by the first from the same place.
#[test]
fn the_same_ports_by_another_way() {
    for v6 in BOTH {
        let (mut w, a) = world();
        let second = (host(v6), 8081);
        w.publish(second, TCP, 1, 80);
        w.publish(second, UDP, 1, 80);
        let (c, ca) = (client(v6), (a.ip(v6), 80));
        for udp in BOTH {
            let make = |s, d, flags| match udp {
                true => Frame::udp(s, d, b""),
                false => Frame::tcp(s, d, flags, b""),
            };
            let new = [Traffic(UPLINK, IN), flow(v6), Allowed(0, 0)];
            w.uplink_in(make(c, door(v6), SYN)).delivered(&a, &new);
            for other in [second, ca] {
                w.uplink_in(make(c, other, SYN)).dropped(UPLINK, IN, "published-twice");
                w.uplink_in(make(c, other, ACK)).dropped(UPLINK, IN, "published-twice");
            }
            // From another port it is another flow.
            w.uplink_in(make((c.0, c.1 + 1), second, SYN)).delivered(&a, &new);
            w.uplink_in(make((c.0, c.1 + 2), ca, SYN)).delivered(&a, &new);
            w.uplink_in(make((c.0, c.1 + 2), second, ACK)).dropped(UPLINK, IN, "published-twice");
            let shot = w.from(1, make(ca, (c.0, c.1 + 1), ACK)).is(REDIRECT, &[Traffic(1, IN)]);
            assert_eq!(shot.l3(), hop(make(second, (c.0, c.1 + 1), ACK)).l3());
            let shot = w.from(1, make(ca, (c.0, c.1 + 2), ACK)).is(REDIRECT, &[Traffic(1, IN)]);
            assert_eq!(shot.l3(), hop(make(ca, (c.0, c.1 + 2), ACK)).l3());
        }
        // A connection that is over gives way.
        w.uplink_in(Frame::tcp(c, door(v6), RST | ACK, b"")).delivered(&a, &[Traffic(UPLINK, IN)]);
        w.uplink_in(Frame::tcp(c, second, SYN, b""))
            .delivered(&a, &[Traffic(UPLINK, IN), Allowed(0, 0)]);
        let shot = w.from(1, Frame::tcp(ca, c, SYN | ACK, b"")).is(REDIRECT, &[Traffic(1, IN)]);
        assert_eq!(shot.l3(), hop(Frame::tcp(second, c, SYN | ACK, b"")).l3());
    }
}

#[test]
fn a_port_that_is_taken_away_or_leads_elsewhere() {
    for v6 in BOTH {
        let (mut w, a) = world();
        let (c, ca, b) = (client(v6), (a.ip(v6), 80), w.container(2));
        let new = [Traffic(UPLINK, IN), flow(v6), Allowed(0, 0)];
        let into = Frame::tcp(c, door(v6), ACK, b"");
        let back = Frame::tcp(ca, c, ACK, b"");
        w.uplink_in(Frame::tcp(c, door(v6), SYN, b"")).delivered(&a, &new);
        w.from(1, Frame::tcp(ca, c, SYN | ACK, b"")).is(REDIRECT, &[Traffic(1, IN)]);
        // Judged anew, with the port as it was: on the other side only it is gone.
        w.publish_on_sides(door(v6), TCP, [(0, 0), (1, 80)]);
        w.maps.commit(3);
        w.from(1, back.clone()).is(REDIRECT, &[Traffic(1, IN)]);
        w.uplink_in(into.clone()).delivered(&a, &[Traffic(UPLINK, IN)]);
        w.maps.commit(4);
        w.from(1, back.clone()).dropped(1, IN, "not-published");
        w.uplink_in(into.clone()).passed(&into, &[]);
        w.from(1, back.clone()).dropped(1, IN, "not-published");
        // It comes back, and so does the flow.
        w.maps.commit(5);
        w.uplink_in(into.clone()).delivered(&a, &[Traffic(UPLINK, IN)]);
        w.from(1, back.clone()).is(REDIRECT, &[Traffic(1, IN)]);
        // Another endpoint's now, or at another port: the old one is not heard any more.
        w.publish_on_sides(door(v6), TCP, [(2, 80), (1, 81)]);
        w.maps.commit(6);
        w.from(1, back.clone()).dropped(1, IN, "not-published");
        w.uplink_in(into.clone()).delivered(&b, &new);
        w.maps.commit(7);
        w.from(1, back).dropped(1, IN, "not-published");
    }
}

/// The last publication takes the code for them with it.
#[test]
fn without_any_their_flows_are_over() {
    for v6 in BOTH {
        let (mut w, a) = world();
        let (c, ca) = (client(v6), (a.ip(v6), 80));
        w.uplink_in(Frame::udp(c, door(v6), b""))
            .delivered(&a, &[Traffic(UPLINK, IN), flow(v6), Allowed(0, 0)]);
        w.features = abi::Features { publishes: 0, ..all_features() };
        w.load_variants();
        w.maps.commit(3);
        let into = Frame::udp(c, door(v6), b"");
        w.uplink_in(into.clone()).passed(&into, &[]);
        w.from(1, Frame::udp(ca, c, b"")).dropped(1, IN, "not-published");
        w.uplink_in(Frame::udp(c, ca, b"")).dropped(UPLINK, IN, "not-published");
    }
}

#[test]
fn from_another_container() {
    for v6 in BOTH {
        let (mut w, a) = world();
        let b = w.container(2);
        let (ca, cb) = ((a.ip(v6), 80), (b.ip(v6), 5000));
        // By label, as between any two, and not as host.
        let mut entries = default_entries(true, false);
        entries.push(entry(b.identity, INGRESS, Some((TCP, Some((80, 16)))), 5, 55, true));
        w.policy(1, &entries);
        let shot = w
            .from(2, Frame::tcp(cb, door(v6), SYN, b"hi"))
            .delivered(&a, &[Traffic(2, IN), flow(v6), Allowed(0, 55)]);
        assert_eq!(shot.l3(), Frame::tcp(cb, ca, SYN, b"hi").l3());
        let shot = w.from(1, Frame::tcp(ca, cb, SYN | ACK, b"ho")).delivered(&b, &[Traffic(1, IN)]);
        assert_eq!(shot.l3(), Frame::tcp(door(v6), cb, SYN | ACK, b"ho").l3());
        assert_checksums(shot.l3());
        let shot = w.from(2, Frame::tcp(cb, door(v6), ACK, b"")).delivered(&a, &[Traffic(2, IN)]);
        assert_eq!(shot.l3(), Frame::tcp(cb, ca, ACK, b"").l3());
        // Not beside it.
        w.from(2, Frame::tcp(cb, ca, ACK, b"")).dropped(2, IN, "published-twice");
        let c = (w.container(3).ip(v6), 5000);
        w.from(3, Frame::tcp(c, door(v6), SYN, b""))
            .is(SHOT, &[Drop(3, IN, "policy-ingress"), Denied(0, 902)]);
        // What is not published is the host's.
        w.from(2, Frame::tcp(cb, (host(v6), 22), SYN, b""))
            .is(PASS, &[Traffic(2, IN), flow(v6), Allowed(0, 0)]);
        // Judged anew in either direction.
        w.maps.commit(3);
        w.from(1, Frame::tcp(ca, cb, ACK, b"")).delivered(&b, &[Traffic(1, IN)]);
        w.maps.commit(4);
        w.from(2, Frame::tcp(cb, door(v6), ACK, b"")).delivered(&a, &[Traffic(2, IN)]);
        w.publish(door(v6), TCP, 0, 0);
        w.maps.commit(5);
        w.from(1, Frame::tcp(ca, cb, ACK, b"")).dropped(1, IN, "not-published");
    }
}

/// Who was spoken to from a port does not answer by another's published port, nor by one of its own.
#[test]
fn an_answer_does_not_come_by_a_published_port() {
    for v6 in BOTH {
        let (mut w, a) = world();
        let b = w.container(2);
        let (ca, cb) = ((a.ip(v6), 80), (b.ip(v6), 5000));
        w.from(1, Frame::udp(ca, cb, b""))
            .delivered(&b, &[Traffic(1, IN), flow(v6), Allowed(0, 0)]);
        w.from(2, Frame::udp(cb, door(v6), b"")).dropped(2, IN, "published-twice");
        w.from(2, Frame::udp(cb, ca, b"")).delivered(&a, &[Traffic(2, IN)]);
        w.maps.commit(3);
        w.from(2, Frame::udp(cb, door(v6), b"")).dropped(2, IN, "published-twice");
        let shot = w.from(1, Frame::udp(ca, cb, b"")).delivered(&b, &[Traffic(1, IN)]);
        assert_eq!(shot.l3(), Frame::udp(ca, cb, b"").l3());
    }
}

/// The answer must not come from its own address: no stack takes that.
#[test]
fn from_the_container_itself() {
    for v6 in BOTH {
        for udp in BOTH {
            let (mut w, a) = world();
            let make = |s, d, flags| match udp {
                true => Frame::udp(s, d, b"data"),
                false => Frame::tcp(s, d, flags, b"data"),
            };
            let (own, ca) = ((a.ip(v6), 5000), (a.ip(v6), 80));
            let inner = (host(v6), 5000);
            let shot = w
                .from(1, make(own, door(v6), SYN))
                .delivered(&a, &[Traffic(1, IN), flow(v6), Allowed(0, 0)]);
            assert_eq!(shot.l3(), make(inner, ca, SYN).l3());
            assert_checksums(shot.l3());
            let shot = w.from(1, make(ca, inner, SYN | ACK)).delivered(&a, &[Traffic(1, IN)]);
            assert_eq!(shot.l3(), make(door(v6), own, SYN | ACK).l3());
            assert_checksums(shot.l3());
            w.from(1, make(own, door(v6), ACK)).delivered(&a, &[Traffic(1, IN)]);
            // Judged anew, from either end.
            w.maps.commit(3);
            w.from(1, make(ca, inner, ACK)).delivered(&a, &[Traffic(1, IN)]);
            w.maps.commit(4);
            w.from(1, make(own, door(v6), ACK)).delivered(&a, &[Traffic(1, IN)]);
            // Its own policies are asked as for any peer.
            let mut entries = default_entries(true, true);
            entries.push(entry(a.identity, EGRESS, None, 5, 55, false));
            w.policy(1, &entries);
            w.maps.commit(5);
            let denied = [Drop(1, IN, "policy-egress"), Denied(55, 0)];
            w.from(1, make(own, door(v6), ACK)).is(SHOT, &denied);
            // Past the published port it still cannot speak to itself.
            w.from(1, make(own, ca, SYN)).dropped(1, IN, "malformed");
        }
    }
}

#[test]
fn fragments_and_the_hop_limit() {
    for v6 in BOTH {
        let (mut w, a) = world();
        let (c, ca) = (client(v6), (a.ip(v6), 80));
        let whole = |s, d| Frame::udp(s, d, &[7; 24]);
        let halves = |whole: &Frame| {
            let part = |range: std::ops::Range<usize>, at, more| {
                whole.clone().with(|f| {
                    f.l4 = f.l4[range].to_vec();
                    f.fragment = Some((at, more));
                })
            };
            [part(0..16, 0, true), part(16..32, 16, false)]
        };
        let inside = halves(&hop(whole(c, ca)));
        let new = [Traffic(UPLINK, IN), flow(v6), Fragment(1), Allowed(0, 0)];
        for (n, part) in halves(&whole(c, door(v6))).into_iter().enumerate() {
            let moved = if n == 0 { &new[..] } else { &new[..1] };
            let shot = w.uplink_in(part).delivered(&a, moved);
            assert_eq!(shot.l3(), inside[n].l3());
        }
        let outside = halves(&hop(whole(door(v6), c)));
        for (n, part) in halves(&whole(ca, c)).into_iter().enumerate() {
            let moved = [Traffic(1, IN), Fragment(1)];
            let shot = w.from(1, part).is(REDIRECT, if n == 0 { &moved } else { &moved[..1] });
            assert_eq!(shot.l3(), outside[n].l3());
        }
        // Between containers.
        let b = w.container(2);
        let cb = (b.ip(v6), 5000);
        let inside = halves(&whole(cb, ca));
        let new = [Traffic(2, IN), flow(v6), Fragment(1), Allowed(0, 0)];
        for (n, part) in halves(&whole(cb, door(v6))).into_iter().enumerate() {
            let shot = w.from(2, part).delivered(&a, if n == 0 { &new[..] } else { &new[..1] });
            assert_eq!(shot.l3(), inside[n].l3());
        }
        // Used up on the way in: the host answers, about what was sent.
        let last = whole(c, door(v6)).with(|f| f.hop_limit = 1);
        let shot =
            w.uplink_in(last.clone()).is(REDIRECT, &[Drop(UPLINK, IN, "hop-limit"), Dropped]);
        let (ty, code) = if v6 { (3, 0) } else { (11, 0) };
        let mac = last.source_mac;
        crate::outside::assert_answer(&shot, (&mac, c.0), host(v6), ty, code, 0, &last.l3());
        // And on the way out.
        let last = whole(ca, c).with(|f| f.hop_limit = 1);
        let shot = w.from(1, last.clone()).is(REDIRECT, &[Drop(1, IN, "hop-limit"), Dropped]);
        let gateway = ip(if v6 { "fe80::1" } else { "169.254.0.1" });
        crate::outside::assert_answer(&shot, (&a.mac, a.ip(v6)), gateway, ty, code, 0, &last.l3());
    }
}

/// Who may not come from outside may not come by a published port either.
#[test]
fn nobody_is_let_in_who_pretends() {
    let (mut w, a) = world();
    for v6 in BOTH {
        let b = w.container(2);
        let pool = ip(if v6 { "fd00::77" } else { "10.0.0.77" });
        for from in [a.ip(v6), b.ip(v6), host(v6), pool] {
            w.uplink_in(Frame::udp((from, 5), door(v6), b"")).dropped(
                UPLINK,
                IN,
                "spoofed-address",
            );
        }
        let nobody = ip(if v6 { "::1" } else { "127.0.0.1" });
        w.uplink_in(Frame::udp((nobody, 5), door(v6), b"")).dropped(UPLINK, IN, "link-local");
    }
}

/// What is for programs of the host alone does not come by a wire, whatever a sender writes there.
#[test]
fn nothing_comes_to_a_loopback_address() {
    let (mut w, _) = world();
    for v6 in BOTH {
        let local = (ip(if v6 { "::1" } else { "127.0.0.1" }), 8080);
        for protocol in [TCP, UDP] {
            w.publish(local, protocol, 1, 80);
        }
        for frame in [Frame::tcp(client(v6), local, SYN, b""), Frame::udp(client(v6), local, b"")] {
            w.uplink_in(frame.clone()).passed(&frame, &[]); // to the host's stack, which drops it
        }
        let from = (w.container(2).ip(v6), 5000);
        w.from(2, Frame::udp(from, local, b"")).dropped(2, IN, "link-local");
        w.from(2, Frame::tcp(from, local, SYN, b"")).dropped(2, IN, "link-local");
    }
}

/// An endpoint that has no address of the family, or is gone, is nobody's door.
#[test]
fn a_port_that_leads_to_nobody() {
    let (mut w, _) = world();
    w.maps.clear_endpoint(1).expect("cleared");
    for v6 in BOTH {
        let shot = w.uplink_in(Frame::udp(client(v6), door(v6), b""));
        assert_eq!(shot.outcome.retval, NEXT);
        let shot = w.from(2, Frame::udp((w.container(2).ip(v6), 5), door(v6), b""));
        assert_ne!(shot.outcome.retval, REDIRECT);
    }
}

/// Of the right family, about `quoted`, of which at most `keep` bytes are quoted.
fn error(from: Ip, to: Ip, quoted: &Frame, keep: usize) -> Frame {
    let (ty, code) = if from.is4() { (3, 4) } else { (2, 0) };
    let l3 = quoted.l3();
    Frame::icmp(from, to, ty, code, [0, 0, 5, 0], &l3[..keep.min(l3.len())])
}

#[test]
fn errors_are_translated_in_both_directions() {
    for v6 in BOTH {
        for udp in BOTH {
            let (mut w, a) = world();
            let b = w.container(2);
            let make = |s, d| match udp {
                true => Frame::udp(s, d, b"payload"),
                false => Frame::tcp(s, d, ACK, b"payload"),
            };
            let (c, ca, cb) = (client(v6), (a.ip(v6), 80), (b.ip(v6), 5000));
            let router = ip(if v6 { "2001:db8::1" } else { "203.0.113.1" });
            let about_answer = error(router, door(v6).0, &make(door(v6), c), 100);
            // About no flow of an endpoint's: the host's.
            w.uplink_in(about_answer.clone()).passed(&about_answer, &[]);
            let new = [Traffic(UPLINK, IN), flow(v6), Allowed(0, 0)];
            w.uplink_in(make(c, door(v6))).delivered(&a, &new);
            w.from(1, make(ca, c)).is(REDIRECT, &[Traffic(1, IN)]);
            let header = if v6 { 40 } else { 20 };
            for keep in [header + 8, header + 12, header + 20, 200] {
                // A router about an answer.
                let shot = w
                    .uplink_in(error(router, door(v6).0, &make(door(v6), c), keep))
                    .delivered(&a, &[Traffic(UPLINK, IN)]);
                assert_checksums(shot.l3());
                assert_eq!(shot.l3(), hop(error(router, ca.0, &make(ca, c), keep)).l3(), "{keep}");
                // The container about what came.
                let shot =
                    w.from(1, error(ca.0, c.0, &make(c, ca), keep)).is(REDIRECT, &[Traffic(1, IN)]);
                assert_checksums(shot.l3());
                let want = error(door(v6).0, c.0, &make(c, door(v6)), keep);
                assert_eq!(shot.l3(), hop(want).l3(), "{keep}");
            }
            // By another door, or past it, nobody is spoken of.
            w.publish((host(v6), 8081), if udp { UDP } else { TCP }, 1, 80);
            let other = error(router, door(v6).0, &make((host(v6), 8081), c), 100);
            w.uplink_in(other).dropped(UPLINK, IN, "untracked-error");
            let past = error(router, ca.0, &make(ca, c), 100);
            w.uplink_in(past).dropped(UPLINK, IN, "untracked-error");
            // Judged anew, it is as it was; and without its port it is the host's again.
            w.maps.commit(3);
            w.uplink_in(about_answer.clone()).delivered(&a, &[Traffic(UPLINK, IN)]);
            // Between containers.
            let new = [Traffic(2, IN), flow(v6), Allowed(0, 0)];
            w.from(2, make(cb, door(v6))).delivered(&a, &new);
            let shot =
                w.from(1, error(ca.0, cb.0, &make(cb, ca), 200)).delivered(&b, &[Traffic(1, IN)]);
            assert_checksums(shot.l3());
            assert_eq!(shot.l3(), error(door(v6).0, cb.0, &make(cb, door(v6)), 200).l3());
            let shot = w
                .from(2, error(cb.0, door(v6).0, &make(door(v6), cb), 200))
                .delivered(&a, &[Traffic(2, IN)]);
            assert_checksums(shot.l3());
            assert_eq!(shot.l3(), error(cb.0, ca.0, &make(ca, cb), 200).l3());
            w.publish(door(v6), if udp { UDP } else { TCP }, 0, 0);
            w.maps.commit(4);
            w.uplink_in(about_answer.clone()).passed(&about_answer, &[]);
            // What is too big is told all the same, as for any flow whose permission is gone.
            let shot =
                w.from(1, error(ca.0, c.0, &make(c, ca), 200)).is(REDIRECT, &[Traffic(1, IN)]);
            let want = error(door(v6).0, c.0, &make(c, door(v6)), 200);
            assert_eq!(shot.l3(), hop(want).l3());
        }
    }
}
