//! Which endpoints fail, and are left alone until they are well again.
//!
//! A row is in, out or on probation, by what the host reports of its requests:
//! - in → out: `failures` in a row, `refusals` refused connections in a row, half of the last
//!   `window` failed, or the endpoint asked to be left alone (Retry-After);
//! - out → probation: a probe is answered. Once its stay is over, the next request goes to it as a
//!   probe, one at a time; each that fails doubles the stay;
//! - probation → in: it may have one request more in flight with each answer, until that is more
//!   than it is given. A failure puts it out again.
//!
//! - in → doubted: another router has it out; see `doubts.rs`.
//!
//! Where nobody may be chosen the choice is among all: health is never why there is none.
//! Nothing is paid for while all rows are in. Sources: Envoy's outlier detection, Finagle's failure
//! accrual, linkerd's balancer.
//! Read next: `policy.rs` (settings), `row.rs` (one endpoint), `rules.rs` (who leaves, who is back),
//! `doubts.rs` (what other routers say).

mod doubts;
mod hint;
mod outcome;
mod policy;
mod row;
mod rules;
#[cfg(test)]
mod tests;

pub use hint::HintCounts;
pub use outcome::{Outcome, Reason};
pub use policy::Policy;
pub use row::State;

use row::RowHealth;

use crate::error::RouteError;
use crate::hash::mix;
use crate::rng::Rng;

/// An endpoint left or came back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Whose.
    pub row: u32,
    /// Why it is out; none: it is back.
    pub out: Option<Reason>,
    /// Seconds until its first probe, or seconds that it was away.
    pub seconds: f64,
}

/// Where an endpoint stands, by the host's clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// In, out, on probation or doubted.
    pub state: State,
    /// Since when it is not in.
    pub since: f64,
    /// Why it went out, while it is not in.
    pub reason: Option<Reason>,
    /// When its next probe is due, while it is out.
    pub until: Option<f64>,
}

/// The health of all rows.
#[derive(Debug)]
pub struct Health {
    policy: Policy,
    rows: Vec<RowHealth>,
    /// Rows that are not in.
    away: Vec<Away>,
    /// Seconds that have passed; the time up to which they have, and what the host's clock said.
    passed: f64,
    now: f64,
    host: f64,
    rng: Rng,
    epoch: u64,
    /// Choices made while somebody was away.
    choices: u64,
    stamps: u64,
    ejections: u64,
    changes: Vec<Change>,
    hints: HintCounts,
}

/// A row that is not in: since when, and why.
#[derive(Debug, Clone, Copy)]
struct Away {
    row: u32,
    since: f64,
    reason: Reason,
}

impl Health {
    /// Everybody is in. `seed`: of the jitter.
    pub fn new(policy: Policy, seed: u64) -> Self {
        Self {
            policy,
            rows: Vec::new(),
            away: Vec::new(),
            passed: 0.0,
            now: f64::NAN,
            host: 0.0,
            rng: Rng::new(seed),
            // So that no two tables are taken for each other.
            epoch: mix(seed),
            choices: 0,
            stamps: 0,
            ejections: 0,
            changes: Vec::new(),
            hints: HintCounts::default(),
        }
    }

    /// Goes by other settings from now on; everybody is in.
    ///
    /// # Errors
    /// On a setting that makes no sense; names it.
    pub fn configure(&mut self, policy: Policy, seed: u64) -> Result<(), RouteError> {
        policy.check()?;
        for at in 0..self.away.len() {
            let row = self.away[at].row;
            self.row(row).state = State::In;
        }
        self.away.clear();
        self.hints.doubted = 0;
        self.epoch = mix(self.epoch ^ seed);
        (self.policy, self.rng) = (policy, Rng::new(seed));
        Ok(())
    }

    /// It is `now` by the fleet's clock, which may stand still or leap, and take a leap back: then
    /// time passes on from there. It is `host` by the host's.
    pub fn tick(&mut self, (now, host): (f64, f64)) {
        if !now.is_finite() {
            return;
        }
        if now > self.now {
            self.passed += now - self.now;
        }
        (self.now, self.host) = (now, host);
    }

