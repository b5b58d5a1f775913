//! Endpoints whose network is another's: judged at both of their gates, and else left alone.

use porin::kernel::datapath::TestContext;
use porin::kernel::datapath::abi::{self, EGRESS, INGRESS};

use crate::frame::{ACK, FIN, Frame, Ip, RST, SYN, TCP, ip};
use crate::world::{
    IN, Move::*, NEXT, OUT, REDIRECT, SHOT, UPLINK, World, container, default_entries, entry,
    ifindex, rejecting, run_ip,
};

/// Slot 1 is porin's own; 2 and 3 are others', on one bridge.
fn world() -> World {
    let mut w = World::new();
    w.adopt(&[2, 3]);
    w
}

fn port(slot: u32) -> u32 {
    ifindex(&format!("pn{slot}"))
}

fn flow(v6: bool) -> crate::world::Move {
    if v6 { Flow6(1) } else { Flow4(1) }
}

#[test]
fn between_two_of_a_bridge_both_gates_see_a_packet_and_one_counts_it() {
    for v6 in [false, true] {
        let mut w = world();
        let (b, c) = ((container(2).ip(v6), 40000), (container(3).ip(v6), 80));
        let mut round = |from, flags, payload: &[u8], first: bool| {
            let (source, destination) = if from == 2 { (b, c) } else { (c, b) };
            let to = 5 - from;
            let frame = Frame::tcp(source, destination, flags, payload);
            let mut moves = vec![Traffic(from, IN)];
            moves.extend(first.then_some([flow(v6), Allowed(0, 0)]).into_iter().flatten());
            w.send(from, IN, &frame.bytes()).passed(&frame, &moves);
            w.arrive(to, port(from), frame.clone()).passed(&frame, &[Traffic(to, OUT)]);
        };
        round(2, SYN, b"", true);
        round(3, SYN | ACK, b"", false);
        round(2, ACK, b"question", false);
        round(3, FIN | ACK, b"answer", false);
        round(2, FIN | ACK, b"", false);
        round(3, ACK, b"", false);
        let f = if v6 { w.flow6() } else { w.flow4() };
        assert_eq!(f.packets, [3, 3], "each once");
        let costs = |shot: crate::world::Shot| shot.outcome.context.cb[4];
        let last = Frame::tcp(b, c, ACK, b"");
        assert_eq!(costs(w.send(2, IN, &last.bytes())), 1);
        assert_eq!(costs(w.arrive(3, port(2), last)), 1);
    }
}

#[test]
fn either_end_denies_at_the_first_gate() {
    for v6 in [false, true] {
        let mut w = world();
        let (b, c) = (container(2), container(3));
        let syn = Frame::tcp((b.ip(v6), 40000), (c.ip(v6), 80), SYN, b"");
        w.policy(
            2,
            &[
                default_entries(true, true),
                vec![entry(c.identity, EGRESS, Some((TCP, Some((80, 16)))), 5, 77, false)],
            ]
            .concat(),
        );
        w.send(2, IN, &syn.bytes()).is(SHOT, &[Drop(2, IN, "policy-egress"), Denied(77, 0)]);
        w.policy(2, &default_entries(true, true));
        w.policy(
            3,
            &[default_entries(true, true), vec![entry(b.identity, INGRESS, None, 5, 88, false)]]
                .concat(),
        );
        w.send(2, IN, &syn.bytes()).is(SHOT, &[Drop(2, IN, "policy-ingress"), Denied(0, 88)]);
        // A flow whose permission is taken away by the next generation stops at the second gate too.
        w.policy(3, &default_entries(true, true));
        w.send(2, IN, &syn.bytes());
        w.policy_of_side(3, 1, &default_entries(true, false));
        w.maps.commit(3);
        w.arrive(3, port(2), syn.clone())
            .is(SHOT, &[Drop(3, OUT, "policy-ingress"), Denied(0, 902)]);
        w.send(2, IN, &syn.bytes()).is(SHOT, &[Drop(2, IN, "policy-ingress"), Denied(0, 902)]);
    }
}

