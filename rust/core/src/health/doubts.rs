//! What other routers say of endpoints that fail: a hint, never a verdict.
//!
//! Each router tells how much of what puts an endpoint out it has seen itself: 10 once it has it
//! out, 2 for the first of five failures. What others say counts beside own failures, so that five
//! failures in a row put an endpoint out whichever routers they fell on, one of them being one's own.
//! Where others' come to all of it the row is doubted: it gets one request of this router at a time,
//! until one that was sent since is answered, and for [`DOUBT`] seconds at most. Of an endpoint that
//! is out here as well the routers share the probes, and an answer that one has
//! brings the next probe of the others forward.
//!
//! A router whose own network is broken, or that lies, takes nobody's engines away:
//! - nothing goes out without a failure of this router's own;
//! - doubts never make more than half of the endpoints away, and each is asked all the same;
//! - after a doubt, or what was served in spite of a hint, nothing is heard of that row for [`DEAF`]
//!   seconds, and a probe is brought forward once in [`EARLY`] seconds;
//! - a router of which most endpoints fail says nothing: see `replicas/merge.rs`.

use super::hint::{FULL, HintCounts};
use super::outcome::Reason;
use super::row::{Limit, State};
use super::{Away, Health};

/// Seconds for which a row is doubted at most.
const DOUBT: f64 = 3.0;
/// Seconds for which nothing is heard about a row after a hint that came to nothing.
const DEAF: f64 = 30.0;
/// Seconds between two probes of a row that others' answers bring forward.
const EARLY: f64 = 10.0;
/// Routers that share probes, at most: a stay is so many times as long.
const SHARE: u64 = 4;

impl Health {
    /// How much of what puts the row out this router has seen itself: [`FULL`] once it is out.
    pub fn points(&self, row: u32) -> u64 {
        self.rows.get(row as usize).map_or(0, |health| health.points(&self.policy))
    }

    /// Others' points on the row, at `now` by the clock of messages. `live`: endpoints there are.
    pub fn hear(&mut self, row: u32, points: u64, live: usize, now: f64) {
        let known = self.rows.get(row as usize).map_or(0, |health| health.hint.points);
        if points == known {
            return;
        }
        let may_doubt = 2 * (self.away.len() + 1) <= live && self.policy.enabled;
        let (at, passed, choices) = (self.now, self.passed, self.choices);
        let health = self.row(row);
        let hint = &mut health.hint;
        hint.points = points;
        if std::mem::take(&mut hint.refuted) {
            hint.deaf_until = now + DEAF;
        }
        if points < known {
            hint.stands &= points > 0;
            if let State::Out { reason, until } = health.state
                && points / FULL < known / FULL
                && reason != Reason::Busy
                && now >= hint.early_until
            {
                // Somebody had an answer there.
                hint.early_until = now + EARLY;
                health.state = State::Out { reason, until: until.min(passed) };
                health.not_before = health.not_before.min(choices);
            }
            if points < FULL {
                self.end_doubt(row, |counts| &mut counts.faded);
            }
            return;
        }
        if now < hint.deaf_until {
            self.hints.passed_over += u64::from(points >= FULL && known < FULL);
            return;
        }
        hint.stands = true;
        hint.at = if at.is_nan() { f64::NEG_INFINITY } else { at };
        if points < FULL || known >= FULL || health.state != State::In {
            return;
        }
        if !may_doubt {
            self.hints.passed_over += 1;
            return;
        }
        let hint = &mut health.hint;
        (hint.tried, hint.until, hint.deaf_until) = (false, now + DOUBT, now + DEAF);
        self.away.push(Away { row, since: passed, reason: Reason::Unknown });
        self.hints.heard += 1;
        self.hints.doubted += 1;
        self.change(row, State::Doubted);
    }

    /// Time passes: doubts end.
    pub fn fade(&mut self, now: f64) {
        if self.hints.doubted == 0 {
            return;
        }
        // From behind: what ends a doubt takes it away.
        for at in (0..self.away.len()).rev() {
            let row = self.away[at].row;
            let left = self.row(row).hint.until - now;
            // A clock that went back ends it, too.
            if left <= 0.0 || left > DOUBT {
                self.end_doubt(row, |counts| &mut counts.faded);
            }
        }
    }

    /// The row answered a request that was sent at `start`. `served`: and found no fault with it,
    /// but for the request's own.
    pub fn refute(&mut self, row: u32, start: f64, served: bool) {
        let Some(health) = self.rows.get_mut(row as usize) else { return };
        let hint = &mut health.hint;
        if !hint.stands || start < hint.at {
            return;
        }
        if served {
            (hint.stands, hint.refuted) = (false, true);
        }
        self.end_doubt(row, |counts| &mut counts.refuted);
    }

    /// Hints since the start.
    pub fn hints(&self) -> HintCounts {
        self.hints
    }

    /// Whether the row is doubted.
    pub fn is_doubted(&self, row: u32) -> bool {
        self.state(row) == State::Doubted
    }

    /// The row is in again, if it was doubted; `why` is counted.
    pub(super) fn end_doubt(&mut self, row: u32, why: impl Fn(&mut HintCounts) -> &mut u64) {
        if self.state(row) != State::Doubted {
            return;
        }
        self.away.retain(|away| away.row != row);
        self.hints.doubted -= 1;
        *why(&mut self.hints) += 1;
        self.change(row, State::In);
    }

    /// The limit that a failure of the row reaches together with others'.
    pub(super) fn together(&mut self, row: u32, reason: Reason) -> Option<Limit> {
        let policy = self.policy;
        let health = self.row(row);
        health.hint.tried = false;
        let limit = if reason == Reason::Connect { Limit::Refused } else { Limit::Failing };
        let others = health.hint.counts();
        (others > 0 && health.points(&policy) + others >= FULL).then_some(limit)
    }

    /// How many times as long a stay is, where other routers probe the row as well.
    pub(super) fn probed_by(&self, row: u32) -> f64 {
        let others = self.rows.get(row as usize).map_or(0, |health| health.hint.counts() / FULL);
        (1 + others).min(SHARE) as f64
    }
}
