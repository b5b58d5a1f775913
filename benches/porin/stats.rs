//! Numbers about numbers. Pure.

/// Sorted samples.
pub struct Series(Vec<f64>);

impl Series {
    pub fn new(mut values: Vec<f64>) -> Series {
        assert!(!values.is_empty(), "a measurement without samples");
        values.sort_by(f64::total_cmp);
        Series(values)
    }

    /// Ratios of samples that were taken one after the other.
    pub fn ratios(ours: &[f64], theirs: &[f64]) -> Series {
        Series::new(ours.iter().zip(theirs).map(|(a, b)| a / b).collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// By linear interpolation between the nearest ranks.
    pub fn quantile(&self, q: f64) -> f64 {
        let at = q * (self.0.len() - 1) as f64;
        let (low, high) = (self.0[at.floor() as usize], self.0[at.ceil() as usize]);
        low + (high - low) * at.fract()
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Distance between the quartiles: half of the samples are inside.
    pub fn spread(&self) -> f64 {
        self.quantile(0.75) - self.quantile(0.25)
    }
}
