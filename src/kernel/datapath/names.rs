//! Names of what the datapath numbers, read from its BTF: an enumerator added in
//! `verdict.h` shows in flows and metrics without a change in Rust.

use std::sync::OnceLock;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use super::skel::maps::MapsSkelBuilder;
use crate::kernel::sys;

/// `names[reason]`, in lower case with hyphens: "policy-egress". The last
/// enumerator, which only counts them, is left out.
pub fn drop_reason_names() -> &'static [String] {
    static NAMES: OnceLock<Vec<String>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let mut names = read("porin_drop_reason", "PORIN_DROP_");
        names.pop();
        names
    })
}

/// `names[verdict]`: "none", "allow", "deny".
pub fn verdict_names() -> &'static [String] {
    static NAMES: OnceLock<Vec<String>> = OnceLock::new();
    NAMES.get_or_init(|| read("porin_verdict", "PORIN_VERDICT_"))
}

/// `names[type]` of an event; there is no type 0.
pub fn event_type_names() -> &'static [String] {
    static NAMES: OnceLock<Vec<String>> = OnceLock::new();
    NAMES.get_or_init(|| read("porin_event_type", "PORIN_EVENT_"))
}

fn read(name: &str, prefix: &str) -> Vec<String> {
    super::print::forward();
    let mut storage = sys::object_storage();
    let Ok(open) = MapsSkelBuilder::default().open(&mut storage) else { return Vec::new() };
    let mut names = Vec::new();
    for (member, value) in sys::enumerators(open.open_object(), name) {
        let Ok(index) = usize::try_from(value) else { continue };
        if names.len() <= index {
            names.resize(index + 1, String::new());
        }
        names[index] = member.trim_start_matches(prefix).to_ascii_lowercase().replace('_', "-");
    }
    names
}
