//! A cost per candidate, the least of which wins.

use super::{Scored, Term, View};
use crate::rng::Rng;
use crate::stats::Stat;

/// Values worked on at once.
const LANES: usize = 8;

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
        self.pick(rng)
    }

    /// Room for so many, to be written to; what stands there until then counts for nobody.
    pub fn room(&mut self, n: usize) -> &mut [f64] {
        self.0.clear();
        self.0.resize(n, f64::NAN);
        &mut self.0
    }

    /// Position of the least cost, the first of equals; `None` where nothing is known.
    pub fn first(&self) -> Option<usize> {
        place(&self.0, lowest(&self.0), 0)
    }

    /// The cost that this position was found to have.
    pub fn of(&self, pos: usize) -> f64 {
        self.0.get(pos).copied().unwrap_or(f64::NAN)
    }

    /// Takes a stat of each candidate, to make costs of in place.
    pub fn fill(&mut self, view: View<'_>, stat: Stat) -> &mut [f64] {
        self.0.clear();
        let column = view.table.column(stat);
        for run in view.candidates.runs() {
            self.0.extend(column.get(run.clone()).unwrap_or_default());
        }
        if self.0.len() != view.len() {
            self.0.clear();
            self.0.extend(view.values(stat));
        }
        &mut self.0
    }

    /// [`Costs::least`] of the costs that are filled in.
    pub fn pick(&self, rng: &mut Rng) -> Option<usize> {
        let least = lowest(&self.0);
        // Nobody is known to be better than anybody.
        if least == f64::INFINITY {
            return (!self.0.is_empty()).then(|| rng.below(self.0.len()));
        }
        let equals: u64 = self.0.iter().map(|&cost| u64::from(cost == least)).sum();
        let nth = if equals > 1 { rng.below(equals as usize) } else { 0 };
        place(&self.0, least, nth)
    }
}

/// Stats of the candidates, a column each; keeps its memory from one decision to the next.
#[derive(Debug, Clone)]
pub struct Columns<const N: usize>([Vec<f64>; N]);

impl<const N: usize> Default for Columns<N> {
    fn default() -> Self {
        Self([const { Vec::new() }; N])
    }
}

impl<const N: usize> Columns<N> {
    /// A value per candidate each, as many everywhere.
    pub fn of<'a>(&'a mut self, view: View<'a>, stats: [Stat; N]) -> [&'a [f64]; N] {
        if let [run] = view.candidates.runs()
            && stats.iter().all(|&stat| view.table.column(stat).len() >= run.end)
        {
            return stats.map(|stat| &view.table.column(stat)[run.clone()]);
        }
        for (own, stat) in self.0.iter_mut().zip(stats) {
            own.clear();
            own.extend(view.values(stat));
        }
        self.0.each_ref().map(Vec::as_slice)
    }
}

/// The least of the costs.
fn lowest(costs: &[f64]) -> f64 {
    let less = |least: f64, cost: f64| if cost < least { cost } else { least };
    fold(costs, f64::INFINITY, less)
}

/// Folds in lanes without branches, so that the compiler makes vector code of it. The order of
/// the values must not matter to `f`.
pub fn fold(values: &[f64], start: f64, f: impl Fn(f64, f64) -> f64) -> f64 {
    let mut lanes = [start; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = f(lanes[lane], chunk[lane]);
        }
    }
    lanes.iter().chain(rest).copied().fold(start, f)
}

/// The highest of `f` over pairs of two columns, at least 0.
pub fn highest(a: &[f64], b: &[f64], f: impl Fn(f64, f64) -> f64) -> f64 {
    let more = |best: f64, value: f64| if value > best { value } else { best };
    let mut lanes = [0.0; LANES];
    let ((a, rest_a), (b, rest_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] = more(lanes[lane], f(a[lane], b[lane]));
        }
    }
    let rest = rest_a.iter().zip(rest_b).map(|(&a, &b)| f(a, b));
    lanes.into_iter().chain(rest).fold(0.0, more)
}

/// Position of the `nth` value that equals `least`; whole lanes are passed over at once.
fn place(costs: &[f64], least: f64, mut nth: usize) -> Option<usize> {
    let count = |costs: &[f64]| -> u64 { costs.iter().map(|&x| u64::from(x == least)).sum() };
    let mut from = 0;
    for chunk in costs.chunks(8 * LANES) {
        let here = count(chunk) as usize;
        if nth < here {
            let ours = chunk.iter().enumerate().filter(|&(_, &cost)| cost == least);
            return ours.map(|(at, _)| from + at).nth(nth);
        }
        nth -= here;
        from += chunk.len();
    }
    None
}

/// A score that is the sum of its terms.
pub fn summed(terms: Vec<Term>) -> Scored {
    Scored { score: terms.iter().map(|term| term.value).sum(), terms }
}

/// A term of a score.
pub fn term(name: &'static str, value: f64, unit: &'static str) -> Term {
    Term { name, value, unit }
}
