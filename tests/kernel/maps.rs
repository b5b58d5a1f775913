//! What is read in bulk and cleared, on real maps without any program.

use std::os::fd::AsFd;
use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags, MapHandle, num_possible_cpus};
use porin::kernel::datapath::{MapLimits, Maps, abi};
use porin::kernel::sweep::{self, FlowEnd, Swept};
use porin::kernel::sys;

use crate::lab;

fn maps() -> Maps {
    Maps::create(&MapLimits { flows: 4096, nat: 1024, fragments: 64, hits: 64 }).unwrap()
}

fn map(maps: &Maps, name: &str) -> MapHandle {
    let ids = maps.ids().unwrap();
    let (id, _) = ids.iter().find(|(_, found)| *found == name).unwrap();
    MapHandle::from_map_id(*id).unwrap()
}

const NOW: Duration = Duration::from_secs(1_000_000);

fn ago(seconds: u64) -> u64 {
    u64::try_from((NOW - Duration::from_secs(seconds)).as_nanos()).unwrap()
}

/// 10.0.0.1:`port` to 192.0.2.1:53, UDP, masqueraded as 192.0.2.2:`nat_port`.
fn add_flow(maps: &Maps, port: u16, nat_port: u16, last_seen: u64) {
    let key = abi::Flow4Key {
        address: [[10, 0, 0, 1], [192, 0, 2, 1]],
        port: [port.to_be(), 53u16.to_be()],
        protocol: 17,
        ..Default::default()
    };
    let flow = abi::Flow {
        // Not masqueraded by the flags: the address is what counts.
        flags: abi::FLOW_LOW_ORIGINATES,
        last_seen,
        packets: [3, 1],
        nat_address: [192, 0, 2, 2],
        nat_port: nat_port.to_be(),
        ..Default::default()
    };
    maps.set_flow4(&key, &flow).unwrap();
}

fn add_mapping(maps: &Maps, port: u16, nat_port: u16, last_seen: u64) {
    let key = abi::NatKey {
        remote_address: [192, 0, 2, 1],
        nat_address: [192, 0, 2, 2],
        remote_port: 53u16.to_be(),
        nat_port: nat_port.to_be(),
        protocol: 17,
        ..Default::default()
    };
    let value = abi::NatValue {
        address: [10, 0, 0, 1],
        port: port.to_be(),
        last_seen,
        ..Default::default()
    };
    sys::map_update(map(maps, "nat4").as_fd(), &key, &value).unwrap();
}

#[test]
fn a_sweep_takes_what_expired_and_mappings_without_a_flow() {
    lab::run(|_| {
        let maps = maps();
        add_flow(&maps, 1000, 61000, ago(3600));
        add_mapping(&maps, 1000, 61000, ago(3600));
        add_flow(&maps, 1001, 61001, ago(1));
        add_mapping(&maps, 1001, 61001, ago(3600));
        // Without a flow: one for long, one that may be about to get it.
        add_mapping(&maps, 1002, 61002, ago(60));
        add_mapping(&maps, 1003, 61003, ago(0));
        let old6 = abi::Flow6Key { protocol: 6, ..Default::default() };
        maps.set_flow6(&old6, &abi::Flow { last_seen: 1, ..Default::default() }).unwrap();

        let mut records = Vec::new();
        let swept = sweep::sweep(&maps, NOW, |record| records.push(record)).unwrap();
        assert_eq!(swept, Swept { ended: 2, alive: 1, mappings: 2 });
        let [four, _] = records.as_slice() else { panic!("{records:?}") };
        assert_eq!(four.source, ("10.0.0.1".parse().unwrap(), 1000));
        assert_eq!(four.destination, ("192.0.2.1".parse().unwrap(), 53));
        assert_eq!(four.masqueraded, Some(("192.0.2.2".parse().unwrap(), 61000)));
        assert_eq!((four.packets, four.end), ([3, 1], FlowEnd::Expired));

        let left: Vec<u16> =
            maps.flows4().unwrap().iter().map(|(key, _)| u16::from_be(key.port[0])).collect();
        assert_eq!(left, [1001]);
        assert!(maps.flows6().unwrap().is_empty());
        let mut left: Vec<u16> =
            maps.nat4().unwrap().iter().map(|(_, value)| u16::from_be(value.port)).collect();
        left.sort_unstable();
        assert_eq!(left, [1001, 1003]);
        let again = sweep::sweep(&maps, NOW, |record| panic!("{record:?}")).unwrap();
        assert_eq!(again, Swept { ended: 0, alive: 1, mappings: 0 });
    });
}

#[test]
fn one_by_one_shows_the_same_as_in_batches() {
    lab::run(|_| {
        let maps = maps();
        (0..3000).for_each(|port| add_flow(&maps, port, 0, u64::from(port)));
        let (key, value) = (size_of::<abi::Flow4Key>(), size_of::<abi::Flow>());
        let cpus = num_possible_cpus().unwrap();
        let per_cpu = size_of::<abi::Traffic>() * cpus;
        for (name, key, value, least) in [("flows4", key, value, 3000), ("traffic", 4, per_cpu, 1)]
        {
            let map = map(&maps, name);
            let (mut batches, mut singly) = (Vec::new(), Vec::new());
            let both = |k: &[u8], v: &[u8]| (k.to_vec(), v.to_vec());
            sys::map_each(map.as_fd(), key, value, |k, v| batches.push(both(k, v))).unwrap();
            sys::map_each_singly(map.as_fd(), key, value, |k, v| singly.push(both(k, v))).unwrap();
            batches.sort_unstable();
            singly.sort_unstable();
            assert!(batches.len() >= least && batches == singly, "{name}");
        }
    });
}

#[test]
fn counters_of_one_slot_are_cleared() {
    lab::run(|_| {
        let maps = maps();
        let cpus = num_possible_cpus().unwrap();
        let (traffic, drops) = (map(&maps, "traffic"), map(&maps, "drops"));
        let add = |map: &MapHandle, key: &[u8], size: usize| {
            map.update_percpu(key, &vec![vec![1; size]; cpus], MapFlags::ANY).unwrap();
        };
        for slot in [7u32, 8] {
            for hook in 0..2u16 {
                let index = slot * 2 + u32::from(hook);
                add(&traffic, sys::bytes_of(&index), size_of::<abi::Traffic>());
                let key = abi::DropKey { slot, hook, reason: 1 };
                add(&drops, sys::bytes_of(&key), size_of::<u64>());
            }
        }
        assert_eq!((maps.traffic().unwrap().len(), maps.drops().unwrap().len()), (4, 4));
        maps.clear_counters(7).unwrap();
        assert!(maps.traffic().unwrap().iter().all(|((slot, _), _)| *slot == 8));
        assert!(maps.drops().unwrap().iter().all(|(key, _)| key.slot == 8));
        assert_eq!((maps.traffic().unwrap().len(), maps.drops().unwrap().len()), (2, 2));
    });
}
