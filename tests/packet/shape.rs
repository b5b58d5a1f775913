//! What the programs are made of: what the verifier removes, what a packet costs.

use porin::kernel::datapath::{self as dp, Program, abi};
use std::os::fd::AsFd;

use crate::frame::{ACK, Frame, SYN};
use crate::world::{World, all_features, default_entries};

/// A hash or trie look-up counts itself in `skb->cb[4]`, if so asked at load time; the
/// helper is poisoned behind the counting function, so none escapes.
#[test]
fn established_costs_one_look_up() {
    for (v6, publishes) in [(false, 0), (true, 0), (false, 1), (true, 1)] {
        let mut w = World::with_features(abi::Features { publishes, ..all_features() });
        let (a, b) = (w.container(1), w.container(2));
        let (ca, cb) = ((a.ip(v6), 40000), (b.ip(v6), 80));
        let lookups = |shot: crate::world::Shot| shot.outcome.context.cb[4];
        // The flow (there is none), the address of the receiver, and two policies of two
        // look-ups each. With published ports: whether that is one, and the entry that was made.
        let more = 2 * u32::from(publishes);
        assert_eq!(lookups(w.from(1, Frame::tcp(ca, cb, SYN, b""))), 6 + more);
        assert_eq!(lookups(w.from(2, Frame::tcp(cb, ca, SYN | ACK, b""))), 1);
        assert_eq!(lookups(w.from(1, Frame::tcp(ca, cb, ACK, b""))), 1);
        assert_eq!(lookups(w.from(1, Frame::tcp(ca, cb, ACK, b"data"))), 1);
        assert_eq!(lookups(w.from(2, Frame::tcp(cb, ca, ACK, b"data"))), 1);
        // The flow, the receiver, one policy, and the counter of the rule that decided.
        w.policy(1, &default_entries(false, true));
        assert_eq!(lookups(w.from(1, Frame::udp(ca, cb, b""))), 5 + more / 2);
    }
}

#[test]
fn features_left_out_are_gone() {
    let w = World::new();
    let all = abi::Features { count_lookups: 0, ..all_features() };
    let insns = |program, features: abi::Features| {
        dp::load_variant(&w.maps, program, &features).expect("loads").xlated_insns
    };
    for program in Program::ALL {
        let whole = insns(program, all);
        let loaded = dp::load_variant(&w.maps, program, &all).expect("loads");
        println!(
            "{}: {whole} instructions, {} bytes, {} verified",
            program.name(),
            loaded.jited_len,
            loaded.verified_insns
        );
        let without = [
            ("ipv4", abi::Features { ipv4: 0, ..all }),
            ("ipv6", abi::Features { ipv6: 0, ..all }),
            ("ingress policy", abi::Features { ingress_policy: 0, ..all }),
            ("source ports", abi::Features { source_ports: 0, ..all }),
            ("shadow", abi::Features { shadow: 0, ..all }),
            ("accounting", abi::Features { accounting: 0, ..all }),
            ("events", abi::Features { events: 0, ..all }),
            ("adopted neighbours", abi::Features { adopts: 0, ..all }),
            ("requests", abi::Features { judges_requests: 0, ..all }),
        ];
        for (name, features) in without {
            let rest = insns(program, features);
            println!("{} without {name}: {rest}", program.name());
            assert!(rest < whole, "{} without {name}: {rest} of {whole}", program.name());
        }
        if [Program::FromEndpoint, Program::FromUplink].contains(&program) {
            let rest = insns(program, abi::Features { publishes: 0, ..all });
            println!("{} without published ports: {rest}", program.name());
            assert!(rest < whole, "{}", program.name());
        }
        if program != Program::ToUplink {
            let rest = insns(program, abi::Features { reject: 0, ..all });
            println!("{} without reject: {rest}", program.name());
            assert!(rest < whole, "{}", program.name());
        }
        if program != Program::ToEndpoint {
            assert!(
                insns(program, abi::Features { masquerade: 0, ..all }) < whole,
                "{}",
                program.name()
            );
        }
    }
}

#[test]
fn an_ipv6_variant_cannot_reach_ipv4s_maps() {
    let w = World::new();
    let ids = w.maps.ids().expect("ids");
    for program in Program::ALL {
        let names = |features| {
            let loaded = dp::load_variant(&w.maps, program, &features).expect("loads");
            let ids_left = dp::referenced_maps(loaded.fd.as_fd()).expect("read");
            ids_left.iter().filter_map(|id| ids.get(id).cloned()).collect::<Vec<_>>()
        };
        let v6 = names(abi::Features { ipv4: 0, ..all_features() });
        assert!(v6.contains(&"flows6".to_owned()), "{v6:?}");
        assert!(!v6.contains(&"flows4".to_owned()) && !v6.contains(&"nat4".to_owned()), "{v6:?}");
        let v4 = names(abi::Features { ipv6: 0, ..all_features() });
        assert!(v4.contains(&"flows4".to_owned()) && !v4.contains(&"flows6".to_owned()), "{v4:?}");
    }
}

#[test]
fn names_come_from_btf() {
    let names = dp::drop_reason_names();
    assert_eq!(names.len(), abi::DROP_REASONS as usize);
    assert!(names.iter().all(|name| !name.is_empty()));
    assert_eq!(names[1], "policy-egress");
    assert_eq!(dp::verdict_names(), ["none", "allow", "deny", "reject"]);
    assert_eq!(dp::event_type_names(), ["", "flow", "deny", "drop"]);
}

/// A thousand gates are loaded when a daemon starts, so the verifier must be done with one soon.
#[test]
fn gates_are_quickly_verified() {
    let w = World::new();
    for event_rate in [0, 100] {
        let gate = abi::Gate { slot: 1, has4: 1, has6: 1, event_rate, ..abi::Gate::default() };
        let own = dp::load_gate(&w.maps, &gate).expect("loads");
        let adopted = dp::load_adopted_gate(&w.maps, &gate).expect("loads");
        let gates = [
            ("ingress", own.ingress),
            ("egress", own.egress),
            ("adopted ingress", adopted.ingress),
            ("adopted egress", adopted.egress),
        ];
        for (hook, program) in gates {
            let info = porin::kernel::sys::program_info(program.as_fd()).expect("info");
            println!("{hook}, {event_rate} events: {info:?}");
            assert!(info.verified_insns < 4000, "{hook}: {info:?}");
        }
    }
    let begin = std::time::Instant::now();
    for slot in 1..=200 {
        dp::load_gate(&w.maps, &abi::Gate { slot, ..abi::Gate::default() }).expect("loads");
    }
    println!("both gates: {:?}", begin.elapsed() / 200);
}