    /// When it was, or will be, by the host's clock.
    fn of_host(&self, passed: f64) -> f64 {
        self.host + (passed - self.passed)
    }

    /// Whether anybody is not in.
    pub fn is_disturbed(&self) -> bool {
        !self.away.is_empty()
    }

    /// Rises whenever a row changes its state.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Times that an endpoint went out.
    pub fn ejections(&self) -> u64 {
        self.ejections
    }

    /// Rows that are out, and why.
    pub fn out(&self) -> impl Iterator<Item = (u32, Reason)> + '_ {
        self.away.iter().filter(|a| self.is_out(a.row)).map(|away| (away.row, away.reason))
    }

    /// Takes who left and who came back since the last call.
    pub fn changes(&mut self) -> std::vec::Drain<'_, Change> {
        self.changes.drain(..)
    }

    /// Where the row stands.
    pub fn state(&self, row: u32) -> State {
        self.rows.get(row as usize).map_or(State::In, |row| row.state)
    }

    /// Whether the row is out.
    pub fn is_out(&self, row: u32) -> bool {
        self.rows.get(row as usize).is_some_and(RowHealth::is_out)
    }

    /// Where the row stands, by the host's clock.
    pub fn standing(&self, row: u32) -> Standing {
        let state = self.state(row);
        let away = self.away.iter().find(|away| away.row == row);
        Standing {
            state,
            since: self.of_host(away.map_or(0.0, |away| away.since)),
            reason: away.filter(|_| state != State::Doubted).map(|away| away.reason),
            until: match state {
                State::Out { until, .. } => Some(self.of_host(until)),
                _ => None,
            },
        }
    }

    /// Rises when the row goes out.
    pub fn generation(&self, row: u32) -> u32 {
        self.rows.get(row as usize).map_or(0, |row| row.generation)
    }

    /// Whether the row, with so many requests of this router in flight, may be given one more.
    pub fn has_room(&self, row: u32, in_flight: f64) -> bool {
        self.rows.get(row as usize).is_none_or(|row| in_flight < row.room())
    }

    /// Place among `rows` of one that a probe is due for: of several the one that has waited for
    /// longest.
    pub fn due(&self, rows: impl Iterator<Item = u32>) -> Option<usize> {
        let passed = self.passed;
        let is_due =
            |row: u32| self.rows.get(row as usize).filter(|row| row.is_due(passed, self.choices));
        if !self.away.iter().any(|away| is_due(away.row).is_some()) {
            return None;
        }
        let due = rows.enumerate().filter_map(|(at, row)| Some((is_due(row)?.stamp, at)));
        due.min().map(|(_, at)| at)
    }

    /// Place among `rows` of the one that failed, or was tried, least recently, of those that are
    /// out.
    pub fn least_recent(&self, rows: impl Iterator<Item = u32>) -> Option<usize> {
        let out = |row: u32| self.rows.get(row as usize).filter(|row| row.is_out());
        let stamps = rows.enumerate().filter_map(|(at, row)| Some((out(row)?.stamp, at)));
        stamps.min().map(|(_, at)| at)
    }

    /// The row belongs to another endpoint from now on.
    pub fn forget(&mut self, row: u32) {
        self.end_doubt(row, |counts| &mut counts.faded);
        if let Some(health) = self.rows.get_mut(row as usize) {
            *health = RowHealth::default();
        }
        if let Some(at) = self.away.iter().position(|away| away.row == row) {
            self.away.swap_remove(at);
            self.epoch = self.epoch.wrapping_add(1);
        }
        self.changes.retain(|change| change.row != row);
    }

    fn row(&mut self, row: u32) -> &mut RowHealth {
        if self.rows.len() <= row as usize {
            self.rows.resize_with(row as usize + 1, RowHealth::default);
        }
        &mut self.rows[row as usize]
    }
}
