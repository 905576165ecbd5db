//! Requests that wait at the router until the endpoint chosen for them has room.
//!
//! Past its knee a fleet loses by taking everything in: caches overflow, prefixes that would have
//! been used again are driven out, running requests are preempted. A [`Hold`] lets a request go
//! once the endpoint that the strategy picks for it has room in its KV cache. It is a state
//! machine: whoever drives it has the clock, picks, and wakes those who may go.
//!
//! 1. [`Hold::arrive`] gives a request its place, [`Hold::is_tried`] says whether it may go before
//!    the next end of another.
//! 2. The driver lets the strategy pick, and [`Hold::offer`] says whether, and where, it goes.
//!    Then the driver reserves the place ([`Fleet::reserve`](crate::Fleet::reserve)) under the same
//!    lock. Otherwise [`Hold::keep`]: it waits, or is rejected.
//! 3. At each end of a request, and at [`Hold::wake_at`], [`Hold::expired`] names those who waited
//!    for too long, and [`Hold::due`] those to be picked for anew.
//!
//! With [`Limits::sessions`] it is sessions that are let in: a turn of one that lives goes to the
//! endpoint that it lives on, before others. A new one waits, behind those that came earlier, until
//! the contexts of all that live on an endpoint leave room for its own, since what is driven out
//! between two turns is computed again with each. One lives until it has had nothing in flight for
//! [`Limits::session_idle`]; the driver says what is by [`Hold::rest`].
//!
//! A waiter is picked for anew each time, among the endpoints of that moment. Nothing waits for
//! ever: the oldest gets an endpoint kept free for it once all that were in flight when it came
//! should be over and others have taken their places, by [`Limits::reserve_after`] at the latest, and
//! everybody's wait ends by [`Limits::max_wait`].
//! Read next: `gate.rs` (when there is room), `queue.rs` (who is first), `sessions.rs`, `limits.rs`.

mod gate;
mod limits;
mod queue;
mod reserve;
mod sessions;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::BTreeSet;

pub use gate::{Floor, Gate};
pub use limits::Limits;
pub use queue::Ask;
pub use verdict::{Counts, Go, Reason, Rejected, Room};

use queue::Queue;
use reserve::Reserves;
use sessions::Sessions;

/// Seconds over which the pace of those who go is averaged.
const PACE_SECONDS: f64 = 30.0;
/// Bounds of what is said about when to come again, seconds.
const RETRY: (f64, f64) = (1.0, 60.0);
/// Seconds between two looks at who lives while nothing ends.
const REST: f64 = 0.5;
/// Lanes that are tried in full at each end of a request.
const LANES: usize = 4;

/// Who waits, and for what.
#[derive(Debug, Default)]
pub struct Hold {
    limits: Limits,
    queue: Queue,
    gate: Gate,
    sessions: Sessions,
    /// Lane and number of waiters that are the first turn of a session.
    newcomers: BTreeSet<(u64, u64)>,
    reserves: Reserves,
    counts: Counts,
    /// Those who went after waiting, counted with decay, and when that was last brought forward.
    pace: (f64, f64),
}

impl Hold {
    /// Nobody waits.
    pub fn new(limits: Limits) -> Self {
        Self { limits, sessions: Sessions::new(limits.session_idle), ..Self::default() }
    }

    /// Its bounds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What became of requests so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Their prompt tokens.
    pub fn waiting_tokens(&self) -> u64 {
        self.queue.tokens()
    }

    /// Those of its lane who stand before the waiter.
    pub fn before(&self, id: u64) -> usize {
        self.queue.before(id, usize::MAX)
    }

    /// Gives a request its place.
    pub fn arrive(&mut self, ask: Ask, now: f64) -> u64 {
        let patience = ask.patience.filter(|s| s.is_finite()).unwrap_or(f64::INFINITY);
        let until = now + patience.clamp(0.0, self.limits.max_wait);
        let priority = if ask.priority.is_finite() { ask.priority } else { 0.0 };
        let ahead = (priority * self.limits.priority_seconds).clamp(-86_400.0, 86_400.0);
        let session = ask.session.filter(|_| self.limits.sessions);
        let lives = session.is_some_and(|key| self.sessions.home(key).is_some());
        // Before all that might wait: others of its session's tokens are there for it alone.
        let ahead = if lives { ahead + self.limits.max_wait } else { ahead };
        let id = self.queue.push(Ask { session, ..ask }, now, ahead, until);
        if session.is_some() && !lives {
            self.newcomers.insert((ask.lane, id));
        }
        id
    }

