//! The least growth of everybody's latency, in milliseconds.

use super::costs::{Costs, summed, term};
use super::{Key, Params, Rule, Scored, View};
use crate::error::RouteError;
use crate::fleet::KV_TOKENS;
use crate::rng::Rng;
use crate::speed::pairs;
use crate::stats::Stat;

/// What a millisecond of prefill costs those who come later, per millisecond of mean wait: the
/// work that a busy engine still has when they come grows as ρ / (1 − ρ).
const BUSY: f64 = 4.0;
/// The busiest an engine is taken to be: beyond, the estimate is noise.
const BUSIEST: f64 = 0.9;
/// Half the width of the bend from "there is room" to "somebody must leave first", as a share of
/// the KV cache: how long answers get is not known.
const BEND: f64 = 0.1;
/// What waiting for room costs all who wait behind, per millisecond of the request's own stay …
const ROOM: f64 = 3.0;
/// … and the overfill at which half of that is reached: when every engine is full, a cached
/// prefix buys more than room does.
const FULL: f64 = 0.3;

/// Parts of the cost, as `explain` names them.
const TERMS: [&str; 6] = ["queue", "prefill", "busy", "stall", "decode", "room"];

/// The endpoint for which the latency of all requests together grows least, in milliseconds.
///
/// The engine's constants are learned ([`crate::speed`]): a prefill of u of L tokens takes p(u, L),
/// a decode step s(n requests, X context tokens). Per endpoint, the sum of:
/// - queue: prefill that stands before it there; on a newcomer twice, until it has answered;
/// - prefill: its own, p(u, L), u what is not cached;
/// - busy: what that delays those who come later, 4 · p · ρ / (1 − ρ), ρ the share of its time
///   that this engine prefills;
/// - stall: what it delays those who decode there, w · p · requests decoding;
/// - decode: its own answer, w · ô · s(after), ô the mean length of answers;
/// - room: 3 · ô · s · o / (o + 0.3), o by how much the KV cache would be over-full, with what
///   requests share counted once.
///
/// w is `decode_weight`, what a millisecond of decoding weighs against one of waiting for the
/// first token: the one setting. Ties: a uniform draw. No prompt: L = 0, so load decides.
#[derive(Debug, Clone)]
pub struct ExpectedLatency {
    decode_weight: f64,
    costs: Costs,
}

/// By how much x overfills, bent around 1.
fn over(x: f64) -> f64 {
    let bend = (x - 1.0 + BEND).clamp(0.0, 2.0 * BEND);
    (x - 1.0 - BEND).max(0.0) + bend * bend / (4.0 * BEND)
}

impl ExpectedLatency {
    fn parts(&self, view: View<'_>, pos: usize) -> [f64; 6] {
        let get = |stat| view.get(stat, pos);
        let (tokens, uncached) = (view.asked.tokens, view.uncached(pos));
        let [base_ms, token_ms, pair_ms] = view.engine.prefill;
        let slower = get(Stat::PrefillSlowness);
        let pairs = pairs(tokens, uncached);
        let prefill = slower * (base_ms + token_ms * uncached + pair_ms * pairs);
        let rho = (view.engine.busy * get(Stat::PrefillSent)).min(BUSIEST);
        let output = view.engine.output_tokens;
        let in_flight = get(Stat::InFlight);
        // Requests in flight have on average half of their answer.
        let grown = in_flight * output / 2.0;
        let context = get(Stat::ContextTokens) + tokens + grown;
        let [step_ms, request_ms, context_ms] = view.engine.step;
        let step = step_ms + request_ms * (in_flight + 1.0) + context_ms * context;
        let step = get(Stat::StepSlowness) * step;
        let stay = output * step;
        let told = get(Stat::KvCapacity);
        let capacity = if told > 0.0 { told } else { KV_TOKENS };
        let over = over((get(Stat::KvTokens) + grown + view.added(pos)) / capacity);
        [
            get(Stat::QueueCaution) * get(Stat::QueuedMs),
            prefill,
            prefill * BUSY * rho / (1.0 - rho),
            self.decode_weight * prefill * get(Stat::InDecoding),
            self.decode_weight * stay,
            ROOM * stay * over / (over + FULL),
        ]
    }
}

impl Rule for ExpectedLatency {
    const NAME: &'static str = "expected_latency";
    const PARAMS: &'static str = "decode_weight";
    const READS: &'static [Stat] = &[
        Stat::InFlight,
        Stat::InDecoding,
        Stat::QueuedMs,
        Stat::ContextTokens,
        Stat::KvTokens,
        Stat::KvCapacity,
        Stat::PrefillSlowness,
        Stat::StepSlowness,
        Stat::QueueCaution,
        Stat::PrefillSent,
    ];
    const NEEDS_PROMPT: bool = true;

    fn build(params: &mut Params) -> Result<Self, RouteError> {
        let decode_weight = params.number("decode_weight", 0.07, 0.0, 1e6)?;
        Ok(Self { decode_weight, costs: Costs::default() })
    }

    fn select(&mut self, view: View<'_>, _: &Key, rng: &mut Rng) -> Option<usize> {
        let mut costs = std::mem::take(&mut self.costs);
        let chosen = costs.least(view, rng, |pos| self.parts(view, pos).iter().sum());
        self.costs = costs;
        chosen
    }

    fn score(&self, view: View<'_>, _: &Key) -> Vec<Scored> {
        let terms = |pos| {
            let parts = TERMS.iter().zip(self.parts(view, pos));
            parts.map(|(&name, value)| term(name, value, "ms")).collect()
        };
        (0..view.len()).map(|pos| summed(terms(pos))).collect()
    }
}