#[test]
fn the_host_and_the_world_are_judged_at_the_only_gate() {
    let mut w = world();
    for (v6, host, far) in [(false, "192.0.2.1", "198.51.100.7"), (true, "fd01::1", "2001:db8::7")]
    {
        let c = container(3).ip(v6);
        for (n, peer) in [host, far].into_iter().enumerate() {
            let peer = ip(peer);
            let out = Frame::udp((c, 5000), (peer, 53), b"?");
            let back = Frame::udp((peer, 53), (c, 5000), b"!");
            w.send(3, IN, &out.bytes()).passed(&out, &[Traffic(3, IN), flow(v6), Allowed(0, 0)]);
            w.arrive(3, 0, back.clone()).passed(&back, &[Traffic(3, OUT)]);
            // Begun by the other end.
            let begun = Frame::tcp((peer, 999), (c, 80), SYN, b"");
            w.arrive(3, w.uplink_ifindex, begun.clone())
                .passed(&begun, &[Traffic(3, OUT), flow(v6), Allowed(0, 0)]);
            w.policy(3, &default_entries(true, false));
            let denied = Frame::tcp((peer, 998 + n as u16 * 2), (c, 81), SYN, b"");
            w.arrive(3, 0, denied).is(SHOT, &[Drop(3, OUT, "policy-ingress"), Denied(0, 902)]);
            w.policy(3, &default_entries(true, true));
        }
    }
    assert!(w.maps.nat4().expect("nat4").is_empty(), "masquerading is its network's");
}

#[test]
fn nobody_else_sends_as_an_endpoint() {
    let mut w = world();
    for v6 in [false, true] {
        let (a, b, c) = (w.container(1).ip(v6), container(2).ip(v6), container(3).ip(v6));
        // Its own gate knows its addresses, whatever its MAC.
        let spoofed = Frame::udp((b, 1), (a, 2), b"");
        w.send(3, IN, &spoofed.bytes()).dropped(3, IN, "spoofed-address");
        let mine = Frame::udp((c, 1), (b, 2), b"").with(|f| f.source_mac = [2, 9, 9, 9, 9, 9]);
        w.send(3, IN, &mine.bytes()).is(NEXT, &[Traffic(3, IN), flow(v6), Allowed(0, 0)]);
        // On the way to one: who says that he is another must come from where that one is.
        let as_c = Frame::udp((c, 1), (b, 2), b"");
        let as_a = Frame::udp((a, 7), (b, 8), b"");
        let bridge = ifindex("br0");
        for ingress in [0, w.uplink_ifindex, port(1)] {
            w.arrive(2, ingress, as_c.clone()).dropped(2, OUT, "spoofed-address");
        }
        w.arrive(2, bridge, as_c.clone()).passed(&as_c, &[Traffic(2, OUT)]);
        w.arrive(2, port(3), as_c.clone()).passed(&as_c, &[Traffic(2, OUT)]);
        for ingress in [0, w.uplink_ifindex, bridge, port(3)] {
            w.arrive(2, ingress, as_a.clone()).dropped(2, OUT, "spoofed-address");
        }
        // Of the pool, but nobody's.
        let nobody = Frame::udp((ip(if v6 { "fd00::77" } else { "10.0.0.77" }), 1), (b, 2), b"");
        w.arrive(2, bridge, nobody).dropped(2, OUT, "spoofed-address");
    }
}

#[test]
fn a_flow_that_the_host_turned_round_is_judged_where_it_arrives() {
    // A published port: the sender saw the host's address, the host put in the receiver's.
    let mut w = world();
    let (b, c) = (container(2), container(3));
    let arrived = Frame::tcp((b.ip4, 40000), (c.ip4, 80), SYN, b"");
    let bridge = ifindex("br0");
    w.arrive(3, bridge, arrived.clone())
        .passed(&arrived, &[Traffic(3, OUT), Flow4(1), Allowed(0, 0)]);
    w.policy(
        3,
        &[default_entries(true, true), vec![entry(b.identity, INGRESS, None, 5, 88, false)]]
            .concat(),
    );
    let denied = Frame::tcp((b.ip4, 40001), (c.ip4, 80), SYN, b"");
    w.arrive(3, bridge, denied).is(SHOT, &[Drop(3, OUT, "policy-ingress"), Denied(0, 88)]);
}

