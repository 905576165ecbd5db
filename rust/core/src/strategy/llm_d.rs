//! llm-d's default profile of weighted scorers.

use super::costs::{Costs, summed, term};
use super::{Key, Params, Rule, Scored, View};
use crate::error::RouteError;
use crate::rng::Rng;
use crate::stats::Stat;

/// Prefix 3 : queue 2 : KV utilisation 2, each from 0 to 1; the highest sum wins.
///
/// prefix: h / L. queue: (max − w) / (max − min) of the waiting requests, all equal → 1; those the
/// engine reports, else those sent without a first token. KV: 1 − usage the engine reports, else
/// 1 − tokens in use / capacity, else 0.5. Ties: a uniform draw. Source: llm-d-router defaults.
#[derive(Debug, Clone)]
pub struct LlmD {
    prefix_weight: f64,
    queue_weight: f64,
    kv_weight: f64,
    costs: Costs,
}

/// The waiting requests of a candidate.
fn waiting(view: View<'_>, pos: usize) -> f64 {
    let reported = view.get(Stat::Queuing, pos);
    if reported.is_nan() { view.get(Stat::InPrefill, pos) } else { reported }
}

fn kv_free(view: View<'_>, pos: usize) -> f64 {
    let reported = view.get(Stat::KvUsage, pos);
    let used = view.get(Stat::KvTokens, pos) / view.get(Stat::KvCapacity, pos);
    let usage = if reported.is_nan() { used } else { reported };
    if usage.is_nan() { 0.5 } else { 1.0 - usage.clamp(0.0, 1.0) }
}

impl LlmD {
    fn parts(&self, view: View<'_>, pos: usize, low: f64, high: f64) -> [f64; 3] {
        let prefix = view.cached(pos) / view.asked.tokens.max(1.0);
        let wait = waiting(view, pos);
        let queue = if high > low { (high - wait) / (high - low) } else { 1.0 };
        let queue = if queue.is_nan() { 0.5 } else { queue };
        [
            self.prefix_weight * prefix,
            self.queue_weight * queue,
            self.kv_weight * kv_free(view, pos),
        ]
    }
}

fn range(view: View<'_>) -> (f64, f64) {
    (0..view.len())
        .map(|pos| waiting(view, pos))
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
}

impl Rule for LlmD {
    const NAME: &'static str = "llm_d";
    const PARAMS: &'static str = "prefix_weight, queue_weight, kv_weight";
    const READS: &'static [Stat] = &[
        Stat::InFlight,
        Stat::InPrefill,
        Stat::Queuing,
        Stat::KvUsage,
        Stat::KvTokens,
        Stat::KvCapacity,
    ];
    const NEEDS_PROMPT: bool = true;

    fn build(params: &mut Params) -> Result<Self, RouteError> {
        Ok(Self {
            prefix_weight: params.number("prefix_weight", 3.0, 0.0, 1e6)?,
            queue_weight: params.number("queue_weight", 2.0, 0.0, 1e6)?,
            kv_weight: params.number("kv_weight", 2.0, 0.0, 1e6)?,
            costs: Costs::default(),
        })
    }

    fn select(&mut self, view: View<'_>, _: &Key, rng: &mut Rng) -> Option<usize> {
        let (low, high) = range(view);
        let mut costs = std::mem::take(&mut self.costs);
        let chosen = costs.least(view, rng, |pos| {
            // Sums of shares: equal in theory may differ in the last bits.
            (-1e9 * self.parts(view, pos, low, high).iter().sum::<f64>()).round()
        });
        self.costs = costs;
        chosen
    }

    fn score(&self, view: View<'_>, _: &Key) -> Vec<Scored> {
        let (low, high) = range(view);
        let score = |pos| {
            let [prefix, queue, kv] = self.parts(view, pos, low, high);
            summed(vec![
                term("prefix", prefix, "1"),
                term("queue", queue, "1"),
                term("kv", kv, "1"),
            ])
        };
        (0..view.len()).map(score).collect()
    }
}
