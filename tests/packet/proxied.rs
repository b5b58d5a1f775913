//! Connections whose requests are judged: what the L7 worker alone may send, and what nobody may.

use crate::errors::error;
use crate::frame::{ACK, Frame, Ip, RST, SYN, TCP};
use crate::world::{Entry, IN, Move, OUT, PASS, SHOT, Shot, World, default_entries, entry};
use porin::kernel::datapath::TestContext;
use porin::kernel::datapath::abi::{self, INGRESS};

const RULESET: u32 = 3;

/// Everything is allowed; of what comes to port 80, requests are judged.
fn judging() -> Vec<Entry> {
    let mut entries = default_entries(true, true);
    let (key, value) = entry(0, INGRESS, Some((TCP, Some((80, 16)))), 5, 7, true);
    entries.push((key, abi::PolicyValue { ruleset: RULESET, ..value }));
    entries
}

fn by_worker(w: &mut World, to: u32, frame: Frame) -> Shot {
    let context = TestContext { mark: abi::MARK_WORKER, ..TestContext::default() };
    w.send_with(to, OUT, &frame.bytes(), context)
}

fn ends(w: &World, v6: bool) -> ((Ip, u16), (Ip, u16)) {
    ((w.container(1).ip(v6), 40000), (w.container(2).ip(v6), 80))
}

fn flow(w: &World, v6: bool, port: u16) -> abi::Flow {
    let has = |ports: [u16; 2]| ports.contains(&port.to_be());
    let found = match v6 {
        true => w.maps.flows6().expect("flows").into_iter().find(|(k, _)| has(k.port)).map(|f| f.1),
        false => {
            w.maps.flows4().expect("flows").into_iter().find(|(k, _)| has(k.port)).map(|f| f.1)
        }
    };
    found.expect("a flow")
}

#[test]
fn nothing_goes_on_to_the_server_but_what_the_worker_sends() {
    let mut w = World::new();
    w.policy(2, &judging());
    for v6 in [true, false] {
        let (c, s) = ends(&w, v6);
        // There is no worker: the entry says what it would judge by.
        let shot = w.from(1, Frame::tcp(c, s, SYN, b""));
        assert!(shot.moves.contains(&Move::Drop(1, IN, "no-worker")), "{:?}", shot.moves);
        let of_client = flow(&w, v6, c.1);
        assert_eq!(of_client.flags & abi::FLOW_PROXIED, abi::FLOW_PROXIED);
        assert_eq!(of_client.ruleset, [RULESET as u16, 0]);
        assert_eq!(abi::judged_verdict(of_client.judged), abi::VERDICT_ALLOW);
        w.from(1, Frame::tcp(c, s, ACK, b"GET")).dropped(1, IN, "no-worker");
        // The server has no part in the client's connection, nor has the host.
        for flags in [ACK, RST, SYN | ACK] {
            w.from(2, Frame::tcp(s, c, flags, b"")).dropped(2, IN, "invalid-state");
            w.to(1, Frame::tcp(s, c, flags, b"")).dropped(1, OUT, "invalid-state");
            assert_eq!(w.to(2, Frame::tcp(c, s, flags, b"")).outcome.retval, SHOT);
        }
        by_worker(&mut w, 2, Frame::tcp(c, s, ACK, b"GET")).dropped(2, OUT, "invalid-state");
        assert_eq!(by_worker(&mut w, 1, Frame::tcp(s, c, SYN | ACK, b"")).outcome.retval, PASS);

        // The worker's own, by another port.
        let own = (c.0, 12345);
        by_worker(&mut w, 2, Frame::tcp(own, s, ACK, b"")).dropped(2, OUT, "invalid-state");
        assert_eq!(by_worker(&mut w, 2, Frame::tcp(own, s, SYN, b"")).outcome.retval, PASS);
        let of_worker = flow(&w, v6, own.1);
        assert_eq!(of_worker.flags & abi::FLOW_WORKERS, abi::FLOW_WORKERS);
        assert_eq!([of_worker.deliver[0].worker, of_worker.deliver[1].worker], [0, 1]);
        assert_eq!(by_worker(&mut w, 2, Frame::tcp(own, s, ACK, b"GET")).outcome.retval, PASS);
        // Its answers are for the worker's socket, of which there is none here.
        w.from(2, Frame::tcp(s, own, SYN | ACK, b"")).dropped(2, IN, "no-worker");
        // Its client has no part in it.
        for flags in [SYN, ACK, RST] {
            w.from(1, Frame::tcp(own, s, flags, b"")).dropped(1, IN, "invalid-state");
        }
        assert_eq!(w.to(2, Frame::tcp(own, s, ACK, b"")).outcome.retval, SHOT);
    }
}

#[test]
fn what_began_before_does_not_go_on_and_no_error_helps_it() {
    let mut w = World::new();
    for (v6, generation) in [(true, 2), (false, 4)] {
        let (c, s) = ends(&w, v6);
        let receiver = w.container(2);
        w.policy(2, &default_entries(true, true));
        w.maps.commit(generation);
        w.from(1, Frame::tcp(c, s, SYN, b""));
        w.from(2, Frame::tcp(s, c, SYN | ACK, b""));
        let shot = w.from(1, Frame::tcp(c, s, ACK, b""));
        assert_eq!(shot.outcome.data[..6], receiver.mac);
        w.policy(2, &judging());
        w.maps.commit(generation + 1);
        w.from(1, Frame::tcp(c, s, ACK, b"GET")).dropped(1, IN, "not-proxied");
        // Errors about it, of either end and of either kind.
        let quoted = Frame::tcp(s, c, ACK, b"data");
        let _ = w.from(1, error(c.0, s.0, false, &quoted, 64));
        let _ = w.from(1, error(c.0, s.0, true, &quoted, 64));
        let quoted = Frame::tcp(c, s, ACK, b"data");
        let _ = w.from(2, error(s.0, c.0, false, &quoted, 64));
        w.from(1, Frame::tcp(c, s, ACK, b"GET")).dropped(1, IN, "not-proxied");
        w.from(2, Frame::tcp(s, c, ACK, b"data")).dropped(2, IN, "not-proxied");
        // Without such rules it goes on.
        w.policy(2, &default_entries(true, true));
        w.maps.commit(generation + 2);
        let shot = w.from(1, Frame::tcp(c, s, ACK, b"GET"));
        assert_eq!(shot.outcome.data[..6], receiver.mac);
    }
}
