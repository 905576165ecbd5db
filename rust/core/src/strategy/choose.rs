//! The least of many, with defined ties.

use crate::rng::Rng;
use crate::stats::Stat;
use crate::strategy::{Scored, Term, View};

/// Which of several equals wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ties {
    /// Any of them, by the seeded draw.
    Random,
    /// The first in the list, as Python's `min()`.
    First,
}

/// Position of the least cost. Unknown (`NaN`) never wins while anything is known.
pub fn least(costs: impl Iterator<Item = f64> + Clone, ties: Ties, rng: &mut Rng) -> Option<usize> {
    let least = costs.clone().fold(f64::INFINITY, f64::min);
    let ours = |cost: f64| cost == least || (least == f64::INFINITY);
    let nth = match ties {
        Ties::First => 0,
        Ties::Random => {
            let equals = costs.clone().filter(|&c| ours(c)).count();
            if equals > 1 { rng.below(equals) } else { 0 }
        }
    };
    costs.enumerate().filter(|&(_, c)| ours(c)).nth(nth).map(|(pos, _)| pos)
}

/// [`least`] over a packed column: branch-free lanes, then one look for the winner.
pub fn least_packed(costs: &[f64], ties: Ties, rng: &mut Rng) -> Option<usize> {
    const LANES: usize = 8;
    let mut lanes = [f64::INFINITY; LANES];
    let (chunks, rest) = costs.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &cost) in lanes.iter_mut().zip(chunk) {
            *lane = if cost < *lane { cost } else { *lane };
        }
    }
    let least = lanes.iter().chain(rest).copied().fold(f64::INFINITY, f64::min);
    if least == f64::INFINITY {
        return (!costs.is_empty())
            .then(|| if ties == Ties::First { 0 } else { rng.below(costs.len()) });
    }
    if ties == Ties::First {
        return costs.iter().position(|&c| c == least);
    }
    let equals: u64 = costs.iter().map(|&c| u64::from(c == least)).sum();
    let mut nth = if equals > 1 { rng.below(equals as usize) } else { 0 };
    for (at, chunk) in costs.chunks(64).enumerate() {
        let here: usize = chunk.iter().map(|&c| usize::from(c == least)).sum();
        if nth < here {
            let inside = chunk.iter().enumerate().filter(|&(_, &c)| c == least).nth(nth);
            return inside.map(|(pos, _)| at * 64 + pos);
        }
        nth -= here;
    }
    None
}

/// The candidate with the fewest requests in flight, by capacity where weights are given.
pub fn least_loaded(view: View<'_>, ties: Ties, rng: &mut Rng) -> Option<usize> {
    let loads = view.values(Stat::InFlight);
    if !view.candidates.weights.is_empty() {
        let weights = view.candidates.weights.iter();
        return least(loads.zip(weights).map(|(load, weight)| (load + 1.0) / weight), ties, rng);
    }
    match view.packed(Stat::InFlight) {
        Some(column) => least_packed(column, ties, rng),
        None => least(loads, ties, rng),
    }
}

/// What load alone scores each candidate: requests in flight, by capacity where weights are given.
pub fn load_scores(view: View<'_>) -> Vec<Scored> {
    let weighted = !view.candidates.weights.is_empty();
    let score = |(pos, load): (usize, f64)| {
        let mut terms = vec![Term { name: "in_flight", value: load, unit: "requests" }];
        if !weighted {
            return Scored { score: load, terms };
        }
        let weight = view.weight(pos);
        terms.push(Term { name: "weight", value: weight, unit: "1" });
        Scored { score: (load + 1.0) / weight, terms }
    };
    view.values(Stat::InFlight).enumerate().map(score).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_and_plain_agree_and_ties_are_fair() {
        let mut costs: Vec<f64> = (0..100).map(|i| f64::from(i % 7)).collect();
        costs[3] = f64::NAN;
        for ties in [Ties::First, Ties::Random] {
            for seed in 0..50 {
                let plain = least(costs.iter().copied(), ties, &mut Rng::new(seed));
                assert_eq!(least_packed(&costs, ties, &mut Rng::new(seed)), plain);
            }
        }
        let mut rng = Rng::new(1);
        let mut wins = [0; 3];
        for _ in 0..3_000 {
            wins[least_packed(&[1.0, 1.0, 1.0], Ties::Random, &mut rng).unwrap_or(9)] += 1;
        }
        assert!(wins.iter().all(|w| (900..1_100).contains(w)), "{wins:?}");
        assert_eq!(least_packed(&[], Ties::Random, &mut rng), None);
        assert!(least_packed(&[f64::NAN; 9], Ties::Random, &mut rng).is_some());
    }
}