#[test]
fn with_porins_own_endpoints_porin_delivers() {
    for v6 in [false, true] {
        let mut w = world();
        let (a, c) = (w.container(1), container(3));
        let (ca, cc) = ((a.ip(v6), 40000), (c.ip(v6), 80));
        let neighbour = match cc.0 {
            Ip::V4(address) => address.to_string(),
            Ip::V6(address) => address.to_string(),
        };
        run_ip(&format!(
            "neighbour add {neighbour} lladdr 02:00:00:00:01:03 dev br0 nud permanent"
        ));
        // From porin's own: routed to the bridge, a hop further.
        let syn = Frame::tcp(ca, cc, SYN, b"");
        let shot = w.from(1, syn.clone()).is(REDIRECT, &[Traffic(1, IN), flow(v6), Allowed(0, 0)]);
        let hop = syn.clone().with(|f| f.hop_limit -= 1);
        assert_eq!(shot.l3(), hop.l3());
        w.arrive(3, a.ifindex, hop.clone()).passed(&hop, &[Traffic(3, OUT)]);
        w.arrive(3, ifindex("br0"), hop).dropped(3, OUT, "spoofed-address");
        // To porin's own: straight into its namespace, past bridge and host.
        let back = Frame::tcp(cc, ca, SYN | ACK, b"");
        let shot = w.send(3, IN, &back.bytes()).delivered(&a, &[Traffic(3, IN)]);
        assert_eq!(shot.l3(), back.l3());
        // Whatever else says so comes by another way: dropped at the own endpoint's gate.
        w.to(1, back.clone()).dropped(1, OUT, "spoofed-address");
        w.uplink_in(back.clone()).dropped(UPLINK, IN, "spoofed-address");
        // The last hop is used up.
        let last = Frame::tcp(ca, cc, ACK, b"").with(|f| f.hop_limit = 1);
        w.from(1, last).is(REDIRECT, &[Drop(1, IN, "hop-limit"), Dropped]);
        let f = if v6 { w.flow6() } else { w.flow4() };
        assert_eq!(f.packets[0], 2, "each once, the one that was told of included");
        // The route leads elsewhere.
        run_ip("link set br0 down");
        w.from(1, Frame::tcp(ca, cc, ACK, b"")).dropped(1, IN, "no-route");
    }
}

#[test]
fn uplinks_leave_adopted_endpoints_to_their_gates() {
    let mut w = world();
    for (v6, far) in [(false, "198.51.100.7"), (true, "2001:db8::7")] {
        let (c, far) = (container(3).ip(v6), ip(far));
        let out = Frame::udp((c, 5000), (far, 53), b"?");
        let back = Frame::udp((far, 53), (c, 5000), b"!");
        for _ in 0..2 {
            // Unknown at first, known then.
            w.send(UPLINK, OUT, &out.bytes()).is(NEXT, &[]);
            w.uplink_in(back.clone()).is(NEXT, &[]);
            w.send(3, IN, &out.bytes());
        }
        let later =
            Frame::udp((far, 53), (c, 5000), &[0; 32]).with(|f| f.fragment = Some((64, false)));
        w.uplink_in(later).is(NEXT, &[]);
        let quoted = out.l3();
        let error = if v6 { (1, 4) } else { (3, 1) };
        let error = Frame::icmp(far, c, error.0, error.1, [0; 4], &quoted);
        w.uplink_in(error.clone()).is(NEXT, &[]);
        w.arrive(3, w.uplink_ifindex, error.clone()).passed(&error, &[Traffic(3, OUT)]);
    }
}

