//! What the engines' speed is, learned from how long requests took.
//!
//! Two models, linear in three features and never negative, learned from all rows together:
//! - prefill `ms = base + b · tokens + c · pairs`, where pairs = u · (L − u / 2) are the query-key
//!   pairs of u uncached out of L prompt tokens, and base is another one where others decode: a
//!   step that takes its time anyway;
//! - a decode step `ms = d + e · requests + f · context tokens`.
//!
//! A row that is surely slower or faster than the others has a ratio of its own for each. Sums
//! decay, so an engine that changes is learned anew. A profile is a guess about shape: the first
//! samples set the scale of all constants, and steps keep the prefill's until some were seen.

mod fit;
mod open;
mod profile;
mod ratio;
mod saved;
mod scale;
#[cfg(test)]
mod tests;

use fit::{Fit, believed};
pub use profile::{KV_TOKENS, Profile};

use open::{AT_ONCE_MS, Open};
use ratio::Ratio;
use scale::Scale;

pub use crate::load::pairs;
use crate::load::{FirstToken, Served, Work};
use crate::stats::{Stat, StatTable};

/// Steps that a request waits for beside its prefill: half of one that runs, and its own.
pub const STEPS_WAITED: f64 = 1.5;
/// Samples that the shape of a profile counts for. Steps take about the same whatever is in them, so
/// that chance would say more of what makes them longer.
const PREFILL_PRIOR: f64 = 2.0;
const STEP_PRIOR: f64 = 6.0;
/// First tokens after which half of a newcomer's slow start is over.
const SLOW_START: f64 = 4.0;
/// Output lengths are averaged over about so many requests …
const OUTPUTS: f64 = 256.0;
/// … beside which the profile's counts as so many.
const OUTPUT_PRIOR: f64 = 0.1;
/// Steps that a decode is half sure after: fewer are mostly what stood between them.
const STEPS_SURE: f64 = 8.0;
/// What is sent to the engines is averaged over about so many seconds …
const SENT_SECONDS: f64 = 30.0;
/// … and how much of it is found in a cache over about so many requests.
const REUSED: f64 = 1000.0;
/// How fast the largest batch is forgotten, per first token: some requests never end.
const SHRINK: f64 = 0.999;
/// The most that a computed token is taken to be used again.
const MOST_REUSE: f64 = 100.0;
/// Times that at most, until what was sent is counted afresh: e²⁰⁰ is far from overflow.
const OLDEST: f64 = 200.0;
/// The longest answer that counts.
const MOST_OUTPUT: u64 = 1 << 17;

#[derive(Debug, Clone, Copy, Default)]
struct RowSpeed {
    prefill: Ratio,
    step: Ratio,
    /// First tokens so far.
    answers: u32,
    /// Those of the last step, until it is sure that they are all.
    open: Option<Open>,
    /// When those of the step before came.
    before: f64,
}

impl RowSpeed {
    /// An engine that steps slowly is likely to prefill slowly.
    fn slow_prefill(&self) -> f64 {
        self.prefill.value(self.step.value(1.0))
    }
}

/// The learned constants of all rows.
#[derive(Debug)]
pub struct Speed {
    /// Of steps alone, tokens, pairs, steps beside others, and milliseconds of these others.
    prefill: Fit<5, 4>,
    step: Fit<3, 3>,
    /// Of answers in one piece.
    whole: Scale,
    rows: Vec<RowSpeed>,
    output_tokens: f64,
    /// Answers whose length is known, up to [`OUTPUTS`].
    outputs: f64,
    /// Prompt tokens found in caches, and computed, lately.
    cached: f64,
    computed: f64,
    sequences: f64,
    /// When what was sent counted as it is: what is sent later counts for more, so that
    /// nothing has to be touched to make the rest count for less.
    epoch: f64,
}

impl Speed {
    /// Everything starts as the profile has it.
    pub fn new(profile: Profile) -> Self {
        let [alone, token, pair, beside] = profile.prefill;
        Self {
            prefill: Fit::new([alone, token, pair, beside, STEPS_WAITED], PREFILL_PRIOR),
            step: Fit::new(profile.step, STEP_PRIOR),
            whole: Scale::default(),
            rows: Vec::new(),
            output_tokens: profile.output_tokens,
            outputs: OUTPUT_PRIOR,
            cached: 0.0,
            computed: 0.0,
            sequences: profile.sequences,
            epoch: 0.0,
        }
    }

    /// The row is a newcomer. It is taken to have had its share of the requests lately: else all
    /// those who will come back would start here.
    pub fn join(&mut self, table: &mut StatTable, row: u32) {
        if self.computed > 0.0 {
            let others =
                (0..table.rows() as u32).filter(|&other| other != row && table.id(other).is_some());
            let sent = others.map(|other| table.get(Stat::RequestsSent, other));
            let sum: f64 = sent.sum();
            table.set(Stat::RequestsSent, row, sum / table.live().saturating_sub(1).max(1) as f64);
        }
        self.publish(table, row);
    }

    /// A request was sent to the row at `now`, seconds.
    pub fn sent(&mut self, table: &mut StatTable, row: u32, work: &Work, now: f64) {
        if self.age(now) > OLDEST {
            let fade = (-self.age(now)).exp();
            for row in 0..table.rows() as u32 {
                for stat in [Stat::PrefillSent, Stat::RequestsSent] {
                    table.set(stat, row, fade * table.get(stat, row));
                }
            }
            self.epoch = now;
        }
        let grown = self.age(now).exp();
        table.bump(Stat::PrefillSent, row, grown * work.prefill_us as f64 / 1e3);
        table.bump(Stat::RequestsSent, row, grown);
        let (prompt, computed) = (work.prompt_tokens as f64, work.uncached_tokens as f64);
        self.cached += (prompt - computed).max(0.0) - self.cached / REUSED;
        self.computed += computed - self.computed / REUSED;
    }

