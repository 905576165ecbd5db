//! The least growth of everybody's latency, in milliseconds.

use super::costs::{Costs, summed, term};
use super::{Key, Params, Rule, Scored, View};
use crate::error::RouteError;
use crate::rng::Rng;
use crate::speed::{Profile, STEPS_WAITED, pairs};
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
const TERMS: [&str; 8] = ["queue", "steps", "prefill", "busy", "stall", "decode", "crowd", "room"];

/// The endpoint for which the latency of all requests together grows least, in milliseconds.
///
/// The engine's constants are learned ([`crate::speed`]): a prefill of u of L tokens takes p(u, L),
/// a decode step s(n requests, X context tokens). Per endpoint, the sum of:
/// - queue: prefill that stands before it there; on a newcomer twice, until it has answered;
/// - steps: the decode step that it waits for and the one that it shares, 1.5 · s(now), if any;
/// - prefill: its own, p(u, L), u what is not cached;
/// - busy: what that delays those who come later, 4 · p · ρ / (1 − ρ), ρ the share of its time
///   that this engine prefills, or that all do on average if that is more;
/// - stall: what it delays those who decode there, w · p · requests decoding;
/// - decode: its own answer, w · ô · s(after), ô the mean length of answers;
/// - crowd: what its context adds to the steps of those in flight there, w · ½ ô · r · (s(after) −
///   s(before)): they have half of their answers before them;
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
    /// The parts of a candidate's cost. What all candidates share is looked up once.
    fn parts<'a>(&self, view: View<'a>) -> impl Fn(usize) -> [f64; 8] + 'a {
        let decode_weight = self.decode_weight;
        let column = |stat| view.table.column(stat);
        let (in_flight, in_decoding) = (column(Stat::InFlight), column(Stat::InDecoding));
        let (queued_ms, caution) = (column(Stat::QueuedMs), column(Stat::QueueCaution));
        let (slow_prefill, slow_step) = (column(Stat::PrefillSlowness), column(Stat::StepSlowness));
        let (context_tokens, sent) = (column(Stat::ContextTokens), column(Stat::PrefillSent));
        let (kv_tokens, kv_capacity) = (column(Stat::KvTokens), column(Stat::KvCapacity));
        let tokens = view.asked.tokens;
        let Profile { prefill, step, output_tokens: output, busy, kv_tokens: kv_default } =
            view.engine;
        let ([base_ms, token_ms, pair_ms], [step_ms, request_ms, context_ms]) = (prefill, step);
        let sent_to = |row: u32| sent.get(row as usize).copied().unwrap_or(0.0);
        let all: f64 = view.candidates.rows.iter().map(|&row| sent_to(row)).sum();
        let mean = all / view.len().max(1) as f64;
        move |pos| {
            let row = view.candidates.rows[pos] as usize;
            let at = |column: &[f64]| column.get(row).copied().unwrap_or(f64::NAN);
            let uncached = view.uncached(pos);
            let pairs = pairs(tokens, uncached);
            let prefill = at(slow_prefill) * (base_ms + token_ms * uncached + pair_ms * pairs);
            let rho = (busy * at(sent).max(mean)).min(BUSIEST);
            let step = |requests: f64, context: f64| {
                at(slow_step) * (step_ms + request_ms * requests + context_ms * context)
            };
            let (requests, decoding, context) =
                (at(in_flight), at(in_decoding), at(context_tokens));
            let now = if decoding > 0.0 { step(decoding, context) } else { 0.0 };
            // Requests in flight have on average half of their answer.
            let grown = requests * output / 2.0;
            let stay = output * step(requests + 1.0, context + tokens + grown);
            let more = at(slow_step) * (request_ms + context_ms * tokens);
            let told = at(kv_capacity);
            let capacity = if told > 0.0 { told } else { kv_default };
            let over = over((at(kv_tokens) + grown + view.added(pos)) / capacity);
            [
                at(caution) * at(queued_ms),
                STEPS_WAITED * now,
                prefill,
                prefill * BUSY * rho / (1.0 - rho),
                decode_weight * prefill * decoding,
                decode_weight * stay,
                decode_weight * output / 2.0 * requests * more,
                if over == 0.0 { 0.0 } else { ROOM * stay * over / (over + FULL) },
            ]
        }
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
    const NEEDS_IN_USE: bool = true;

    fn build(params: &mut Params) -> Result<Self, RouteError> {
        let decode_weight = params.number("decode_weight", 0.05, 0.0, 1e6)?;
        Ok(Self { decode_weight, costs: Costs::default() })
    }

    fn select(&mut self, view: View<'_>, _: &Key, rng: &mut Rng) -> Option<usize> {
        let mut costs = std::mem::take(&mut self.costs);
        let parts = self.parts(view);
        let chosen = costs.least(view, rng, |pos| parts(pos).iter().sum());
        self.costs = costs;
        chosen
    }

    fn score(&self, view: View<'_>, _: &Key) -> Vec<Scored> {
        let parts = self.parts(view);
        let terms = |pos| {
            let parts = TERMS.iter().zip(parts(pos));
            parts.map(|(&name, value)| term(name, value, "ms")).collect()
        };
        (0..view.len()).map(|pos| summed(terms(pos))).collect()
    }
}
