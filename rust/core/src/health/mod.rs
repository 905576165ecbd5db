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
//! Where nobody may be chosen the choice is among all: health is never why there is none.
//! Nothing is paid for while all rows are in. Sources: Envoy's outlier detection, Finagle's failure
//! accrual, linkerd's balancer.
//! Read next: `policy.rs` (settings), `row.rs` (one endpoint), `clock.rs` (what time passes).

mod clock;
mod outcome;
mod policy;
mod row;
#[cfg(test)]
mod tests;

pub use outcome::{Outcome, Reason};
pub use policy::Policy;
pub use row::State;

use clock::Clock;
use row::{Limit, RowHealth, tells};

use crate::error::RouteError;
use crate::hash::mix;
use crate::load::PENDING_LEASE;
use crate::rng::Rng;

/// Choices from leaving to the first probe at least; doubled with each strike …
const CHOICES: u64 = 4;
/// … so many times at most.
const DOUBLINGS: u32 = 3;
/// Changes kept for whoever asks for them.
const MOST_CHANGES: usize = 1024;

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
    /// In, out or on probation.
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
    clock: Clock,
    rng: Rng,
    epoch: u64,
    /// Choices made while somebody was away.
    choices: u64,
    stamps: u64,
    ejections: u64,
    changes: Vec<Change>,
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
            clock: Clock::default(),
            rng: Rng::new(seed),
            // So that no two tables are taken for each other.
            epoch: mix(seed),
            choices: 0,
            stamps: 0,
            ejections: 0,
            changes: Vec::new(),
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
        self.epoch = mix(self.epoch ^ seed);
        (self.policy, self.rng) = (policy, Rng::new(seed));
        Ok(())
    }

    /// It is `time` now, in seconds of the host's clock.
    pub fn tick(&mut self, time: f64) {
        self.clock.tick(time);
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
            since: self.clock.of_host(away.map_or(0.0, |away| away.since)),
            reason: away.map(|away| away.reason),
            until: match state {
                State::Out { until, .. } => Some(self.clock.of_host(until)),
                _ => None,
            },
        }
    }

    /// Rises when the row goes out.
    pub fn generation(&self, row: u32) -> u32 {
        self.rows.get(row as usize).map_or(0, |row| row.generation)
    }

    /// Whether the row, with so many requests in flight, may be given one more.
    pub fn has_room(&self, row: u32, in_flight: f64) -> bool {
        self.rows.get(row as usize).is_none_or(|row| in_flight < row.room())
    }

    /// Place among `rows` of one that a probe is due for: of several the one that has waited for
    /// longest.
    pub fn due(&self, rows: impl Iterator<Item = u32>) -> Option<usize> {
        let passed = self.clock.passed();
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

    /// A choice fell on the row.
    pub fn chosen(&mut self, row: u32) {
        if !self.is_disturbed() {
            return;
        }
        self.choices += 1;
        if self.is_out(row) {
            // Until the host reports it, or for as long as a choice counts as load.
            self.tried(row, PENDING_LEASE);
        }
    }

    /// Whether a host that chooses by itself should pass the row over: it is out, and no probe of
    /// it is due. Counts as a choice.
    pub fn shuns(&mut self, row: u32) -> bool {
        if !self.is_out(row) {
            return false;
        }
        self.choices += 1;
        let (passed, choices) = (self.clock.passed(), self.choices);
        !self.row(row).is_due(passed, choices)
    }

    /// A request was sent to the row.
    pub fn sent(&mut self, row: u32) {
        if self.is_disturbed() && self.is_out(row) {
            self.tried(row, self.policy.probe_timeout);
        }
    }

    fn tried(&mut self, row: u32, seconds: f64) {
        let probing = self.clock.passed() + seconds;
        self.stamps += 1;
        let stamp = self.stamps;
        let row = self.row(row);
        (row.probing, row.stamp) = (probing, stamp);
    }

    /// The first token of a request came back, or its whole answer at once, from the row with so
    /// many requests in flight. `fresh`: it was sent since the row last went out.
    pub fn answered(&mut self, row: u32, fresh: bool, in_flight: f64) {
        if !fresh || !self.is_disturbed() {
            return;
        }
        let ramp = self.policy.ramp;
        match self.state(row) {
            State::In => {}
            State::Out { .. } => {
                self.row(row).forget_failures();
                self.change(row, State::Probation { answers: 1 });
            }
            State::Probation { answers } if answers + 1 < ramp => {
                self.row(row).state = State::Probation { answers: answers + 1 };
            }
            State::Probation { answers } => {
                // It is given no more than half of what it might have: no flood will follow.
                if 2.0 * in_flight <= 2.0 + f64::from(answers) {
                    self.enter(row);
                } else {
                    self.row(row).state = State::Probation { answers: answers.saturating_add(1) };
                }
            }
        }
    }

    /// A request on the row ended; `fresh` as for [`Health::answered`], which is called before for
    /// an answer that came in one piece. Returns whether the endpoint went out because it refuses
    /// connections, so that what it held is gone. `live`: endpoints there are.
    pub fn ended(&mut self, row: u32, outcome: Outcome, fresh: bool, live: usize) -> bool {
        if !self.policy.enabled || !fresh {
            return false;
        }
        let policy = self.policy;
        if !tells(outcome) {
            self.row(row).probing = f64::NEG_INFINITY;
            return false;
        }
        match outcome {
            Outcome::Served => self.row(row).served(&policy),
            Outcome::Refused => {}
            Outcome::Failed(reason, retry_after) => {
                return self.failed(row, reason, retry_after, live);
            }
        }
        false
    }

    fn failed(&mut self, row: u32, reason: Reason, wait: Option<f64>, live: usize) -> bool {
        let (policy, passed) = (self.policy, self.clock.passed());
        self.stamps += 1;
        let stamp = self.stamps;
        let wait = wait.filter(|wait| reason == Reason::Busy && *wait > 0.0);
        let wait = wait.map(|wait| wait.min(policy.max_retry_after));
        let health = self.row(row);
        health.stamp = stamp;
        health.probing = f64::NEG_INFINITY;
        let limit = health.failed(reason, &policy);
        match health.state {
            State::Out { until, .. } if wait.is_none() && passed < until => {
                limit == Some(Limit::Refused)
            }
            State::Out { .. } | State::Probation { .. } => {
                health.strikes = health.strikes.saturating_add(1);
                self.leave(row, reason, wait);
                reason == Reason::Connect
            }
            State::In if wait.is_some() => {
                self.leave(row, reason, wait);
                false
            }
            State::In => {
                let Some(limit) = limit else { return false };
                if limit == Limit::Failing && !self.may_leave(row, live) {
                    return false;
                }
                if passed >= self.row(row).since + policy.forgive_after {
                    self.row(row).strikes = 0;
                }
                self.leave(row, reason, None);
                limit == Limit::Refused
            }
        }
    }

    /// Whether failures may put the row out: never more than a share of all, unless somebody who
    /// stays is well. So a fault that all have in common puts out no more than that share.
    fn may_leave(&self, row: u32, live: usize) -> bool {
        let out = self.out().filter(|&(_, reason)| reason != Reason::Connect).count();
        let most = (self.policy.max_out_share * live as f64).max(1.0);
        let others = self.rows.iter().enumerate().filter(|&(at, _)| at != row as usize);
        (out + 1) as f64 <= most
            || others.map(|(_, other)| other).any(|other| other.is_well(&self.policy))
    }

    fn leave(&mut self, row: u32, reason: Reason, wait: Option<f64>) {
        let draw = self.rng.unit();
        let (policy, passed) = (self.policy, self.clock.passed());
        let health = self.row(row);
        let seconds = wait.unwrap_or_else(|| policy.delay(health.strikes, draw));
        let doubled = health.strikes.min(DOUBLINGS);
        let until = match health.state {
            State::Out { until, .. } if wait.is_some() => until.max(passed + seconds),
            _ => passed + seconds,
        };
        let was_in = health.state == State::In;
        health.generation = health.generation.wrapping_add(1);
        if was_in {
            self.away.push(Away { row, since: passed, reason });
            self.ejections += 1;
            self.note(Change { row, out: Some(reason), seconds });
        } else if let Some(away) = self.away.iter_mut().find(|away| away.row == row) {
            away.reason = reason;
        }
        let gap = CHOICES.max(self.away.len() as u64) << doubled;
        let not_before = self.choices + gap;
        self.row(row).not_before = not_before;
        self.change(row, State::Out { reason, until });
    }

    fn enter(&mut self, row: u32) {
        if let Some(at) = self.away.iter().position(|away| away.row == row) {
            let away = self.away.swap_remove(at);
            let seconds = self.clock.passed() - away.since;
            self.note(Change { row, out: None, seconds });
        }
        self.change(row, State::In);
    }

    fn change(&mut self, row: u32, state: State) {
        let passed = self.clock.passed();
        self.epoch = self.epoch.wrapping_add(1);
        let health = self.row(row);
        (health.state, health.since) = (state, passed);
    }

    fn note(&mut self, change: Change) {
        if self.changes.len() < MOST_CHANGES {
            self.changes.push(change);
        }
    }

    /// The row belongs to another endpoint from now on.
    pub fn forget(&mut self, row: u32) {
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
