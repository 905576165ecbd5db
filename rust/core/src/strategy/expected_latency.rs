//! The least growth of everybody's latency, in milliseconds.

use super::costs::{Costs, summed, term};
use super::{Key, Params, Rule, Scored, Term, View};
use crate::error::RouteError;
use crate::rng::Rng;
use crate::speed::pairs;
use crate::stats::Stat;

#[derive(Debug, Clone)]
pub struct ExpectedLatency {
    p: [f64; 8],
    costs: Costs,
}

const NAMES: [&str; 8] = ["stall", "decode", "slow", "room", "room_at", "room_soft", "queue", "aux"];
const DEFAULTS: [f64; 8] = [0.05, 0.05, 0.05, 0.15, 0.85, 0.1, 1.0, 0.0];

impl ExpectedLatency {
    fn parts(&self, view: View<'_>, pos: usize) -> [f64; 6] {
        let [stall, decode, slow, room, room_at, room_soft, queue, _aux] = self.p;
        let get = |stat| view.get(stat, pos);
        let (tokens, uncached) = (view.asked.tokens, view.uncached(pos));
        let own = get(Stat::PrefillMs) * uncached + get(Stat::PairMs) * pairs(tokens, uncached);
        let output = get(Stat::OutputTokens);
        let (decoding, in_flight) = (get(Stat::InDecoding), get(Stat::InFlight));
        let kv = get(Stat::KvTokens) + in_flight * output / 2.0;
        let (d, f) = (get(Stat::StepMs), get(Stat::StepMsPerToken));
        let after = kv + view.added(pos);
        let step = d + f * after;
        let stay = output * step;
        let capacity = get(Stat::KvCapacity);
        let capacity = if capacity > 0.0 { capacity } else { crate::fleet::KV_TOKENS };
        let over = (after / capacity - room_at).max(0.0);
        [
            queue * get(Stat::QueuedMs),
            own,
            stall * own * decoding,
            decode * stay,
            slow * 0.5 * output * in_flight * f * view.added(pos),
            room * stay * (1.0 - (-over / room_soft).exp()),
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
        Stat::PrefillMs,
        Stat::PairMs,
        Stat::StepMs,
        Stat::StepMsPerToken,
        Stat::OutputTokens,
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
