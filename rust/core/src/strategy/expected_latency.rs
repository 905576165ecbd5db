//! The least growth of everybody's latency, in milliseconds.

use super::copies::{Copies, Wish};
use super::costs::{Costs, summed, term};
use super::{Key, Params, Rule, Scored, View};
use crate::error::RouteError;
use crate::hash::mix;
use crate::rng::Rng;
use crate::speed::{Profile, STEPS_WAITED, pairs};
use crate::stats::Stat;

/// What a millisecond of prefill costs those who come later, per millisecond of mean wait: the
/// work that a busy engine still has when they come grows as ρ / (1 − ρ).
const BUSY: f64 = 4.0;
/// The busiest an engine is taken to be: beyond, the estimate is noise.
const BUSIEST: f64 = 0.9;
/// What a request's own answer counts, beside what it takes from the answers of others.
const OWN: f64 = 0.5;
/// What a request that will come back counts, beside one that is there.
const LATER: f64 = 2.0;
/// Half the width of the bend from "there is room" to "somebody must leave first", as a share of
/// the room: how long answers get is not known.
const BEND: f64 = 0.1;
/// What waiting for room costs all who wait behind, per millisecond of the request's own stay …
const ROOM: f64 = 3.0;
/// … and the overfill at which half of that is reached: when every engine is full, a cached
/// prefix buys more than room does.
const FULL: f64 = 0.3;

/// Parts of the cost, as `explain` names them, "copy" aside: first those that depend on what is
/// cached.
const TERMS: [&str; 9] =
    ["prefill", "busy", "stall", "reuse", "queue", "steps", "decode", "crowd", "room"];

/// The endpoint for which the latency of all requests together grows least, in milliseconds.
///
/// The engine's constants are learned ([`crate::speed`]): a prefill of u of L tokens takes p(u, L),
/// a decode step s(n requests, X context tokens). ô is the mean length of answers, and a request
/// makes everybody's step longer by Δ = s(n + 1, X + L) − s(n, X). Per endpoint, the sum of:
/// - prefill: its own, p(u, L), u what is not cached;
/// - busy: what that delays those who come later, 4 · p · ρ / (1 − ρ), ρ the share of its time
///   that this engine prefills, or that all do on average if that is more;
/// - stall: what it delays those who decode there, w · p · requests decoding;
/// - reuse: its context comes back with later turns, w · 2 · ô · r̄ · Δ for each of them, r̄ the
///   requests that decode there on average; u tokens will be asked for again u · reuse times,
///   which is u · reuse / L requests like this one;
/// - queue: prefill that stands before it there; on a newcomer up to twice, until it has answered;
/// - steps: the decode step that it waits for and the one that it shares, 1.5 · s(now), if any;
/// - decode: its own answer, w · ½ · ô · s(after);
/// - crowd: what its context adds to the steps of those in flight there, w · ô · r · Δ;
/// - room: 3 · ô · s · o / (o + 0.3), o by how much the KV cache would be over-full, with what
///   requests share counted once, or the batch, whichever is more.
///
/// w is `decode_weight`, what a millisecond of decoding weighs against one of waiting for the
/// first token. Ties: a uniform draw. No prompt: L = 0, so load decides.
///
/// A prefix that would save more elsewhere, request after request, gets one more holder
/// ([`Copies`]): then the request goes where it would be cheapest if its prefix were there, and
/// `explain` takes off what is missing of that, as "copy".
#[derive(Debug, Clone)]
pub struct ExpectedLatency {
    decode_weight: f64,
    max_num_seqs: f64,
    costs: Costs,
    copies: Copies,
}

/// By how much x overfills, bent around 1.
fn over(x: f64) -> f64 {
    let bend = (x - 1.0 + BEND).clamp(0.0, 2.0 * BEND);
    (x - 1.0 - BEND).max(0.0) + bend * bend / (4.0 * BEND)
}

/// What the candidates of one request cost. What they share is looked up once.
struct Model<'a> {
    view: View<'a>,
    decode_weight: f64,
    /// Requests that an engine runs at once.
    sequences: f64,
    in_flight: &'a [f64],
    in_decoding: &'a [f64],
    queued_ms: &'a [f64],
    caution: &'a [f64],
    slow_prefill: &'a [f64],
    slow_step: &'a [f64],
    context_tokens: &'a [f64],
    kv_tokens: &'a [f64],
    kv_capacity: &'a [f64],
    prefill_sent: &'a [f64],
    requests_sent: &'a [f64],
    /// Prefill sent to each candidate on average.
    mean_sent: f64,
    /// The least caution of all: where everybody is new, nobody is a newcomer.
    calm: f64,
}

