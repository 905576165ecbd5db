//! The least growth of everybody's latency, in milliseconds.

use super::costs::{Costs, summed, term};
use super::{Key, Params, Rule, Scored, Term, View};
use crate::error::RouteError;
use crate::rng::Rng;
use crate::speed::pairs;
use crate::stats::Stat;

#[derive(Debug, Clone)]
pub struct ExpectedLatency {
    p: [f64; 10],
    costs: Costs,
}

const NAMES: [&str; 10] = ["stall", "decode", "slow", "room", "room_at", "room_soft", "queue", "aux", "price", "cap"];
const DEFAULTS: [f64; 10] = [0.05, 0.05, 0.0, 3.0, 1.0, 0.03, 1.0, 4.0, 0.0, 0.9];

impl ExpectedLatency {
    fn parts(&self, view: View<'_>, pos: usize) -> [f64; 6] {
        let [stall, decode, slow, room, room_at, room_soft, queue, aux, price, cap] = self.p;
        let get = |stat| view.get(stat, pos);
        let (tokens, uncached) = (view.asked.tokens, view.uncached(pos));
        let ([base, b, c], [d, e, f]) = (view.engine.prefill, view.engine.step);
        let (slow_prefill, slow_step) = (get(Stat::PrefillSlowness), get(Stat::StepSlowness));
        let own = slow_prefill * (base + b * uncached + c * pairs(tokens, uncached));
        let output = view.engine.output_tokens;
        let (decoding, in_flight) = (get(Stat::InDecoding), get(Stat::InFlight));
        let grown = in_flight * output / 2.0;
        let context = get(Stat::ContextTokens) + grown;
        let step = slow_step * (d + e * (in_flight + 1.0) + f * (context + tokens));
        let stay = output * step;
        let after = get(Stat::KvTokens) + grown + view.added(pos);
        let capacity = get(Stat::KvCapacity);
        let capacity = if capacity > 0.0 { capacity } else { crate::fleet::KV_TOKENS };
        let x = after / capacity;
        let wait = match aux as u32 {
            0 => 1.0 - (-(x - room_at).max(0.0) / room_soft).exp(),
            1 => (x.min(1.3) / room_at).powf(1.0 / room_soft),
            2 => room_soft * (1.0 + ((x - room_at) / room_soft).exp()).ln(),
            3 => { let o = (x - room_at).max(0.0); o / (o + room_soft) }
            _ => { let s = room_soft * (1.0 + ((x - room_at) / room_soft).exp()).ln(); s / (s + 0.3) }
        };
        [
            queue * get(Stat::QueuedMs),
            own * (1.0 + price * view.engine.busy.min(cap) / (1.0 - view.engine.busy.min(cap))),
            stall * own * decoding,
            decode * stay,
            slow * 0.5 * output * in_flight * slow_step * (e + f * tokens),
            room * stay * wait,
        ]
    }
}

impl Rule for ExpectedLatency {
    const NAME: &'static str = "expected_latency";
    const PARAMS: &'static str = "stall, decode, slow, room, room_at, room_soft, queue, aux";
    const READS: &'static [Stat] = &[
        Stat::InFlight,
        Stat::InDecoding,
        Stat::QueuedMs,
        Stat::KvTokens,
        Stat::KvCapacity,
        Stat::ContextTokens,
        Stat::PrefillSlowness,
        Stat::StepSlowness,
    ];
    const NEEDS_PROMPT: bool = true;

    fn build(params: &mut Params) -> Result<Self, RouteError> {
        let mut p = DEFAULTS;
        for (value, name) in p.iter_mut().zip(NAMES) {
            *value = params.number(name, *value, 0.0, 1e6)?;
        }
        Ok(Self { p, costs: Costs::default() })
    }

    fn select(&mut self, view: View<'_>, _: &Key, rng: &mut Rng) -> Option<usize> {
        let mut costs = std::mem::take(&mut self.costs);
        let chosen = costs.least(view, rng, |pos| self.parts(view, pos).iter().sum());
        self.costs = costs;
        chosen
    }

    fn score(&self, view: View<'_>, _: &Key) -> Vec<Scored> {
        let names = ["queue", "own_prefill", "stall", "decode", "slow", "room"];
        let terms = |pos| -> Vec<Term> {
            let parts = self.parts(view, pos);
            names.iter().zip(parts).map(|(&name, value)| term(name, value, "ms")).collect()
        };
        (0..view.len()).map(|pos| summed(terms(pos))).collect()
    }
}
