//! Learning: from the first tokens of a step, and from answers that are over.

use super::ended::Ended;
use super::fit::believed;
use super::open::{AT_ONCE_MS, Open};
use super::{STEPS_WAITED, Speed};
use crate::load::{FirstToken, Served};
use crate::stats::StatTable;

/// How fast the largest batch is forgotten, per first token: some requests never end.
const SHRINK: f64 = 0.999;
/// Steps that a decode is half sure after: fewer are mostly what stood between them.
const STEPS_SURE: f64 = 8.0;

impl Speed {
    /// A first token came at `now`, seconds. It teaches once something later happens on the row:
    /// until then others may come out of the same step, or the end of an answer in one piece.
    pub fn first_token(&mut self, table: &mut StatTable, row: u32, seen: &FirstToken, now: f64) {
        self.row(row).answers += 1;
        self.publish(table, row);
        if seen.batch.is_finite() {
            self.sequences = (self.sequences * SHRINK).max(seen.batch + 1.0);
        }
        self.pass(table, row, now);
        let speed = self.row(row);
        speed.ended.join(seen, now);
        let before = speed.before;
        match &mut speed.open {
            Some(open) => open.join(seen, before),
            open => *open = Some(Open::new(seen, now, before)),
        }
    }

    /// Something happens on the row at `now`: steps that ended before have all their first tokens.
    pub fn pass(&mut self, table: &mut StatTable, row: u32, now: f64) {
        let Some(speed) = self.rows.get_mut(row as usize) else { return };
        for ended in speed.ended.take(now) {
            self.learn_step(row, &ended);
            self.publish(table, row);
        }
        let is_over = |open: &mut Open| !open.is_at(now);
        let over = self.rows.get_mut(row as usize).and_then(|speed| speed.open.take_if(is_over));
        if let Some(open) = over {
            let speed = self.row(row);
            speed.before = speed.before.max(open.time);
            if open.steps >= 1.0 {
                self.learn_whole(table, row, &open);
            } else if open.teaches() {
                self.learn_prefill(table, row, &open);
            }
        }
    }

    /// Learns from the first tokens of one step.
    fn learn_prefill(&mut self, table: &mut StatTable, row: u32, open: &Open) {
        let Open { took_ms, batch, context_tokens, work: x, fresh, interrupts, .. } = *open;
        let decodes = batch > 0.0;
        // Half a step that runs, and the one that it shares.
        let waits = 0.5 * f64::from(u8::from(interrupts)) + f64::from(u8::from(decodes));
        let step = waits / STEPS_WAITED * self.step_ms(row, batch.max(1.0), context_tokens);
        let [.., steps] = self.prefill.constants();
        let slow = self.row(row).slow_prefill();
        let [base, tokens, pairs] = x;
        let (alone, beside) = if decodes { (0.0, base) } else { (base, 0.0) };
        let x = [alone, tokens, pairs, beside];
        let work = self.prefill.expect([alone, tokens, pairs, beside, 0.0]);
        let waits = steps * step;
        let expected = slow * work + waits;
        let own = &mut self.rows[row as usize];
        self.overlap.learn(&mut own.seen, fresh, took_ms / (work + waits));
        if !fresh && self.overlap.is_parallel() {
            return; // how long an engine was at it is not known
        }
        if let Some(took) = believed(expected, took_ms) {
            self.row(row).prefill.learn(work, took - waits, work.max(expected));
        }
        let [alone, tokens, pairs, beside] = x.map(|x| slow * x);
        // Until a step was seen, it is as far off as the prefill is.
        let alike = self.step.samples() == 0.0;
        let x = [alone, tokens, pairs, beside, step];
        let factor = self.prefill.learn(x, took_ms, 1.0, alike);
        if factor != 1.0 {
            if alike {
                self.step.rescale(factor);
            }
            self.traffic.rescale(table, factor);
        }
        self.publish(table, row);
    }

    /// A request failed at `now`: its first token, if it just came, was an error's.
    pub fn failed(&mut self, row: u32, now: f64) {
        if let Some(speed) = self.rows.get_mut(row as usize) {
            speed.open.take_if(|open| open.is_at(now));
        }
    }

    /// Learns how long an answer is of which nothing else is known.
    pub fn answered(&mut self, generated: Option<u64>) {
        if let Some(generated) = generated {
            self.lengths.learn(generated);
        }
    }

    /// Learns from a request that was served at `now`.
    pub fn served(&mut self, table: &mut StatTable, row: u32, seen: &Served, now: f64) {
        self.answered(seen.generated);
        // Nobody reported how many: then what is learned is the time of an average answer's share.
        let steps = seen.generated.map_or(self.lengths.mean(), |n| n as f64 - 1.0);
        if let Some(whole) = &seen.whole {
            let open = Open::new(whole, 0.0, f64::NAN).and_steps(steps);
            self.learn_whole(table, row, &open);
        } else if seen.decode_ms <= AT_ONCE_MS {
            if let Some(open) = &mut self.row(row).open {
                *open = open.and_steps(steps);
            }
        } else if steps >= 1.0 {
            self.row(row).ended.push(seen, steps, now);
        }
        self.publish(table, row);
    }

    fn learn_step(&mut self, row: u32, seen: &Ended) {
        let steps = seen.steps;
        let others = if self.overlap.is_parallel() { 0.0 } else { self.beside(seen.prefilled) };
        let decoding = seen.decode_ms - self.row(row).slow_prefill() * others;
        if decoding <= 0.1 * seen.decode_ms {
            return; // it stood still for others nearly all the time
        }
        let x = [1.0, seen.batch, seen.context_tokens];
        let (expected, took) = (self.step.expect(x), decoding / steps);
        let ratio = self.row(row).step.value(1.0);
        if let Some(took) = believed(ratio * expected, took) {
            self.row(row).step.learn(expected, took, expected);
        }
        self.step.learn(x.map(|x| ratio * x), took, steps / (steps + STEPS_SURE), false);
    }

    /// Learns from an answer that came in one piece: prefill and steps cannot be separated, so
    /// all that it says is how quick the engine is in all, and that only while nothing else does.
    /// It was decoded beside others: when their answers came says nothing of when it was begun.
    fn learn_whole(&mut self, table: &mut StatTable, row: u32, open: &Open) {
        if self.prefill.samples() > 0.0 || !open.teaches() {
            return;
        }
        let Open { batch, context_tokens, steps, waited: (took_ms, x), .. } = *open;
        let beside = if batch > 0.0 { STEPS_WAITED } else { 0.0 };
        let step = self.step.expect([1.0, batch + 1.0, context_tokens]);
        let expected = self.work(x) + (steps + beside) * step;
        let slow = self.row(row).step.value(1.0);
        if let Some(took) = believed(slow * expected, took_ms) {
            self.row(row).step.learn(expected, took, expected);
        }
        let factor = self.whole.learn(took_ms / (slow * expected));
        if factor != 1.0 {
            self.step.rescale(factor);
            self.traffic.rescale(table, factor);
            self.prefill.rescale(factor);
        }
        self.publish(table, row);
    }
}
