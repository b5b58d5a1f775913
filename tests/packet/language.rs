//! What the policy language asks of judging beyond peers and ports: classes of source ports, what an endpoint
//! is called in either family, shadow tables, and the count of what each rule decides.

use porin::kernel::datapath::abi::{self, EGRESS, INGRESS};

use crate::frame::{ACK, Frame, SYN, TCP, UDP};
use crate::world::{
    IN, LIMITS, Move::*, SHOT, World, all_features, default_entries, endpoint, entry, from_class,
    rejecting,
};

/// Ports from `first` on are of a class, on one side.
fn classes(w: &World, side: u32, first: u16, class: u8) {
    let block = |number: u32| {
        let mut block = abi::SourceBlock::default();
        for (port, place) in (number * 64..).zip(&mut block.class) {
            *place = if port >= u32::from(first) { class } else { 0 };
        }
        (abi::source_index(number, side), block)
    };
    let blocks: Vec<_> = (0..abi::SOURCE_BLOCKS).map(block).collect();
    w.maps.set_sources(&blocks).expect("set");
}

fn moved(v6: bool) -> crate::world::Move {
    if v6 { Flow6(1) } else { Flow4(1) }
}

#[test]
fn a_rule_may_ask_for_the_source_port() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    classes(&w, 0, 1024, abi::SOURCE_CLASSES as u8 - 1);
    let last = abi::SOURCE_CLASSES as u8 - 1;
    let to = |port| Some((TCP, Some((port, 16))));
    let mut entries = default_entries(false, true);
    entries.push(from_class(entry(b.identity, EGRESS, to(80), 5, 11, true), last));
    entries.push(from_class(entry(0, EGRESS, to(81), 5, 12, true), last));
    // Of several the highest precedence decides; of equal ones the first in the order.
    entries.push(from_class(entry(0, EGRESS, to(82), 5, 13, true), last));
    entries.push(entry(b.identity, EGRESS, to(82), 6, 14, false));
    entries.push(from_class(entry(b.identity, EGRESS, to(83), 5, 15, true), last));
    entries.push(entry(b.identity, EGRESS, to(83), 5, 16, false));
    entries.push(entry(0, EGRESS, to(84), 5, 17, true));
    w.policy(1, &entries);
    for v6 in [false, true] {
        let mut try_from = |source: u16, port: u16, allowed: bool, cookie: u32| {
            let frame = Frame::tcp((a.ip(v6), source), (b.ip(v6), port), SYN, b"");
            let shot = w.from(1, frame);
            match allowed {
                true => shot.delivered(&b, &[Traffic(1, IN), moved(v6), Allowed(cookie, 0)]),
                false => shot.is(SHOT, &[Drop(1, IN, "policy-egress"), Denied(cookie, 0)]),
            };
        };
        for (port, cookie) in [(80, 11), (81, 12), (83, 15), (84, 17)] {
            try_from(1024, port, true, cookie);
            try_from(65535, port, true, cookie);
        }
        for source in [1, 1023] {
            try_from(source, 80, false, 901);
            try_from(source, 81, false, 901);
            try_from(source, 83, false, 16);
        }
        try_from(2000, 82, false, 14);
        // A reply is judged by the port of who began.
        let generation = w.maps.generation();
        classes(&w, (generation + 1) & 1, 1025, last);
        w.maps.commit(generation + 1);
        let reply = |port| Frame::tcp((b.ip(v6), 80), (a.ip(v6), port), SYN | ACK, b"");
        w.from(2, reply(65535)).delivered(&a, &[Traffic(2, IN)]);
        w.from(2, reply(1024)).is(SHOT, &[Drop(2, IN, "policy-egress"), Denied(901, 0)]);
        classes(&w, generation & 1, 1024, last);
        w.maps.commit(generation + 2);
    }
    // No ports, no class; and none without the feature.
    let echo = Frame::echo(a.ip6, b.ip6, 40000, false);
    w.from(1, echo).is(SHOT, &[Drop(1, IN, "policy-egress"), Denied(901, 0)]);
    let mut w = World::with_features(abi::Features { source_ports: 0, ..all_features() });
    classes(&w, 0, 0, last);
    w.policy(1, &entries);
    let frame = Frame::tcp((a.ip6, 2000), (b.ip6, 80), SYN, b"");
    w.from(1, frame).is(SHOT, &[Drop(1, IN, "policy-egress"), Denied(901, 0)]);
}

