//! The health of one endpoint.

use super::hint::{FULL, Hint};
use super::outcome::{Outcome, Reason};
use super::policy::Policy;

/// Requests that show that an endpoint is well.
const ENOUGH: u32 = 5;

/// Where an endpoint stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum State {
    /// It may be chosen.
    In,
    /// It may not, but for one probe at a time from `until` on (seconds passed).
    Out {
        /// Why.
        reason: Reason,
        /// When its next probe is due.
        until: f64,
    },
    /// It answered a probe, and gets more to do with each further answer.
    Probation {
        /// Answers so far.
        answers: u32,
    },
    /// Another router has it out: it may have one request of this one.
    Doubted,
}

/// What is remembered of one endpoint.
#[derive(Debug, Clone)]
pub struct RowHealth {
    pub state: State,
    /// Since when, in seconds passed.
    pub since: f64,
    /// Rises when it goes out: what was sent before says nothing of it afterwards.
    pub generation: u32,
    /// Failures, and refused connections, since it last served a request.
    streak: u32,
    refusals: u32,
    /// The last outcomes, latest lowest, 1 for a failure; how many of them there are.
    window: u64,
    seen: u32,
    /// Stays that ended in failure.
    pub strikes: u32,
    /// When it last failed or was tried, as a place in the order of all such events.
    pub stamp: u64,
    /// Until then the probe under way is waited for, in seconds passed.
    pub probing: f64,
    /// The number of the choice before which no probe is due: where few requests come, probes must
    /// not be most of them.
    pub not_before: u64,
    /// What other routers say of it.
    pub hint: Hint,
}

impl Default for RowHealth {
    fn default() -> Self {
        Self {
            state: State::In,
            since: 0.0,
            generation: 0,
            streak: 0,
            refusals: 0,
            window: 0,
            seen: 0,
            strikes: 0,
            stamp: 0,
            probing: f64::NEG_INFINITY,
            not_before: 0,
            hint: Hint::default(),
        }
    }
}

impl RowHealth {
    /// Whether a probe may be sent.
    pub fn is_due(&self, passed: f64, choices: u64) -> bool {
        matches!(self.state, State::Out { until, .. } if passed >= until)
            && passed >= self.probing
            && choices >= self.not_before
    }

    pub fn is_out(&self) -> bool {
        matches!(self.state, State::Out { .. })
    }

    /// Whether it served requests lately, and hardly failed.
    pub fn is_well(&self, policy: &Policy) -> bool {
        self.state == State::In
            && self.seen >= policy.window.min(ENOUGH)
            && 10 * self.window.count_ones() <= self.seen
            && self.streak == 0
    }

    /// It served a request.
    pub fn served(&mut self, policy: &Policy) {
        (self.streak, self.refusals) = (0, 0);
        self.push(false, policy);
    }

    /// It failed; why it should go out, if it should.
    pub fn failed(&mut self, reason: Reason, policy: &Policy) -> Option<Limit> {
        self.streak = self.streak.saturating_add(1);
        self.refusals = self.refusals.saturating_add(u32::from(reason == Reason::Connect));
        self.push(true, policy);
        if self.refusals >= policy.refusals {
            return Some(Limit::Refused);
        }
        let failed = f64::from(self.window.count_ones());
        let share = failed >= policy.failure_share * f64::from(policy.window);
        let full = self.seen >= policy.window;
        (self.streak >= policy.failures || (full && share)).then_some(Limit::Failing)
    }

    fn push(&mut self, failed: bool, policy: &Policy) {
        let mask = u64::MAX >> (64 - policy.window.clamp(1, 64));
        self.window = (self.window << 1 | u64::from(failed)) & mask;
        self.seen = (self.seen + 1).min(policy.window);
    }

    /// How much of what puts it out was seen of it.
    pub fn points(&self, policy: &Policy) -> u64 {
        let part = |seen: u32, most: u32| FULL * u64::from(seen) / u64::from(most.max(1));
        match self.state {
            State::Out { .. } => FULL,
            _ => part(self.streak, policy.failures)
                .max(part(self.refusals, policy.refusals))
                .min(FULL),
        }
    }

    /// What counted against it is settled.
    pub fn forget_failures(&mut self) {
        (self.streak, self.refusals, self.window, self.seen) = (0, 0, 0, 0);
    }

    /// Requests that it may have in flight.
    pub fn room(&self) -> f64 {
        match self.state {
            State::Out { .. } => 0.0,
            State::Probation { answers } => 1.0 + f64::from(answers),
            State::Doubted if self.hint.tried => 0.0,
            State::In | State::Doubted => f64::INFINITY,
        }
    }
}

/// What an endpoint has reached by failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// It refuses connections: nobody is served there.
    Refused,
    /// It fails too often.
    Failing,
}

/// Whether an outcome says anything of the endpoint.
pub fn tells(outcome: Outcome) -> bool {
    !matches!(outcome, Outcome::Failed(Reason::Client, _))
}
