//! What each candidate costs: the sum that [`super::ExpectedLatency`] explains.

// What is not inlined into the loop of `fill` keeps it from becoming vector code.
#![allow(clippy::inline_always)]

use crate::load::pairs;
use crate::speed::{Profile, STEPS_WAITED};
use crate::stats::Stat;
use crate::strategy::View;
use crate::strategy::costs::{Columns, fold};

/// What a millisecond of prefill costs those who come later, times x to the power of 1½, x the prefill
/// that the engine was sent lately as a share of its time …
const BUSY: f64 = 4.0;
/// … and how much more than that where it is sent more than it can do, times x to the power of 6. Both
/// found by trial on generated traffic.
const BEYOND: f64 = 2.0;
/// What it costs those who decode there: their steps share the time.
const STALL: f64 = 0.5;
/// Caution that somebody who is known has at most, after 36 answers: only beside those is a
/// newcomer new.
const KNOWN: f64 = 1.1;
/// Half the width of the bend from "there is room" to "somebody must leave first", as a share of
/// the room: how long answers get is not known.
const BEND: f64 = 0.1;
/// What waiting for room costs all who wait behind, per millisecond of the request's own stay …
const ROOM: f64 = 3.0;
/// … and the overfill at which half of that is reached: when every engine is full, a cached
/// prefix buys more than room does.
const FULL: f64 = 0.3;
/// Share of all KV caches in use from which on others have to wait for what a request keeps …
const TIGHT: f64 = 0.9;
/// … and what that counts once all are full, per millisecond that each of them waits.
const SCARCE: f64 = 4.0;

/// Parts of the cost: first those that depend on what is cached.
pub const TERMS: [&str; 9] =
    ["prefill", "busy", "stall", "reuse", "queue", "steps", "decode", "crowd", "room"];

/// Columns that are read. [`Model::rates`] takes them apart in this order.
pub const READS: [Stat; 12] = [
    Stat::InFlight,
    Stat::InDecoding,
    Stat::QueuedTokens,
    Stat::QueuedPairs,
    Stat::ContextTokens,
    Stat::KvTokens,
    Stat::KvCapacity,
    Stat::PrefillSlowness,
    Stat::StepSlowness,
    Stat::QueueCaution,
    Stat::PrefillSent,
    Stat::RequestsSent,
];

/// Memory that is kept from one request to the next.
#[derive(Debug, Clone, Default)]
pub struct Scratch {
    columns: Columns<{ READS.len() }>,
    uncached: Vec<f64>,
    added: Vec<f64>,
}

/// One request and its candidates. What these share is worked out once.
pub struct Model<'a> {
    pub view: View<'a>,
    columns: [&'a [f64]; READS.len()],
    /// Tokens that each would have to compute, and to keep.
    uncached: &'a [f64],
    added: &'a [f64],
    /// Tokens that the candidate has to compute that has most of the prompt.
    pub fewest: f64,
    decode_weight: f64,
    /// Milliseconds of prefill sent to each candidate on average.
    mean_sent: f64,
    /// Whether caution counts, 0 or 1: where everybody is new, nobody is a newcomer.
    wary: f64,
    /// A share of a full batch, per request.
    per_sequence: f64,
    /// What comes back of a request like this one per uncached token.
    later: f64,
    /// w · ô · Δ on an engine of slowness 1.
    crowd: f64,
    /// What somebody else's wait counts for what a request keeps of a cache: how full all caches are
    /// together, times the requests that a cache is for.
    scarce: f64,
}

/// What a candidate's cost is made of, however much it has of the prompt.
struct Rates {
    slow_prefill: f64,
    /// Milliseconds of any prefill, on an engine of slowness 1: now, and for who comes later.
    base: f64,
    later_base: f64,
    /// Per millisecond of prefill.
    busy: f64,
    stall: f64,
    /// Per uncached token.
    reuse: f64,
    rest: [f64; 5],
}

