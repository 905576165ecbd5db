//! A uniform or weighted draw.

use super::{Key, Params, Rule, Scored, Term, View};
use crate::error::RouteError;
use crate::rng::Rng;
use crate::stats::Stat;

/// Any endpoint, with a chance proportional to its capacity weight (1 if none was given).
#[derive(Debug, Clone)]
pub struct Random;

impl Rule for Random {
    const NAME: &'static str = "random";
    const PARAMS: &'static str = "endpoint_weights";
    const READS: &'static [Stat] = &[];

    fn build(_: &mut Params) -> Result<Self, RouteError> {
        Ok(Self)
    }

    fn select(&mut self, view: View<'_>, _: &Key, rng: &mut Rng) -> Option<usize> {
        if view.is_empty() {
            return None;
        }
        if view.candidates.weights.is_empty() {
            return Some(rng.below(view.len()));
        }
        let total: f64 = view.candidates.weights.iter().sum();
        let mut left = rng.unit() * total;
        let hit = view.candidates.weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        hit.or(Some(view.len() - 1)) // rounding may leave a crumb at the end
    }

    fn score(&self, view: View<'_>, _: &Key) -> Vec<Scored> {
        let term = |pos| Term { name: "weight", value: view.weight(pos), unit: "1" };
        (0..view.len())
            .map(|pos| Scored { score: view.weight(pos), terms: vec![term(pos)] })
            .collect()
    }
}
