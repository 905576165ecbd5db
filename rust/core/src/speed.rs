//! What the engines' speed is, learned per row from how long requests took.
//!
//! Two models, each linear in two features and never negative:
//! prefill `ms = b · tokens + c · pairs`, where pairs = u · (L − u / 2) are the query-key pairs of
//! u uncached out of L prompt tokens, and a decode step `ms = d + f · context tokens`.
//! Sums decay, so an engine that changes is learned anew; a profile counts as a few samples.

use crate::load::{FirstToken, Served};
use crate::stats::{Stat, StatTable};

/// Weight that a sample loses with each later one.
const FORGET: f64 = 0.99;
/// Samples that the profile counts for.
const PRIOR: f64 = 8.0;
/// A sample counts as at most this many times what was expected: the rest waited for something
/// else, such as room in the KV cache.
const CLIP: f64 = 3.0;

/// Constants of an engine, as they start out.
///
/// The default is that of a mid-sized model on current hardware (Qwen3-32B, two H100; fitted from
/// NVIDIA AIConfigurator tables); what requests show soon outweighs it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    /// Milliseconds per uncached prompt token.
    pub prefill_ms: f64,
    /// Milliseconds per query-key pair of a prefill.
    pub pair_ms: f64,
    /// Milliseconds of a decode step without context.
    pub step_ms: f64,
    /// Milliseconds that a context token adds to a decode step.
    pub step_ms_per_token: f64,
    /// Tokens of an answer.
    pub output_tokens: f64,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            prefill_ms: 0.05,
            pair_ms: 1.6e-6,
            step_ms: 13.7,
            step_ms_per_token: 4.2e-5,
            output_tokens: 256.0,
        }
    }
}

/// Decaying least squares `y = a · x + b · z` with a, b ≥ 0.
#[derive(Debug, Clone, Copy)]
struct Line {
    a: f64,
    b: f64,
    /// Bounds of both.
    most: (f64, f64),
    xx: f64,
    xz: f64,
    zz: f64,
    xy: f64,
    zy: f64,
}

impl Line {
    /// Starts at `a`, `b`, as if samples of size `x`, `z` had shown them.
    fn new(a: f64, b: f64, x: f64, z: f64) -> Self {
        let weight = PRIOR / (a * x + b * z).powi(2);
        let (xx, zz) = (weight * x * x, weight * z * z);
        // Features that vary on their own: their product says nothing.
        Self { a, b, most: (a * 1e3, b * 1e3), xx, xz: 0.0, zz, xy: a * xx, zy: b * zz }
    }