impl<'a> Model<'a> {
    fn new(strategy: &ExpectedLatency, view: View<'a>) -> Self {
        let column = |stat| view.table.column(stat);
        let of = |column: &[f64], row: u32| column.get(row as usize).copied();
        let (prefill_sent, caution) = (column(Stat::PrefillSent), column(Stat::QueueCaution));
        let (mut sent, mut calm) = (0.0, 2.0_f64);
        for &row in &view.candidates.rows {
            sent += of(prefill_sent, row).unwrap_or(0.0);
            calm = calm.min(of(caution, row).unwrap_or(1.0));
        }
        Self {
            view,
            decode_weight: strategy.decode_weight,
            sequences: strategy.max_num_seqs.max(view.engine.sequences),
            in_flight: column(Stat::InFlight),
            in_decoding: column(Stat::InDecoding),
            queued_ms: column(Stat::QueuedMs),
            caution,
            slow_prefill: column(Stat::PrefillSlowness),
            slow_step: column(Stat::StepSlowness),
            context_tokens: column(Stat::ContextTokens),
            kv_tokens: column(Stat::KvTokens),
            kv_capacity: column(Stat::KvCapacity),
            prefill_sent,
            requests_sent: column(Stat::RequestsSent),
            mean_sent: sent / view.len().max(1) as f64,
            calm,
        }
    }

    fn at(&self, column: &[f64], pos: usize) -> f64 {
        column.get(self.view.candidates.rows[pos] as usize).copied().unwrap_or(f64::NAN)
    }

    /// A decode step of so many requests with so much context, milliseconds.
    fn step(&self, pos: usize, requests: f64, context: f64) -> f64 {
        let [step, request, token] = self.view.engine.step;
        self.at(self.slow_step, pos) * (step + request * requests + token * context)
    }

    /// What this request adds to the steps of each of those beside it, over a whole answer.
    fn more(&self, pos: usize) -> f64 {
        let Profile { step: [_, request, token], output_tokens, .. } = self.view.engine;
        let slow = self.at(self.slow_step, pos);
        self.decode_weight * output_tokens * slow * (request + token * self.view.asked.tokens)
    }

    /// Prefill, busy and stall, if so many tokens have to be computed.
    fn compute(&self, pos: usize, uncached: f64) -> [f64; 3] {
        let Profile { prefill: [base, token, pair], rate, .. } = self.view.engine;
        let pairs = pairs(self.view.asked.tokens, uncached);
        let prefill = self.at(self.slow_prefill, pos) * (base + token * uncached + pair * pairs);
        let sent = self.at(self.prefill_sent, pos).max(self.mean_sent);
        let rho = (rate * sent / 1e3).min(BUSIEST);
        [
            prefill,
            prefill * BUSY * rho / (1.0 - rho),
            self.decode_weight * prefill * self.at(self.in_decoding, pos),
        ]
    }

    /// What the tokens that are computed cost when they are asked for again.
    fn reuse(&self, pos: usize, uncached: f64) -> f64 {
        let Profile { output_tokens, rate, reuse, .. } = self.view.engine;
        let step = self.step(pos, self.at(self.in_flight, pos), self.at(self.context_tokens, pos));
        let beside = rate * self.at(self.requests_sent, pos) * output_tokens * step / 1e3;
        let later = reuse * uncached / self.view.asked.tokens.max(1.0);
        LATER * later * beside * self.more(pos)
    }

    /// The parts that do not depend on what is cached.
    fn rest(&self, pos: usize) -> [f64; 5] {
        let (requests, decoding) = (self.at(self.in_flight, pos), self.at(self.in_decoding, pos));
        let (context, tokens) = (self.at(self.context_tokens, pos), self.view.asked.tokens);
        let now = if decoding > 0.0 { self.step(pos, decoding, context) } else { 0.0 };
        let Profile { output_tokens: output, kv_tokens, .. } = self.view.engine;
        // Requests in flight have on average half of their answer.
        let grown = requests * output / 2.0;
        let stay = output * self.step(pos, requests + 1.0, context + tokens + grown);
        let told = self.at(self.kv_capacity, pos);
        let capacity = if told > 0.0 { told } else { kv_tokens };
        let kept = self.at(self.kv_tokens, pos) + grown + self.view.added(pos);
        let over = over((kept / capacity).max((requests + 1.0) / self.sequences));
        [
            self.at(self.caution, pos) / self.calm * self.at(self.queued_ms, pos),
            STEPS_WAITED * now,
            self.decode_weight * OWN * stay,
            requests * self.more(pos),
            if over == 0.0 { 0.0 } else { ROOM * stay * over / (over + FULL) },
        ]
    }

