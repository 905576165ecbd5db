//! LMetric: tokens to prefill times requests beside them.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use super::costs::{Costs, term};
use super::{Key, Params, Rule, Scored, View};
use crate::error::RouteError;
use crate::hash::Hashed;
use crate::rng::Rng;
use crate::stats::Stat;

/// Requests whose prompt heads are counted to find hot classes.
const WINDOW: usize = 1000;
/// Tokens of the prompt head that make a class.
const CLASS_TOKENS: f64 = 512.0;

/// (q + u) · (r + 1), least wins: no weights.
///
/// q are queued uncached tokens, u those of this request, r the requests in flight. A class of
/// prompts (same first 512 tokens) is hot when its share of the last 1,000 requests is above the
/// share of endpoints that hold it; after 2 · holders requests of a hot class in a row that would
/// land on holders, they go to the others. Ties: a uniform draw. No prompt: u = 1.
/// Source: OSDI'26, arXiv 2603.15202.
#[derive(Debug, Clone)]
pub struct LMetric {
    costs: Costs,
    recent: VecDeque<u64>,
    counts: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
    /// The class that would land on its holders again and again, and how often it did.
    streak: (u64, u32),
}

fn cost(view: View<'_>, pos: usize) -> f64 {
    let tokens = view.get(Stat::QueuedTokens, pos) + view.uncached(pos);
    tokens * (view.get(Stat::InFlight, pos) + 1.0)
}

impl LMetric {
    /// The class of a prompt, and the tokens that an endpoint must have of it to be a holder.
    fn class(view: View<'_>, key: &Key) -> Option<(u64, f64)> {
        let Key::Prompt(prompt) = key else { return None };
        let blocks = (CLASS_TOKENS / view.asked.block_tokens.max(1.0)).ceil().max(1.0);
        let last = (blocks as usize).min(prompt.chain.len()).checked_sub(1)?;
        Some((prompt.chain[last], (last + 1) as f64 * view.asked.block_tokens))
    }

    fn count(&mut self, class: u64) {
        if self.recent.len() == WINDOW
            && let Some(old) = self.recent.pop_front()
            && let Some(count) = self.counts.get_mut(&old)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&old);
            }
        }
        self.recent.push_back(class);
        *self.counts.entry(class).or_default() += 1;
    }

    fn holders(view: View<'_>, tokens: f64) -> usize {
        view.asked.cached.iter().filter(|&&cached| cached >= tokens).count()
    }

    /// Whether the class takes a larger share of the requests than of the endpoints.
    fn is_hot(&self, view: View<'_>, class: u64, holders: usize) -> bool {
        let share = f64::from(self.counts.get(&class).copied().unwrap_or(0));
        let share = share / self.recent.len().max(1) as f64;
        holders > 0 && holders < view.len() && share > holders as f64 / view.len() as f64
    }
}

impl Rule for LMetric {
    const NAME: &'static str = "lmetric";
    const READS: &'static [Stat] = &[Stat::InFlight, Stat::QueuedTokens];
    const NEEDS_PROMPT: bool = true;

    fn build(_: &mut Params) -> Result<Self, RouteError> {
        Ok(Self {
            costs: Costs::default(),
            recent: VecDeque::with_capacity(WINDOW + 1),
            counts: HashMap::with_capacity_and_hasher(2 * WINDOW, BuildHasherDefault::default()),
            streak: (0, 0),
        })
    }

    fn select(&mut self, view: View<'_>, key: &Key, rng: &mut Rng) -> Option<usize> {
        let chosen = self.costs.least(view, rng, |pos| cost(view, pos))?;
        let Some((class, tokens)) = Self::class(view, key) else { return Some(chosen) };
        self.count(class);
        let holders = Self::holders(view, tokens);
        if !self.is_hot(view, class, holders) || view.cached(chosen) < tokens {
            if self.streak.0 == class {
                self.streak = (0, 0);
            }
            return Some(chosen);
        }
        self.streak = (class, if self.streak.0 == class { self.streak.1 + 1 } else { 1 });
        if self.streak.1 as usize <= 2 * holders {
            return Some(chosen);
        }
        self.costs.least(view, rng, |pos| {
            if view.cached(pos) >= tokens { f64::INFINITY } else { cost(view, pos) }
        })
    }

    fn score(&self, view: View<'_>, _: &Key) -> Vec<Scored> {
        let score = |pos| Scored {
            score: cost(view, pos),
            terms: vec![
                term("queued", view.get(Stat::QueuedTokens, pos), "tokens"),
                term("uncached", view.uncached(pos), "tokens"),
                term("in_flight", view.get(Stat::InFlight, pos), "requests"),
            ],
        };
        (0..view.len()).map(score).collect()
    }
}