    /// Learns from one sample; errors count relative to what was expected.
    fn learn(&mut self, x: f64, z: f64, y: f64) {
        let expected = self.a * x + self.b * z;
        if !(expected > 0.0 && y >= 0.0 && y.is_finite() && expected.is_finite()) {
            return;
        }
        let y = y.min(CLIP * expected);
        let weight = 1.0 / (expected * expected);
        for (sum, value) in [
            (&mut self.xx, x * x),
            (&mut self.xz, x * z),
            (&mut self.zz, z * z),
            (&mut self.xy, x * y),
            (&mut self.zy, z * y),
        ] {
            *sum = *sum * FORGET + weight * value;
        }
        let det = self.xx * self.zz - self.xz * self.xz;
        let (mut a, mut b) = if det > 1e-9 * self.xx * self.zz {
            ((self.xy * self.zz - self.zy * self.xz) / det, (self.zy * self.xx - self.xy * self.xz) / det)
        } else {
            (self.a, self.b)
        };
        // The best on the edge, where the best of all would be negative.
        if b < 0.0 {
            (a, b) = (self.xy / self.xx, 0.0);
        } else if a < 0.0 {
            (a, b) = (0.0, self.zy / self.zz);
        }
        // No engine is a thousand times off the profile; garbage may say so.
        (self.a, self.b) = (a.clamp(0.0, self.most.0), b.clamp(0.0, self.most.1));
        if self.a + self.b == 0.0 {
            self.a = self.most.0 * 1e-6;
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct RowSpeed {
    prefill: Line,
    step: Line,
}

/// The learned constants of all rows.
#[derive(Debug)]
pub struct Speed {
    profile: Profile,
    rows: Vec<RowSpeed>,
    output_tokens: f64,
}

impl Speed {
    /// Everything starts as the profile has it.
    pub fn new(profile: Profile) -> Self {
        Self { profile, rows: Vec::new(), output_tokens: profile.output_tokens }
    }

    /// Starts again from another profile.
    pub fn set_profile(&mut self, profile: Profile) {
        *self = Self::new(profile);
    }

    /// Milliseconds that `row` should take to prefill the last `uncached` of `prompt` tokens.
    pub fn prefill_ms(&self, row: u32, prompt: f64, uncached: f64) -> f64 {
        let line = self.rows.get(row as usize).map_or_else(|| self.fresh().prefill, |r| r.prefill);
        line.a * uncached + line.b * pairs(prompt, uncached)
    }

    /// Learns from a first token.
    pub fn first_token(&mut self, table: &mut StatTable, row: u32, seen: &FirstToken) {
        let uncached = seen.work.uncached_tokens as f64;
        let prompt = seen.work.prompt_tokens as f64;
        let own = self.prefill_ms(row, prompt, uncached);
        if uncached < 1.0 || own <= 0.0 {
            return; // nothing was to be prefilled
        }
        // What stood before it is taken as so many times its own work.
        let times = (seen.expected_ms / own).max(1.0);
        let step = table.get(Stat::StepMs, row).max(0.0);
        let (x, z) = (times * uncached, times * pairs(prompt, uncached));
        self.row(row).prefill.learn(x, z, (seen.waited_ms - step).max(0.1 * seen.waited_ms));
        self.publish(table, row);
    }

    /// Learns from a served request.
    pub fn served(&mut self, table: &mut StatTable, row: u32, seen: &Served) {
        if let Some(generated) = seen.generated {
            self.output_tokens += 0.01 * (generated.min(1 << 20) as f64 - self.output_tokens);
        }
        // Not told how many: then what is learned is the time of an average answer's share.
        let steps = seen.generated.map_or(self.output_tokens, |n| n as f64 - 1.0);
        let decoding = seen.decode_ms - seen.prefill_ms;
        if steps >= 8.0 && decoding > 0.1 * seen.decode_ms {
            self.row(row).step.learn(1.0, seen.context_tokens, decoding / steps);
        }
        self.publish(table, row);
    }

    /// The row belongs to another endpoint from now on.
    pub fn forget(&mut self, row: u32) {
        let fresh = self.fresh();
        if let Some(speed) = self.rows.get_mut(row as usize) {
            *speed = fresh;
        }
    }

    /// Writes the row's constants into their columns.
    pub fn publish(&mut self, table: &mut StatTable, row: u32) {
        let RowSpeed { prefill, step } = *self.row(row);
        table.set(Stat::PrefillMs, row, prefill.a);
        table.set(Stat::PairMs, row, prefill.b);
        table.set(Stat::StepMs, row, step.a);
        table.set(Stat::StepMsPerToken, row, step.b);
        table.set(Stat::OutputTokens, row, self.output_tokens);
    }

    fn row(&mut self, row: u32) -> &mut RowSpeed {
        if self.rows.len() <= row as usize {
            let fresh = self.fresh();
            self.rows.resize(row as usize + 1, fresh);
        }
        &mut self.rows[row as usize]
    }

    fn fresh(&self) -> RowSpeed {
        let Profile { prefill_ms, pair_ms, step_ms, step_ms_per_token, .. } = self.profile;
        RowSpeed {
            prefill: Line::new(prefill_ms, pair_ms, 4096.0, 4096.0 * 4096.0),
            step: Line::new(step_ms, step_ms_per_token, 1.0, 100_000.0),
        }
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

    fn first(speed: &Speed, prompt: f64, uncached: f64, waited_ms: f64) -> FirstToken {
        let expected_ms = speed.prefill_ms(0, prompt, uncached);
        let (prompt_tokens, uncached_tokens) = (prompt as u64, uncached as u64);
        let work = Work { prompt_tokens, uncached_tokens, ..Work::default() };
        FirstToken { waited_ms, expected_ms, work }
    }

    #[test]
    fn constants_converge_on_an_engine_of_known_speed() {
        for factor in [0.2, 1.0, 5.0] {
            let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(1));
            let mut rng = Rng::new(3);
            let (b, c, d, f) = (0.02 * factor, 8e-7 * factor, 6.4 * factor, 5e-5 * factor);
            for _ in 0..2_000 {
                let prompt = 500.0 + 20_000.0 * rng.unit();
                let uncached = (prompt * rng.unit()).max(1.0).floor();
                let context = 400_000.0 * rng.unit();
                let took = b * uncached + c * pairs(prompt, uncached);
                let noise = 0.9 + 0.2 * rng.unit();
                let step = table.get(Stat::StepMs, 0).max(0.0);
                let seen = first(&speed, prompt, uncached, took * noise + step);
                speed.first_token(&mut table, 0, &seen);
                let generated = 50 + rng.below(300) as u64;
                let ms = (d + f * context) * (generated - 1) as f64 * noise;
                let seen = Served {
                    decode_ms: ms,
                    prefill_ms: 0.0,
                    context_tokens: context,
                    batch: 10.0,
                    generated: Some(generated),
                };
                speed.served(&mut table, 0, &seen);
            }
            let near = |stat: Stat, truth: f64| {
                let learned = table.get(stat, 0);
                assert!((learned / truth - 1.0).abs() < 0.15, "{stat:?}: {learned} for {truth}");
            };
            near(Stat::PrefillMs, b);
            near(Stat::PairMs, c);
            near(Stat::StepMs, d);
            near(Stat::StepMsPerToken, f);
            near(Stat::OutputTokens, 200.0);
        }
    }

    #[test]
    fn garbage_makes_nothing_negative_or_runaway() {
        let (mut speed, mut table) = (Speed::new(Profile::default()), StatTable::scratch(1));
        let mut rng = Rng::new(5);
        let odd = [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300, 1e-300, 5.0, 1e6];
        for _ in 0..20_000 {
            let mut any = || odd[rng.below(odd.len())];
            let (prompt_tokens, uncached_tokens) = (any() as u64, any() as u64);
            let work = Work { prompt_tokens, uncached_tokens, ..Work::default() };
            let seen = FirstToken { waited_ms: any(), expected_ms: any(), work };
            speed.first_token(&mut table, 0, &seen);
            let seen = Served {
                decode_ms: any(),
                prefill_ms: any(),
                context_tokens: any(),
                batch: any(),
                generated: Some(any() as u64),
            };
            speed.served(&mut table, 0, &seen);
            for stat in [Stat::PrefillMs, Stat::PairMs, Stat::StepMs, Stat::StepMsPerToken] {
                let value = table.get(stat, 0);
                assert!(value.is_finite() && (0.0..1e9).contains(&value), "{stat:?} {value}");
            }
            assert!(table.get(Stat::OutputTokens, 0).is_finite());
        }
    }
}
