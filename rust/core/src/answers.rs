//! What answers, and their absence, say: first tokens and ends of requests.
//!
//! Nothing is learned from errors. A first token that came sooner than an engine can be expected to
//! have one is put by until its request is over: an error is quick, too.

use crate::fleet::Fleet;
use crate::health::{Outcome, Reason, State};
use crate::load::{Glimpse, Served};
use crate::stats::Stat;

/// Share of the expected prefill below which a first token has to wait for its request's end.
const QUICK: f64 = 0.25;
/// Share of it, and milliseconds, below which an answer that tells no tokens is none.
const NONE: f64 = 0.1;
const NONE_MS: f64 = 2.0;
/// Milliseconds of a token below which no engine writes: the answer came in one piece, and says
/// nothing of the steps.
const LEAST_STEP_MS: f64 = 0.1;

impl Fleet {
    /// See [`crate::load::Load::first_token`].
    pub fn first_token(&mut self, row: u32, request: u128, time: f64) {
        if let Some(Glimpse { reported: false, generation, start, .. }) =
            self.load.look(row, request)
        {
            self.answered(row, generation);
            self.health.refute(row, start, false);
        }
        if let Some(seen) = self.load.first_token(&mut self.table, row, request, time) {
            if seen.waited_ms < QUICK * seen.work.prefill_us as f64 / 1e3 {
                self.load.defer_first_token(row, request, seen);
            } else if self.is_typical(row) {
                self.speed.first_token(&mut self.table, row, &seen, self.load.time_of(time));
            }
        }
        self.settle();
    }

    /// The request ended; see [`crate::load::Load::end`] and [`crate::health::Health::ended`].
    pub fn end(&mut self, row: u32, request: u128, time: f64, outcome: impl Into<Outcome>) {
        let mut outcome = outcome.into();
        let found = self.load.look(row, request);
        if found.is_some_and(|found| found.reported) && outcome == Outcome::from(false) {
            // It had begun to answer, and the host does not say why that ended: as a rule the
            // client left.
            outcome = Outcome::Failed(Reason::Client, None);
        }
        let done = outcome == Outcome::Served;
        let over = self.load.observed(&mut self.table, row, time);
        let is_answer = done && found.is_some_and(|found| is_answer(&found, over));
        if let Some(seen) = self.load.take_deferred(row, request) {
            // Where no time passes it says nothing; who left says nothing against the endpoint.
            let stands = found.is_some_and(|found| over <= found.start);
            let left = matches!(outcome, Outcome::Failed(Reason::Client, _));
            if is_answer || left || (done && stands) {
                self.load.computed(row, seen.work.pin);
            }
            if is_answer && self.is_typical(row) {
                let came = found.map_or(over, |found| found.start + seen.waited_ms * 1e-3);
                self.speed.first_token(&mut self.table, row, &seen, came);
            }
        }
        self.speed.pass(&mut self.table, row, over);
        if !is_answer {
            self.speed.failed(row, over);
        }
        let served = self.load.end(&mut self.table, row, request, time, done);
        if let Some(seen) = served.filter(|_| is_answer && self.is_typical(row)) {
            let seen = self.steps_of(seen);
            self.speed.served(&mut self.table, row, &seen, over);
        }
        self.settle();
        let fresh = match (found, outcome) {
            (Some(Glimpse { reported, generation, start, .. }), _) => {
                if matches!(outcome, Outcome::Served | Outcome::Refused) {
                    if !reported {
                        self.answered(row, generation);
                    }
                    self.health.refute(row, start, true);
                }
                generation == self.health.generation(row)
            }
            // Where there was no connection the host may never have called the request sent.
            (None, Outcome::Failed(Reason::Connect, _)) => self.table.id(row).is_some(),
            (None, _) => return,
        };
        let live = self.table.live();
        if self.health.ended(row, outcome, fresh, live) {
            self.restarted(row);
        }
        self.load.set_generation(row, self.health.generation(row));
    }

    fn answered(&mut self, row: u32, generation: u32) {
        let fresh = generation == self.health.generation(row);
        self.health.answered(row, fresh, self.table.own(Stat::InFlight, row));
    }

    /// Whether the row serves as it always does: one that comes back is nearly idle and cold, and
    /// would seem slower or quicker than those beside it for long.
    fn is_typical(&self, row: u32) -> bool {
        !self.health.is_disturbed() || self.health.state(row) == State::In
    }

    /// Without the time of its steps, where that is none that an engine could have.
    fn steps_of(&self, seen: Served) -> Served {
        let steps = match seen.generated {
            Some(generated) => generated as f64 - 1.0,
            None => self.engine().output_tokens,
        };
        let known = seen.decode_ms >= LEAST_STEP_MS * steps;
        Served { decode_ms: if known { seen.decode_ms } else { 0.0 }, ..seen }
    }