#[test]
fn an_endpoint_is_called_as_the_family_has_it() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    let (role4, role6) = (abi::PEER_ROLE + 4, abi::PEER_ROLE + 6);
    for (slot, c) in [(1, a), (2, b)] {
        let mut row = endpoint(slot, &c);
        for side in &mut row.side {
            side.peer[abi::FAMILY_IPV4] = role4;
            side.peer[abi::FAMILY_IPV6] = role6;
        }
        w.maps.set_endpoint(slot, &row).expect("set");
    }
    let mut sender = default_entries(false, true);
    sender.push(entry(role4, EGRESS, Some((UDP, None)), 5, 14, true));
    sender.push(entry(role6, EGRESS, Some((TCP, None)), 5, 16, true));
    w.policy(1, &sender);
    let mut receiver = default_entries(true, false);
    receiver.push(entry(role4, INGRESS, None, 5, 24, true));
    receiver.push(entry(role6, INGRESS, None, 5, 26, true));
    w.policy(2, &receiver);
    for v6 in [false, true] {
        let (ca, cb) = ((a.ip(v6), 5000), (b.ip(v6), 53));
        let (tcp, udp) = (Frame::tcp(ca, cb, SYN, b""), Frame::udp(ca, cb, b""));
        let (yes, no) = if v6 { (tcp, udp) } else { (udp, tcp) };
        let cookies = if v6 { Allowed(16, 26) } else { Allowed(14, 24) };
        let shot = w.from(1, yes).delivered(&b, &[Traffic(1, IN), moved(v6), cookies]);
        let role = if v6 { role6 } else { role4 };
        assert_eq!((shot.events[0].source_peer, shot.events[0].destination_peer), (role, role));
        w.from(1, no).is(SHOT, &[Drop(1, IN, "policy-egress"), Denied(901, 0)]);
    }
}

/// Verdict and cookies of the shadow of the last event.
fn shadow(shot: &crate::world::Shot) -> (u8, u32, u32) {
    let e = shot.events.last().expect("an event");
    (e.shadow, e.shadow_egress_cookie, e.shadow_ingress_cookie)
}

const NONE: u8 = abi::VERDICT_NONE;
const ALLOW: u8 = abi::VERDICT_ALLOW;
const DENY: u8 = abi::VERDICT_DENY;
const REJECT: u8 = abi::VERDICT_REJECT;

fn with_shadow(w: &World, slot: u32, shadow: u32) {
    let mut row = endpoint(slot, &w.container(slot));
    row.side.iter_mut().for_each(|side| side.shadow = shadow);
    w.maps.set_endpoint(slot, &row).expect("set");
}

#[test]
fn shadow_policies_are_judged_beside_and_change_nothing() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    let (ca, cb) = ((a.ip6, 5000), (b.ip6, 53));
    let port = |port| Some((UDP, Some((port, 16))));
    let mut enforced = default_entries(true, true);
    enforced.push(entry(0, EGRESS, port(54), 5, 31, false));
    w.policy(1, &enforced);
    let mut receiver = default_entries(true, true);
    receiver.push(entry(0, INGRESS, port(53), 5, 33, true));
    receiver.push(entry(0, INGRESS, port(55), 5, 35, false));
    w.policy(2, &receiver);
    let mut tighter = default_entries(true, true);
    tighter.push(rejecting(entry(0, EGRESS, port(53), 5, 41, false)));
    tighter.push(entry(0, EGRESS, port(56), 5, 46, true));
    w.policy(11, &tighter);

    // Nobody has any.
    let shot = w
        .from(1, Frame::udp(ca, cb, b""))
        .delivered(&b, &[Traffic(1, IN), Flow6(1), Allowed(0, 33)]);
    assert_eq!(shadow(&shot), (NONE, 0, 0));

    with_shadow(&w, 1, 11);
    let mut send = |from: u16, to: u16| w.from(1, Frame::udp((a.ip6, from), (b.ip6, to), b""));
    let allowed = |egress, ingress| [Traffic(1, IN), Flow6(1), Allowed(egress, ingress)];
    // The hits that go with them are checked with every packet (see `hits_of`).
    let shot = send(1, 53).delivered(&b, &allowed(0, 33));
    assert_eq!(shadow(&shot), (REJECT, 41, 0));
    // The receiver has no shadow of its own: what is enforced there counts there.
    let shot = send(1, 56).delivered(&b, &allowed(0, 0));
    assert_eq!(shadow(&shot), (ALLOW, 46, 0));
    let shot = send(1, 55).is(SHOT, &[Drop(1, IN, "policy-ingress"), Denied(0, 35)]);
    assert_eq!(shadow(&shot), (DENY, 0, 35));
    // Denied by what is enforced only: the receiver, who was not asked, is asked here.
    let shot = send(1, 54).is(SHOT, &[Drop(1, IN, "policy-egress"), Denied(31, 0)]);
    assert_eq!(shadow(&shot), (ALLOW, 0, 0));
    // Once a flow is there it is not judged again.
    assert!(send(1, 56).delivered(&b, &[Traffic(1, IN)]).events.is_empty());

    // The receiver's.
    with_shadow(&w, 1, 0);
    with_shadow(&w, 2, 12);
    let mut ingress = default_entries(true, true);
    ingress.push(entry(a.identity, INGRESS, None, 5, 42, false));
    w.policy(12, &ingress);
    let shot = w.from(1, Frame::udp((a.ip6, 2), (b.ip6, 56), b"")).delivered(&b, &allowed(0, 0));
    assert_eq!(shadow(&shot), (DENY, 0, 42));
}

