//! How long answers are.

use crate::bytes::saved;

/// Answers are averaged over about so many requests …
const ANSWERS: f64 = 256.0;
/// … beside which the profile's length counts as so many.
const PRIOR: f64 = 0.1;
/// The longest answer that counts.
pub const MOST: u64 = 1 << 17;

/// The mean length of answers, tokens.
#[derive(Debug, Clone, Copy)]
pub struct Lengths {
    mean: f64,
    /// Answers whose length is known, up to [`ANSWERS`].
    known: f64,
}

saved!(Lengths { mean, known });

impl Lengths {
    /// Starts at this length.
    pub fn new(mean: f64) -> Self {
        Self { mean, known: PRIOR }
    }

    /// An answer had so many tokens.
    pub fn learn(&mut self, tokens: u64) {
        self.known = (self.known + 1.0).min(ANSWERS);
        self.mean += (tokens.min(MOST) as f64 - self.mean) / self.known;
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        self.mean
    }
}
