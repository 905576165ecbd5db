//! Join the shortest queue, by count.

use super::choose::{Ties, least_loaded, load_scores};
use super::{Key, Params, Rule, Scored, View};
use crate::error::RouteError;
use crate::rng::Rng;

/// The endpoint with the fewest requests in flight.
///
/// Cost: in flight, or (in flight + 1) / weight where capacity weights are given; least wins.
/// Ties: a uniform draw, or the first in the list with `ties = "first"`. Source: textbook.
#[derive(Debug, Clone)]
pub struct LeastConnections {
    ties: Ties,
}

impl Rule for LeastConnections {
    const NAME: &'static str = "least_connections";
    const PARAMS: &'static str = "ties, endpoint_weights";

    fn build(params: &mut Params) -> Result<Self, RouteError> {
        let ties = [Ties::Random, Ties::First][params.word("ties", &["random", "first"])?];
        Ok(Self { ties })
    }

    fn select(&mut self, view: View<'_>, _: &Key, rng: &mut Rng) -> Option<usize> {
        least_loaded(view, self.ties, rng)
    }

    fn score(&self, view: View<'_>, _: &Key) -> Vec<Scored> {
        load_scores(view)
    }
}
