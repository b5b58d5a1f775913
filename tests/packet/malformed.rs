//! What is not a sound packet: dropped, for a stated reason, and nothing else.

use crate::frame::{ACK, Frame, SYN, ip};
use crate::world::{IN, Move::*, NEXT, REDIRECT, SHOT, UPLINK, UPLINK_MAC, World};

/// Every truncation of valid packets, IP lengths left as they were.
#[test]
fn truncations() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    let quoted = Frame::udp((b.ip6, 1), (a.ip6, 2), b"").l3();
    let frames = [
        Frame::tcp((a.ip4, 1), (b.ip4, 2), SYN, b"xyz"),
        Frame::udp((a.ip4, 1), (b.ip4, 2), b"xyz").with(|f| f.options = vec![1, 1, 1, 0]),
        Frame::tcp((a.ip6, 1), (b.ip6, 2), SYN, b"xyz"),
        Frame::udp((a.ip6, 1), (b.ip6, 2), b"")
            .with(|f| f.extensions = vec![(0, vec![0, 1, 4, 0, 0, 0, 0]), (60, vec![0; 7])]),
        Frame::icmp(a.ip6, b.ip6, 1, 4, [0; 4], &quoted),
        Frame::echo(a.ip4, b.ip4, 3, false),
    ];
    for frame in frames {
        let whole = frame.with(|f| f.source_mac = a.mac).bytes();
        // BPF_PROG_TEST_RUN itself refuses what lacks an IP header.
        let header = if whole[12] == 0x86 { 40 } else { 20 };
        for length in 14 + header..whole.len() {
            let shot = w.send(1, IN, &whole[..length]);
            shot.is(SHOT, &[Drop(1, IN, "malformed"), Dropped]);
        }
    }
}

/// The same on an uplink: never a crash; dropped only if an endpoint would have got it.
#[test]
fn truncations_on_an_uplink() {
    let mut w = World::new();
    let (a, r) = (w.container(1), ip("198.51.100.7"));
    let whole =
        Frame::udp((r, 1), (a.ip4, 2), b"xyz").with(|f| f.destination_mac = UPLINK_MAC).bytes();
    for length in 14 + 20..whole.len() {
        // The lengths lie, so nothing of the header is believed: it is the host's.
        w.send(UPLINK, IN, &whole[..length]).is(NEXT, &[]);
    }
    // A sound header, and a fourth layer that is not.
    let short = Frame::udp((r, 1), (a.ip4, 2), b"").with(|f| f.l4.truncate(5));
    w.uplink_in(short.clone()).dropped(UPLINK, IN, "malformed");
    w.uplink_in(short.with(|f| f.destination = ip("192.0.2.1"))).is(NEXT, &[]);
}

#[test]
fn lengths_and_headers_that_lie() {
    let mut w = World::new();
    let (a, b) = (w.container(1), w.container(2));
    let good =
        Frame::tcp((a.ip4, 1), (b.ip4, 2), ACK, b"xyz").with(|f| f.source_mac = a.mac).bytes();
    let mut bad = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        w.send(1, IN, &frame).dropped(1, IN, "malformed");
    };
    bad(14, 0x55); // version 5
    bad(14, 0x44); // a header of 16 bytes
    bad(14, 0x4f); // of 60
    bad(17, 200); // longer than the frame
    bad(17, 19); // shorter than its header
    bad(17, 30); // without all of TCP's
    bad(14 + 20 + 12, 0x40); // TCP header of 16 bytes
    bad(14 + 20 + 12, 0xf0); // of 60

    let with = |extensions: Vec<(u8, Vec<u8>)>| {
        Frame::udp((a.ip6, 1), (b.ip6, 2), b"").with(|f| f.extensions = extensions)
    };
    let options = vec![0, 1, 4, 0, 0, 0, 0];
    w.from(1, with(vec![(0, options.clone()), (60, options.clone())]))
        .delivered(&b, &[Traffic(1, IN), Flow6(1), Allowed(0, 0)]);
    for extensions in [
        vec![(60, options.clone()), (0, options.clone())], // hop-by-hop not first
        vec![(60, options.clone()); 7],
        vec![(43, vec![0, 0, 0, 0, 0, 0, 0])], // type 0
        vec![(43, vec![0, 4, 1, 0, 0, 0, 0])], // segments left
        vec![(44, vec![0, 0, 1, 0, 0, 0, 1]), (44, vec![0, 0, 1, 0, 0, 0, 1])],
    ] {
        w.from(1, with(extensions)).dropped(1, IN, "extension-header");
    }
    // A routing header that is done with (RFC 8200 section 4.4).
    w.from(1, with(vec![(43, vec![0, 4, 0, 0, 0, 0, 0])])).delivered(&b, &[Traffic(1, IN)]);
    // Padding after the packet is no part of it.
    let mut padded = Frame::udp((a.ip4, 9), (b.ip4, 9), b"").with(|f| f.source_mac = a.mac).bytes();
    padded.resize(60, 0);
    w.send(1, IN, &padded).is(REDIRECT, &[Traffic(1, IN), Flow4(1), Allowed(0, 0)]);
}
