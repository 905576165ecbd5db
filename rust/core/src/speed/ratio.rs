//! How many times slower than the others one row is.

/// Samples lose so much of their weight with each later one.
const FORGET: f64 = 0.99;
/// Samples that say beforehand what the row should be like.
const PRIOR: f64 = 3.0;

/// How many times slower than the others one row is, as far as its samples are sure of it.
///
/// Least squares of `y = ratio · x` with errors relative to what was expected of each sample, so
/// that one of which x is a small part says little; shrunk to what is likely beforehand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ratio {
    xx: f64,
    xy: f64,
    yy: f64,
    samples: f64,
}
crate::bytes::saved!(Ratio { xx, xy, yy, samples });

impl Ratio {
    /// Learns from one sample: what x took, where the whole was expected to take `expected`.
    pub fn learn(&mut self, x: f64, y: f64, expected: f64) {
        if !(x > 0.0 && expected >= x && expected.is_finite() && y.is_finite()) {
            return;
        }
        let (x, y) = (x / expected, y / expected);
        self.xx = self.xx * FORGET + x * x;
        self.xy = self.xy * FORGET + x * y;
        self.yy = self.yy * FORGET + y * y;
        self.samples = self.samples * FORGET + 1.0;
    }

    /// The ratio where `likely` is what it should be. Engines alike must not look different by
    /// chance: what lies within two standard errors of that is that.
    pub fn value(&self, likely: f64) -> f64 {
        let mean = (self.xy + PRIOR * likely) / (self.xx + PRIOR);
        let errors = self.yy - mean * (2.0 * self.xy - mean * self.xx);
        // The prior's samples lie far apart: one quick answer makes no quick engine.
        let variance =
            ((errors + PRIOR * likely * likely) / (self.samples + PRIOR)).max(0.01 * mean * mean);
        let doubt = 2.0 * (variance / (self.xx + PRIOR)).sqrt();
        let value =
            if mean > likely { (mean - doubt).max(likely) } else { (mean + doubt).min(likely) };
        if value.is_finite() { value.clamp(1e-3, 1e3) } else { 1.0 }
    }
}
