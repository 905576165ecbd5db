//! What a fleet goes through while it serves: load, engines that fail and join, stats that age.

use std::collections::VecDeque;

use routecore::RouteError;
use routecore::error::Shown;

use crate::engine::Report;

/// What divides arrival times without leaving the numbers that tell milliseconds apart.
const SPEEDUP: std::ops::RangeInclusive<f64> = 1e-6..=1e9;
/// Milliseconds: beyond, a double cannot tell one from the next.
pub(crate) const LATEST: f64 = 1e15;
/// Scrapes that may be on their way at once.
const MOST_UNDER_WAY: f64 = 10_000.0;

/// An engine leaves or comes. Times are milliseconds of simulated time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// It dies: requests on it fail, its cache is lost. The router learns of it by the first error.
    Fail {
        /// When.
        time: f64,
        /// Which.
        engine: u32,
    },
    /// It is ready, with an empty cache. One whose first change is this was not there before.
    Join {
        /// When.
        time: f64,
        /// Which.
        engine: u32,
    },
    /// From now on it answers every new request with an error at once; those on it go on.
    Sick {
        /// When.
        time: f64,
        /// Which.
        engine: u32,
    },
    /// It is well again.
    Well {
        /// When.
        time: f64,
        /// Which.
        engine: u32,
    },
}

impl Change {
    /// When it happens.
    pub fn time(self) -> f64 {
        let (Self::Fail { time, .. }
        | Self::Join { time, .. }
        | Self::Sick { time, .. }
        | Self::Well { time, .. }) = self;
        time
    }

    /// Whom it happens to.
    pub fn engine(self) -> u32 {
        let (Self::Fail { engine, .. }
        | Self::Join { engine, .. }
        | Self::Sick { engine, .. }
        | Self::Well { engine, .. }) = self;
        engine
    }
}

/// The circumstances of a replay.
#[derive(Debug, Clone)]
pub struct Conditions {
    /// Divides arrival times and delays, not engine times.
    pub speedup: f64,
    /// Moves each independent arrival by up to so many milliseconds of the trace's time.
    pub jitter: f64,
    /// Of the jitter's draws.
    pub seed: u64,
    /// Milliseconds between two scrapes of the engines' stats; 0: never scraped.
    pub stats_period: f64,
    /// Milliseconds from a scrape until the router sees it.
    pub stats_delay: f64,
    /// Milliseconds from a change of an engine's cache until routers hear of it by KV events;
    /// none: they hear nothing.
    pub kv_event_delay: Option<f64>,
    /// Engines that fail, join, and are sick.
    pub changes: Vec<Change>,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            speedup: 1.0,
            jitter: 0.0,
            seed: 0,
            stats_period: 0.0,
            stats_delay: 0.0,
            kv_event_delay: None,
            changes: Vec::new(),
        }
    }
}

impl Conditions {
    /// Whether they make sense for so many engines.
    ///
    /// # Errors
    /// Names the setting and what it should be.
    pub fn check(&self, engines: usize) -> Result<(), RouteError> {
        if !self.speedup.is_finite() || self.speedup <= 0.0 {
            let text = format!("speedup: expected a number above 0, got {}", Shown(self.speedup));
            return Err(RouteError(text));
        }
        if !SPEEDUP.contains(&self.speedup) {
            let text = format!("speedup: expected from 1e-6 to 1e9, got {}", Shown(self.speedup));
            return Err(RouteError(text));
        }
        for (name, value) in [
            ("jitter", self.jitter),
            ("stats period", self.stats_period),
            ("stats delay", self.stats_delay),
            ("KV event delay", self.kv_event_delay.unwrap_or(0.0)),
        ] {
            if !value.is_finite() || value < 0.0 {
                let value = Shown(value);
                return Err(RouteError(format!("{name}: expected milliseconds ≥ 0, got {value}")));
            }
            if value > LATEST {
                let value = Shown(value);
                return Err(RouteError(format!("{name}: expected at most 1e15 ms, got {value}")));
            }
        }
        let (period, delay) = (self.stats_period, self.stats_delay);
        if period > 0.0 && (period < 1.0 || delay / period > MOST_UNDER_WAY) {
            return Err(RouteError(format!(
                "stats period: expected 0 (never), or at least 1 ms and the stats delay \
                 ({} ms) / {MOST_UNDER_WAY}, got {}",
                Shown(delay),
                Shown(period)
            )));
        }
        for change in &self.changes {
            let (time, engine) = (change.time(), change.engine());
            if !(0.0..=LATEST).contains(&time) || engine as usize >= engines {
                return Err(RouteError(format!(
                    "event at {time} ms of engine {engine}: expected a time ≥ 0 and an engine \
                     from 0 to {}",
                    engines - 1
                )));
            }
        }
        Ok(())
    }

    /// Whether each engine is there at the start: not if it joins before it ever fails.
    pub(crate) fn present(&self, engines: usize) -> Vec<bool> {
        let first = |engine: u32| {
            let theirs = self.changes.iter().filter(|change| change.engine() == engine);
            theirs.min_by(|a, b| a.time().total_cmp(&b.time()))
        };
        (0..engines as u32).map(|at| !matches!(first(at), Some(Change::Join { .. }))).collect()
    }
}

/// Scrapes under way: taken at regular times, seen later.
#[derive(Debug)]
pub(crate) struct Scrapes {
    period: f64,
    delay: f64,
    next: f64,
    under_way: VecDeque<(f64, Vec<Option<Report>>)>,
}

impl Scrapes {
    pub fn new(conditions: &Conditions) -> Self {
        let (period, delay) = (conditions.stats_period, conditions.stats_delay);
        let next = if period > 0.0 { 0.0 } else { f64::INFINITY };
        Self { period, delay, next, under_way: VecDeque::new() }
    }

    /// When something is to be done next.
    pub fn next(&self) -> f64 {
        self.next.min(self.seen())
    }

    fn seen(&self) -> f64 {
        self.under_way.front().map_or(f64::INFINITY, |scrape| scrape.0)
    }

    /// Nothing changes before `until`: leaves out the scrapes that would tell the same, but for the
    /// last ones, so that they are seen by then.
    pub fn skip(&mut self, until: f64) {
        let idle = ((until - self.delay - self.next) / self.period).floor() - 2.0;
        if idle > 0.0 && idle.is_finite() {
            self.next += idle * self.period;
        }
    }

    /// Takes a scrape if it is due, and returns the one that is seen now, if one is.
    pub fn proceed(
        &mut self,
        scrape: impl FnOnce(f64) -> Vec<Option<Report>>,
    ) -> Vec<Option<Report>> {
        if self.next <= self.seen() {
            self.under_way.push_back((self.next + self.delay, scrape(self.next)));
            self.next += self.period;
            if self.delay > 0.0 {
                return Vec::new();
            }
        }
        self.under_way.pop_front().map_or_else(Vec::new, |scrape| scrape.1)
    }
}
