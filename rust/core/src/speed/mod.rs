//! What the engines' speed is, learned from how long requests took.
//!
//! Two models, linear in three features and never negative, learned from all rows together:
//! - prefill `ms = base + b · tokens + c · pairs`, where pairs = u · (L − u / 2) are the query-key
//!   pairs of u uncached out of L prompt tokens;
//! - a decode step `ms = d + e · requests + f · context tokens`.
//!
//! A row that is surely slower or faster than the others has a ratio of its own for each. Sums
//! decay, so an engine that changes is learned anew; a profile counts as a few samples.

mod fit;
#[cfg(test)]
mod tests;

use fit::{Fit, Ratio};

use crate::load::{FirstToken, Served, Work};
use crate::stats::{Stat, StatTable};

/// Samples that the profile counts for.
const PRIOR: f64 = 8.0;
/// Steps that a request waits for beside its prefill: half of one that runs, and its own.
pub const STEPS_WAITED: f64 = 1.5;
/// First tokens after which half of a newcomer's slow start is over.
const SLOW_START: f64 = 4.0;
/// Output lengths are averaged over about so many requests.
const OUTPUTS: f64 = 256.0;
/// What is sent to the engines is averaged over about so many seconds …
const SENT_SECONDS: f64 = 30.0;
/// … and how much of it is found in a cache over about so many requests.
const REUSED: f64 = 1000.0;
/// How fast the largest batch is forgotten, per first token: some requests never end.
const SHRINK: f64 = 0.999;
/// The most that a computed token is taken to be used again.
const MOST_REUSE: f64 = 100.0;
/// Tokens that an engine's KV cache is taken to hold until it is known.
pub const KV_TOKENS: f64 = 400_000.0;
/// Times that at most, until what was sent is counted afresh: e²⁰⁰ is far from overflow.
const OLDEST: f64 = 200.0;
/// The longest answer that counts.
const MOST_OUTPUT: u64 = 1 << 17;

/// Constants of an engine, as they start out.
///
/// The default is that of a mid-sized model on current hardware (Qwen3-32B, two H100; fitted from
/// NVIDIA AIConfigurator tables); what requests show soon outweighs it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    /// Milliseconds of a prefill, per uncached token, per query-key pair.
    pub prefill: [f64; 3],
    /// Milliseconds of a decode step, per request in it, per context token.
    pub step: [f64; 3],
    /// Tokens of an answer.
    pub output_tokens: f64,
    /// What a unit of [`Stat::PrefillSent`] or [`Stat::RequestsSent`] makes a second.
    pub rate: f64,
    /// How often a prompt token that an engine computes is found in its cache later.
    pub reuse: f64,
    /// Requests that were seen decoding at once on an engine lately.
    pub sequences: f64,
    /// Tokens of a KV cache whose size the engine has not told.
    pub kv_tokens: f64,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            prefill: [3.5, 0.05, 1.6e-6],
            step: [13.7, 0.026, 4.2e-5],
            output_tokens: 256.0,
            rate: 0.0,
            reuse: 0.0,
            sequences: 0.0,
            kv_tokens: KV_TOKENS,
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct RowSpeed {
    prefill: Ratio,
    step: Ratio,
    /// First tokens so far.
    answers: u32,
}

/// The learned constants of all rows.
#[derive(Debug)]
pub struct Speed {
    prefill: Fit,
    step: Fit,
    rows: Vec<RowSpeed>,
    output_tokens: f64,
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
        Self {
            prefill: Fit::new(profile.prefill, [1.0, 4096.0, 4096.0 * 4096.0], PRIOR),
            step: Fit::new(profile.step, [1.0, 16.0, 100_000.0], PRIOR),
            rows: Vec::new(),
            output_tokens: profile.output_tokens,
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
        let ratio = self.rows.get(row as usize).map_or(1.0, |row| row.prefill.value());
        ratio * self.prefill.expect([1.0, uncached, pairs(prompt, uncached)])
    }

    /// Learns from a first token.
    pub fn first_token(&mut self, table: &mut StatTable, row: u32, seen: &FirstToken) {
        self.row(row).answers += 1;
        self.publish(table, row);
        if seen.batch.is_finite() {
            self.sequences = (self.sequences * SHRINK).max(seen.batch + 1.0);
        }
        let (prompt, uncached) = (seen.work.prompt_tokens as f64, seen.work.uncached_tokens as f64);
        if uncached < 1.0 || !seen.work.has_room {
            return; // nothing is known of it, or it waited for room
        }
        let waits = STEPS_WAITED * self.step_ms(row, seen.batch, seen.context_tokens);
        let took = (seen.waited_ms - waits).max(0.1 * seen.waited_ms);
        let own = [1.0, uncached, pairs(prompt, uncached)];
        let x: [f64; 3] = std::array::from_fn(|k| seen.ahead[k] + own[k]);
        let (expected, alone) = (self.prefill.expect(x), self.prefill.expect(own));
        let speed = self.row(row);
        let ratio = speed.prefill.value();
        // Only what waited for little else tells one engine from another: in a queue, a guess too
        // high makes busy engines look quick, which makes them busier.
        if expected <= 2.0 * alone {
            speed.prefill.learn(took / expected);
        }
        self.prefill.learn(x, took / ratio);
        self.publish(table, row);
    }

    /// Learns from a served request.
    pub fn served(&mut self, table: &mut StatTable, row: u32, seen: &Served) {
        if let Some(generated) = seen.generated {
            let generated = generated.min(MOST_OUTPUT) as f64;
            self.output_tokens += (generated - self.output_tokens) / OUTPUTS;
        }
        // Not told how many: then what is learned is the time of an average answer's share.
        let steps = seen.generated.map_or(self.output_tokens, |n| n as f64 - 1.0);
        let decoding = seen.decode_ms - seen.prefill_ms;
        if steps >= 8.0 && decoding > 0.1 * seen.decode_ms {
            let x = [1.0, seen.batch, seen.context_tokens];
            let expected = self.step.expect(x);
            let speed = self.row(row);
            let ratio = speed.step.value();
            speed.step.learn(decoding / steps / expected);
            self.step.learn(x, decoding / steps / ratio);
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
        Profile {
            prefill: self.prefill.constants(),
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
        table.set(Stat::PrefillSlowness, row, speed.prefill.value());
        table.set(Stat::StepSlowness, row, speed.step.value());
        let caution = 1.0 + 1.0 / (1.0 + f64::from(speed.answers) / SLOW_START);
        table.set(Stat::QueueCaution, row, caution);
    }

    fn step_ms(&self, row: u32, batch: f64, context: f64) -> f64 {
        let ratio = self.rows.get(row as usize).map_or(1.0, |row| row.step.value());
        ratio * self.step.expect([1.0, batch, context])
    }

    fn row(&mut self, row: u32) -> &mut RowSpeed {
        if self.rows.len() <= row as usize {
            self.rows.resize(row as usize + 1, RowSpeed::default());
        }
        &mut self.rows[row as usize]
    }
}

/// Query-key pairs of prefilling the last `uncached` of `prompt` tokens.
pub fn pairs(prompt: f64, uncached: f64) -> f64 {
    uncached * (prompt - uncached / 2.0).max(0.0)
}
