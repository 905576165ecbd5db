//! A weighted blend of stats and of terms of its own, each brought to 0..1.

use super::affinity::home;
use super::choose::{Ties, least, least_loaded, load_scores};
use super::{Key, Params, Rule, Scored, Term, View};
use crate::error::{RouteError, fail};
use crate::rng::Rng;
use crate::stats::{Kind, Stat};

/// Requests waiting at which `load_aware` gives nothing more (llm-d's default).
const QUEUE_THRESHOLD: f64 = 128.0;

/// Score: Σ weight · term, times the endpoint's capacity weight; highest wins.
///
/// Terms are stats by name, brought to 0..1 as `normalise` says:
/// `min_max`: (max − x) / (max − min) among the candidates, all equal → 1; turned round where
/// more is better. `absolute`: 1 − x for shares, 1 / (1 + x) for counts and seconds, x itself
/// where more is better. And terms of its own:
/// `active_request`: (max − r) / max, r the requests in flight; 1 for an idle endpoint.
/// `load_aware`: 0.5 · (1 − min(w, 128) / 128), w the requests waiting in the engine.
/// `session`: 1 for the rendezvous home of the request's session, 0 for all others.
///
/// Ties: a uniform draw. A candidate without the stat gets the lower median of the others; a
/// term that nobody has does not count; none known: least connections.
/// Source: llm-d's weighted scorers.
#[derive(Debug, Clone)]
pub struct WeightedScore {
    terms: Vec<(Reading, f64)>,
    absolute: bool,
    costs: Vec<f64>,
    sorted: Vec<f64>,
}

/// What a term looks at.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reading {
    Stat(Stat),
    ActiveRequest,
    LoadAware,
    Session,
}

impl Reading {
    const OWN: [Self; 3] = [Self::ActiveRequest, Self::LoadAware, Self::Session];

    fn name(self) -> &'static str {
        match self {
            Self::Stat(stat) => stat.name(),
            Self::ActiveRequest => "active_request",
            Self::LoadAware => "load_aware",
            Self::Session => "session",
        }
    }

    fn named(name: &str) -> Result<Self, RouteError> {
        if let Some(&own) = Self::OWN.iter().find(|own| own.name() == name) {
            return Ok(own);
        }
        let own = Self::OWN.map(Self::name).join(", ");
        let stat = Stat::named(name).map_err(|RouteError(e)| RouteError(format!("{e}, {own}")))?;
        Ok(Self::Stat(stat))
    }

    fn stat(self) -> Option<Stat> {
        match self {
            Self::Stat(stat) => Some(stat),
            Self::ActiveRequest => Some(Stat::InFlight),
            Self::LoadAware => Some(Stat::Queuing),
            Self::Session => None,
        }
    }
}

/// How one term is brought to 0..1 for one decision.
#[derive(Clone, Copy)]
enum Scale {
    /// Of a stat; a candidate that lacks it is taken to have `neutral`.
    Stat { kind: Reading, absolute: bool, low: f64, span: f64, neutral: f64 },
    /// All or nothing, for one candidate.
    Home(usize),
}

impl Scale {
    /// `None` when no candidate has the stat, or the request no session.
    fn of(
        view: View<'_>,
        key: &Key,
        kind: Reading,
        absolute: bool,
        sorted: &mut Vec<f64>,
    ) -> Option<Self> {
        let Some(stat) = kind.stat() else {
            let Key::Session(key) = *key else { return None };
            return home(view, key, f64::INFINITY).map(Self::Home);
        };
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
        if kind == Reading::ActiveRequest {
            low = 0.0;
        }
        Some(Self::Stat { kind, absolute, low, span: high - low, neutral })
    }

    fn apply(self, pos: usize, value: f64) -> f64 {
        let (kind, absolute, low, span, neutral) = match self {
            Self::Home(home) => return if pos == home { 1.0 } else { 0.0 },
            Self::Stat { kind, absolute, low, span, neutral } => {
                (kind, absolute, low, span, neutral)
            }
        };
        let x = if value.is_nan() { neutral } else { value };
        match kind {
            Reading::LoadAware => 0.5 * (1.0 - x.min(QUEUE_THRESHOLD) / QUEUE_THRESHOLD),
            Reading::Stat(stat) if absolute => match stat.kind() {
                Kind::Usage => 1.0 - x.min(1.0),
                Kind::Benefit => x.min(1.0),
                Kind::Amount => 1.0 / (1.0 + x),
            },
            _ if span == 0.0 => 1.0,
            Reading::Stat(stat) if stat.kind() == Kind::Benefit => (x - low) / span,
            _ => (low + span - x) / span,
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
            terms.push((Reading::named(&name)?, weight));
        }
        if terms.iter().all(|term| term.1 == 0.0) {
            fail!("parameter \"weights\": expected at least one term with a weight above 0");
        }
        Ok(Self { terms, absolute, costs: Vec::new(), sorted: Vec::new() })
    }

    fn reads(&self) -> Vec<Stat> {
        let mut reads = vec![Stat::InFlight];
        for stat in self.terms.iter().filter_map(|term| term.0.stat()) {
            if !reads.contains(&stat) {
                reads.push(stat);
            }
        }
        reads
    }

    fn select(&mut self, view: View<'_>, key: &Key, rng: &mut Rng) -> Option<usize> {
        self.costs.clear();
        self.costs.resize(view.len(), 0.0);
        let mut known = false;
        for &(kind, weight) in &self.terms {
            let Some(scale) = Scale::of(view, key, kind, self.absolute, &mut self.sorted) else {
                continue;
            };
            known = true;
            let values = view.values(kind.stat().unwrap_or(Stat::InFlight));
            for ((pos, cost), value) in self.costs.iter_mut().enumerate().zip(values) {
                *cost -= weight * scale.apply(pos, value);
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

    fn score(&self, view: View<'_>, key: &Key) -> Vec<Scored> {
        let mut sorted = Vec::new();
        let mut scored = vec![Scored::default(); view.len()];
        for &(kind, weight) in &self.terms {
            let Some(scale) = Scale::of(view, key, kind, self.absolute, &mut sorted) else {
                continue;
            };
            let values = view.values(kind.stat().unwrap_or(Stat::InFlight));
            for ((pos, scored), value) in scored.iter_mut().enumerate().zip(values) {
                let value = weight * scale.apply(pos, value) * view.weight(pos);
                scored.score += value;
                scored.terms.push(Term { name: kind.name(), value, unit: "1" });
            }
        }
        let known = scored.first().is_some_and(|first| !first.terms.is_empty());
        if known { scored } else { load_scores(view) }
    }
}