    /// Sessions that live.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Lets sessions go that have had nothing in flight for long. `flies`: whether a request is in
    /// flight on a row. To be called before the tries of one moment.
    pub fn rest(&mut self, now: f64, flies: impl Fn(u32, u128) -> bool) {
        self.sessions.rest(now, flies);
    }

    /// Reads what scrapes say of the rows. To be called before the tries of one moment: what an engine
    /// said is compared with what is in flight now, and soon that is something else.
    pub fn look(&mut self, floor: Floor<'_>, rows: impl Iterator<Item = u32>, now: f64) {
        for row in rows {
            self.gate.in_use(floor, row, now);
        }
    }

    /// Whether it is among those who are tried.
    pub fn is_tried(&self, id: u64) -> bool {
        let most = self.limits.look_ahead;
        self.queue.before(id, most) < most && !self.stands_back(id)
    }

    /// Whether it is the first turn of a session behind another: first come, first served.
    fn stands_back(&self, id: u64) -> bool {
        let Some(Ask { lane, session: Some(key), .. }) = self.queue.get(id).map(|w| w.ask) else {
            return false;
        };
        self.sessions.home(key).is_none()
            && self.newcomers.range((lane, 0)..(lane, id)).next().is_some()
    }

    /// Whether no row has room for anybody, so that no pick can help.
    pub fn is_shut(&mut self, floor: Floor<'_>, rows: impl Iterator<Item = u32>, now: f64) -> bool {
        let room = self.limits.room;
        let mut rows = rows.peekable();
        rows.peek().is_some() && !rows.any(|row| self.gate.fits(floor, row, 0.0, room, now))
    }

    /// Whether the request goes to the row of the candidates `rows` that was picked for it, or to
    /// the one that is kept free for it. `added`: what it would add to a candidate's cache.
    pub fn offer(
        &mut self,
        floor: Floor<'_>,
        rows: impl Iterator<Item = u32> + Clone,
        id: u64,
        picked: usize,
        added: impl Fn(usize) -> f64,
        now: f64,
    ) -> Option<Go> {
        let room = self.limits.room;
        let ask = self.queue.get(id)?.ask;
        let mut picked = picked;
        if self.stands_back(id) {
            return None;
        }
        if let Some(key) = ask.session {
            picked = self.sessions.place(floor, rows.clone(), key, ask.tokens, picked, room)?;
        }
        let kept = self.reserve(floor, rows.clone(), id, &added, now);
        let row = rows.clone().nth(picked)?;
        let others = self.reserves.is_kept(row, Some(id));
        if !others && self.gate.fits(floor, row, added(picked), room, now) {
            return self.goes(floor, row, id, picked, now);
        }
        let (pos, row) = kept?;
        if self.gate.fits(floor, row, added(pos), room, now) {
            return self.goes(floor, row, id, pos, now);
        }
        None
    }

    /// What a request that adds so much would wait for on the row; `None` where it has room.
    pub fn would_wait(&mut self, floor: Floor<'_>, row: u32, added: f64, now: f64) -> Option<Room> {
        let fits = self.gate.fits(floor, row, added, self.limits.room, now);
        if fits && !self.reserves.is_kept(row, None) {
            return None;
        }
        let in_use = self.gate.in_use(floor, row, now);
        Some(Room { in_use, room: self.limits.room * floor.capacity(row) })
    }

    /// The candidate that is kept free for the waiter, if it is its turn.
    fn reserve(
        &mut self,
        floor: Floor<'_>,
        rows: impl Iterator<Item = u32> + Clone,
        id: u64,
        added: &impl Fn(usize) -> f64,
        now: f64,
    ) -> Option<(usize, u32)> {
        let waiter = self.queue.get(id)?;
        if self.queue.oldest(waiter.ask.lane) != Some(id) {
            return None;
        }
        let after = self.limits.reserve_after.min(floor.stay(rows.clone()));
        // What is kept stays so: the average may grow meanwhile.
        let is_turn = self.reserves.has(id) || now - waiter.arrived >= after;
        let gate = &mut self.gate;
        let share = |pos, row| (gate.in_use(floor, row, now) + added(pos)) / floor.capacity(row);
        if is_turn { self.reserves.keep(id, floor.table, rows, share) } else { None }
    }

