//! Two random choices.

use super::choose::load_scores;
use super::{Key, Params, Rule, Scored, View};
use crate::error::RouteError;
use crate::rng::Rng;
use crate::stats::Stat;

/// The less loaded of two distinct uniform draws; a coin where they are equal.
///
/// Source: Mitzenmacher, "The power of two choices in randomized load balancing" (2001).
#[derive(Debug, Clone)]
pub struct PowerOfTwo;

impl Rule for PowerOfTwo {
    const NAME: &'static str = "power_of_two";
    const PARAMS: &'static str = "endpoint_weights";

    fn build(_: &mut Params) -> Result<Self, RouteError> {
        Ok(Self)
    }

    fn select(&mut self, view: View<'_>, _: &Key, rng: &mut Rng) -> Option<usize> {
        if view.len() < 2 {
            return (view.len() == 1).then_some(0);
        }
        let first = rng.below(view.len());
        let other = rng.below(view.len() - 1);
        let second = if other < first { other } else { other + 1 };
        // The draws are in random order already: keeping the first on a tie is the coin.
        let cost = |pos| (view.get(Stat::InFlight, pos) + 1.0) / view.weight(pos);
        Some(if cost(second) < cost(first) { second } else { first })
    }

    fn score(&self, view: View<'_>, _: &Key) -> Vec<Scored> {
        load_scores(view)
    }
}
