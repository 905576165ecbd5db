//! Forgetting what engines held and what they were like, where a host knows that it holds no longer.

use super::Fleet;
use crate::sizes::{Belief, Sizes};
use crate::speed::{Profile, Speed};
use crate::stats::Stat;

impl Fleet {
    /// Every engine has lost its cache, as by new weights. Requests in flight stay.
    pub fn caches_lost(&mut self) {
        self.known_rows().for_each(|row| self.cache_lost(row));
    }

    /// Another engine is behind the row: its speed, how long its cache lasts and how it answered
    /// are as of one that was just met. Requests in flight stay.
    pub fn unlearn(&mut self, row: u32) {
        if self.table.id(row).is_none() {
            return;
        }
        self.speed.forget(row);
        self.speed.publish(&mut self.table, row);
        self.health.forget(row);
        // Whether events are believed is a matter of tokens, not of the engine's state.
        let belief = self.belief(row);
        let events = belief.events;
        *belief = Belief::default();
        belief.events = events;
    }

    /// [`Fleet::unlearn`] of every row, and of what was learned of all rows together: the constants
    /// of speed, the length of answers, the tokens of a text.
    pub fn unlearn_all(&mut self) {
        self.speed = Speed::new(Profile::default());
        self.sizes = Sizes::default();
        for row in self.known_rows() {
            for sent in [Stat::PrefillSent, Stat::RequestsSent] {
                self.table.set(sent, row, 0.0);
            }
            self.unlearn(row);
        }
    }

    fn known_rows(&self) -> impl Iterator<Item = u32> + use<> {
        let rows = 0..self.table.rows() as u32;
        let rows: Vec<u32> = rows.filter(|&row| self.table.id(row).is_some()).collect();
        rows.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Outcome, Reason};
    use crate::prompt::{Prompt, Unit};

    const ROWS: u32 = 2;

    fn prompt() -> Prompt {
        Prompt::new((1..=8).collect(), 8 * 128, 128, Unit::Bytes)
    }

    /// Each row has served some requests slowly, and has one in flight.
    fn used() -> Fleet {
        let mut fleet = Fleet::new(60.0, 600.0);
        for id in 1..=u64::from(ROWS) {
            fleet.add(id);
        }
        for request in 0..40_u32 {
            let (row, id, at) = (request % ROWS, u128::from(request), f64::from(request));
            fleet.chosen_for(row, &prompt(), 0.0);
            fleet.sent(row, id, at);
            if request >= 38 {
                continue;
            }
            fleet.first_token(row, id, at + 0.4);
            fleet.usage(row, id, Some(512), Some(0), Some(20));
            fleet.end(row, id, at + 0.9, Outcome::Served);
        }
        fleet
    }

    fn held(fleet: &Fleet) -> Vec<u32> {
        (0..ROWS).map(|row| fleet.index().read().held(row)).collect()
    }

    #[test]
    fn a_lost_cache_is_that_of_one_row_or_of_all_and_requests_stay() {
        let mut fleet = used();
        assert_eq!(held(&fleet), [8, 8]);
        let speed = fleet.engine();
        fleet.cache_lost(0);
        assert_eq!(held(&fleet), [0, 8]);
        fleet.caches_lost();
        assert_eq!(held(&fleet), [0, 0]);
        assert_eq!(fleet.load.in_flight(), 2);
        assert_eq!(fleet.engine(), speed);
        for request in 38..40_u32 {
            fleet.end(request % ROWS, u128::from(request), 50.0, Outcome::Served);
        }
        assert_eq!(held(&fleet), [0, 0]);
    }

    #[test]
    fn what_was_learned_goes_for_one_row_or_for_all() {
        let mut fleet = used();
        for request in 100..140_u128 {
            fleet.sent(1, request, 60.0);
            fleet.end(1, request, 61.0, Outcome::Failed(Reason::Status, None));
        }
        assert_eq!(fleet.health.out().count(), 1);
        fleet.unlearn(1);
        assert_eq!(fleet.health.out().count(), 0);
        let caution = |fleet: &Fleet, row| fleet.table.get(Stat::QueueCaution, row);
        assert!(caution(&fleet, 1) > caution(&fleet, 0));

        let in_flight = fleet.load.in_flight();
        assert_eq!(in_flight, 2);
        let mut fresh = Fleet::new(60.0, 600.0);
        fresh.advance(fleet.load.now());
        assert_ne!(fleet.engine(), fresh.engine());
        assert_ne!(fleet.tokens(&prompt()), fresh.tokens(&prompt()));
        fleet.unlearn_all();
        assert_eq!(fleet.engine(), fresh.engine());
        assert_eq!(fleet.tokens(&prompt()), fresh.tokens(&prompt()));
        assert_eq!(fleet.table.get(Stat::RequestsSent, 0), 0.0);
        assert_eq!(fleet.load.in_flight(), in_flight);
        fleet.unlearn(77); // no such row
    }
}