    /// Time since the epoch, in [`SENT_SECONDS`].
    fn age(&self, now: f64) -> f64 {
        ((now - self.epoch) / SENT_SECONDS).max(0.0)
    }

    /// Milliseconds that `row` should take to prefill the last `uncached` of `prompt` tokens.
    pub fn prefill_ms(&self, row: u32, prompt: f64, uncached: f64) -> f64 {
        let ratio = self.rows.get(row as usize).map_or(1.0, RowSpeed::slow_prefill);
        ratio * self.work([1.0, uncached, pairs(prompt, uncached)])
    }

    /// Milliseconds of so many requests, tokens and pairs on an engine with a slowness of 1.
    fn work(&self, [requests, tokens, pairs]: [f64; 3]) -> f64 {
        self.prefill.expect([requests, tokens, pairs, 0.0, 0.0])
    }

    /// The same where others decode meanwhile.
    fn beside(&self, [requests, tokens, pairs]: [f64; 3]) -> f64 {
        self.prefill.expect([0.0, tokens, pairs, requests, 0.0])
    }

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
        let before = speed.before;
        match &mut speed.open {
            Some(open) => open.join(seen, before),
            open => *open = Some(Open::new(seen, now, before)),
        }
    }

    /// Something happens on the row at `now`: steps that ended before have all their first tokens.
    pub fn pass(&mut self, table: &mut StatTable, row: u32, now: f64) {
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
        let Open { took_ms, batch, context_tokens, work: x, interrupts, .. } = *open;
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
        if let Some(took) = believed(slow * work + waits, took_ms) {
            self.row(row).prefill.learn(work, took - waits, work.max(slow * work + waits));
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
            rescale_sent(table, factor);
        }
        self.publish(table, row);
    }

    /// A request failed at `now`: its first token, if it just came, was an error's.
    pub fn failed(&mut self, row: u32, now: f64) {
        if let Some(speed) = self.rows.get_mut(row as usize) {
            speed.open.take_if(|open| open.is_at(now));
        }
    }

    /// Learns from a served request.
    pub fn served(&mut self, table: &mut StatTable, row: u32, seen: &Served) {
        if let Some(generated) = seen.generated {
            let generated = generated.min(MOST_OUTPUT) as f64;
            self.outputs = (self.outputs + 1.0).min(OUTPUTS);
            self.output_tokens += (generated - self.output_tokens) / self.outputs;
        }
        // Not told how many: then what is learned is the time of an average answer's share.
        let steps = seen.generated.map_or(self.output_tokens, |n| n as f64 - 1.0);
        if let Some(whole) = &seen.whole {
            let open = Open::new(whole, 0.0, f64::NAN).and_steps(steps);
            self.learn_whole(table, row, &open);
        } else if seen.decode_ms <= AT_ONCE_MS {
            if let Some(open) = &mut self.row(row).open {
                *open = open.and_steps(steps);
            }
        } else if steps >= 1.0 {
            self.learn_step(row, seen, steps);
        }
        self.publish(table, row);
    }

    fn learn_step(&mut self, row: u32, seen: &Served, steps: f64) {
        let decoding = seen.decode_ms - self.row(row).slow_prefill() * self.beside(seen.prefilled);
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

    /// Learns from an answer that came in one piece: prefill and steps cannot be told apart, so
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
            rescale_sent(table, factor);
            self.prefill.rescale(factor);
        }
        self.publish(table, row);
    }

    /// The row belongs to another endpoint from now on.
    pub fn forget(&mut self, row: u32) {
        if let Some(speed) = self.rows.get_mut(row as usize) {
            *speed = RowSpeed::default();
        }
    }

    /// What an engine with a slowness of 1 is like, by all that was seen until `now`.
    pub fn profile(&self, now: f64) -> Profile {
        let [alone, token, pair, beside, _] = self.prefill.constants();
        Profile {
            prefill: [alone, token, pair, beside],
            step: self.step.constants(),
            output_tokens: self.output_tokens,
            rate: (-self.age(now)).exp() / SENT_SECONDS,
            reuse: (self.cached / self.computed.max(1.0)).min(MOST_REUSE),
            sequences: self.sequences,
            kv_tokens: KV_TOKENS,
        }
    }

    /// Writes what is learned of the row into its columns. A row starts slow: what waits on one
    /// that has not answered yet counts twice, so that a newcomer is not flooded before it is warm.
    pub fn publish(&mut self, table: &mut StatTable, row: u32) {
        let speed = *self.row(row);
        table.set(Stat::PrefillSlowness, row, speed.slow_prefill());
        table.set(Stat::StepSlowness, row, speed.step.value(1.0));
        let caution = 1.0 + 1.0 / (1.0 + f64::from(speed.answers) / SLOW_START);
        table.set(Stat::QueueCaution, row, caution);
    }

    fn step_ms(&self, row: u32, batch: f64, context: f64) -> f64 {
        let ratio = self.rows.get(row as usize).map_or(1.0, |row| row.step.value(1.0));
        ratio * self.step.expect([1.0, batch, context])
    }

    fn row(&mut self, row: u32) -> &mut RowSpeed {
        if self.rows.len() <= row as usize {
            self.rows.resize(row as usize + 1, RowSpeed::default());
        }
        &mut self.rows[row as usize]
    }
}

/// All prefill was found to take so many times what it was taken to.
fn rescale_sent(table: &mut StatTable, factor: f64) {
    for row in 0..table.rows() as u32 {
        table.set(Stat::PrefillSent, row, factor * table.get(Stat::PrefillSent, row));
    }
}
