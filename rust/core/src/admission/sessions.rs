//! Sessions that live on an endpoint: their contexts stay in its cache between their turns.

use std::collections::{BTreeSet, HashMap};

use super::gate::Floor;
use super::queue::micros;

/// Sessions that are known at most; those beyond go as requests without one.
const MOST: usize = 1 << 16;
/// Share of the room up to which sessions are let in: contexts grow from turn to turn, and where those
/// that live outgrow a cache by a little, each turn drives out the context that is needed next.
const LET_IN: f64 = 0.9;
/// Seconds between two looks at whether the last request of a session is still in flight.
const LOOK: f64 = 1.0;

/// A session that has had a turn lately.
#[derive(Debug, Clone, Copy)]
struct Session {
    row: u32,
    /// The endpoint that had the row.
    id: Option<u64>,
    /// Its context: prompt and answer of the last turn.
    tokens: f64,
    /// Its last request, if the host names them.
    request: Option<u128>,
    /// When it was last seen in flight.
    seen: f64,
    /// When it is looked at next.
    next: f64,
}

/// All that live, by their keys.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// Seconds without a request in flight after which one lives no longer.
    idle: f64,
    live: HashMap<u64, Session>,
    /// Context tokens of each row's.
    tokens: Vec<f64>,
    /// By when they are looked at next.
    order: BTreeSet<(i64, u64)>,
}

impl Sessions {
    /// Nobody lives. `idle`: seconds without a request in flight after which one does no longer.
    pub fn new(idle: f64) -> Self {
        Self { idle, ..Self::default() }
    }

    /// How many live.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// The row that the session lives on, and the endpoint that had it.
    pub fn home(&self, key: u64) -> Option<(u32, Option<u64>)> {
        self.live.get(&key).map(|session| (session.row, session.id))
    }

    /// Context tokens of the sessions that live on the row.
    pub fn tokens(&self, row: u32) -> f64 {
        self.tokens.get(row as usize).copied().unwrap_or(0.0)
    }

    /// The candidate for a turn of a session whose prompt has so many tokens: where it lives, else
    /// the picked one or whichever has most room for its context. None: it has to wait for that.
    pub fn place(
        &self,
        floor: Floor<'_>,
        rows: impl Iterator<Item = u32> + Clone,
        key: u64,
        tokens: f64,
        picked: usize,
        room: f64,
    ) -> Option<usize> {
        if let Some((home, id)) = self.home(key) {
            let is_home = |row: u32| row == home && floor.table.id(row) == id;
            // Where it lived may be gone, or out: it moves.
            return Some(rows.clone().position(is_home).unwrap_or(picked));
        }
        let tokens = tokens + floor.engine.output_tokens;
        let need = |row: u32| (self.tokens(row) + tokens) / floor.capacity(row);
        let fits = |row: u32| need(row) <= LET_IN * room || self.tokens(row) <= 0.0;
        if rows.clone().nth(picked).is_some_and(fits) {
            return Some(picked);
        }
        let (pos, row) = rows.enumerate().min_by(|a, b| need(a.1).total_cmp(&need(b.1)))?;
        fits(row).then_some(pos)
    }

    /// A turn of it goes to the row, after which its context has so many tokens.
    pub fn goes(
        &mut self,
        key: u64,
        (row, id): (u32, Option<u64>),
        tokens: f64,
        request: Option<u128>,
        now: f64,
    ) {
        self.forget(key);
        if self.live.len() >= MOST {
            return;
        }
        if self.tokens.len() <= row as usize {
            self.tokens.resize(row as usize + 1, 0.0);
        }
        let tokens = if tokens.is_finite() { tokens.max(0.0) } else { 0.0 };
        self.tokens[row as usize] += tokens;
        let next = now + LOOK.min(self.idle);
        self.live.insert(key, Session { row, id, tokens, request, seen: now, next });
        self.order.insert((micros(next), key));
    }

    /// It lives no longer.
    pub fn forget(&mut self, key: u64) {
        let Some(session) = self.live.remove(&key) else { return };
        self.order.remove(&(micros(session.next), key));
        if let Some(sum) = self.tokens.get_mut(session.row as usize) {
            *sum = (*sum - session.tokens).max(0.0);
        }
        if self.live.is_empty() {
            self.tokens.clear(); // what rounding left
        }
    }

    /// Forgets those that have had nothing in flight for long. `flies`: whether a request is in
    /// flight on a row.
    pub fn rest(&mut self, now: f64, flies: impl Fn(u32, u128) -> bool) {
        while let Some(&(at, key)) = self.order.first() {
            if at > micros(now) {
                return;
            }
            let Some(session) = self.live.get_mut(&key) else {
                self.order.pop_first();
                continue;
            };
            if session.request.is_some_and(|request| flies(session.row, request)) {
                session.seen = now;
            }
            if now - session.seen >= self.idle {
                self.forget(key);
                continue;
            }
            self.order.pop_first();
            session.next = (now + LOOK).min(session.seen + self.idle).max(now + 1e-3);
            self.order.insert((micros(session.next), key));
        }
    }

    /// When one is looked at next.
    pub fn next(&self) -> Option<f64> {
        self.order.first().map(|&(at, _)| at as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_lives_while_a_turn_is_in_flight_and_some_time_longer() {
        let mut sessions = Sessions::new(30.0);
        sessions.goes(7, (1, Some(5)), 1_000.0, Some(70), 0.0);
        sessions.goes(8, (1, Some(5)), 500.0, None, 0.0);
        sessions.goes(7, (1, Some(5)), 1_200.0, Some(71), 1.0);
        assert_eq!((sessions.tokens(1), sessions.home(7)), (1_700.0, Some((1, Some(5)))));
        for second in 2..40 {
            sessions.rest(f64::from(second), |row, request| (row, request) == (1, 71));
        }
        assert_eq!((sessions.tokens(1), sessions.home(8)), (1_200.0, None), "nobody names it");
        for second in 40..70 {
            assert!(sessions.home(7).is_some(), "{second}");
            sessions.rest(f64::from(second), |_, _| false);
        }
        assert_eq!((sessions.len(), sessions.tokens(1), sessions.next()), (0, 0.0, None));
    }

    #[test]
    fn there_is_an_end_to_how_many_are_known() {
        let mut sessions = Sessions::new(30.0);
        for key in 0..MOST as u64 + 100 {
            sessions.goes(key, (0, None), 1.0, None, 0.0);
        }
        assert_eq!((sessions.len(), sessions.tokens(0)), (MOST, MOST as f64));
    }
}
