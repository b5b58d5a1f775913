//! Drop reasons: numbers to names.
//!
//! `bpf/include/porin/verdict.h` is the one source. Its text is compiled in and read once, so an
//! enumerator added there has a name here.

use std::sync::LazyLock;

const HEADER: &str = include_str!("../../bpf/include/porin/verdict.h");
const PREFIX: &str = "PORIN_DROP_";

/// Why the datapath dropped a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// As operators see it: `PORIN_DROP_SPOOFED_MAC` is `spoofed-mac`.
    pub name: String,
    /// What the header says of it.
    pub what: String,
}

/// All of them, by number. 0 is `none`.
pub fn reasons() -> &'static [Reason] {
    static REASONS: LazyLock<Vec<Reason>> = LazyLock::new(|| parse(HEADER));
    &REASONS
}

/// The name of a reason; a number that the header does not have stays a number.
pub fn name(number: u32) -> String {
    let known = usize::try_from(number).ok().and_then(|index| reasons().get(index));
    known.map_or_else(|| format!("reason-{number}"), |reason| reason.name.clone())
}

/// The enumerators `PORIN_DROP_*` in their order, without the last, which counts them.
fn parse(header: &str) -> Vec<Reason> {
    header
        .lines()
        .filter_map(|line| line.trim().strip_prefix(PREFIX))
        .take_while(|line| !line.starts_with("REASONS"))
        .map(|line| {
            let (enumerator, comment) = line.split_once("/*").unwrap_or((line, ""));
            let end = enumerator.find([',', ' ', '=']).unwrap_or(enumerator.len());
            Reason {
                name: enumerator[..end].to_ascii_lowercase().replace('_', "-"),
                what: comment.trim_end_matches("*/").trim().to_owned(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_header_s_names() {
        assert_eq!(name(0), "none");
        assert_eq!(name(1), "policy-egress");
        assert_eq!(name(2), "policy-ingress");
        assert_eq!(name(3), "not-ready");
        assert_eq!(name(4), "spoofed-mac");
        let last = reasons().len() - 1;
        assert_eq!(name(u32::try_from(last).unwrap()), "not-proxied");
        assert_eq!(name(4_000_000_000), "reason-4000000000");
    }

    /// The parser counts lines, so the enum must not assign numbers of its own.
    #[test]
    fn the_enum_counts_from_zero_without_gaps() {
        let assigned: Vec<_> = HEADER
            .lines()
            .filter(|line| line.trim().starts_with(PREFIX) && line.contains(" = "))
            .collect();
        assert_eq!(assigned, ["\tPORIN_DROP_NONE = 0,"]);
    }
}
