//! The least of many, with defined ties.

use crate::min_index::Least;
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

/// [`least`] of the loads, by the table's summary of each block of rows.
fn least_in_runs(view: View<'_>, ties: Ties, rng: &mut Rng) -> Option<usize> {
    let (column, min_index) = (view.table.column(Stat::InFlight), view.table.min_index());
    let runs = view.candidates.runs();
    let unknown = |rng: &mut Rng| if ties == Ties::First { 0 } else { rng.below(view.len()) };
    let which = |equals: usize, rng: &mut Rng| {
        if ties == Ties::Random && equals > 1 { rng.below(equals) } else { 0 }
    };
    if let [run] = runs {
        let row = min_index.draw(column, run.clone(), |equals| which(equals, rng));
        return Some(row.map_or_else(|| unknown(rng), |row| row - run.start));
    }
    let mut least = Least { value: f64::INFINITY, equals: 0 };
    for run in runs {
        let here = min_index.least(column, run.clone());
        if here.value < least.value {
            least = here;
        } else if here.value == least.value {
            least.equals += here.equals;
        }
    }
    if least.equals == 0 {
        return Some(unknown(rng));
    }
    let mut nth = which(least.equals, rng);
    let mut before = 0;
    for run in runs {
        match min_index.nth(column, run.clone(), least.value, nth) {
            Ok(row) => return Some(before + row - run.start),
            Err(left) => nth = left,
        }
        before += run.len();
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
    if view.candidates.runs().is_empty() {
        return least(loads, ties, rng);
    }
    least_in_runs(view, ties, rng)
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

    use crate::stats::StatTable;
    use crate::strategy::Candidates;

    fn pick(loads: &[f64], rows: &[u32], ties: Ties, seed: u64) -> Option<usize> {
        let mut table = StatTable::scratch(loads.len());
        table.fill(Stat::InFlight, loads.iter().copied());
        let ids = rows.iter().map(|&row| u64::from(row)).collect();
        let order = (0..rows.len() as u32).collect();
        let candidates = Candidates::new(rows.to_vec(), ids, Vec::new(), order);
        least_loaded(View::new(&table, &candidates), ties, &mut Rng::new(seed))
    }

    #[test]
    fn runs_of_rows_choose_as_single_looks_do() {
        let mut loads: Vec<f64> = (0..300).map(|i| f64::from(i % 7)).collect();
        loads[3] = f64::NAN;
        let rows: Vec<u32> = (5..280).filter(|row| row % 40 != 0).collect();
        for ties in [Ties::First, Ties::Random] {
            for seed in 0..50 {
                let costs = rows.iter().map(|&row| loads[row as usize]);
                let plain = least(costs, ties, &mut Rng::new(seed));
                assert_eq!(pick(&loads, &rows, ties, seed), plain);
            }
        }
    }

    #[test]
    fn ties_are_fair_and_unknown_loads_are_chosen_last() {
        let mut wins = [0; 3];
        for seed in 0..3_000 {
            wins[pick(&[1.0; 3], &[0, 1, 2], Ties::Random, seed).unwrap_or(9)] += 1;
        }
        assert!(wins.iter().all(|w| (900..1_100).contains(w)), "{wins:?}");
        assert_eq!(pick(&[], &[], Ties::Random, 1), None);
        assert!(pick(&[f64::NAN; 9], &[0, 1, 2, 3, 4, 5, 6, 7, 8], Ties::Random, 1).is_some());
        assert_eq!(pick(&[f64::NAN, 9.0], &[0, 1], Ties::Random, 1), Some(1));
    }
}
