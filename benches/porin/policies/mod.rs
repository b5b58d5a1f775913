//! How cost grows with what there is: policies, identities, networks in a group.

pub mod commit;
pub mod compile;
mod files;
pub mod memory;
mod shape;
pub mod why;

use std::time::Duration;

use crate::report::Figure;
use crate::stats::Series;

const POLICIES: [usize; 4] = [10, 100, 1000, 10_000];
const IDENTITIES: [usize; 3] = [100, 1000, 10_000];

/// The median of the largest over that of the smallest; the smallest is the baseline.
fn growth(name: &str, samples: &[Vec<f64>]) -> Figure {
    let series = |samples: Option<&Vec<f64>>| Series::new(samples.cloned().unwrap_or_default());
    let (small, large) = (series(samples.first()), series(samples.last()));
    let (ratio, spread) = (large.median() / small.median(), large.spread() / small.median());
    Figure::new(name, ratio, "ratio", large.len(), spread).baseline(small.median())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