impl<'a> Model<'a> {
    pub fn new(
        view: View<'a>,
        decode_weight: f64,
        max_num_seqs: f64,
        scratch: &'a mut Scratch,
    ) -> Self {
        let Scratch { columns, uncached, added } = scratch;
        uncached.clear();
        uncached.extend((0..view.len()).map(|pos| view.uncached(pos)));
        added.clear();
        added.extend((0..view.len()).map(|pos| view.added(pos)));
        let columns = columns.of(view, READS);
        let [in_flight, .., kv_tokens, kv_capacity, _, _, caution, prefill_sent, _] = columns;
        let known = |x: f64| if x.is_nan() { 0.0 } else { x };
        let all = |column: &[f64]| fold(column, 0.0, |sum, x| sum + known(x));
        let (sent, requests, n) = (all(prefill_sent), all(in_flight), view.len().max(1) as f64);
        let size = |x: f64| if x > 0.0 { x } else { view.engine.kv_tokens };
        let capacity: f64 = kv_capacity.iter().map(|&x| size(x)).sum();
        let kept = all(kv_tokens) + requests * view.engine.output_tokens * 0.5;
        let less = |least: f64, x: f64| if x < least { x } else { least };
        let Profile { step: [_, request, token], output_tokens, reuse, .. } = view.engine;
        Self {
            fewest: fold(uncached, f64::INFINITY, less),
            mean_sent: sent / n,
            scarce: SCARCE
                * ((kept / capacity - TIGHT) / (1.0 - TIGHT)).clamp(0.0, 1.0)
                * (requests / n + 1.0),
            wary: if fold(caution, f64::INFINITY, less) <= KNOWN { 1.0 } else { 0.0 },
            per_sequence: 1.0 / max_num_seqs.max(view.engine.sequences),
            // Without a prompt there is nothing to come back to.
            later: if view.asked.tokens < 1.0 { 0.0 } else { reuse / view.asked.tokens },
            crowd: decode_weight * output_tokens * (request + token * view.asked.tokens),
            view,
            columns,
            uncached,
            added,
            decode_weight,
        }
    }

    /// Writes what every candidate costs as it is, and what it would cost if the longest prefix
    /// that any has of the prompt were everywhere. Without branches, so that the compiler makes
    /// vector code of it.
    pub fn fill(&self, costs: &mut [f64], held: &mut [f64]) {
        let n = costs.len().min(held.len()).min(self.uncached.len()).min(self.added.len());
        let columns = self.columns.map(|column| &column[..n.min(column.len())]);
        if columns.iter().any(|column| column.len() < n) {
            return;
        }
        let (costs, held) = (&mut costs[..n], &mut held[..n]);
        let (uncached, added) = (&self.uncached[..n], &self.added[..n]);
        for pos in 0..n {
            let rates = self.rates(columns.map(|column| column[pos]), added[pos]);
            costs[pos] = self.cost(&rates, uncached[pos]);
            held[pos] = self.cost(&rates, self.fewest);
        }
    }

    /// The parts of what a candidate costs as it is, in the order of [`TERMS`].
    pub fn parts(&self, pos: usize) -> [f64; TERMS.len()] {
        let rates = self.rates_at(pos);
        let uncached = self.view.uncached(pos);
        let [prefill, busy, stall] = self.compute(&rates, uncached);
        let [queue, steps, decode, crowd, room] = rates.rest;
        [prefill, busy, stall, rates.reuse * uncached, queue, steps, decode, crowd, room]
    }

    /// What the candidate's prefill costs more than if it had the longest prefix of all.
    pub fn price(&self, pos: usize) -> f64 {
        let rates = self.rates_at(pos);
        let price = |uncached| self.compute(&rates, uncached).iter().sum::<f64>();
        price(self.view.uncached(pos)) - price(self.fewest)
    }

