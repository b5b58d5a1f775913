//! What policies take in the kernel: tables that are really there, and what it says of them.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use libbpf_rs::{MapCore, MapFlags, MapHandle};
use porin::compile::plan::{Digest, Plan};
use porin::kernel::datapath::{MapLimits, Maps, TableKind};
use porin::kernel::{layout, sys};

use super::shape::{self, Shape};
use super::{IDENTITIES, POLICIES, compile};
use crate::report::Figure;

pub fn run(_rounds: usize) -> Vec<Figure> {
    let mut figures = Vec::new();
    for policies in POLICIES {
        let files = Shape { policies, identities: 100 }.files();
        figures.push(figure(&format!("policies.memory.{policies}.kib"), &compile::plan(&files)));
    }
    for identities in IDENTITIES {
        let files = Shape { policies: 1000, identities }.files();
        figures
            .push(figure(&format!("identities.memory.{identities}.kib"), &compile::plan(&files)));
    }
    let mut files = Shape { policies: 10, identities: 10 }.files();
    files.push((shape::GROUP_FILE.to_owned(), shape::group(shape::NETWORKS)));
    let policies = (0..shape::SHARED_BY).map(|n| (shape::of_group_file(n), shape::of_group(n, 0)));
    files.extend(policies);
    figures.push(figure("cidrs.100k.memory.kib", &compile::plan(&files)));
    figures
}

fn figure(name: &str, plan: &Plan) -> Figure {
    let maps =
        Maps::create(&MapLimits { flows: 16, nat: 16, fragments: 16, hits: 16 }).expect("maps");
    let tables: std::collections::BTreeMap<Digest, _> =
        plan.policies.values().map(|table| (table.digest, table)).collect();
    let numbers: Vec<u32> = (1..).take(tables.len()).collect();
    maps.make_tables(TableKind::Policy, &numbers).expect("policy tables");
    for (number, table) in numbers.iter().zip(tables.values()) {
        maps.fill_policy_table(*number, &layout::policy(table)).expect("policy table");
    }
    maps.make_tables(TableKind::Prefix, &[1]).expect("prefix table");
    maps.fill_prefix_table(1, &layout::prefixes(&plan.prefixes)).expect("prefix table");
    let kib =
        (memory(&maps, "policies", &numbers) + memory(&maps, "prefixes", &[1])) as f64 / 1024.0;
    Figure::new(name, kib, "KiB", tables.len(), 0.0)
}

/// Bytes of the tables with these numbers.
fn memory(maps: &Maps, outer: &str, numbers: &[u32]) -> u64 {
    let ids = maps.ids().expect("ids");
    let id = ids.iter().find(|(_, name)| *name == outer).map(|(id, _)| *id).expect("the outer map");
    let outer = MapHandle::from_map_id(id).expect("the outer map");
    let table = |number: &u32| {
        let inner = outer.lookup(&number.to_ne_bytes(), MapFlags::ANY).expect("look up");
        let inner = inner.expect("a table");
        let id = u32::from_ne_bytes(inner[..4].try_into().expect("four bytes"));
        locked(&sys::map_by_id(id).expect("the table"))
    };
    numbers.iter().map(table).sum()
}

/// Bytes, as the kernel counts them for this map (Linux 6.4 or later: what is in it).
fn locked(map: &OwnedFd) -> u64 {
    let path = Path::new("/proc/self/fdinfo").join(map.as_raw_fd().to_string());
    let text = std::fs::read_to_string(path).expect("fdinfo");
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:")).expect("memlock");
    line.trim().parse().expect("a number")
}
