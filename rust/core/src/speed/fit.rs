//! Least squares that never answers with a negative constant.

/// Sums lose so much of their weight with each later sample.
const FORGET: f64 = 0.998;
/// A sample counts as at most this many times what was expected, and at least its inverse: the
/// rest waited for something else.
const CLIP: f64 = 3.0;

/// `y = c · x` for three features x, with c ≥ 0 and decaying memory.
#[derive(Debug, Clone, Copy)]
pub struct Fit {
    constants: [f64; 3],
    /// Bounds: no engine is a thousand times off the profile; garbage may say so.
    most: [f64; 3],
    xx: [[f64; 3]; 3],
    xy: [f64; 3],
}

impl Fit {
    /// Starts at `constants`, as if `prior` samples of the size `typical` had shown each of them.
    pub fn new(constants: [f64; 3], typical: [f64; 3], prior: f64) -> Self {
        let expected: f64 = constants.iter().zip(typical).map(|(c, x)| c * x).sum();
        let mut fit =
            Self { constants, most: constants.map(|c| 1e3 * c), xx: [[0.0; 3]; 3], xy: [0.0; 3] };
        for (k, x) in typical.into_iter().enumerate() {
            // On its own: what the profile does not say is how the features go together.
            fit.xx[k][k] = prior * x * x / (expected * expected);
            fit.xy[k] = fit.xx[k][k] * constants[k];
        }
        fit
    }

    /// What the constants say of a sample.
    pub fn expect(&self, x: [f64; 3]) -> f64 {
        self.constants.iter().zip(x).map(|(c, x)| c * x).sum()
    }

    /// The constants.
    pub fn constants(&self) -> [f64; 3] {
        self.constants
    }

    /// Learns from one sample. Errors count relative to what was expected.
    pub fn learn(&mut self, x: [f64; 3], y: f64) {
        let expected = self.expect(x);
        let sane = expected > 0.0 && expected.is_finite() && y.is_finite();
        if !sane || x.iter().any(|x| !x.is_finite() || *x < 0.0) {
            return;
        }
        let y = y.clamp(expected / CLIP, expected * CLIP);
        let weight = 1.0 / (expected * expected);
        for (j, xj) in x.into_iter().enumerate() {
            for (k, xk) in x.into_iter().enumerate() {
                self.xx[j][k] = self.xx[j][k] * FORGET + weight * xj * xk;
            }
            self.xy[j] = self.xy[j] * FORGET + weight * xj * y;
        }
        self.solve();
    }

    /// Coordinate descent from the last answer; each step is the best on its line with c ≥ 0.
    fn solve(&mut self) {
        for _ in 0..4 {
            for k in 0..3 {
                if self.xx[k][k] <= 0.0 {
                    continue;
                }
                let others: f64 =
                    (0..3).filter(|&j| j != k).map(|j| self.xx[k][j] * self.constants[j]).sum();
                let best = (self.xy[k] - others) / self.xx[k][k];
                if best.is_finite() {
                    self.constants[k] = best.clamp(0.0, self.most[k]);
                }
            }
        }
        if self.constants.iter().all(|&c| c == 0.0) {
            self.constants = self.most.map(|most| most * 1e-6);
        }
    }
}

/// How many times slower than the others one row is, as far as its samples are sure of it.
#[derive(Debug, Clone, Copy)]
pub struct Ratio {
    weight: f64,
    mean: f64,
    square: f64,
}

impl Default for Ratio {
    /// A few samples around 1, far apart: one quick answer makes no quick engine.
    fn default() -> Self {
        Self { weight: 4.0, mean: 1.0, square: 2.0 }
    }
}

impl Ratio {
    /// Learns from actual / expected of one sample.
    pub fn learn(&mut self, ratio: f64) {
        if !(ratio > 0.0 && ratio.is_finite()) {
            return;
        }
        let ratio = ratio.clamp(self.mean / CLIP, self.mean * CLIP).clamp(1e-3, 1e3);
        self.weight = self.weight * 0.99 + 1.0;
        self.mean += (ratio - self.mean) / self.weight;
        self.square += (ratio * ratio - self.square) / self.weight;
    }

    /// The ratio. Engines alike must not look different by chance: what lies within two standard
    /// errors of 1 is 1.
    pub fn value(&self) -> f64 {
        let variance = (self.square - self.mean * self.mean).max(0.01 * self.mean * self.mean);
        let doubt = 2.0 * (variance / self.weight.max(1.0)).sqrt();
        if self.mean > 1.0 { (self.mean - doubt).max(1.0) } else { (self.mean + doubt).min(1.0) }
    }
}
