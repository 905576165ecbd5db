//! Whether engines work on several prompts at once.

/// Samples lose so much of their weight with each later one.
const FORGET: f64 = 0.98;
/// Samples of each kind from which on their means are compared.
const LEAST: f64 = 4.0;
/// How much sooner than one that came to an idle engine a prompt must be done that came to others,
/// for them to be done at once.
const SOONER: f64 = 0.5;
/// Share of its prefill by which a prompt keeps others waiting then.
const OCCUPIES: f64 = 0.1;

/// A decaying mean.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    n: f64,
}

impl Mean {
    fn learn(&mut self, value: f64) {
        (self.sum, self.n) = (self.sum * FORGET + value, self.n * FORGET + 1.0);
    }

    fn get(self) -> f64 {
        self.sum / self.n
    }
}

/// What prompts took on one row that came to an idle engine, and those that came to others.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Logarithms of what was over what an engine of slowness 1 should take.
    alone: Mean,
    behind: Mean,
}

impl Seen {
    /// How many there are of both, and that times the difference of their means.
    fn difference(self) -> (f64, f64) {
        let n = self.alone.n.min(self.behind.n);
        (n, if n > 0.0 { n * (self.behind.get() - self.alone.get()) } else { 0.0 })
    }
}

/// An engine prefills in steps: what comes to others waits for these, and the time since their
/// first tokens is its own. Behind one address there may be several engines, though, or time may
/// pass on the way: then that time is much shorter than what a prompt takes that came alone. Rows
/// are compared with themselves, since a slow one gets less and has more that come alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overlap {
    /// Sums of [`Seen::difference`] over all rows.
    n: f64,
    difference: f64,
}

impl Overlap {
    /// A prompt took so many times what was expected of it. `alone`: nobody else was there.
    pub fn learn(&mut self, row: &mut Seen, alone: bool, ratio: f64) {
        if !(ratio > 0.0 && ratio.is_finite()) {
            return;
        }
        self.forget(*row);
        let kind = if alone { &mut row.alone } else { &mut row.behind };
        kind.learn(ratio.ln().clamp(-3.0, 3.0));
        let (n, difference) = row.difference();
        (self.n, self.difference) = (self.n + n, self.difference + difference);
    }

    /// The row is another endpoint's from now on.
    pub fn forget(&mut self, row: Seen) {
        let (n, difference) = row.difference();
        (self.n, self.difference) = ((self.n - n).max(0.0), self.difference - difference);
    }

    /// Whether several are worked on at once.
    pub fn is_parallel(&self) -> bool {
        self.n >= LEAST && self.difference / self.n < SOONER.ln()
    }

    /// Share of its prefill by which a prompt keeps others waiting.
    pub fn occupies(&self) -> f64 {
        if self.is_parallel() { OCCUPIES } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_that_are_done_at_once_are_distinguished_from_those_that_wait_for_each_other() {
        for (behind, parallel) in [(0.4, true), (0.6, false), (0.9, false), (3.0, false)] {
            let (mut overlap, mut rows) = (Overlap::default(), [Seen::default(); 2]);
            for n in 0..20 {
                let noise = 0.8 + 0.1 * f64::from(n % 5);
                // The second row is four times as slow, and mostly idle.
                overlap.learn(
                    &mut rows[0],
                    n % 4 == 0,
                    noise * if n % 4 == 0 { 1.0 } else { behind },
                );
                overlap.learn(
                    &mut rows[1],
                    n % 4 > 0,
                    noise * if n % 4 > 0 { 4.0 } else { 4.0 * behind },
                );
            }
            assert_eq!(overlap.is_parallel(), parallel, "{behind}");
            assert_eq!(overlap.occupies() < 1.0, parallel);
        }
    }

    #[test]
    fn nothing_is_concluded_from_one_kind_alone_nor_of_a_row_that_is_gone() {
        let (mut overlap, mut rows) = (Overlap::default(), [Seen::default(); 2]);
        (0..100).for_each(|_| overlap.learn(&mut rows[0], false, 0.01));
        (0..3).for_each(|_| overlap.learn(&mut rows[0], true, 1.0));
        (0..100).for_each(|_| overlap.learn(&mut rows[1], true, 1.0));
        overlap.learn(&mut rows[0], true, f64::NAN);
        assert!(!overlap.is_parallel());
        (0..3).for_each(|_| overlap.learn(&mut rows[0], true, 1.0));
        assert!(overlap.is_parallel());
        overlap.forget(rows[0]);
        assert!(!overlap.is_parallel());
    }
}
