//! Sums of what happened lately, over a window that may change.

/// Of the window, what a young sum is taken to be of at least.
const YOUNGEST: f64 = 0.3;
/// Windows after which sums are brought down: e²⁰⁰ is far from overflow.
const OLDEST: f64 = 200.0;

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
        ((now - self.last.unwrap_or(now)) / window).max(0.0)
    }

    fn span_after(&self, passed: f64, window: f64) -> f64 {
        let faded = (-passed).exp();
        self.span * faded + window * (1.0 - faded)
    }
}
