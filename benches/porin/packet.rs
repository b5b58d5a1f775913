//! What a packet costs in the datapath alone, from gate to delivery, by BPF_PROG_TEST_RUN.
//!
//! The measuring itself is in `tests/packet/measure.rs`, beside the tests that say what must happen.

use crate::measure::{self, Costs};
use crate::report::Figure;

pub fn run(_rounds: usize) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut lookups = 0;
    for (family, v6) in [("v6", true), ("v4", false)] {
        // A thread of its own, for it leaves the machine's network namespace for good.
        let measured = std::thread::spawn(move || measure::packets(v6)).join();
        let Costs { established_ns, established_lookups, first_ns, first_samples, single_ns } =
            measured.expect("measured");
        lookups = lookups.max(established_lookups);
        let figure = |kind: &str, ns: u32, samples| {
            Figure::new(&format!("packet.{kind}.{family}.ns"), f64::from(ns), "ns", samples, 0.0)
        };
        // The best of five means of a million each.
        figures.push(figure("established", established_ns, 5));
        // Each can run but once: what one run costs beyond its share of a million is taken off.
        let alone = single_ns.saturating_sub(established_ns);
        figures.push(figure("first", first_ns.saturating_sub(alone), first_samples));
        figures.push(figure("first-alone", first_ns, first_samples));
        figures.push(figure("established-alone", single_ns, first_samples));
    }
    figures.push(Figure::new("packet.established.lookups", lookups as f64, "look-ups", 1, 0.0));
    figures
}
