//! A cost per candidate, the least of which wins.

use super::choose::{Ties, least_packed};
use super::{Scored, Term, View};
use crate::rng::Rng;

/// Room for the costs of one decision, kept from one to the next.
#[derive(Debug, Clone, Default)]
pub struct Costs(Vec<f64>);

impl Costs {
    /// Position of the least cost; equals are drawn from. `NaN` never wins by accident.
    pub fn least(
        &mut self,
        view: View<'_>,
        rng: &mut Rng,
        cost: impl Fn(usize) -> f64,
    ) -> Option<usize> {
        self.0.clear();
        self.0.extend((0..view.len()).map(cost));
        least_packed(&self.0, Ties::Random, rng)
    }
}

/// A score that is the sum of its terms.
pub fn summed(terms: Vec<Term>) -> Scored {
    Scored { score: terms.iter().map(|term| term.value).sum(), terms }
}

/// A term of a score.
pub fn term(name: &'static str, value: f64, unit: &'static str) -> Term {
    Term { name, value, unit }
}
