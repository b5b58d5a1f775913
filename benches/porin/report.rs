//! Results: their form on disk, and BENCHMARKS.md made from them.
//!
//! Knows nothing of how anything is measured.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::stats::Series;
use crate::targets::{self, Target};

pub const RESULTS: &str = "target/bench/results.json";
pub const DOCUMENT: &str = "BENCHMARKS.md";

/// One figure. `spread` is the distance between the quartiles of the samples that `value` comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: String,
    /// The other side of a ratio, in its own unit; none where there is nothing to compare with.
    pub baseline: Option<f64>,
    pub samples: usize,
    pub spread: f64,
    /// Where it was measured.
    pub machine: String,
}

impl Figure {
    pub fn new(name: &str, value: f64, unit: &str, samples: usize, spread: f64) -> Figure {
        let machine = machine();
        let (name, unit) = (name.into(), unit.into());
        Figure { name, value, unit, baseline: None, samples, spread, machine }
    }

    /// Median and spread.
    pub fn median(name: &str, series: &Series, unit: &str) -> Figure {
        Figure::new(name, series.median(), unit, series.len(), series.spread())
    }

    /// Median of paired ratios; above 1 is good for porin.
    pub fn ratio(name: &str, ours: &[f64], theirs: &[f64]) -> Figure {
        let baseline = Some(Series::new(theirs.to_vec()).median());
        Figure { baseline, ..Figure::median(name, &Series::ratios(ours, theirs), "ratio") }
    }

    pub fn baseline(self, baseline: f64) -> Figure {
        Figure { baseline: Some(baseline), ..self }
    }
}

/// Replaces the figures of the same names in the file, and writes the document anew.
pub fn write(figures: Vec<Figure>) -> std::io::Result<()> {
    let old = std::fs::read_to_string(RESULTS).unwrap_or_default();
    let old: Vec<Figure> = serde_json::from_str(&old).unwrap_or_default();
    let all: BTreeMap<String, Figure> =
        old.into_iter().chain(figures).map(|figure| (figure.name.clone(), figure)).collect();
    let all: Vec<Figure> = all.into_values().collect();
    if let Some(directory) = Path::new(RESULTS).parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(RESULTS, serde_json::to_string_pretty(&all)? + "\n")?;
    std::fs::write(DOCUMENT, document(&all))
}

/// Processor, cores and kernel.
pub fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} x {model}, Linux {}", kernel.trim())
}

fn document(figures: &[Figure]) -> String {
    let mut text = String::from(include_str!("preface.md"));
    let mut machines: Vec<&str> = figures.iter().map(|f| f.machine.as_str()).collect();
    machines.sort_unstable();
    machines.dedup();
    let _ = write!(text, "\nMeasured on: {}.\n\n", machines.join("; "));
    text += "| name | value | unit | spread | baseline | samples | to reach | |\n";
    text += "|---|--:|---|--:|--:|--:|--:|---|\n";
    for figure in figures {
        let Figure { name, value, unit, baseline, samples, spread, .. } = figure;
        let baseline = baseline.map(round).unwrap_or_else(|| "–".into());
        let (wanted, met) = match targets::of(name) {
            Some(target) => (target.to_string(), if target.met(*value) { "yes" } else { "**no**" }),
            None => (String::new(), ""),
        };
        let (value, spread) = (round(*value), round(*spread));
        let _ = writeln!(
            text,
            "| `{name}` | {value} | {unit} | {spread} | {baseline} | {samples} | {wanted} | {met} |"
        );
    }
    let missing: Vec<String> = targets::ALL
        .iter()
        .filter(|(name, _)| !figures.iter().any(|figure| figure.name == *name))
        .map(|(name, _)| format!("`{name}`"))
        .collect();
    if !missing.is_empty() {
        let _ = write!(text, "\nNot measured: {}.\n", missing.join(", "));
    }
    text
}

/// Three significant digits, or the whole number.
pub fn round(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::AtMost(bound) => write!(f, "≤ {bound}"),
            Target::AtLeast(bound) => write!(f, "≥ {bound}"),
        }
    }
}
