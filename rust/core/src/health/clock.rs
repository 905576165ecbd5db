//! Time that passes, from timestamps that may stand still, jump, or go back.

/// Seconds behind the latest time up to which a timestamp is merely late.
const LATE: f64 = 10.0;
/// The most that counts as passed between two timestamps: garbage may say that ages have.
const MOST: f64 = 86_400.0;

/// Counts the seconds that pass. A clock that is set back goes on from there at once.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    latest: f64,
    passed: f64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { latest: f64::NAN, passed: 0.0 }
    }
}

impl Clock {
    /// It is `time` now, in seconds of the host's clock.
    pub fn tick(&mut self, time: f64) {
        if !time.is_finite() {
            return;
        }
        let step = time - self.latest;
        if step > 0.0 {
            self.passed += step.min(MOST);
        }
        // Late is no news; later is, and so are a clock that was set back and the first time (NaN).
        if !(-LATE..=0.0).contains(&step) {
            self.latest = time;
        }
    }

    /// Seconds that have passed.
    pub fn passed(&self) -> f64 {
        self.passed
    }

    /// When it was, or will be, by the host's clock.
    pub fn of_host(&self, passed: f64) -> f64 {
        if self.latest.is_nan() { 0.0 } else { self.latest + (passed - self.passed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_times_pass_nothing_and_a_clock_set_back_goes_on() {
        let mut clock = Clock::default();
        for time in [1_000.0, 1_001.0, 997.0, f64::NAN, 1_001.5] {
            clock.tick(time);
        }
        assert_eq!((clock.passed(), clock.of_host(0.5)), (1.5, 1_000.5));
        clock.tick(10.0);
        clock.tick(12.0);
        assert_eq!((clock.passed(), clock.of_host(3.5)), (3.5, 12.0));
        clock.tick(1e300); // garbage: everybody may be tried, and nobody waits for ever
        clock.tick(13.0);
        let before = clock.passed();
        clock.tick(14.0);
        assert_eq!(clock.passed() - before, 1.0);
    }
}