    fn goes(&mut self, floor: Floor<'_>, row: u32, id: u64, pos: usize, now: f64) -> Option<Go> {
        let waiter = self.take(id)?;
        if let Some(key) = waiter.ask.session {
            let (ask, place) = (waiter.ask, (row, floor.table.id(row)));
            let tokens = ask.tokens + floor.engine.output_tokens;
            self.sessions.goes(key, place, tokens, ask.request, now);
        }
        let waited = if waiter.kept { (now - waiter.arrived).max(0.0) } else { 0.0 };
        self.counts.admitted += 1;
        if waiter.kept {
            self.counts.held += 1;
            self.counts.waited += waited;
            self.pace = (self.pace(now) + 1.0, now);
        }
        Some(Go { pos, waited })
    }

    /// Those who went after waiting, lately.
    fn pace(&self, now: f64) -> f64 {
        let (count, at) = self.pace;
        count * (-((now - at) / PACE_SECONDS).max(0.0)).exp()
    }

    /// It could not go at once and waits from now on, unless too many do.
    ///
    /// # Errors
    /// When a bound is reached: the request has no place any more.
    pub fn keep(&mut self, id: u64, now: f64) -> Result<(), Rejected> {
        let limits = &self.limits;
        let reason = if self.queue.len() > limits.max_requests {
            Reason::Requests
        } else if self.queue.tokens() > limits.max_tokens && self.queue.len() > 1 {
            Reason::Tokens // a single one that is larger than the bound may wait
        } else if self.queue.get(id).is_some_and(|waiter| waiter.until <= now) {
            Reason::Seconds
        } else {
            self.queue.kept(id);
            return Ok(());
        };
        Err(self.reject(id, reason, now))
    }

    fn reject(&mut self, id: u64, reason: Reason, now: f64) -> Rejected {
        self.take(id);
        self.counts.rejected[reason as usize] += 1;
        // As long as those who still wait will take at the pace of late.
        let pace = self.pace(now) / PACE_SECONDS;
        let (least, most) = RETRY;
        let retry_after = (self.queue.len() as f64 / pace.max(1e-3)).clamp(least, most).ceil();
        Rejected { reason, retry_after }
    }

    /// The next one who has waited for as long as it may: it has no place any more.
    pub fn expired(&mut self, now: f64) -> Option<(u64, Rejected)> {
        let id = self.queue.overdue(now)?;
        Some((id, self.reject(id, Reason::Seconds, now)))
    }

    /// Those to be tried now, in order.
    pub fn due(&self, into: &mut Vec<u64>) {
        let most = self.limits.look_ahead;
        self.queue.first(most, LANES * most, into);
        into.retain(|&id| !self.stands_back(id));
    }

    /// When something happens without an end of a request: a wait runs out, or an endpoint
    /// is to be kept free. Infinite when nobody waits.
    pub fn wake_at(&self, now: f64) -> f64 {
        let mut at = self.queue.next_deadline().unwrap_or(f64::INFINITY);
        for id in self.queue.heads() {
            let Some(waiter) = self.queue.get(id) else { continue };
            let turn = waiter.arrived + self.limits.reserve_after;
            if turn > now {
                at = at.min(turn);
            }
        }
        if self.newcomers.is_empty() {
            return at;
        }
        self.sessions.next().map_or(at, |next| at.min(next.max(now + REST)))
    }

    /// The request is gone by itself; whether it waited.
    pub fn leave(&mut self, id: u64) -> bool {
        let left = self.take(id).is_some();
        self.counts.left += u64::from(left);
        left
    }

    fn take(&mut self, id: u64) -> Option<queue::Waiter> {
        self.reserves.release(id);
        let waiter = self.queue.take(id)?;
        self.newcomers.remove(&(waiter.ask.lane, id));
        Some(waiter)
    }
}
