//! Who leaves, and who is back: what choices and reports do to health.

use super::outcome::{Outcome, Reason};
use super::row::{Limit, State, tells};
use super::{Away, Change, Health};
use crate::load::PENDING_LEASE;

/// Choices from leaving to the first probe at least; doubled with each strike …
const CHOICES: u64 = 4;
/// … so many times at most.
const DOUBLINGS: u32 = 3;
/// Changes kept for whoever asks for them.
const MOST_CHANGES: usize = 1024;

impl Health {
    /// A choice fell on the row.
    pub fn chosen(&mut self, row: u32) {
        if !self.is_disturbed() {
            return;
        }
        self.choices += 1;
        if self.is_out(row) {
            // Until the host reports it, or for as long as a choice counts as load.
            self.tried(row, PENDING_LEASE);
        } else if self.is_doubted(row) {
            self.row(row).hint.tried = true;
        }
    }

    /// Whether a host that chooses by itself should pass the row over: it is out, and no probe of
    /// it is due. Counts as a choice.
    pub fn shuns(&mut self, row: u32) -> bool {
        if !self.is_out(row) {
            return false;
        }
        self.choices += 1;
        let (passed, choices) = (self.passed, self.choices);
        !self.row(row).is_due(passed, choices)
    }

    /// A request was sent to the row.
    pub fn sent(&mut self, row: u32) {
        if self.is_disturbed() && self.is_out(row) {
            self.tried(row, self.policy.probe_timeout);
        }
    }

    fn tried(&mut self, row: u32, seconds: f64) {
        let probing = self.passed + seconds;
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
            State::In | State::Doubted => {}
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
            let health = self.row(row);
            (health.probing, health.hint.tried) = (f64::NEG_INFINITY, false);
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
        let (policy, passed) = (self.policy, self.passed);
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
            State::In | State::Doubted if wait.is_some() => {
                self.leave(row, reason, wait);
                false
            }
            State::In | State::Doubted => {
                let together = self.together(row, reason);
                let Some(limit) = limit.or(together) else { return false };
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
        self.end_doubt(row, |counts| &mut counts.confirmed);
        let (draw, times) = (self.rng.unit(), self.probed_by(row));
        let (policy, passed) = (self.policy, self.passed);
        let health = self.row(row);
        let seconds = wait.unwrap_or_else(|| policy.delay(health.strikes, times, draw));
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
            let seconds = self.passed - away.since;
            self.note(Change { row, out: None, seconds });
        }
        self.change(row, State::In);
    }

    pub(super) fn change(&mut self, row: u32, state: State) {
        let passed = self.passed;
        self.epoch = self.epoch.wrapping_add(1);
        let health = self.row(row);
        (health.state, health.since) = (state, passed);
    }

    fn note(&mut self, change: Change) {
        if self.changes.len() < MOST_CHANGES {
            self.changes.push(change);
        }
    }
}