/// Where nothing is enforced the variant does not ask, but for the shadow.
#[test]
fn shadow_policies_do_not_need_enforced_ones() {
    let features = abi::Features { egress_policy: 0, ingress_policy: 0, ..all_features() };
    let mut w = World::with_features(features);
    let (a, b) = (w.container(1), w.container(2));
    let mut tighter = default_entries(true, true);
    tighter.push(entry(b.identity, EGRESS, None, 5, 41, false));
    w.policy(11, &tighter);
    with_shadow(&w, 1, 11);
    let sent = w.from(1, Frame::udp((a.ip4, 1), (b.ip4, 2), b""));
    let shot = sent.delivered(&b, &[Traffic(1, IN), Flow4(1), Allowed(0, 0)]);
    assert_eq!(shadow(&shot), (DENY, 41, 0));
    with_shadow(&w, 1, 0);
    let mut ingress = default_entries(true, true);
    ingress.push(entry(a.identity, INGRESS, None, 5, 42, false));
    w.policy(12, &ingress);
    with_shadow(&w, 2, 12);
    let sent = w.from(1, Frame::udp((a.ip4, 3), (b.ip4, 2), b""));
    let shot = sent.delivered(&b, &[Traffic(1, IN), Flow4(1), Allowed(0, 0)]);
    assert_eq!(shadow(&shot), (DENY, 0, 42));
    // A shadow without a table says nothing.
    with_shadow(&w, 2, 13);
    let sent = w.from(1, Frame::udp((a.ip4, 4), (b.ip4, 2), b""));
    let shot = sent.delivered(&b, &[Traffic(1, IN), Flow4(1), Allowed(0, 0)]);
    assert_eq!(shadow(&shot), (NONE, 0, 0));
}

/// Rules are counted for each new flow and each packet that is denied, and not for what goes on.
#[test]
fn what_rules_decide_is_counted() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    let (ca, cb) = ((a.ip6, 40000), (b.ip6, 80));
    let mut enforced = default_entries(false, true);
    enforced.push(entry(0, EGRESS, Some((TCP, Some((80, 16)))), 5, 21, true));
    w.policy(1, &enforced);
    let hits = |w: &World| {
        let hits = w.maps.hits().expect("hits");
        let mut hits: Vec<_> = hits.iter().map(|(k, n)| (k.cookie, k.shadow, *n)).collect();
        hits.sort_unstable();
        hits
    };
    for _ in 0..3 {
        w.from(1, Frame::tcp(ca, cb, SYN, b""));
        w.from(2, Frame::tcp(cb, ca, ACK, b""));
    }
    assert_eq!(hits(&w), [(21, 0, 1)]);
    // A commit has the flow judged again, which is no decision of the rule's about a new one.
    w.maps.commit(3);
    w.from(2, Frame::tcp(cb, ca, ACK, b"")).delivered(&a, &[Traffic(2, IN)]);
    assert_eq!(hits(&w), [(21, 0, 1)]);
    w.policy(1, &default_entries(false, true));
    w.maps.commit(4);
    for _ in 0..2 {
        w.from(1, Frame::tcp(ca, cb, ACK, b""));
        w.from(2, Frame::tcp(cb, ca, ACK, b""));
    }
    assert_eq!(hits(&w), [(21, 0, 1), (901, 0, 4)]);
    assert_eq!(w.maps.uncounted_hits().expect("budgets"), 0);
    // Deleted ones begin anew.
    w.maps.delete_hits(&abi::HitKey { cookie: 901, shadow: 0 }).expect("deleted");
    w.from(1, Frame::tcp(ca, cb, ACK, b""));
    assert_eq!(hits(&w), [(21, 0, 1), (901, 0, 1)]);
}

/// What there is no counter for is counted as such, never lost.
#[test]
fn decisions_beyond_the_last_counter_are_counted_too() {
    let limits = porin::kernel::datapath::MapLimits { hits: 16, ..LIMITS };
    let mut w = World::with_limits(abi::Features { events: 0, ..all_features() }, &limits);
    let (a, b) = (w.container(1), w.container(2));
    let mut enforced = default_entries(true, true);
    for port in 1..=100 {
        let cookie = 100 + u32::from(port);
        enforced.push(entry(0, EGRESS, Some((UDP, Some((port, 16)))), 5, cookie, true));
    }
    w.policy(1, &enforced);
    for port in 1..=100 {
        w.from(1, Frame::udp((a.ip6, 1), (b.ip6, port), b""));
    }
    let counted: u64 = w.maps.hits().expect("hits").iter().map(|(_, count)| count).sum();
    let lost = w.maps.uncounted_hits().expect("budgets");
    assert!(counted >= 16 && lost > 0, "{counted} and {lost}");
    assert_eq!(counted + lost, 100);
    assert_eq!(w.maps.suppressed_events().expect("budgets"), 0);
}
