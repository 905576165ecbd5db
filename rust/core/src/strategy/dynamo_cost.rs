//! The cost function of NVIDIA Dynamo's KV router.

use super::costs::{Costs, summed, term};
use super::{Key, Params, Rule, Scored, Term, View};
use crate::error::RouteError;
use crate::rng::Rng;
use crate::stats::Stat;

/// Blocks to compute plus blocks to keep; least wins.
///
/// Cost in blocks: `prefill_weight` · max(0, (q + L) / bs − `overlap_credit` · h / bs) + K⁺, where q
/// are queued uncached tokens, L the prompt, h its cached part, bs the block size and K⁺ the
/// distinct blocks in use with this request. Ties: a uniform draw. No prompt: q and K decide.
/// Source: ai-dynamo 1.6, KV router with its defaults.
#[derive(Debug, Clone)]
pub struct DynamoCost {
    prefill_weight: f64,
    overlap_credit: f64,
    costs: Costs,
}

impl DynamoCost {
    fn parts(&self, view: View<'_>, pos: usize) -> (f64, f64) {
        let block = view.asked.block_tokens.max(1.0);
        let queued = view.get(Stat::QueuedTokens, pos) + view.asked.tokens;
        let prefill = (queued - self.overlap_credit * view.cached(pos)).max(0.0) / block;
        let kept = (view.get(Stat::KvTokens, pos) + view.added(pos)) / block;
        (self.prefill_weight * prefill, kept)
    }
}

impl Rule for DynamoCost {
    const NAME: &'static str = "dynamo_cost";
    const PARAMS: &'static str = "prefill_weight, overlap_credit";
    const READS: &'static [Stat] = &[Stat::InFlight, Stat::QueuedTokens, Stat::KvTokens];
    const NEEDS_PROMPT: bool = true;
    const NEEDS_IN_USE: bool = true;

    fn build(params: &mut Params) -> Result<Self, RouteError> {
        Ok(Self {
            prefill_weight: params.number("prefill_weight", 1.0, 0.0, 1e6)?,
            overlap_credit: params.number("overlap_credit", 1.0, 0.0, 1e6)?,
            costs: Costs::default(),
        })
    }

    fn select(&mut self, view: View<'_>, _: &Key, rng: &mut Rng) -> Option<usize> {
        let mut costs = std::mem::take(&mut self.costs);
        let chosen = costs.least(view, rng, |pos| {
            let (prefill, kept) = self.parts(view, pos);
            prefill + kept
        });
        self.costs = costs;
        chosen
    }

    fn score(&self, view: View<'_>, _: &Key) -> Vec<Scored> {
        let terms = |pos| -> Vec<Term> {
            let (prefill, kept) = self.parts(view, pos);
            vec![term("prefill", prefill, "blocks"), term("kept", kept, "blocks")]
        };
        (0..view.len()).map(|pos| summed(terms(pos))).collect()
    }
}
