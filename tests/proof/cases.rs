//! Cases that people wrote, or that a failure of the random worlds shrank to: directories as the operator has them, and what
//! is to be expected. See `told` for how lines of `expect.txt` are written; `host ADDRESS` says what else the host has.

use std::fs;
use std::path::{Path, PathBuf};

use porin::config::Loader;
use porin::config::model::{Config, Uplink};

use crate::count::Count;
use crate::judges::Court;
use crate::kernel::Kernel;
use crate::reference;
use crate::told;
use crate::world::{self, World, origin};
use crate::worlds::{Draft, UPLINK};

#[test]
fn cases_are_as_expected() {
    let Some(mut kernel) = Kernel::new(1) else { return };
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/proof/cases");
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> = entries.collect();
    cases.sort();
    // One after another in one world, so that each also tests the change from the one before.
    let mut world = World::new(world::config(world::host(), vec![], vec![]), &[]);
    let (mut count, mut wrong) = (Count::default(), Vec::new());
    for case in &cases {
        count.worlds += 1;
        let name = case.file_name().unwrap().to_string_lossy();
        let faults = judge(case, &mut world, &mut kernel, &mut count);
        wrong.extend(faults.into_iter().map(|fault| format!("{name}: {fault}")));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    print!("{count}");
}

fn judge(case: &Path, world: &mut World, kernel: &mut Kernel, count: &mut Count) -> Vec<String> {
    let expect = fs::read_to_string(case.join("expect.txt")).unwrap();
    let lines = || expect.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let host = lines().filter_map(|line| line.strip_prefix("host "));
    let host = host.map(|address| address.parse().unwrap()).collect();
    let draft = Draft { config: load(case), host };
    let mut court = Court::open(world, kernel, &draft);
    kernel.take_hits();
    let mut faults = Vec::new();
    for line in lines().filter(|line| !line.starts_with("host ")) {
        let (query, expected) = line.split_once(" => ").unwrap_or_else(|| panic!("{line}"));
        let packet = told::parse_packet(&court.facts, query);
        let got = match court.ask(kernel, &packet, count) {
            Ok(got) => told::answer(&got),
            Err(fault) => {
                faults.push(fault);
                continue;
            }
        };
        let (expected, in_shadow) = match expected.split_once(" | shadow ") {
            Some((expected, in_shadow)) => (expected, Some(in_shadow)),
            None => (expected, None),
        };
        let shadow = reference::judge(&draft.config, &court.facts, &packet, true);
        let shadow = told::answer(&shadow);
        if expected != got || in_shadow.is_some_and(|expected| expected != shadow) {
            faults.push(format!("{query} => {got} | shadow {shadow}"));
        }
    }
    faults.extend(court.check_hits(kernel).err());
    faults
}

/// But for what packets need to get to be judged here.
fn load(case: &Path) -> Config {
    let loaded = Loader::new(vec![case.to_owned()]).load();
    let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.report));
    let mut config = Config::clone(&config);
    config.host.masquerade.enabled = false;
    config.host.flows.rate = 1_000_000;
    config.host.uplinks = vec![Uplink { interface: UPLINK.to_owned(), origin: origin(1) }];
    config
}
