//! Commits: what becomes of flows that an older or newer generation has judged.

use crate::frame::{ACK, Frame, SYN, TCP};
use crate::world::{IN, Move::*, SHOT, World, default_entries, entry};
use porin::kernel::datapath::abi::{self, EGRESS};

#[test]
fn permission_goes_and_comes_back() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    let (ca, cb) = ((a.ip6, 40000), (b.ip6, 80));
    w.from(1, Frame::tcp(ca, cb, SYN, b""))
        .delivered(&b, &[Traffic(1, IN), Flow6(1), Allowed(0, 0)]);
    w.from(2, Frame::tcp(cb, ca, SYN | ACK, b"")).delivered(&a, &[Traffic(2, IN)]);

    // Generation 3 denies, by a's egress to port 80.
    let mut entries = default_entries(true, true);
    entries.push(entry(b.identity, EGRESS, Some((TCP, Some((80, 16)))), 5, 7, false));
    w.policy_of_side(1, 1, &entries);
    w.maps.commit(3);
    // The reply comes first, and is judged in the flow's original direction.
    w.from(2, Frame::tcp(cb, ca, ACK, b"r"))
        .is(SHOT, &[Drop(2, IN, "policy-egress"), Denied(7, 0)]);
    assert_eq!(abi::judged_generation(w.flow6().judged), 3);
    assert_eq!(abi::judged_verdict(w.flow6().judged), abi::VERDICT_DENY);
    w.from(2, Frame::tcp(cb, ca, ACK, b"r"))
        .is(SHOT, &[Drop(2, IN, "policy-egress"), Denied(7, 0)]);
    w.from(1, Frame::tcp(ca, cb, ACK, b"q"))
        .is(SHOT, &[Drop(1, IN, "policy-egress"), Denied(7, 0)]);

    // Generation 4 allows it again: the entry comes back to life.
    w.maps.commit(4);
    w.from(1, Frame::tcp(ca, cb, ACK, b"q")).delivered(&b, &[Traffic(1, IN)]);
    assert_eq!(abi::judged_generation(w.flow6().judged), 4);
    w.from(2, Frame::tcp(cb, ca, ACK, b"r")).delivered(&a, &[Traffic(2, IN)]);
}

#[test]
fn an_older_packet_leaves_the_entry_alone() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    let (ca, cb) = ((a.ip4, 40000), (b.ip4, 80));
    w.maps.commit(3);
    w.from(1, Frame::tcp(ca, cb, SYN, b""))
        .delivered(&b, &[Traffic(1, IN), Flow4(1), Allowed(0, 0)]);
    // As if still under way from before the commit, when a could not send.
    w.policy_of_side(1, 0, &default_entries(false, true));
    w.maps.commit(2);
    w.from(1, Frame::tcp(ca, cb, ACK, b""))
        .is(SHOT, &[Drop(1, IN, "policy-egress"), Denied(901, 0)]);
    w.from(2, Frame::tcp(cb, ca, SYN | ACK, b""))
        .is(SHOT, &[Drop(2, IN, "policy-egress"), Denied(901, 0)]);
    assert_eq!(abi::judged_generation(w.flow4().judged), 3);
    assert_eq!(abi::judged_verdict(w.flow4().judged), abi::VERDICT_ALLOW);
    w.maps.commit(3);
    w.from(1, Frame::tcp(ca, cb, ACK, b"")).delivered(&b, &[Traffic(1, IN)]);
}

#[test]
fn without_a_table_all_is_dropped() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    let packet = || Frame::udp((a.ip6, 40000), (b.ip6, 53), b"");
    let nobodys = [abi::policy_index(1, 0), abi::policy_index(2, 0)].map(|index| (index, 0));
    w.maps.set_policies(&nobodys[..1]).expect("set");
    w.from(1, packet()).is(SHOT, &[Drop(1, IN, "no-policy"), Dropped]);
    // A number that has no table is no better.
    w.maps.set_policies(&[(abi::policy_index(1, 0), 60_000)]).expect("set");
    w.from(1, packet()).is(SHOT, &[Drop(1, IN, "no-policy"), Dropped]);
    let world = Frame::udp((a.ip6, 40000), (crate::frame::ip("2001:db8::1"), 53), b"");
    w.maps.set_prefixes(0, 0).expect("set");
    w.from(1, world).is(SHOT, &[Drop(1, IN, "no-policy"), Dropped]);
}