    fn rates_at(&self, pos: usize) -> Rates {
        let values = READS.map(|stat| self.view.get(stat, pos));
        self.rates(values, self.view.added(pos))
    }

    #[inline(always)]
    fn rates(&self, values: [f64; READS.len()], added: f64) -> Rates {
        let [requests, decoding, queued, pairs, context, kv_tokens, capacity, ..] = values;
        let [.., slow_prefill, slow_step, caution, prefill_sent, requests_sent] = values;
        let Profile { step: [floor, request, token], output_tokens: output, .. } = self.view.engine;
        let Profile { prefill_rate, request_rate, .. } = self.view.engine;
        let [alone, per_token, per_pair, beside] = self.view.engine.prefill;
        // An idle engine is never slower than one where a step has to be waited for: what is learned
        // of both comes from different times.
        let idle = alone.min(beside + STEPS_WAITED * (floor + request));
        let base = if decoding > 0.0 { beside } else { idle };
        // What waits is prefilled in few steps, whatever it was taken for when it was sent.
        let first = if queued > 0.0 { base } else { 0.0 };
        let queued_ms = slow_prefill * (first + per_token * queued + per_pair * pairs);
        let step = |requests: f64, context: f64| {
            slow_step * (floor + request * requests + token * context)
        };
        let sent = 1e-3 * prefill_rate * prefill_sent.max(self.mean_sent);
        let cube = sent * sent * sent;
        let now = if decoding > 0.0 { step(decoding, context) } else { 0.0 };
        // Requests in flight have on average half of their answer.
        let grown = requests * output * 0.5;
        let stay = output * step(requests + 1.0, context + self.view.asked.tokens + grown);
        let crowd = slow_step * self.crowd;
        // As many decode there as come while one decodes.
        let others = 1e-3 * request_rate * requests_sent * output * step(requests, context);
        let capacity = if capacity > 0.0 { capacity } else { self.view.engine.kv_tokens };
        let kept = (kv_tokens + grown + added) / capacity;
        let batch = (requests + 1.0) * self.per_sequence;
        // Not known stays not known.
        let over = over(if batch > kept { batch } else { kept });
        Rates {
            slow_prefill,
            base,
            // Whoever comes later finds others there, wherever this one goes.
            later_base: idle.min(beside),
            busy: BUSY * (sent * sent.sqrt() + BEYOND * cube * cube),
            stall: STALL * self.decode_weight * decoding,
            reuse: self.later * others * crowd,
            rest: [
                (1.0 + self.wary * (caution - 1.0)) * queued_ms,
                STEPS_WAITED * now,
                self.decode_weight * stay,
                requests * crowd,
                stay * (ROOM * (over / (over + FULL)) + self.scarce * added / capacity),
            ],
        }
    }

    /// Prefill, busy and stall, if so many tokens have to be computed.
    #[inline(always)]
    fn compute(&self, rates: &Rates, uncached: f64) -> [f64; 3] {
        let [_, token, pair, _] = self.view.engine.prefill;
        let pairs = pairs(self.view.asked.tokens, uncached);
        let work = token * uncached + pair * pairs;
        let prefill = rates.slow_prefill * (rates.base + work);
        let later = rates.slow_prefill * (rates.later_base + work);
        [prefill, later * rates.busy, prefill * rates.stall]
    }

    #[inline(always)]
    fn cost(&self, rates: &Rates, uncached: f64) -> f64 {
        let [prefill, busy, stall] = self.compute(rates, uncached);
        let [queue, steps, decode, crowd, room] = rates.rest;
        let work = (prefill + busy) + (stall + rates.reuse * uncached);
        work + ((queue + steps) + (decode + crowd)) + room
    }
}

/// By how much x overfills, bent around 1.
#[inline(always)]
fn over(x: f64) -> f64 {
    let bend = (x - 1.0 + BEND).clamp(0.0, 2.0 * BEND);
    (x - 1.0 - BEND).max(0.0) + bend * bend * (0.25 / BEND)
}