    /// All parts, in the order of [`TERMS`].
    fn parts(&self, pos: usize) -> impl Iterator<Item = f64> {
        let uncached = self.view.uncached(pos);
        let reuse = self.reuse(pos, uncached);
        self.compute(pos, uncached).into_iter().chain([reuse]).chain(self.rest(pos))
    }

    fn cost(&self, pos: usize, rest: [f64; 5], uncached: f64) -> f64 {
        let compute = self.compute(pos, uncached).into_iter();
        compute.chain([self.reuse(pos, uncached)]).chain(rest).sum()
    }
}

impl Rule for ExpectedLatency {
    const NAME: &'static str = "expected_latency";
    const PARAMS: &'static str = "decode_weight, max_num_seqs";
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
        Stat::RequestsSent,
    ];
    const NEEDS_PROMPT: bool = true;
    const NEEDS_IN_USE: bool = true;

    fn build(params: &mut Params) -> Result<Self, RouteError> {
        let decode_weight = params.number("decode_weight", 0.05, 0.0, 1e6)?;
        let max_num_seqs = params.number("max_num_seqs", 256.0, 1.0, 1e9)?;
        let (costs, copies) = (Costs::default(), Copies::default());
        Ok(Self { decode_weight, max_num_seqs, costs, copies })
    }

    fn select(&mut self, view: View<'_>, key: &Key, rng: &mut Rng) -> Option<usize> {
        let model = Model::new(self, view);
        let mut ideal = Ideal::new(view);
        let chosen = self.costs.least(view, rng, |pos| ideal.look(&model, pos))?;
        self.copies.routed();
        let Some(wish) = ideal.wish(&model, key, self.costs.of(chosen)) else {
            return Some(chosen);
        };
        let stays = view.uncached(chosen) <= ideal.uncached;
        let elsewhere = stays && self.copies.pays(&wish, view.len());
        Some(if elsewhere { wish.pos } else { chosen })
    }

    fn score(&self, view: View<'_>, key: &Key) -> Vec<Scored> {
        let model = Model::new(self, view);
        let mut ideal = Ideal::new(view);
        let costs: Vec<f64> = (0..view.len()).map(|pos| ideal.look(&model, pos)).collect();
        let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
        let stays = |pos: usize| costs[pos] == least && view.uncached(pos) <= ideal.uncached;
        let mut copies = self.copies.clone();
        copies.routed();
        let copy = ideal
            .wish(&model, key, least)
            .filter(|wish| (0..view.len()).any(stays) && copies.pays(wish, view.len()));
        let off = |pos| match &copy {
            Some(wish) if wish.pos == pos => ideal.cost - costs[pos],
            _ => 0.0,
        };
        let terms = |pos| {
            let parts = TERMS.iter().zip(model.parts(pos)).map(|(&n, v)| term(n, v, "ms"));
            parts.chain([term("copy", off(pos), "ms")]).collect()
        };
        (0..view.len()).map(|pos| summed(terms(pos))).collect()
    }
}

/// Where a request would be cheapest if the longest prefix that anybody has of it were everywhere.
struct Ideal {
    /// Tokens that would be uncached.
    uncached: f64,
    pos: usize,
    cost: f64,
}

impl Ideal {
    fn new(view: View<'_>) -> Self {
        let uncached = (0..view.len()).map(|pos| view.uncached(pos)).fold(f64::INFINITY, f64::min);
        Self { uncached, pos: 0, cost: f64::INFINITY }
    }

    /// What the candidate costs as it is.
    fn look(&mut self, model: &Model<'_>, pos: usize) -> f64 {
        let (rest, uncached) = (model.rest(pos), model.view.uncached(pos));
        let cost = model.cost(pos, rest, uncached);
        let held =
            if uncached > self.uncached { model.cost(pos, rest, self.uncached) } else { cost };
        if held < self.cost {
            (self.pos, self.cost) = (pos, held);
        }
        cost
    }

    /// The copy that would make it so cheap, for a request that costs `least` as it is.
    fn wish(&self, model: &Model<'_>, key: &Key, least: f64) -> Option<Wish> {
        let view = model.view;
        let missing = view.uncached(self.pos) > self.uncached && self.cost < f64::INFINITY;
        let Key::Prompt(prompt) = key else { return None };
        // The prefix ends where the endpoint that has most of the prompt has no more of it.
        let blocks = (view.asked.tokens - self.uncached) / view.asked.block_tokens + 1e-6;
        let last = (blocks as usize).checked_sub(1).filter(|_| missing)?;
        let prefix = prompt.chain.get(last)?;
        let price = |uncached| model.compute(self.pos, uncached).iter().sum::<f64>();
        Some(Wish {
            pos: self.pos,
            copy: mix(prefix ^ view.candidates.ids[self.pos]),
            saved: least - self.cost,
            price: price(view.uncached(self.pos)) - price(self.uncached),
        })
    }
}
