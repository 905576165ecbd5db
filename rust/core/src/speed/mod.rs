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
//! Read next: `learn.rs` (from what), `fit.rs` (how), `traffic.rs` (what is sent lately).

mod ended;
mod fit;
mod learn;
mod lengths;
mod open;
mod overlap;
mod profile;
mod ratio;
mod recent;
mod saved;
mod scale;
#[cfg(test)]
mod tests;
mod traffic;

pub use profile::{KV_TOKENS, Profile};

use ended::LastEnded;
use fit::Fit;
use lengths::Lengths;
use open::Open;
use overlap::{Overlap, Seen};
use ratio::Ratio;
use scale::Scale;
use traffic::Traffic;

use crate::load::{Work, pairs};
use crate::stats::{Stat, StatTable};

/// Steps that a request waits for beside its prefill: half of one that runs, and its own.
pub const STEPS_WAITED: f64 = 1.5;
/// Samples that the shape of a profile counts for. Steps take about the same whatever is in them, so
/// that chance would say more of what makes them longer.
const PREFILL_PRIOR: f64 = 2.0;
const STEP_PRIOR: f64 = 6.0;
/// First tokens after which half of a newcomer's slow start is over.
const SLOW_START: f64 = 4.0;

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
    /// Answers that ended with the last step.
    ended: LastEnded,
    /// What prompts took that came alone, and behind others.
    seen: Seen,
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
    overlap: Overlap,
    lengths: Lengths,
    traffic: Traffic,
    /// Requests that were seen decoding at once on an engine lately.
    sequences: f64,
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
            overlap: Overlap::default(),
            lengths: Lengths::new(profile.output_tokens),
            traffic: Traffic::default(),
            sequences: profile.sequences,
        }
    }

    /// The row is a newcomer.
    pub fn join(&mut self, table: &mut StatTable, row: u32) {
        self.traffic.join(table, row);
        self.publish(table, row);
    }

    /// A request was sent to the row at `now`, seconds.
    pub fn sent(&mut self, table: &mut StatTable, row: u32, work: &Work, now: f64) {
        self.traffic.sent(table, row, work, self.overlap.occupies(), now);
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

    /// The row belongs to another endpoint from now on.
    pub fn forget(&mut self, row: u32) {
        if let Some(speed) = self.rows.get_mut(row as usize) {
            self.overlap.forget(speed.seen);
            *speed = RowSpeed::default();
        }
    }

    /// What an engine with a slowness of 1 is like, by all that was seen until `now`.
    pub fn profile(&self, now: f64) -> Profile {
        let [alone, token, pair, beside, _] = self.prefill.constants();
        let [prefill_rate, request_rate] = self.traffic.rates(now);
        Profile {
            prefill: [alone, token, pair, beside],
            step: self.step.constants(),
            output_tokens: self.lengths.mean(),
            prefill_rate,
            request_rate,
            reuse: self.traffic.reuse(),
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
