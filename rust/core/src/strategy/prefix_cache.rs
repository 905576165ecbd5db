//! The longest match, within a load bound.

use super::costs::{Costs, fold, highest, term};
use super::{Key, Params, Rule, Scored, View};
use crate::error::RouteError;
use crate::rng::Rng;
use crate::stats::Stat;

/// The endpoint that has most of the prompt in its cache, as long as its load is within bounds.
///
/// 1. Endpoints with more than `load_factor` · (R + 1) / n requests are passed over (R in flight on n
///    endpoints), unless that is at most 2 more than another has: a move costs a whole prefill. A
///    hot prefix so spills, and the endpoint it spills to has it from then on.
/// 2. Of the rest the longest match wins, if it is at least `min_match_tokens` and
///    `min_match_share` of the prompt; else the fewest requests in flight.
///
/// Ties: fewer in flight, then a uniform draw. No prompt: least connections.
/// Sources: Mirrokni et al. 2018 (bounded loads); SMG 1.13 (spilling per request).
#[derive(Debug, Clone)]
pub struct PrefixCache {
    min_match_tokens: f64,
    min_match_share: f64,
    load_factor: f64,
    costs: Costs,
}

impl PrefixCache {
    /// The load bound, and the longest match within it (0 when it is too short to count).
    fn bounds(&self, view: View<'_>, loads: &[f64]) -> (f64, f64) {
        let known = |load: f64| if load.is_finite() { load } else { 0.0 };
        let total = fold(loads, 0.0, |sum, load| sum + known(load));
        let least =
            fold(loads, f64::INFINITY, |least, load| if load < least { load } else { least });
        let cap =
            (self.load_factor * (total + 1.0) / view.len() as f64).max(known(least) + ALLOWED);
        let within = |load: f64, cached: f64| if load <= cap { cached } else { 0.0 };
        let best = highest(loads, view.asked.cached, within);
        let least = self.min_match_tokens.max(self.min_match_share * view.asked.tokens);
        (cap, if best >= least { best } else { 0.0 })
    }
}

/// Requests more than on the least loaded endpoint for which nobody leaves a cache.
const ALLOWED: f64 = 2.0;
/// Above any load: what is over the cap, or has less of the prompt, loses to all that is not.
const OUT: f64 = 1e12;

fn cost(load: f64, cached: f64, cap: f64, best: f64) -> f64 {
    if load > cap || cached < best { OUT + load } else { load }
}

impl Rule for PrefixCache {
    const NAME: &'static str = "prefix_cache";
    const PARAMS: &'static str = "min_match_tokens, min_match_share, load_factor";
    const NEEDS_PROMPT: bool = true;

    fn build(params: &mut Params) -> Result<Self, RouteError> {
        Ok(Self {
            min_match_tokens: params.number("min_match_tokens", 64.0, 0.0, 1e9)?,
            min_match_share: params.number("min_match_share", 0.0, 0.0, 1.0)?,
            load_factor: params.number("load_factor", 1.25, 1.0, 1e6)?,
            costs: Costs::default(),
        })
    }

    fn select(&mut self, view: View<'_>, _: &Key, rng: &mut Rng) -> Option<usize> {
        let mut costs = std::mem::take(&mut self.costs);
        let loads = costs.fill(view, Stat::InFlight);
        let (cap, best) = self.bounds(view, loads);
        if view.asked.cached.len() == loads.len() {
            for (load, &cached) in loads.iter_mut().zip(view.asked.cached) {
                *load = cost(*load, cached, cap, best);
            }
        } else {
            for load in loads.iter_mut() {
                *load = cost(*load, 0.0, cap, best);
            }
        }
        let chosen = costs.pick(rng);
        self.costs = costs;
        chosen
    }

    fn score(&self, view: View<'_>, _: &Key) -> Vec<Scored> {
        let loads: Vec<f64> = view.values(Stat::InFlight).collect();
        let (cap, best) = self.bounds(view, &loads);
        let score = |pos| Scored {
            score: cost(loads[pos], view.cached(pos), cap, best),
            terms: vec![
                term("cached", view.cached(pos), "tokens"),
                term("in_flight", view.get(Stat::InFlight, pos), "requests"),
                term("load_cap", cap, "requests"),
            ],
        };
        (0..view.len()).map(score).collect()
    }
}
