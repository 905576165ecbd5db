//! A cost per candidate, the least of which wins.

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
        let least = lowest(&self.0);
        // Nobody is known to be better than anybody.
        if least == f64::INFINITY {
            return (!self.0.is_empty()).then(|| rng.below(self.0.len()));
        }
        let equals: u64 = self.0.iter().map(|&cost| u64::from(cost == least)).sum();
        let nth = if equals > 1 { rng.below(equals as usize) } else { 0 };
        let ours = self.0.iter().enumerate().filter(|&(_, &cost)| cost == least);
        ours.map(|(pos, _)| pos).nth(nth)
    }
}

/// The least of the costs; lanes without branches, so that the compiler makes vector code of it.
fn lowest(costs: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut lanes = [f64::INFINITY; LANES];
    let (chunks, rest) = costs.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &cost) in lanes.iter_mut().zip(chunk) {
            *lane = if cost < *lane { cost } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f64::INFINITY, f64::min)
}

/// A score that is the sum of its terms.
pub fn summed(terms: Vec<Term>) -> Scored {
    Scored { score: terms.iter().map(|term| term.value).sum(), terms }
}

/// A term of a score.
pub fn term(name: &'static str, value: f64, unit: &'static str) -> Term {
    Term { name, value, unit }
}
