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
//! A waiter is picked for anew each time, among the endpoints of that moment. Nothing waits for
//! ever: the oldest gets an endpoint kept free for it after [`Limits::reserve_after`], and
//! everybody's wait ends by [`Limits::max_wait`].
//! Read next: `gate.rs` (when there is room), `queue.rs` (who is first), `limits.rs`.

mod gate;
mod limits;
mod queue;
#[cfg(test)]
mod tests;

pub use gate::{Floor, Gate};
pub use limits::Limits;
pub use queue::Ask;

use queue::Queue;

/// Seconds over which the pace of those who go is averaged.
const PACE_SECONDS: f64 = 30.0;
/// Bounds of what is said about when to come again, seconds.
const RETRY: (f64, f64) = (1.0, 60.0);
/// Lanes that are tried in full at each end of a request.
const LANES: usize = 4;

/// Why a request is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// As many wait as may.
    Requests,
    /// Those who wait have as many prompt tokens as they may.
    Tokens,
    /// It has waited for as long as it may.
    Seconds,
}

impl Reason {
    /// Every reason, in the order of [`Counts::rejected`].
    pub const ALL: [Self; 3] = [Self::Requests, Self::Tokens, Self::Seconds];

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Seconds => "seconds",
        }
    }
}

/// The end of a request that never went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rejected {
    /// Why.
    pub reason: Reason,
    /// Seconds after which it may come again.
    pub retry_after: f64,
}

/// What became of requests so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counts {
    /// Those who went.
    pub admitted: u64,
    /// Of these, those who had to wait.
    pub held: u64,
    /// Seconds that these waited.
    pub waited: f64,
    /// Those who were rejected, by [`Reason::ALL`].
    pub rejected: [u64; Reason::ALL.len()],
    /// Those who left by themselves.
    pub left: u64,
}

/// An endpoint that takes nobody else until the waiter fits.
#[derive(Debug, Clone, Copy)]
struct Reserve {
    waiter: u64,
    row: u32,
    id: Option<u64>,
}

/// A place to go to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Go {
    /// Position among the candidates.
    pub pos: usize,
    /// Seconds that the request waited; 0 if it could go at once.
    pub waited: f64,
}

/// How full an endpoint is expected to get, in tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Room {
    /// What requests in flight keep there, or will.
    pub in_use: f64,
    /// What they may keep.
    pub room: f64,
}

/// Who waits, and for what.
#[derive(Debug, Default)]
pub struct Hold {
    limits: Limits,
    queue: Queue,
    gate: Gate,
    reserves: Vec<Reserve>,
    counts: Counts,
    /// Those who went after waiting, counted with decay, and when that was last brought forward.
    pace: (f64, f64),
}

impl Hold {
    /// Nobody waits.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
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
        self.queue.push(ask, now, ahead, until)
    }

    /// Whether it is among those who are tried.
    pub fn is_tried(&self, id: u64) -> bool {
        self.queue.before(id, self.limits.look_ahead) < self.limits.look_ahead
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
        let kept = self.reserve(floor, rows.clone(), id, &added, now);
        let room = self.limits.room;
        let row = rows.clone().nth(picked)?;
        let others = self.reserves.iter().any(|r| r.row == row && r.waiter != id);
        if !others && self.gate.fits(floor, row, added(picked), room, now) {
            return self.goes(id, picked, now);
        }
        let (pos, row) = kept?;
        if self.gate.fits(floor, row, added(pos), room, now) {
            return self.goes(id, pos, now);
        }
        None
    }

    /// What a request that adds so much would wait for on the row; `None` where it has room.
    pub fn would_wait(&mut self, floor: Floor<'_>, row: u32, added: f64, now: f64) -> Option<Room> {
        let fits = self.gate.fits(floor, row, added, self.limits.room, now);
        if fits && !self.reserves.iter().any(|reserve| reserve.row == row) {
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
        if now - waiter.arrived < self.limits.reserve_after
            || self.queue.oldest(waiter.ask.lane) != Some(id)
        {
            return None;
        }
        if let Some(at) = self.reserves.iter().position(|reserve| reserve.waiter == id) {
            let Reserve { row, id, .. } = self.reserves[at];
            if floor.table.id(row) == id
                && let Some(pos) = rows.clone().position(|other| other == row)
            {
                return Some((pos, row));
            }
            self.reserves.swap_remove(at); // it is gone, or out
        }
        let free = |row: &u32| !self.reserves.iter().any(|reserve| reserve.row == *row);
        let mut least: Option<(f64, usize, u32)> = None;
        for (pos, row) in rows.enumerate().filter(|(_, row)| free(row)) {
            let need = self.gate.in_use(floor, row, now) + added(pos);
            let share = need / floor.capacity(row);
            if least.is_none_or(|(other, ..)| share < other) {
                least = Some((share, pos, row));
            }
        }
        let (_, pos, row) = least?;
        self.reserves.push(Reserve { waiter: id, row, id: floor.table.id(row) });
        Some((pos, row))
    }

    fn goes(&mut self, id: u64, pos: usize, now: f64) -> Option<Go> {
        let waiter = self.take(id)?;
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
        at
    }

    /// The request is gone by itself; whether it waited.
    pub fn leave(&mut self, id: u64) -> bool {
        let left = self.take(id).is_some();
        self.counts.left += u64::from(left);
        left
    }

    fn take(&mut self, id: u64) -> Option<queue::Waiter> {
        self.reserves.retain(|reserve| reserve.waiter != id);
        self.queue.take(id)
    }
}
