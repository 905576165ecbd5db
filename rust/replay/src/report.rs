//! Figures of a replay.

use crate::outcome::{NOWHERE, Outcome};
use crate::trace::Trace;

/// A distribution; `NaN` where there is no value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
}

impl Spread {
    /// Of the values that are numbers; percentiles interpolate as numpy's do.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.filter(|value| !value.is_nan()).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
        let at = |share: f64| {
            let place = share * (sorted.len().max(1) - 1) as f64;
            let low = sorted.get(place as usize).copied().unwrap_or(f64::NAN);
            let high = sorted.get(place as usize + 1).copied().unwrap_or(low);
            low + (high - low) * place.fract()
        };
        Self { mean, p50: at(0.5), p90: at(0.9), p99: at(0.99) }
    }
}

/// Summary of one replay. Times are milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Requests in the trace.
    pub requests: usize,
    /// Requests served.
    pub served: usize,
    /// Tokens found in engines' caches, a prompt token sent.
    pub token_hit_rate: f64,
    /// First token − arrival.
    pub ttft: Spread,
    /// (Last − first token) / (output − 1), for outputs of 2 tokens and more.
    pub tpot: Spread,
    /// Last token − arrival.
    pub e2e: Spread,
    /// Largest against mean number of requests in flight, over arrivals.
    pub max_over_mean_load: f64,
    /// Largest share of the requests that one engine got.
    pub max_share: f64,
    /// Share with TTFT ≤ 1 s + 62.5 ms a 1,000 prompt tokens, and TPOT ≤ 50 ms.
    pub goodput: f64,
    /// From first arrival to last token.
    pub makespan: f64,
    /// Tokens a second over that time.
    pub output_tokens_per_s: f64,
}

impl Summary {
    /// Of a trace and what became of it on `engines` engines.
    pub fn of(trace: &Trace, outcome: &Outcome, engines: usize) -> Self {
        let n = trace.len();
        let ttft = |at: usize| outcome.first_token[at] - outcome.arrival[at];
        let e2e = |at: usize| outcome.end[at] - outcome.arrival[at];
        let tpot = |at: usize| {
            let gaps = trace.outputs[at] - 1;
            if gaps == 0 {
                return f64::NAN;
            }
            (outcome.end[at] - outcome.first_token[at]) / f64::from(gaps)
        };
        let served = |at: &usize| !outcome.end[*at].is_nan();
        let mut share = vec![0_u32; engines];
        for &engine in outcome.engine.iter().filter(|&&engine| engine != NOWHERE) {
            share[engine as usize] += 1;
        }
        let most = share.iter().copied().max().unwrap_or(0);
        let good = (0..n).filter(served).filter(|&at| {
            let limit = 1000.0 + 0.0625 * f64::from(trace.inputs[at]);
            // One token has no gap, and none too long.
            ttft(at) <= limit && tpot(at).max(0.0) <= 50.0
        });
        let makespan = outcome.end.iter().copied().fold(0.0, f64::max);
        let tokens: u64 = (0..n).filter(served).map(|at| u64::from(trace.outputs[at])).sum();
        let cached: u64 = outcome.cached.iter().map(|&tokens| u64::from(tokens)).sum();
        Self {
            requests: n,
            served: (0..n).filter(served).count(),
            token_hit_rate: cached as f64 / trace.input_tokens() as f64,
            ttft: Spread::of((0..n).map(ttft)),
            tpot: Spread::of((0..n).map(tpot)),
            e2e: Spread::of((0..n).map(e2e)),
            max_over_mean_load: outcome.load_max_and_mean.0 / outcome.load_max_and_mean.1,
            max_share: f64::from(most) / n as f64,
            goodput: good.count() as f64 / n as f64,
            makespan,
            output_tokens_per_s: tokens as f64 / (makespan * 1e-3),
        }
    }
}
