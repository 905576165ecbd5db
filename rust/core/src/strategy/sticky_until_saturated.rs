//! llm-d's default since August 2026: stay with the cache until its queue is too long.

use super::costs::{Costs, summed, term};
use super::{Key, Params, Rule, Scored, View};
use crate::error::RouteError;
use crate::rng::Rng;
use crate::stats::Stat;

/// Endpoints that have most of the prompt, unless they are saturated; among them the least tokens.
///
/// Sticky: cached part of the full blocks ≥ `threshold`. If the least loaded sticky endpoint's
/// modelled wait q / `tokens_per_s` is more than `penalty_s` above the best other's, or none is
/// sticky, all stay; else only the sticky ones. Then the least q + uncached tokens wins.
/// Ties: a uniform draw. Constants are per model and GPU. Source: llm-d-router, Qwen3-32B default.
#[derive(Debug, Clone)]
pub struct StickyUntilSaturated {
    threshold: f64,
    penalty_s: f64,
    tokens_per_s: f64,
    costs: Costs,
}

impl StickyUntilSaturated {
    fn is_sticky(&self, view: View<'_>, pos: usize) -> bool {
        let block = view.asked.block_tokens.max(1.0);
        let full = ((view.asked.tokens - 1.0) / block).floor() * block;
        full > 0.0 && view.cached(pos) >= self.threshold * full
    }

    /// Whether only sticky endpoints may be chosen.
    fn sticks(&self, view: View<'_>) -> bool {
        let (mut sticky, mut other) = (f64::INFINITY, f64::INFINITY);
        for pos in 0..view.len() {
            let wait = view.get(Stat::QueuedTokens, pos) / self.tokens_per_s;
            let least = if self.is_sticky(view, pos) { &mut sticky } else { &mut other };
            *least = least.min(wait);
        }
        sticky.is_finite() && (other.is_infinite() || sticky - other <= self.penalty_s)
    }
}

impl Rule for StickyUntilSaturated {
    const NAME: &'static str = "sticky_until_saturated";
    const PARAMS: &'static str = "threshold, penalty_s, tokens_per_s";
    const READS: &'static [Stat] = &[Stat::InFlight, Stat::QueuedTokens];
    const NEEDS_PROMPT: bool = true;

    fn build(params: &mut Params) -> Result<Self, RouteError> {
        Ok(Self {
            threshold: params.number("threshold", 0.8, 0.0, 1.0)?,
            penalty_s: params.number("penalty_s", 18.0, 0.0, 1e6)?,
            tokens_per_s: params.number("tokens_per_s", 15_928.0, 1.0, 1e9)?,
            costs: Costs::default(),
        })
    }

    fn select(&mut self, view: View<'_>, _: &Key, rng: &mut Rng) -> Option<usize> {
        let sticks = self.sticks(view);
        let mut costs = std::mem::take(&mut self.costs);
        let chosen = costs.least(view, rng, |pos| {
            if sticks && !self.is_sticky(view, pos) {
                return f64::INFINITY;
            }
            view.get(Stat::QueuedTokens, pos) + view.uncached(pos)
        });
        self.costs = costs;
        chosen
    }

    fn score(&self, view: View<'_>, _: &Key) -> Vec<Scored> {
        let sticks = self.sticks(view);
        let score = |pos| {
            let out = if sticks && !self.is_sticky(view, pos) { f64::INFINITY } else { 0.0 };
            summed(vec![
                term("queued", view.get(Stat::QueuedTokens, pos), "tokens"),
                term("uncached", view.uncached(pos), "tokens"),
                term("not_sticky", out, "tokens"),
            ])
        };
        (0..view.len()).map(score).collect()
    }
}