#[test]
fn expired_entries_count_as_absent() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    let (ca, cb) = ((a.ip6, 40000), (b.ip6, 53));
    w.from(1, Frame::udp(ca, cb, b"")).delivered(&b, &[Traffic(1, IN), Flow6(1), Allowed(0, 0)]);
    let (key, mut flow) = w.maps.flows6().expect("flows")[0];
    flow.last_seen = flow.last_seen.saturating_sub((abi::TIMEOUT_UDP + 1) * 1_000_000_000);
    w.maps.set_flow6(&key, &flow).expect("set");
    w.policy(2, &default_entries(false, true));
    w.policy(1, &default_entries(true, false));
    // What was a reply is now a flow of b's, which b may not begin.
    w.from(2, Frame::udp(cb, ca, b"")).is(SHOT, &[Drop(2, IN, "policy-egress"), Denied(901, 0)]);
    w.from(1, Frame::udp(ca, cb, b"")).delivered(&b, &[Traffic(1, IN), Allowed(0, 0)]);
}

/// UDP on a denied flow, the other way: that may be a flow of its own.
#[test]
fn datagrams_back_on_a_denied_flow() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    let (ca, cb) = ((a.ip6, 40000), (b.ip6, 53));
    w.from(1, Frame::udp(ca, cb, b"")).delivered(&b, &[Traffic(1, IN), Flow6(1), Allowed(0, 0)]);
    w.policy_of_side(1, 1, &default_entries(false, true));
    w.maps.commit(3);
    w.from(1, Frame::udp(ca, cb, b"")).is(SHOT, &[Drop(1, IN, "policy-egress"), Denied(901, 0)]);
    // b may not send to a either, until it may.
    w.policy_of_side(2, 1, &default_entries(false, true));
    w.from(2, Frame::udp(cb, ca, b"")).is(SHOT, &[Drop(2, IN, "policy-egress"), Denied(901, 0)]);
    assert_eq!(w.flow6().identity, [a.identity, b.identity]);
    w.policy_of_side(2, 1, &default_entries(true, true));
    w.from(2, Frame::udp(cb, ca, b"")).delivered(&a, &[Traffic(2, IN), Allowed(0, 0)]);
    assert_eq!(w.flow6().identity, [b.identity, a.identity]);
    w.from(1, Frame::udp(ca, cb, b"")).delivered(&b, &[Traffic(1, IN)]);
}

/// While one CPU writes to an entry, others judge for themselves and leave it alone.
#[test]
fn an_entry_that_is_being_written_to() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    let (ca, cb) = ((a.ip4, 40000), (b.ip4, 53));
    w.from(1, Frame::udp(ca, cb, b"")).delivered(&b, &[Traffic(1, IN), Flow4(1), Allowed(0, 0)]);
    let (key, mut flow) = w.maps.flows4().expect("flows")[0];
    flow.judged = 0;
    flow.deliver[0].ifindex = 0xdead;
    w.maps.set_flow4(&key, &flow).expect("set");
    w.from(1, Frame::udp(ca, cb, b"")).delivered(&b, &[Traffic(1, IN)]);
    w.from(2, Frame::udp(cb, ca, b"")).delivered(&a, &[Traffic(2, IN)]);
    w.policy(1, &default_entries(false, true));
    w.from(1, Frame::udp(ca, cb, b"")).is(SHOT, &[Drop(1, IN, "policy-egress"), Denied(901, 0)]);
    assert_eq!((w.flow4().judged, w.flow4().deliver[0].ifindex), (0, 0xdead));
}

/// An address that leads to a slot of another's, as it may while it is being given away.
#[test]
fn an_address_of_another_slot() {
    let mut w = World::new();
    let a = w.container(1);
    for (v6, moved) in [(false, "10.0.0.50"), (true, "fd00::50")] {
        w.maps.set_address(crate::frame::ip(moved).mapped(), [2; 2]).expect("set");
        let frame = Frame::udp((a.ip(v6), 1), (crate::frame::ip(moved), 2), b"");
        w.from(1, frame).dropped(1, IN, "no-endpoint");
    }
}