    /// The endpoint's process is another one: what was on it and in its cache is gone.
    pub fn restarted(&mut self, row: u32) {
        self.settle();
        self.load.empty(&mut self.table, row);
        self.index.write().drop_row(row);
        self.table.set(Stat::KvTokens, row, 0.0);
    }
}

/// Whether a request that is over at `time` can have been answered: by the tokens that the engine
/// reported, else by the time that it took.
fn is_answer(found: &Glimpse, time: f64) -> bool {
    let expected_ms = found.work.prefill_us as f64 / 1e3;
    match found.generated {
        Some(generated) => generated > 0,
        None => 1e3 * (time - found.start) >= (NONE * expected_ms).max(NONE_MS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Lookup;
    use crate::prompt::{BlockHasher, Prompt, Unit};

    fn prompt() -> Prompt {
        let mut hasher = BlockHasher::new(16, Unit::Tokens, 0);
        hasher.feed(&[7; 8 * 2048]);
        hasher.finish()
    }

    /// A request whose first token and end come so many milliseconds after it was sent.
    fn request(fleet: &mut Fleet, ms: [f64; 2], generated: Option<u64>, outcome: Outcome) {
        let now = fleet.load.now();
        fleet.chosen_for(0, &prompt(), 0.0);
        fleet.sent(0, 7, now);
        fleet.first_token(0, 7, now + ms[0] / 1e3);
        fleet.usage(0, 7, None, None, generated);
        fleet.end(0, 7, now + ms[1] / 1e3, outcome);
        fleet.advance(now + 10.0);
    }

    fn learned(fleet: &Fleet) -> ([f64; 4], [f64; 3], f64) {
        let engine = fleet.engine();
        (engine.prefill, engine.step, engine.output_tokens)
    }

    fn held(fleet: &Fleet) -> f64 {
        let mut lookup = Lookup::default();
        lookup.find(&fleet.index().read(), &prompt());
        lookup.look([0].into_iter(), &[], (2048.0, 16.0), false);
        lookup.cached(0)
    }

    fn fleet() -> Fleet {
        let mut fleet = Fleet::new(60.0, 600.0);
        fleet.add(1);
        fleet.advance(1_000.0);
        fleet
    }

    #[test]
    fn errors_teach_neither_speed_nor_lengths_nor_what_is_cached() {
        let failed = |reason| Outcome::Failed(reason, None);
        for (generated, outcome) in [
            (None, Outcome::Served),
            (Some(0), Outcome::Served),
            (None, Outcome::of_status(500, None)),
            (None, Outcome::of_status(404, None)),
            (None, failed(Reason::Unknown)),
            (None, failed(Reason::Broken)),
        ] {
            let mut fleet = fleet();
            let before = learned(&fleet);
            for _ in 0..20 {
                request(&mut fleet, [2.0, 2.1], generated, outcome);
            }
            assert_eq!(learned(&fleet), before, "{generated:?} {outcome:?}");
            let left = outcome == failed(Reason::Unknown);
            assert_eq!(held(&fleet) > 0.0, left, "{generated:?} {outcome:?}");
        }
    }

    #[test]
    fn an_engine_that_is_quick_is_learned_from_once_its_answers_are_over() {
        let mut fleet = fleet();
        let [_, before, ..] = learned(&fleet).0;
        for _ in 0..40 {
            request(&mut fleet, [5.0, 105.0], Some(51), Outcome::Served);
        }
        let ([_, token, ..], [step, ..], output) = learned(&fleet);
        assert!(token < before / 4.0, "{token}");
        assert!(step < 6.0 && output < 250.0, "{step} {output}");
        assert!(held(&fleet) > 2_000.0);
    }

    #[test]
    fn an_answer_after_a_silence_takes_as_long_as_it_took() {
        let mut fleet = fleet();
        request(&mut fleet, [5.0, 5_000.0], None, Outcome::Served); // nothing else meanwhile
        assert!(held(&fleet) > 2_000.0);
    }

    #[test]
    fn an_answer_in_one_piece_cannot_tell_steps_from_prefill() {
        let mut fleet = fleet();
        let shape = |fleet: &Fleet| learned(fleet).1[0] / learned(fleet).0[1];
        let before = shape(&fleet);
        for _ in 0..40 {
            request(&mut fleet, [400.0, 400.1], Some(50), Outcome::Served);
        }
        assert!((shape(&fleet) / before - 1.0).abs() < 1e-9);
    }

    #[test]
    fn an_endpoint_that_restarts_holds_nothing() {
        let mut fleet = fleet();
        request(&mut fleet, [400.0, 900.0], Some(50), Outcome::Served);
        assert!(held(&fleet) > 2_000.0);
        for _ in 0..2 {
            request(&mut fleet, [400.0, 900.0], None, Outcome::Failed(Reason::Connect, None));
        }
        assert_eq!(held(&fleet), 0.0);
    }
}
