//! Sums of what happened lately, over a window that may change.

/// Of the window, what a young sum is taken to be of at least.
const YOUNGEST: f64 = 0.3;
/// Windows after which sums are brought down: e²⁰⁰ is far from overflow.
const OLDEST: f64 = 200.0;
/// Windows without anything after which no more pass: nothing is left, and a rate of zero would make
/// what other routers tell infinite.
const IDLE: f64 = 300.0;

/// How decaying sums fade. What is added later counts for more, so that nothing has to be touched
/// to make the rest count for less.
#[derive(Debug, Clone, Copy, Default)]
pub struct Recent {
    /// When the last was added, seconds.
    last: Option<f64>,
    /// Windows that had passed by then since the sums were brought down.
    age: f64,
    /// Seconds that the sums are of, those of long ago for less.
    span: f64,
}

impl Recent {
    /// Something is added at `now`, seconds, to sums over `window` seconds. Returns how often it
    /// counts; sums that got too large are to be brought down by `scale` first.
    pub fn add(&mut self, window: f64, now: f64, scale: impl FnOnce(f64)) -> f64 {
        let passed = self.passed(window, now);
        self.span = self.span_after(passed, window);
        self.age += passed;
        self.last = Some(self.last.map_or(now, |last| last.max(now)));
        if self.age > OLDEST {
            scale((-self.age).exp());
            self.age = 0.0;
        }
        self.age.exp()
    }

    /// What a unit of the sums makes a second. Young ones are divided by the time that they are of,
    /// so that the first burst counts as the load it is.
    pub fn rate(&self, window: f64, now: f64) -> f64 {
        let passed = self.passed(window, now);
        (-self.age - passed).exp() / self.span_after(passed, window).max(YOUNGEST * window)
    }

    /// Windows that passed since the last was added.
    fn passed(&self, window: f64, now: f64) -> f64 {
        let passed = (now - self.last.unwrap_or(now)) / window;
        // Not known is none.
        if passed > 0.0 { passed.min(IDLE) } else { 0.0 }
    }

    fn span_after(&self, passed: f64, window: f64) -> f64 {
        let faded = (-passed).exp();
        self.span * faded + window * (1.0 - faded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_tell_is_the_same_rate_however_long_nothing_was_sent() {
        for idle in [1.0, 80.0, 3_600.0, 1e7, f64::INFINITY] {
            let (mut recent, mut own, mut scaled) = (Recent::default(), 0.0, 1.0);
            for n in 0..3_000 {
                let counts = recent.add(0.1, f64::from(n) * 0.01, |by| own *= by);
                own += counts;
            }
            let now = 30.0 + idle;
            // Others send 5 a second: written into the same sums, and read again.
            let others = 5.0 / recent.rate(0.1, now);
            assert!((others * recent.rate(0.1, now) - 5.0).abs() < 1e-6, "{idle}");
            assert!(own * recent.rate(0.1, now) < 1e-2, "{idle}: nothing is left of its own");
            recent.add(0.1, now, |by| scaled = by);
            let told = others * scaled * recent.rate(0.1, now);
            assert!(told.is_finite() && told > 0.0, "{idle}: {told}");
        }
    }
}
