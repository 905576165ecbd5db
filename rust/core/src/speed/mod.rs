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
    /// Requests that were seen decoding at once: no engine is known to have room for more.
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
            let others: Vec<u32> = (0..table.rows() as u32)
                .filter(|&other| other != row && table.id(other).is_some())
                .collect();
            let sum: f64 = others.iter().map(|&row| table.get(Stat::RequestsSent, row)).sum();
            table.set(Stat::RequestsSent, row, sum / others.len().max(1) as f64);
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
            self.sequences = self.sequences.max(seen.batch + 1.0);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Work;
    use crate::rng::Rng;

    fn work(prompt: f64, uncached: f64) -> Work {
        let (prompt_tokens, uncached_tokens) = (prompt as u64, uncached as u64);
        Work { prompt_tokens, uncached_tokens, has_room: true, ..Work::default() }
    }

    #[test]
    fn constants_converge_on_engines_of_known_speed() {
        for factor in [0.2, 1.0, 5.0] {
            let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(4));
            let mut rng = Rng::new(3);
            let prefill = [10.0, 0.02, 8e-7].map(|c| c * factor);
            let step = [6.4, 0.05, 5e-5].map(|c| c * factor);
            let time = |c: [f64; 3], x: [f64; 3]| c[0] * x[0] + c[1] * x[1] + c[2] * x[2];
            for _ in 0..20_000 {
                let row = rng.below(4) as u32;
                let slow = if row == 3 { 3.0 } else { 1.0 };
                let prompt = 500.0 + 20_000.0 * rng.unit();
                let uncached = (prompt * rng.unit()).max(1.0).floor();
                let (batch, context_tokens) = (1.0 + 60.0 * rng.unit(), 400_000.0 * rng.unit());
                let x = [1.0, uncached, pairs(prompt, uncached)];
                let noise = 0.9 + 0.2 * rng.unit();
                let a_step = slow * time(step, [1.0, batch, context_tokens]);
                let seen = FirstToken {
                    waited_ms: slow * time(prefill, x) * noise + 1.5 * a_step,
                    ahead: [0.0; 3],
                    batch,
                    context_tokens,
                    work: work(prompt, uncached),
                };
                speed.first_token(&mut table, row, &seen);
                let generated = 50 + rng.below(300) as u64;
                let seen = Served {
                    decode_ms: a_step * (generated - 1) as f64 * noise,
                    prefill_ms: 0.0,
                    context_tokens,
                    batch,
                    generated: Some(generated),
                };
                speed.served(&mut table, row, &seen);
            }
            for (row, slow) in [(0, 1.0), (3, 3.0)] {
                let near = |what: &str, learned: f64, truth: f64| {
                    let off = learned / truth - 1.0;
                    assert!(off.abs() < 0.15, "{what} of row {row}: {off:+.2} off, ×{factor}");
                };
                let learned = speed.profile(0.0);
                let slower = [Stat::PrefillSlowness, Stat::StepSlowness];
                let [slow_prefill, slow_step] = slower.map(|stat| table.get(stat, row));
                near("a token", slow_prefill * learned.prefill[1], slow * prefill[1]);
                near("a pair", slow_prefill * learned.prefill[2], slow * prefill[2]);
                near("a step", slow_step * learned.step[0], slow * step[0]);
                near("context", slow_step * learned.step[2], slow * step[2]);
            }
            assert!((speed.profile(0.0).output_tokens / 200.0 - 1.0).abs() < 0.15);
        }
    }

    #[test]
    fn what_was_sent_is_a_share_of_the_time_of_its_row_and_fades() {
        let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(2));
        let share = |speed: &Speed, table: &StatTable, row, now| {
            speed.profile(now).rate * table.get(Stat::PrefillSent, row) / 1e3
        };
        // Past the age at which counting starts afresh, and from a clock that starts anywhere.
        for second in 0..10_000 {
            let now = 1.7e9 + f64::from(second);
            speed.sent(&mut table, 0, &Work { prefill_us: 300_000, ..Work::default() }, now);
            if second > 200 {
                let share = share(&speed, &table, 0, now);
                assert!((0.28..0.32).contains(&share), "{share} after {second} s");
            }
        }
        assert_eq!(share(&speed, &table, 1, 1.7e9 + 1e4), 0.0);
        assert!(share(&speed, &table, 0, 1.7e9 + 1.03e4) < 1e-4);
        assert!(share(&speed, &table, 0, f64::NAN).is_finite());
    }

    #[test]
    fn garbage_makes_nothing_negative_or_runaway() {
        let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(1));
        let mut rng = Rng::new(5);
        let odd = [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300, 1e-300, 5.0, 1e6];
        for _ in 0..20_000 {
            let mut any = || odd[rng.below(odd.len())];
            let seen = FirstToken {
                waited_ms: any(),
                ahead: [any(), any(), any()],
                batch: any(),
                context_tokens: any(),
                work: work(any(), any()),
            };
            speed.first_token(&mut table, 0, &seen);
            let seen = Served {
                decode_ms: any(),
                prefill_ms: any(),
                context_tokens: any(),
                batch: any(),
                generated: Some(any() as u64),
            };
            speed.served(&mut table, 0, &seen);
            let learned = speed.profile(0.0);
            let slower = [Stat::PrefillSlowness, Stat::StepSlowness].map(|stat| table.get(stat, 0));
            for value in learned.prefill.into_iter().chain(learned.step).chain(slower) {
                assert!((0.0..1e5).contains(&value), "{learned:?} {slower:?}");
            }
            assert!((0.0..=MOST_OUTPUT as f64).contains(&learned.output_tokens));
        }
    }

    #[test]
    fn engines_alike_do_not_look_different() {
        let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(8));
        let mut rng = Rng::new(9);
        let mut ratios = Vec::new();
        for _ in 0..8_000 {
            let row = rng.below(8) as u32;
            let uncached = 100.0 + 8_000.0 * rng.unit();
            let waited_ms = (5.0 + 0.03 * uncached) * (0.5 + 1.5 * rng.unit());
            let (batch, context_tokens, ahead) = (0.0, 0.0, [0.0; 3]);
            let work = work(uncached, uncached);
            let seen = FirstToken { waited_ms, ahead, batch, context_tokens, work };
            speed.first_token(&mut table, row, &seen);
            ratios.push(speed.rows[row as usize].prefill.value());
        }
        let equal = ratios.iter().filter(|ratio| (*ratio - 1.0).abs() < 0.02).count();
        assert!(equal * 10 > ratios.len() * 9, "{equal} of {}", ratios.len());
    }
}
