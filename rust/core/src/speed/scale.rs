//! By how much everything is off, at once and whatever a few outliers say.

/// Ratios that are kept.
const KEPT: usize = 15;
/// Ratios until which each one moves the scale.
const YOUNG: usize = 12;
/// How far off the median may be then: beyond, the engines have changed.
const CHANGED: f64 = 1.5;

/// The last few ratios of what was to what was expected, as logarithms.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scale {
    ratios: [f64; KEPT],
    seen: usize,
}
crate::bytes::saved!(Scale { ratios, seen });

impl Scale {
    /// Whether so few were seen that all of it is a guess.
    pub fn is_young(&self) -> bool {
        self.seen <= YOUNG
    }

    /// Ratios that were seen, as far as they are counted.
    pub fn samples(&self) -> f64 {
        self.seen as f64
    }

    /// One more ratio. The factor by which what is expected must grow to meet the median; 1 where
    /// that is near enough.
    pub fn learn(&mut self, ratio: f64) -> f64 {
        if !(ratio > 0.0 && ratio.is_finite()) {
            return 1.0;
        }
        self.ratios[self.seen % KEPT] = ratio.ln();
        // Never back to young.
        self.seen = if self.seen + 1 == 3 * KEPT { 2 * KEPT } else { self.seen + 1 };
        let median = self.median();
        if !self.is_young() && median.abs() < CHANGED.ln() {
            return 1.0;
        }
        self.ratios = self.ratios.map(|ratio| ratio - median);
        median.exp()
    }

    /// The one in the middle.
    fn median(&self) -> f64 {
        let mut sorted = self.ratios;
        let sorted = &mut sorted[..self.seen.min(KEPT)];
        sorted.sort_unstable_by(f64::total_cmp);
        let n = sorted.len();
        if n == 0 { 0.0 } else { f64::midpoint(sorted[(n - 1) / 2], sorted[n / 2]) }
    }
}
