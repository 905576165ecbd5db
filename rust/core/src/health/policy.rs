//! The settings of health, all of them.

use crate::error::{RouteError, fail};

/// Outcomes that a window holds at most: a bit of a word each.
pub const MOST_WINDOW: u32 = 64;

/// When an endpoint goes out, for how long, and how it comes back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Off: nobody ever goes out.
    pub enabled: bool,
    /// Requests that fail in a row until an endpoint goes out …
    pub failures: u32,
    /// … and refused connections in a row.
    pub refusals: u32,
    /// Share of the last `window` requests that fail until it goes out.
    pub failure_share: f64,
    /// Requests that the share is taken of.
    pub window: u32,
    /// Seconds that it stays out the first time; they double each time it fails again …
    pub base_delay: f64,
    /// … up to so many.
    pub max_delay: f64,
    /// Share by which a stay is shortened at most, by the draw.
    pub jitter: f64,
    /// The longest Retry-After that is honoured, seconds.
    pub max_retry_after: f64,
    /// Share of all endpoints that failures may put out unless one is seen to be well. Refused
    /// connections and Retry-After may put out all.
    pub max_out_share: f64,
    /// Answers on probation until it is in, if it has room to spare by then.
    pub ramp: u32,
    /// Seconds after which a probe that was not answered makes room for another.
    pub probe_timeout: f64,
    /// Seconds in without going out after which the next stay is `base_delay` again.
    pub forgive_after: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            enabled: true,
            failures: 5,
            refusals: 2,
            failure_share: 0.5,
            window: 20,
            base_delay: 1.0,
            max_delay: 10.0,
            jitter: 0.2,
            max_retry_after: 300.0,
            max_out_share: 0.5,
            ramp: 8,
            probe_timeout: 30.0,
            forgive_after: 30.0,
        }
    }
}

impl Policy {
    /// Whether the settings make sense.
    ///
    /// # Errors
    /// Names the setting, what was expected, and what came.
    pub fn check(&self) -> Result<(), RouteError> {
        for (name, value, most) in [
            ("failures", self.failures, u32::MAX),
            ("refusals", self.refusals, u32::MAX),
            ("window", self.window, MOST_WINDOW),
            ("ramp", self.ramp, u32::MAX),
        ] {
            if !(1..=most).contains(&value) {
                fail!("{name}: expected an integer from 1 to {most}, got {value}");
            }
        }
        for (name, value, least) in [
            ("failure_share", self.failure_share, 0.01),
            ("jitter", self.jitter, 0.0),
            ("max_out_share", self.max_out_share, 0.0),
        ] {
            if !(least..=1.0).contains(&value) {
                fail!("{name}: expected a number from {least} to 1, got {value}");
            }
        }
        for (name, value, least) in [
            ("base_delay", self.base_delay, 1e-3),
            ("max_delay", self.max_delay, self.base_delay),
            ("max_retry_after", self.max_retry_after, 0.0),
            ("probe_timeout", self.probe_timeout, 1e-3),
            ("forgive_after", self.forgive_after, 0.0),
        ] {
            if !(value.is_finite() && value >= least) {
                fail!("{name}: expected seconds of {least} or more, got {value}");
            }
        }
        Ok(())
    }

    /// Seconds of the stay after so many that ended in failure, so many times as long; `draw`: in
    /// [0, 1).
    pub fn delay(&self, strikes: u32, times: f64, draw: f64) -> f64 {
        let doubled = times * self.base_delay * f64::from(1_u32 << strikes.min(30));
        doubled.min(self.max_delay) * (1.0 - self.jitter * draw)
    }
}
