//! How long one engine step takes. Both models and their constants: the engine model of the docs.

/// The prompt chunks of one step, as sums.
#[derive(Debug, Clone, Copy, Default)]
pub struct Prefill {
    /// Prompts with a chunk in the step.
    pub prompts: u64,
    /// Sum of the chunks' first positions: tokens computed or cached before.
    pub starts: u64,
    /// Sum of the chunks' end positions.
    pub ends: u64,
    /// Sum of n·(s + n/2) over chunks of n tokens from position s: token pairs of attention.
    pub pairs: f64,
}

impl Prefill {
    /// Adds a chunk that computes positions `start..end`.
    pub fn add(&mut self, start: u32, end: u32) {
        self.prompts += 1;
        self.starts += u64::from(start);
        self.ends += u64::from(end);
        let (s, e) = (f64::from(start), f64::from(end));
        self.pairs += (e * e - s * s) / 2.0;
    }
}

/// A timing model; all results are milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Timing {
    /// NVIDIA Dynamo's polynomial (hardware not named by the vendor).
    Polynomial,
    /// Linear in tokens and sequences plus attention, fitted to silicon tables.
    Linear {
        /// Least time of a step.
        floor: f64,
        /// A step that holds only prompts.
        base: f64,
        /// Per prompt token.
        token: f64,
        /// Per attention pair of the prompt.
        pair: f64,
        /// Per decoding sequence.
        sequence: f64,
        /// Per context token of the decoding sequences.
        context: f64,
    },
}

impl Timing {
    /// A step of prompt chunks and `sequences` decodes with `context` tokens in all.
    /// `capacity`: tokens the KV cache holds.
    pub fn step(&self, prefill: &Prefill, sequences: u32, context: f64, capacity: f64) -> f64 {
        if prefill.prompts == 0 {
            return self.decode(sequences, context, capacity);
        }
        let tokens = prefill.ends - prefill.starts;
        match *self {
            Self::Polynomial => {
                // Dynamo works with the means over the prompts, cut to whole tokens.
                let m = prefill.prompts;
                let t = (m * (prefill.ends / m - prefill.starts / m)) as f64;
                let prompt =
                    if t > 0.0 { 4.209_989e-7 * t * t + 1.518_344e-2 * t + 16.501_42 } else { 0.0 };
                prompt + self.decode(sequences, context, capacity)
            }
            Self::Linear { floor, base, token, pair, .. } => {
                let prompt = token * tokens as f64 + pair * prefill.pairs;
                if sequences == 0 {
                    floor.max(base + prompt)
                } else {
                    prompt + self.decode(sequences, context, capacity)
                }
            }
        }
    }

    /// A step of decodes alone; 0 if nobody decodes.
    #[inline]
    pub fn decode(&self, sequences: u32, context: f64, capacity: f64) -> f64 {
        if sequences == 0 {
            return 0.0;
        }
        match *self {
            Self::Polynomial => {
                let p = (context / capacity).min(1.0);
                (-25.74 * p * p + 54.01 * p + 5.74).max(1.0)
            }
            Self::Linear { floor, sequence, context: per_token, .. } => {
                floor + sequence * f64::from(sequences) + per_token * context
            }
        }
    }
}

/// A named engine: its timing and the KV tokens one replica has room for.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    /// What users write.
    pub name: &'static str,
    /// Step times.
    pub timing: Timing,
    /// KV cache in tokens.
    pub kv_tokens: u32,
}

const fn linear(name: &'static str, constants: [f64; 6], kv_tokens: u32) -> Profile {
    let [floor, base, token_us, pair, sequence, context] = constants;
    let token = token_us * 1e-3;
    Profile {
        name,
        timing: Timing::Linear { floor, base, token, pair, sequence, context },
        kv_tokens,
    }
}

const QWEN3_32B: [f64; 6] = [13.65, 3.53, 50.27, 1.61e-6, 0.0264, 4.22e-5];

const fn scaled(name: &'static str, times: f64) -> Profile {
    let [floor, base, token, pair, sequence, context] = QWEN3_32B;
    let constants = [
        floor * times,
        base * times,
        token * times,
        pair * times,
        sequence * times,
        context * times,
    ];
    linear(name, constants, 307_328)
}

/// Every profile. Linear ones: fit of NVIDIA AIConfigurator 0.12.0 tables (vLLM 0.24.0, BF16).
/// The numbers: floor ms, base ms, µs a token, ms a pair, ms a sequence, ms a context token.
pub const PROFILES: &[Profile] = &[
    Profile { name: "dynamo-polynomial", timing: Timing::Polynomial, kv_tokens: 1_048_576 },
    linear("llama-3.1-8b-h100-tp1", [6.42, 1.22, 20.20, 7.94e-7, 0.0111, 4.18e-5], 400_000),
    linear("llama-3.1-8b-a100-tp1", [11.50, 7.08, 54.97, 2.97e-6, 0.0262, 8.73e-5], 400_000),
    linear("llama-3.1-8b-h200-tp1", [4.94, 0.49, 20.45, 8.02e-7, 0.0121, 2.94e-5], 830_000),
    linear("llama-3.1-8b-l40s-tp1", [22.29, 0.30, 69.88, 2.87e-6, 0.0338, 1.94e-4], 190_000),
    linear("llama-3.1-70b-h100-tp4", [15.06, 4.17, 61.86, 9.91e-7, 0.0333, 2.64e-5], 461_376),
    linear("llama-3.1-70b-h100-tp8", [10.22, 5.85, 38.59, 4.99e-7, 0.0222, 1.33e-5], 1_280_000),
    linear("llama-3.1-70b-a100-tp8", [17.56, 29.9, 92.17, 1.83e-6, 0.0685, 2.62e-5], 1_280_000),
    linear("qwen3-32b-h100-tp2", QWEN3_32B, 307_328),
    // The one above, so many times quicker or slower: a small model on a large GPU, a small GPU,
    // a CPU. Not fitted to anything: they differ in time alone.
    scaled("3x-quicker", 1.0 / 3.0),
    scaled("8x-slower", 8.0),
    scaled("30x-slower", 30.0),
    // A small model in float32 on a core of a CPU: steps are quick, prompts slow, the cache small.
    linear("small-on-cpu", [12.0, 4.0, 1500.0, 4e-6, 2.0, 1e-4], 32_000),
];

impl Profile {
    /// The profile of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linear_model_meets_the_rates_it_was_fitted_to() {
        let timing = Profile::named("llama-3.1-8b-h100-tp1").map(|p| p.timing);
        let Some(timing) = timing else { panic!("profile is missing") };
        let mut prompt = Prefill::default();
        prompt.add(0, 2048);
        let ms = timing.step(&prompt, 0, 0.0, 4e5);
        assert!((2048.0 / ms - 47.1).abs() < 1.0, "prefill tokens per ms: {}", 2048.0 / ms);
        for (b, expected) in [(1, 6.2), (64, 12.6), (256, 30.7)] {
            let ms = timing.step(&Prefill::default(), b, f64::from(b * 2048), 4e5);
            assert!((ms / expected - 1.0).abs() < 0.06, "{b} decodes: {ms} ms");
        }
    }
}