#[test]
fn errors_about_their_flows_pass_and_others_do_not() {
    let mut w = world();
    for v6 in [false, true] {
        let (b, c) = (container(2).ip(v6), container(3).ip(v6));
        let asked = Frame::udp((b, 5000), (c, 53), b"?");
        w.send(2, IN, &asked.bytes());
        let (ty, code) = if v6 { (1, 4) } else { (3, 3) };
        let refused = Frame::icmp(c, b, ty, code, [0; 4], &asked.l3());
        w.send(3, IN, &refused.bytes()).passed(&refused, &[Traffic(3, IN)]);
        w.arrive(2, port(3), refused.clone()).passed(&refused, &[Traffic(2, OUT)]);
        w.arrive(2, port(1), refused).dropped(2, OUT, "spoofed-address");
        let never = Frame::udp((b, 5001), (c, 53), b"?").l3();
        let untracked = Frame::icmp(c, b, ty, code, [0; 4], &never);
        w.send(3, IN, &untracked.bytes()).dropped(3, IN, "untracked-error");
        // The host's own, about a flow between the two.
        let host = ip(if v6 { "fd01::1" } else { "192.0.2.1" });
        let by_host = Frame::icmp(host, b, ty, code, [0; 4], &asked.l3());
        w.arrive(2, 0, by_host.clone()).passed(&by_host, &[Traffic(2, OUT)]);
    }
}

#[test]
fn what_is_rejected_is_answered_by_the_same_interface() {
    for v6 in [false, true] {
        let mut w = world();
        let (b, c) = (container(2), container(3));
        let (cb, cc) = ((b.ip(v6), 40000), (c.ip(v6), 80));
        let deny = default_entries(true, false).into_iter();
        let reject: Vec<_> =
            deny.map(|e| if e.1.verdict == abi::VERDICT_DENY { rejecting(e) } else { e }).collect();
        w.policy(3, &reject);
        let syn = Frame::tcp(cb, cc, SYN, b"").with(|f| f.source_mac = b.mac);
        let moves = [Drop(2, IN, "policy-ingress"), Denied(0, 902)];
        let shot = w.send(2, IN, &syn.bytes()).is(REDIRECT, &moves);
        assert_eq!(shot.l3(), Frame::reset(cc, cb, 0, Some(2)).l3());
        assert_eq!(shot.outcome.data[..6], b.mac);
        // On its way out it meets the gate again.
        let mark = shot.outcome.context.mark;
        assert_ne!(mark, 0);
        let context = TestContext { mark, ..TestContext::default() };
        let answer = w.send_with(2, OUT, &shot.outcome.data, context).is(NEXT, &[]);
        assert_eq!(answer.outcome.context.mark, 0);
        // From the world: back to where it came from, as if the endpoint had said so.
        let far = (ip(if v6 { "2001:db8::7" } else { "198.51.100.7" }), 1234);
        let syn = Frame::tcp(far, cc, SYN, b"");
        let moves = [Drop(3, OUT, "policy-ingress"), Denied(0, 902)];
        let shot = w.arrive(3, w.uplink_ifindex, syn).is(REDIRECT, &moves);
        assert_eq!(shot.l3(), Frame::reset(cc, far, 0, Some(2)).l3());
        let context = TestContext { mark: shot.outcome.context.mark, ..TestContext::default() };
        w.send_with(3, IN, &shot.outcome.data, context).is(NEXT, &[]);
    }
}

