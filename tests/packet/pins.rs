//! The set of maps in bpffs: found again, completed, or made anew; and read whole.

use std::fs;
use std::path::Path;
use std::process::Command;

use porin::kernel::datapath::{Cause, MapLimits, Maps, abi};

use crate::world::private_network;

const LIMITS: MapLimits = MapLimits { flows: 4096, nat: 64, fragments: 64, hits: 64 };

/// A bpffs that only this thread sees.
fn private_bpffs(at: &Path) {
    private_network();
    #[allow(unsafe_code)]
    // SAFETY: leaves file descriptors and memory alone.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.expect("root");
    for arguments in
        [vec!["--make-rprivate", "/"], vec!["-t", "bpf", "bpf", at.to_str().expect("UTF-8")]]
    {
        assert!(Command::new("mount").args(arguments).status().expect("mount").success());
    }
}

#[test]
fn found_completed_or_made_anew() {
    let place = tempfile::tempdir().expect("a directory");
    private_bpffs(place.path());
    let dir = place.path().join("v3/maps");
    let open = || Maps::open_or_create(&dir, &LIMITS);

    let (maps, created) = open().expect("made");
    assert!(created);
    maps.commit(7);
    let pins = fs::read_dir(&dir).expect("there").count();
    let (again, created) = open().expect("found");
    assert!(!created);
    assert_eq!(again.generation(), 7);
    assert_eq!(again.ids().expect("ids"), maps.ids().expect("ids"));

    // Completed: the state is there, others are not.
    for name in ["flows4", "policies"] {
        fs::remove_file(dir.join(name)).expect("removed");
    }
    let (completed, created) = open().expect("completed");
    assert!(!created);
    assert_eq!(completed.generation(), 7);
    assert_eq!(fs::read_dir(&dir).expect("there").count(), pins);
    assert_ne!(completed.ids().expect("ids"), maps.ids().expect("ids"));

    // Made anew: what died beside it is cleared away, and without a state it is nothing.
    let beside = place.path().join("v3/maps_new");
    fs::create_dir(&beside).expect("made");
    fs::rename(dir.join("flows6"), beside.join("flows6")).expect("moved");
    fs::remove_file(dir.join("state")).expect("removed");
    let (anew, created) = open().expect("made");
    assert!(created);
    assert_eq!(anew.generation(), 0);
    assert_eq!(fs::read_dir(&dir).expect("there").count(), pins);
    assert!(!beside.exists());

    // What is of another kind is not touched.
    fs::remove_file(dir.join("nat4")).expect("removed");
    fs::rename(dir.join("flows4"), dir.join("nat4")).expect("moved");
    let error = open().expect_err("foreign");
    assert!(matches!(error.cause, Cause::Foreign(_)), "{error}");
    assert!(error.to_string().contains("map nat4"), "{error}");
}

/// Many times over: a batch that is cut short is not the last one.
#[test]
fn flows_are_read_whole() {
    let maps = Maps::create(&LIMITS).expect("maps");
    for n in 0..2000u16 {
        let key = abi::Flow6Key { port: [n, 1], ..Default::default() };
        maps.set_flow6(&key, &abi::Flow { first_seen: u64::from(n), ..Default::default() })
            .expect("set");
    }
    for _ in 0..20 {
        let mut flows: Vec<u64> =
            maps.flows6().expect("read").iter().map(|f| f.1.first_seen).collect();
        flows.sort_unstable();
        assert_eq!(flows, (0..2000).collect::<Vec<u64>>());
    }
}
