//! A weighted blend of stats, each brought to 0..1.

use super::choose::{Ties, least, least_loaded, load_scores};
use super::{Key, Params, Rule, Scored, Term, View};
use crate::error::{RouteError, fail};
use crate::rng::Rng;
use crate::stats::{Kind, Stat};

/// Score: Σ weight · normalised stat, times the endpoint's capacity weight; highest wins.
///
/// `min_max`: (max − x) / (max − min) among the candidates, all equal → 1; turned round where
/// more is better. `absolute`: 1 − x for shares, 1 / (1 + x) for counts and seconds, x itself
/// where more is better. Ties: a uniform draw. A candidate without the stat gets the lower
/// median of the others; a stat that nobody has does not count; none known: least connections.
/// Source: llm-d's weighted scorers.
#[derive(Debug, Clone)]
pub struct WeightedScore {
    terms: Vec<(Stat, f64)>,
    absolute: bool,
    costs: Vec<f64>,
    sorted: Vec<f64>,
}

/// How one stat is brought to 0..1 for one decision.
#[derive(Clone, Copy)]
struct Scale {
    kind: Kind,
    absolute: bool,
    low: f64,
    span: f64,
    neutral: f64,
}

impl Scale {
    /// `None` when no candidate has the stat.
    fn of(view: View<'_>, stat: Stat, absolute: bool, sorted: &mut Vec<f64>) -> Option<Self> {
        let (mut low, mut high, mut known) = (f64::INFINITY, f64::NEG_INFINITY, 0);
        for value in view.values(stat) {
            low = low.min(value);
            high = high.max(value);
            known += usize::from(!value.is_nan());
        }
        if known == 0 {
            return None;
        }
        let mut neutral = low;
        if known < view.len() {
            sorted.clear();
            sorted.extend(view.values(stat).filter(|value| !value.is_nan()));
            let middle = (known - 1) / 2;
            neutral = *sorted.select_nth_unstable_by(middle, f64::total_cmp).1;
        }
        Some(Self { kind: stat.kind(), absolute, low, span: high - low, neutral })
    }

    fn apply(self, value: f64) -> f64 {
        let x = if value.is_nan() { self.neutral } else { value };
        match (self.absolute, self.kind) {
            (true, Kind::Usage) => 1.0 - x.min(1.0),
            (true, Kind::Benefit) => x.min(1.0),
            (true, Kind::Amount) => 1.0 / (1.0 + x),
            (false, _) if self.span == 0.0 => 1.0,
            (false, Kind::Benefit) => (x - self.low) / self.span,
            (false, _) => (self.low + self.span - x) / self.span,
        }
    }
}

impl Rule for WeightedScore {
    const NAME: &'static str = "weighted_score";
    const PARAMS: &'static str = "weights, normalise, endpoint_weights";

    fn build(params: &mut Params) -> Result<Self, RouteError> {
        let absolute = params.word("normalise", &["min_max", "absolute"])? == 1;
        let mut terms = Vec::new();
        for (name, weight) in std::mem::take(&mut params.weights) {
            if !weight.is_finite() || weight < 0.0 {
                fail!("weight {name:?}: expected a finite number ≥ 0, got {weight}");
            }
            terms.push((Stat::named(&name)?, weight));
        }
        if terms.iter().all(|term| term.1 == 0.0) {
            fail!("parameter \"weights\": expected at least one stat with a weight above 0");
        }
        Ok(Self { terms, absolute, costs: Vec::new(), sorted: Vec::new() })
    }

    fn reads(&self) -> Vec<Stat> {
        let mut reads = vec![Stat::InFlight];
        reads.extend(self.terms.iter().map(|term| term.0).filter(|&s| s != Stat::InFlight));
        reads
    }

    fn select(&mut self, view: View<'_>, _: &Key, rng: &mut Rng) -> Option<usize> {
        self.costs.clear();
        self.costs.resize(view.len(), 0.0);
        let mut known = false;
        for &(stat, weight) in &self.terms {
            let Some(scale) = Scale::of(view, stat, self.absolute, &mut self.sorted) else {
                continue;
            };
            known = true;
            for (cost, value) in self.costs.iter_mut().zip(view.values(stat)) {
                *cost -= weight * scale.apply(value);
            }
        }
        if !known {
            return least_loaded(view, Ties::Random, rng);
        }
        for (cost, weight) in self.costs.iter_mut().zip(&view.candidates.weights) {
            *cost *= weight;
        }
        // Sums of shares: equal in theory may differ in the last bits.
        for cost in &mut self.costs {
            *cost = (*cost * 1e9).round();
        }
        least(self.costs.iter().copied(), Ties::Random, rng)
    }

    fn score(&self, view: View<'_>, _: &Key) -> Vec<Scored> {
        let mut sorted = Vec::new();
        let mut scored = vec![Scored::default(); view.len()];
        for &(stat, weight) in &self.terms {
            let Some(scale) = Scale::of(view, stat, self.absolute, &mut sorted) else { continue };
            for ((pos, scored), value) in scored.iter_mut().enumerate().zip(view.values(stat)) {
                let value = weight * scale.apply(value) * view.weight(pos);
                scored.score += value;
                scored.terms.push(Term { name: stat.name(), value, unit: "1" });
            }
        }
        let known = scored.first().is_some_and(|first| !first.terms.is_empty());
        if known { scored } else { load_scores(view) }
    }
}