fn arp(sender: Ip, target: Ip) -> Vec<u8> {
    let mac = container(3).mac;
    let mut f = [&[0xff; 6][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac].concat();
    f.extend(sender.bytes());
    f.extend([0; 6]);
    f.extend(target.bytes());
    f
}

fn discovery(source: Ip, destination: Ip, ty: u8, target: Ip) -> Frame {
    Frame::icmp(source, destination, ty, 0, [0; 4], &target.bytes()).with(|f| f.hop_limit = 255)
}

#[test]
fn the_link_goes_on_working() {
    let mut w = world();
    let (b, c) = (container(2), container(3));
    let link = ip("fe80::3");
    let sent = [
        arp(c.ip4, b.ip4),
        arp(ip("0.0.0.0"), c.ip4),
        Frame::udp((ip("0.0.0.0"), 68), (ip("255.255.255.255"), 67), b"discover").bytes(),
        Frame::udp((c.ip4, 68), (ip("255.255.255.255"), 67), b"rebind").bytes(),
        Frame::new(c.ip4, ip("224.0.0.22"), 2, vec![0; 8]).bytes(),
        discovery(link, ip("ff02::2"), 133, link).bytes(),
        discovery(link, ip("ff02::1:ff00:2"), 135, b.ip6).bytes(),
        discovery(ip("::"), ip("ff02::1:ff00:3"), 135, c.ip6).bytes(),
        discovery(c.ip6, b.ip6, 136, c.ip6).bytes(),
        discovery(link, ip("ff02::1"), 136, link).bytes(),
        Frame::icmp(link, ip("ff02::16"), 143, 0, [0; 4], &[0; 20])
            .with(|f| f.extensions = vec![(0, vec![0, 5, 2, 0, 0, 1, 0])])
            .bytes(),
        Frame::udp((link, 546), (ip("ff02::1:2"), 547), b"solicit").bytes(),
    ];
    for frame in sent {
        let shot = w.send(3, IN, &frame).is(NEXT, &[]);
        assert_eq!(shot.outcome.data, frame);
    }
    let received = [
        arp(b.ip4, c.ip4),
        Frame::udp((ip("10.0.0.250"), 67), (ip("255.255.255.255"), 68), b"offer").bytes(),
        Frame::udp((ip("10.0.0.250"), 67), (c.ip4, 68), b"ack").bytes(),
        Frame::new(ip("10.0.0.250"), ip("224.0.0.1"), 2, vec![0; 8]).bytes(),
        discovery(ip("fe80::1"), ip("ff02::1"), 134, link).bytes(),
        discovery(b.ip6, ip("ff02::1:ff00:3"), 135, c.ip6).bytes(),
        discovery(b.ip6, c.ip6, 136, b.ip6).bytes(),
        Frame::icmp(ip("fe80::1"), ip("ff02::1"), 130, 0, [0; 4], &[0; 16]).bytes(),
        Frame::udp((ip("fe80::1"), 547), (link, 546), b"advertise").bytes(),
    ];
    for frame in received {
        w.send(3, OUT, &frame).is(NEXT, &[]);
    }
}

#[test]
fn what_cannot_be_judged_is_dropped() {
    let mut w = world();
    let (b, c) = (container(2), container(3));
    let link = ip("fe80::3");
    w.send(3, IN, &arp(b.ip4, c.ip4)).dropped(3, IN, "spoofed-address");
    let sent = [
        // Another's address, a router's and a DHCP server's words, a forwarded one.
        (discovery(c.ip6, ip("ff02::1"), 136, b.ip6), "spoofed-address"),
        (discovery(b.ip6, ip("ff02::1"), 136, c.ip6), "spoofed-address"),
        (discovery(c.ip6, b.ip6, 137, b.ip6), "link-local"),
        (discovery(c.ip6, b.ip6, 136, c.ip6).with(|f| f.hop_limit = 254), "link-local"),
        (Frame::udp((link, 546), (ip("fe80::1"), 547), b""), "link-local"),
        (Frame::udp((link, 5353), (ip("fe80::1"), 53), b""), "link-local"),
        (Frame::udp((ip("0.0.0.0"), 68), (b.ip4, 67), b""), "spoofed-address"),
        (Frame::udp((c.ip4, 67), (ip("255.255.255.255"), 68), b""), "link-local"),
    ];
    for (frame, reason) in sent {
        w.send(3, IN, &frame.bytes()).dropped(3, IN, reason);
    }
    let chatter = [
        discovery(link, ip("ff02::1"), 134, link),
        Frame::udp((c.ip6, 5353), (ip("ff02::fb"), 5353), b""),
        Frame::udp((c.ip4, 5353), (ip("224.0.0.251"), 5353), b""),
    ];
    for frame in chatter {
        w.send(3, IN, &frame.bytes()).ignored(3, IN, "link-local");
    }
    let mut lldp = [&[1, 0x80, 0xc2, 0, 0, 0xe][..], &c.mac, &[0x88, 0xcc]].concat();
    lldp.extend([0; 46]);
    w.send(3, IN, &lldp).dropped(3, IN, "not-ip");
    // A bridge sends much to all its ports: no news.
    w.send(3, OUT, &lldp).ignored(3, OUT, "not-ip");
    for v6 in [false, true] {
        let far = ip(if v6 { "2001:db8::7" } else { "198.51.100.7" });
        w.arrive(3, 0, Frame::udp((far, 1), (b.ip(v6), 2), b"")).ignored(3, OUT, "elsewhere");
        let group = ip(if v6 { "ff02::fb" } else { "224.0.0.251" });
        w.arrive(3, 0, Frame::udp((far, 1), (group, 2), b"")).ignored(3, OUT, "link-local");
    }
}

#[test]
fn until_a_generation_knows_it_an_interface_goes_on_as_before() {
    let mut w = world();
    let (b, c) = (container(2), container(3));
    let frames = [
        (IN, Frame::udp((c.ip6, 1), (b.ip6, 2), b"")),
        (IN, Frame::udp((ip("192.168.7.7"), 1), (b.ip4, 2), b"")),
        (OUT, Frame::udp((b.ip6, 1), (c.ip6, 2), b"")),
        (OUT, Frame::udp((b.ip4, 1), (ip("224.0.0.251"), 2), b"")),
    ];
    // Known to side 1 only, with no program yet on either.
    let mut row = crate::world::endpoint(3, &w.container(3));
    row.side[0] = abi::EndpointSide::default();
    row.adopted = 1;
    w.maps.set_endpoint(3, &row).expect("endpoint");
    for (hook, side) in [(IN, 0), (OUT, 0), (IN, 1), (OUT, 1)] {
        w.maps.clear_program(abi::program_index(3, hook, side)).expect("cleared");
    }
    for (open, generation) in [(true, 2), (true, 0)] {
        w.open_gate(3, open);
        w.maps.commit(generation);
        for (hook, frame) in &frames {
            w.send(3, *hook, &frame.bytes()).passed(frame, &[]);
        }
    }
    // What was an endpoint's before, and is another's from the next generation on, is shut till then.
    w.open_gate(3, false);
    w.maps.commit(2);
    w.send(3, IN, &frames[0].1.bytes()).dropped(3, IN, "not-ready");
    w.send(3, OUT, &frames[2].1.bytes()).dropped(3, OUT, "not-ready");
    // Known, but without programs: a fault, and shut.
    w.open_gate(3, true);
    w.maps.commit(3);
    w.send(3, IN, &frames[0].1.bytes()).dropped(3, IN, "not-ready");
    w.send(3, OUT, &frames[2].1.bytes()).dropped(3, OUT, "not-ready");
    w.send(3, IN, &frames[1].1.bytes()).dropped(3, IN, "spoofed-address");
}

#[test]
fn fragments_and_resets() {
    for v6 in [false, true] {
        let mut w = world();
        let (b, c) = (container(2).ip(v6), container(3).ip(v6));
        let whole = Frame::udp((b, 5000), (c, 53), &[1; 64]);
        let piece = |offset: u16, more| {
            let l4 = whole.l4[usize::from(offset)..][..if more { 32 } else { 40 }].to_vec();
            whole.clone().with(|f| (f.fragment, f.l4) = (Some((offset, more)), l4))
        };
        w.send(2, IN, &piece(32, false).bytes()).dropped(2, IN, "fragment-unknown");
        let first = piece(0, true);
        w.send(2, IN, &first.bytes())
            .passed(&first, &[Traffic(2, IN), flow(v6), Fragment(1), Allowed(0, 0)]);
        w.arrive(3, port(2), first.clone()).passed(&first, &[Traffic(3, OUT)]);
        let last = piece(32, false);
        w.send(2, IN, &last.bytes()).passed(&last, &[Traffic(2, IN)]);
        w.arrive(3, port(2), last.clone()).passed(&last, &[Traffic(3, OUT)]);
        let stray = Frame::tcp((b, 1), (c, 2), RST, b"");
        w.send(2, IN, &stray.bytes()).dropped(2, IN, "invalid-state");
    }
}
