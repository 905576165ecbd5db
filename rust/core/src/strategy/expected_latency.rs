//! The least growth of everybody's latency, in milliseconds.

mod model;

use model::{Model, READS, Scratch, TERMS};

use super::copies::{Copies, Wish};
use super::costs::{Costs, summed, term};
use super::{Key, Params, Rule, Scored, View};
use crate::error::RouteError;
use crate::hash::mix;
use crate::rng::Rng;
use crate::stats::Stat;

/// The endpoint for which the latency of all requests together grows least, in milliseconds.
///
/// The engine's constants are learned ([`crate::speed`]): a prefill of u of L tokens takes p(u, L),
/// a decode step s(n requests, X context tokens), X that of all in flight. ô is the mean length of answers, and a request
/// makes everybody's step longer by Δ = s(n + 1, X + L) − s(n, X). Per endpoint, the sum of:
/// - prefill: its own, p(u, L), u what is not cached;
/// - busy: what that delays those who come later and find others there, 4 · p · (x^1½ + 2 · x^6), x the
///   share of its time that this engine was sent prefill for in the time of twenty mean prefills, or
///   that all were on average if that is more;
/// - stall: what it delays those who decode there, w · ½ · p · requests decoding;
/// - reuse: its context comes back with later turns, w · ô · r̄ · Δ for each of them, r̄ the
///   requests that decode there on average; u tokens will be asked for again u · reuse times,
///   which is u · reuse / L requests like this one;
/// - queue: prefill that stands before it there; on a newcomer among engines
///   that are known up to twice, until it has answered;
/// - steps: the decode step that it waits for and the one that it shares, 1.5 · s(now), if any;
/// - decode: its own answer, w · ô · s(after);
/// - crowd: what its context adds to the steps of those in flight there, w · ô · r · Δ;
/// - room: 3 · ô · s · o / (o + 0.3), o by how much the KV cache would be over-full, with what
///   requests share counted once, or the batch, whichever is more; and, from 0.9 of all caches
///   together in use to all of it, up to 4 · ô · s for each request that its tokens take the room of.
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
    /// What each would cost if the longest prefix were everywhere.
    held: Costs,
    copies: Copies,
    scratch: Scratch,
}

impl ExpectedLatency {
    /// What every candidate costs, and where the copy should be that the request pays for, if it
    /// stays with the prefix otherwise. `chosen`: of these costs.
    fn weigh(
        &mut self,
        view: View<'_>,
        key: &Key,
        choose: impl FnOnce(&Costs) -> Option<usize>,
    ) -> Option<(usize, Option<usize>)> {
        let Self { costs, held, copies, scratch, .. } = self;
        let model = Model::new(view, self.decode_weight, self.max_num_seqs, scratch);
        model.fill(costs.room(view.len()), held.room(view.len()));
        let chosen = choose(costs)?;
        copies.routed();
        let least = costs.of(chosen);
        // Whoever else it may be drawn for: nobody pays for a copy that a draw would have made.
        let stays = |pos| costs.of(pos) != least || view.uncached(pos) <= model.fewest;
        if !stays(chosen) {
            return Some((chosen, None));
        }
        let wish = wish(&model, key, held, least)
            .filter(|_| (0..view.len()).all(stays))
            .filter(|wish| copies.pays(wish, view.len()));
        Some((chosen, wish.map(|wish| wish.pos)))
    }
}

/// The copy of a prefix that would make the request cheapest, for one that costs `cost` as it is.
fn wish(model: &Model<'_>, key: &Key, held: &Costs, cost: f64) -> Option<Wish> {
    let (view, pos) = (model.view, held.first()?);
    let Key::Prompt(prompt) = key else { return None };
    if view.uncached(pos) <= model.fewest {
        return None; // it is there
    }
    // The prefix ends where the endpoint that has most of the prompt has no more of it.
    let blocks = (view.asked.tokens - model.fewest) / view.asked.block_tokens + 1e-6;
    let prefix = prompt.chain.get((blocks as usize).checked_sub(1)?)?;
    let copy = mix(prefix ^ view.candidates.ids[pos]);
    Some(Wish { pos, copy, saved: cost - held.of(pos), price: model.price(pos) })
}

impl Rule for ExpectedLatency {
    const NAME: &'static str = "expected_latency";
    const PARAMS: &'static str = "decode_weight, max_num_seqs";
    const READS: &'static [Stat] = &READS;
    const NEEDS_PROMPT: bool = true;
    const NEEDS_IN_USE: bool = true;

    fn build(params: &mut Params) -> Result<Self, RouteError> {
        Ok(Self {
            decode_weight: params.number("decode_weight", 0.05, 0.0, 1e6)?,
            max_num_seqs: params.number("max_num_seqs", 256.0, 1.0, 1e9)?,
            costs: Costs::default(),
            held: Costs::default(),
            copies: Copies::default(),
            scratch: Scratch::default(),
        })
    }

