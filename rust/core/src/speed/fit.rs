//! Least squares that learns the scale first, then the shape, and never a negative constant.

use super::scale::Scale;

/// Sums lose so much of their weight with each later sample.
const FORGET: f64 = 0.998;
/// A sample counts as at most this many times what was expected, and at least its inverse: the
/// rest waited for something else.
const CLIP: f64 = 3.0;
/// A sample this many times below what was expected did not do the work at all.
const IDLE: f64 = 20.0;
/// Samples that the constants count for which are known beforehand, scale and all.
const SURE: f64 = 32.0;

/// `y = c · x` for a few features x, with c ≥ 0 and decaying memory.
///
/// The first `SCALED` constants are known up to a common factor. The median of the last samples
/// says which, at once; least squares then tells the constants apart, which a few samples' worth
/// of the prior's shape keeps in place where the features do not vary.
#[derive(Debug, Clone, Copy)]
pub struct Fit<const N: usize, const SCALED: usize> {
    shape: [f64; N],
    /// Samples, of the sizes that really come, that the shape counts for.
    prior: f64,
    constants: [f64; N],
    xx: [[f64; N]; N],
    xy: [f64; N],
    /// Sum of the features, each sample as a share of what was expected of it.
    sizes: [f64; N],
    samples: f64,
    /// Those in which there was anything of each feature.
    counts: [f64; N],
    scale: Scale,
}
crate::bytes::saved!(Fit<N, SCALED> {
    shape, prior, constants, xx, xy, sizes, samples, counts, scale
});

impl<const N: usize, const SCALED: usize> Fit<N, SCALED> {
    /// Starts at constants of this shape, which counts for so many samples.
    pub fn new(shape: [f64; N], prior: f64) -> Self {
        Self {
            shape,
            prior,
            constants: shape,
            xx: [[0.0; N]; N],
            xy: [0.0; N],
            sizes: [0.0; N],
            samples: 0.0,
            counts: [0.0; N],
            scale: Scale::default(),
        }
    }

    /// What the constants say of a sample.
    pub fn expect(&self, x: [f64; N]) -> f64 {
        self.constants.iter().zip(x).map(|(c, x)| c * x).sum()
    }

    /// The constants.
    pub fn constants(&self) -> [f64; N] {
        self.constants
    }

    /// Whether it can be: what is read from a file need not.
    pub fn is_sane(&self) -> bool {
        let learned = [self.xy, self.sizes, self.counts, self.constants];
        self.shape.iter().all(|&c| c > 0.0)
            && self.prior > 0.0
            && self.samples >= 0.0
            && learned.iter().chain(&self.xx).flatten().all(|&sum| sum >= 0.0)
    }

    /// Samples so far, old ones for less.
    pub fn samples(&self) -> f64 {
        self.samples
    }

    /// Learns from one sample that weighs so much, at most 1. Errors count relative to what was
    /// expected. `alike`: what the features beside the scaled ones stand for is as far off as
    /// these are. Returns the factor by which the scale was moved at once.
    pub fn learn(&mut self, mut x: [f64; N], y: f64, weight: f64, alike: bool) -> f64 {
        let expected = self.expect(x);
        let sane =
            expected > 0.0 && expected.is_finite() && y.is_finite() && y > 0.0 && weight > 0.0;
        if !sane || x.iter().any(|x| !x.is_finite() || *x < 0.0) {
            return 1.0;
        }
        let scaled: f64 = (0..SCALED).map(|k| self.constants[k] * x[k]).sum();
        let mut factor = 1.0;
        // Of what else took time, only the scaled part's share says something of the scale.
        let of_scaled = (y - (expected - scaled)) / scaled;
        if alike {
            factor = self.rescale_by(y / expected);
            x[SCALED..].iter_mut().for_each(|x| *x *= factor);
        } else if scaled > 0.5 * expected && of_scaled > 0.0 {
            factor = self.rescale_by(of_scaled);
        }
        let expected = self.expect(x);
        let Some(y) = believed(expected, y) else { return factor };
        let weight = weight / (expected * expected);
        for j in 0..N {
            for k in 0..N {
                self.xx[j][k] = self.xx[j][k] * FORGET + weight * x[j] * x[k];
            }
            self.xy[j] = self.xy[j] * FORGET + weight * x[j] * y;
            self.sizes[j] = self.sizes[j] * FORGET + weight * expected * x[j];
            let counts = if x[j] > 0.0 { weight * expected * expected } else { 0.0 };
            self.counts[j] = self.counts[j] * FORGET + counts;
        }
        self.samples = self.samples * FORGET + weight * expected * expected;
        self.solve();
        factor
    }

    /// Takes in one more ratio of actual to expected; moves the scale if the median is off.
    fn rescale_by(&mut self, ratio: f64) -> f64 {
        let factor = self.scale.learn(ratio);
        if factor != 1.0 {
            self.rescale(factor);
            if !self.scale.is_young() {
                // What was seen before was another engine, of the same shape.
                self.xy = self.xy.map(|xy| xy * factor);
            }
        }
        factor
    }

    /// All scaled constants times this.
    pub fn rescale(&mut self, factor: f64) {
        let factor = factor.clamp(1e-3, 1e3);
        for k in 0..SCALED {
            let (least, most) = (1e-3 * self.shape[k], 1e3 * self.shape[k]);
            self.constants[k] =
                (self.constants[k] * factor).clamp(least.min(self.constants[k]), most);
        }
        // Samples are weighed by what is expected of them.
        let fewer = 1.0 / (factor * factor);
        for k in 0..N {
            self.xx[k] = self.xx[k].map(|xx| xx * fewer);
            self.xy[k] *= fewer;
            self.sizes[k] /= factor;
        }
    }

    /// Coordinate descent from the last answer; each step is the best on its line with c ≥ 0.
    fn solve(&mut self) {
        let of = |c: &[f64; N]| -> f64 { (0..SCALED).map(|k| c[k] * self.sizes[k]).sum() };
        let scale = of(&self.constants) / of(&self.shape);
        let scale = if scale.is_finite() && scale > 0.0 { scale } else { 1.0 };
        for _ in 0..8 {
            for k in 0..N {
                let own = self.xx[k][k];
                if own <= 0.0 {
                    continue;
                }
                let others: f64 =
                    (0..N).filter(|&j| j != k).map(|j| self.xx[k][j] * self.constants[j]).sum();
                let (prior, worth) = if k < SCALED {
                    (scale * self.shape[k], self.prior)
                } else {
                    (self.shape[k], SURE)
                };
                let share = worth / self.counts[k].max(1.0);
                let best = (self.xy[k] - others + share * own * prior) / (own * (1.0 + share));
                if best.is_finite() {
                    self.constants[k] = best.clamp(0.0, 1e3 * self.shape[k]);
                }
            }
        }
        if (0..SCALED).all(|k| self.constants[k] == 0.0) {
            self.constants = self.shape.map(|shape| shape * 1e-3);
        }
    }
}

/// The sample, brought to within what can be believed of it: what it took, clipped, or nothing where
/// it can teach nothing.
pub fn believed(expected: f64, y: f64) -> Option<f64> {
    (y * IDLE > expected).then(|| y.clamp(expected / CLIP, expected * CLIP))
}
