//! Who waits, and in which order.

use std::collections::{BTreeSet, HashMap};

/// What is known of a request that may have to wait.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Ask {
    /// What it can be served by: requests of one lane never wait for those of another.
    pub lane: u64,
    /// Prompt tokens.
    pub tokens: f64,
    /// Steps of priority; higher goes first, as if it had come earlier.
    pub priority: f64,
    /// Seconds that it is willing to wait; none: as long as all may.
    pub patience: Option<f64>,
    /// The session that it is a turn of.
    pub session: Option<u64>,
    /// What the host calls it, if it says when it ends.
    pub request: Option<u128>,
}

/// A request that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiter {
    pub ask: Ask,
    pub arrived: f64,
    pub until: f64,
    /// Its place: microseconds of a moment, earlier for those who go before their turn.
    order: i64,
    tokens: u64,
    /// Whether it could not go at once.
    pub kept: bool,
}

/// Ids grow with arrival, so the least is the oldest.
#[derive(Debug, Default)]
struct Lane {
    order: BTreeSet<(i64, u64)>,
    oldest: BTreeSet<u64>,
}

/// All who wait, lane by lane.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiters: HashMap<u64, Waiter>,
    lanes: HashMap<u64, Lane>,
    deadlines: BTreeSet<(i64, u64)>,
    tokens: u64,
    next: u64,
}

/// The nearest: a moment that was turned into other units and back is the same one.
pub(super) fn micros(seconds: f64) -> i64 {
    (seconds * 1e6).round() as i64
}

impl Queue {
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Prompt tokens of all who wait.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    pub fn get(&self, id: u64) -> Option<&Waiter> {
        self.waiters.get(&id)
    }

    /// Takes it in. `ahead`: seconds by which it goes before its turn. `until`: when it gives up.
    pub fn push(&mut self, ask: Ask, now: f64, ahead: f64, until: f64) -> u64 {
        let id = self.next;
        self.next += 1;
        let (order, tokens) = (micros(now - ahead), ask.tokens.max(0.0) as u64);
        let lane = self.lanes.entry(ask.lane).or_default();
        lane.order.insert((order, id));
        lane.oldest.insert(id);
        self.deadlines.insert((micros(until), id));
        self.tokens = self.tokens.saturating_add(tokens);
        self.waiters.insert(id, Waiter { ask, arrived: now, until, order, tokens, kept: false });
        id
    }

    /// It waits from now on.
    pub fn kept(&mut self, id: u64) {
        if let Some(waiter) = self.waiters.get_mut(&id) {
            waiter.kept = true;
        }
    }

    pub fn take(&mut self, id: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&id)?;
        self.deadlines.remove(&(micros(waiter.until), id));
        self.tokens = self.tokens.saturating_sub(waiter.tokens);
        if let Some(lane) = self.lanes.get_mut(&waiter.ask.lane) {
            lane.order.remove(&(waiter.order, id));
            lane.oldest.remove(&id);
            if lane.oldest.is_empty() {
                self.lanes.remove(&waiter.ask.lane);
            }
        }
        Some(waiter)
    }

    /// Who has waited longest in the lane.
    pub fn oldest(&self, lane: u64) -> Option<u64> {
        self.lanes.get(&lane)?.oldest.first().copied()
    }

    /// Those who are oldest in their lane.
    pub fn heads(&self) -> impl Iterator<Item = u64> + '_ {
        self.lanes.values().filter_map(|lane| lane.oldest.first().copied())
    }

    /// How many of the waiter's lane stand before it, counted up to `most`.
    pub fn before(&self, id: u64, most: usize) -> usize {
        let Some(waiter) = self.waiters.get(&id) else { return 0 };
        let Some(lane) = self.lanes.get(&waiter.ask.lane) else { return 0 };
        lane.order.range(..(waiter.order, id)).take(most).count()
    }

    /// The first `most` of each lane and its oldest, in order; never more than `all` together.
    pub fn first(&self, most: usize, all: usize, into: &mut Vec<u64>) {
        let mut found: Vec<(i64, u64)> = Vec::new();
        for lane in self.lanes.values() {
            let from = found.len();
            found.extend(lane.order.iter().take(most));
            if let Some(&id) = lane.oldest.first()
                && let Some(waiter) = self.waiters.get(&id)
                && !found[from..].contains(&(waiter.order, id))
            {
                // Whoever is passed by so many is not forgotten.
                found.push((i64::MIN, id));
            }
        }
        found.sort_unstable();
        into.extend(found.iter().take(all).map(|&(_, id)| id));
    }

    /// Somebody whose time is up.
    pub fn overdue(&self, now: f64) -> Option<u64> {
        self.deadlines.first().filter(|(until, _)| *until <= micros(now)).map(|&(_, id)| id)
    }

    /// When the next one's time is up.
    pub fn next_deadline(&self) -> Option<f64> {
        self.deadlines.first().map(|&(until, _)| until as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(lane: u64) -> Ask {
        Ask { lane, tokens: 10.0, ..Ask::default() }
    }

    fn first(queue: &Queue, most: usize) -> Vec<u64> {
        let mut found = Vec::new();
        queue.first(most, 100, &mut found);
        found
    }

    #[test]
    fn who_goes_before_its_turn_passes_those_who_came_shortly_before() {
        let mut queue = Queue::default();
        let early = queue.push(ask(0), 0.0, 0.0, 100.0);
        let late = queue.push(ask(0), 8.0, 0.0, 100.0);
        let urgent = queue.push(ask(0), 9.0, 5.0, 100.0);
        assert_eq!(first(&queue, 9), [early, urgent, late]);
        assert_eq!((queue.before(urgent, 9), queue.oldest(0)), (1, Some(early)));
        assert_eq!(first(&queue, 1), [early]);
        queue.take(early);
        assert_eq!(first(&queue, 1), [late, urgent], "the oldest is tried, whoever passes it");
    }

    #[test]
    fn time_is_up_when_it_was_said_to_be_in_whatever_units_that_is_kept() {
        for tenth in 0..20_000 {
            let mut queue = Queue::default();
            let id = queue.push(ask(0), 0.0, 0.0, 0.1 * f64::from(tenth) + 0.0513);
            let at = queue.next_deadline().unwrap();
            assert_eq!(queue.overdue(1e3 * at * 1e-3), Some(id), "{at}");
        }
    }

    #[test]
    fn a_lane_is_tried_however_many_wait_in_another() {
        let mut queue = Queue::default();
        for _ in 0..100 {
            queue.push(ask(1), 0.0, 0.0, 50.0);
        }
        let other = queue.push(ask(2), 1.0, 0.0, 40.0);
        assert!(first(&queue, 64).contains(&other));
        assert_eq!((queue.len(), queue.tokens()), (101, 1010));
        assert_eq!((queue.overdue(39.0), queue.overdue(40.0)), (None, Some(other)));
        assert!(queue.take(other).is_some() && queue.take(other).is_none());
        assert_eq!((queue.len(), queue.tokens(), queue.oldest(2)), (100, 1000, None));
    }
}
