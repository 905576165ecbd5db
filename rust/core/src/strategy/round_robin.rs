//! Each in turn.

use std::collections::HashMap;

use super::{Key, Params, Rule, Scored, View};
use crate::error::RouteError;
use crate::rng::Rng;
use crate::stats::Stat;

/// Sets remembered at once; the one unused for longest is forgotten.
const MAX_SETS: usize = 1024;

/// The endpoints of a set in turn, sorted by URL; one counter per set, whatever its order.
#[derive(Debug, Clone, Default)]
pub struct RoundRobin {
    turns: HashMap<u64, (u64, u64)>,
    clock: u64,
    /// Where sets that are new begin.
    first: u64,
}

impl Rule for RoundRobin {
    const NAME: &'static str = "round_robin";
    const READS: &'static [Stat] = &[];

    fn build(_: &mut Params) -> Result<Self, RouteError> {
        Ok(Self { turns: HashMap::with_capacity(2 * MAX_SETS), clock: 0, first: 0 })
    }

    fn select(&mut self, view: View<'_>, _: &Key, _: &mut Rng) -> Option<usize> {
        if view.is_empty() {
            return None;
        }
        self.clock += 1;
        let set = view.candidates.set;
        if self.turns.len() >= MAX_SETS && !self.turns.contains_key(&set) {
            let oldest = self.turns.iter().min_by_key(|(_, turn)| turn.1).map(|(&set, _)| set);
            oldest.map(|oldest| self.turns.remove(&oldest));
        }
        let turn = self.turns.entry(set).or_insert((self.first, 0));
        let at = turn.0 % view.len() as u64;
        *turn = (turn.0.wrapping_add(1), self.clock);
        view.candidates.order.get(at as usize).map(|&pos| pos as usize)
    }

    fn shift(&mut self, turn: u64) {
        self.first = turn;
        self.turns.values_mut().for_each(|known| known.0 = turn);
    }

    fn score(&self, view: View<'_>, _: &Key) -> Vec<Scored> {
        vec![Scored { score: f64::NAN, terms: Vec::new() }; view.len()]
    }
}