    fn select(&mut self, view: View<'_>, key: &Key, rng: &mut Rng) -> Option<usize> {
        let (chosen, copy) = self.weigh(view, key, |costs| costs.pick(rng))?;
        Some(copy.unwrap_or(chosen))
    }

    fn score(&self, view: View<'_>, key: &Key) -> Vec<Scored> {
        let mut own = self.clone();
        let copy = own.weigh(view, key, Costs::first).and_then(|(_, copy)| copy);
        let Self { costs, held, scratch, .. } = &mut own;
        let model = Model::new(view, self.decode_weight, self.max_num_seqs, scratch);
        let scored = |pos| {
            let parts = TERMS.iter().zip(model.parts(pos));
            let off = if copy == Some(pos) { held.of(pos) - costs.of(pos) } else { 0.0 };
            let parts = parts.map(|(&name, value)| term(name, value, "ms"));
            summed(parts.chain([term("copy", off, "ms")]).collect())
        };
        (0..view.len()).map(scored).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::Router;
    use crate::speed::Profile;
    use crate::stats::StatTable;
    use crate::strategy::{Asked, Candidates};

    fn chosen_of_two(columns: &[(Stat, [f64; 2])], engine: Profile) -> Option<usize> {
        let mut table = StatTable::scratch(2);
        for (stat, values) in columns {
            table.fill(*stat, values.iter().copied());
        }
        let candidates = Candidates::new(vec![0, 1], vec![1, 2], Vec::new(), vec![0, 1]);
        let view = View::new(&table, &candidates).asking(Asked::default(), engine);
        Router::new("expected_latency", Params::default(), 1).unwrap().pick(view, &Key::None)
    }

    #[test]
    fn a_newcomers_queue_counts_for_more_beside_those_that_are_known() {
        let queues = (Stat::QueuedTokens, [2_000.0, 3_000.0]);
        for (caution, chosen) in [([2.0, 1.05], 1), ([2.0, 1.5], 0), ([1.05, 1.05], 0)] {
            let columns = [queues, (Stat::QueueCaution, caution)];
            assert_eq!(chosen_of_two(&columns, Profile::default()), Some(chosen), "{caution:?}");
        }
    }

    #[test]
    fn an_idle_engine_never_costs_more_whatever_its_prefills_took_when_it_was_idle() {
        let columns = [
            (Stat::InFlight, [0.0, 3.0]),
            (Stat::InDecoding, [0.0, 3.0]),
            (Stat::ContextTokens, [0.0, 3_000.0]),
            (Stat::PrefillSent, [60_000.0, 60_000.0]),
        ];
        let prefill = [175.0, 0.0, 0.0, 0.0];
        let engine = Profile {
            prefill,
            prefill_rate: 1.0 / 30.0,
            request_rate: 1.0 / 30.0,
            ..Profile::default()
        };
        assert_eq!(chosen_of_two(&columns, engine), Some(0));
    }

    #[test]
    fn where_all_are_as_busy_as_can_be_some_are_busier_all_the_same() {
        let engine =
            Profile { prefill_rate: 1.0 / 30.0, request_rate: 1.0 / 30.0, ..Profile::default() };
        for (sent, chosen) in [([120_000.0, 30_000.0], Some(1)), ([30_000.0, 120_000.0], Some(0))] {
            assert_eq!(chosen_of_two(&[(Stat::PrefillSent, sent)], engine), chosen);
        }
    }

    #[test]
    fn a_batch_as_large_as_was_seen_has_room() {
        let columns = [(Stat::InFlight, [300.0, 0.0]), (Stat::QueuedTokens, [0.0, 20_000.0])];
        for (sequences, chosen) in [(0.0, 1), (600.0, 0)] {
            let engine = Profile { sequences, ..Profile::default() };
            assert_eq!(chosen_of_two(&columns, engine), Some(chosen), "{sequences}");
        }
    }

    #[test]
    fn without_a_prompt_load_decides_whatever_comes_back_as_a_rule() {
        let columns = [
            (Stat::RequestsSent, [900.0, 100.0]),
            (Stat::InFlight, [0.0, 8.0]),
            (Stat::InDecoding, [0.0, 8.0]),
            (Stat::ContextTokens, [0.0, 8_000.0]),
        ];
        let engine = Profile {
            prefill_rate: 1.0 / 30.0,
            request_rate: 1.0 / 30.0,
            reuse: 50.0,
            ..Profile::default()
        };
        assert_eq!(chosen_of_two(&columns, engine), Some(0));
    }
}
