//! The gate of the SGLang router and its relatives.

use super::choose::{Ties, least_loaded, load_scores};
use super::costs::{Costs, term};
use super::{Key, Params, Rule, Scored, View};
use crate::error::RouteError;
use crate::rng::Rng;
use crate::stats::Stat;

/// Least connections while the fleet is uneven or nothing matches, else the longest match.
///
/// Uneven: max − min in flight above `balance_abs` and max above `balance_rel` · min. A match
/// counts when it covers more than `cache_threshold` of the prompt. Ties: fewer in flight, then a
/// uniform draw (the originals take the first worker). No prompt: least connections.
/// Source: sglang router, `cache_aware`; defaults of its command line.
#[derive(Debug, Clone)]
pub struct CacheAware {
    cache_threshold: f64,
    balance_abs: f64,
    balance_rel: f64,
    costs: Costs,
}

impl CacheAware {
    /// Whether the fleet's load forbids affinity for now.
    fn uneven(&self, view: View<'_>) -> bool {
        let loads = view.values(Stat::InFlight).filter(|load| !load.is_nan());
        let (low, high) =
            loads.fold((f64::INFINITY, 0.0_f64), |(low, high), x| (low.min(x), high.max(x)));
        high - low > self.balance_abs && high > self.balance_rel * low
    }

    fn by_match(&self, view: View<'_>) -> bool {
        let best = view.asked.cached.iter().copied().fold(0.0, f64::max);
        best > self.cache_threshold * view.asked.tokens && !self.uneven(view)
    }
}

impl Rule for CacheAware {
    const NAME: &'static str = "cache_aware";
    const PARAMS: &'static str = "cache_threshold, balance_abs, balance_rel";
    const NEEDS_PROMPT: bool = true;

    fn build(params: &mut Params) -> Result<Self, RouteError> {
        Ok(Self {
            cache_threshold: params.number("cache_threshold", 0.3, 0.0, 1.0)?,
            balance_abs: params.number("balance_abs", 64.0, 0.0, 1e6)?,
            balance_rel: params.number("balance_rel", 1.5, 1.0, 1e6)?,
            costs: Costs::default(),
        })
    }

    fn select(&mut self, view: View<'_>, _: &Key, rng: &mut Rng) -> Option<usize> {
        if !self.by_match(view) {
            return least_loaded(view, Ties::Random, rng);
        }
        let best = view.asked.cached.iter().copied().fold(0.0, f64::max);
        self.costs.least(view, rng, |pos| {
            if view.cached(pos) < best { f64::INFINITY } else { view.get(Stat::InFlight, pos) }
        })
    }

    fn score(&self, view: View<'_>, _: &Key) -> Vec<Scored> {
        if !self.by_match(view) {
            return load_scores(view);
        }
        let score = |pos| {
            let cached = view.cached(pos);
            let terms = vec![
                term("cached", cached, "tokens"),
                term("in_flight", view.get(Stat::InFlight, pos), "requests"),
            ];
            Scored { score: cached, terms }
        };
        (0..view.len()).map(score).collect()
    }
}
