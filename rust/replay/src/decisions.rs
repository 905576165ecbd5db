//! Some decisions of a replay, with what each candidate scored: for people who ask why.

use std::sync::{Arc, Mutex, PoisonError};

use routecore::strategy::Scored;

/// Candidates that are kept of a decision: the chosen one and those nearest to it.
const KEPT: usize = 6;

/// One decision.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The request's number in the trace.
    pub request: u32,
    /// When, in milliseconds.
    pub time: f64,
    /// The engine that was chosen.
    pub engine: u32,
    /// How many engines there were to choose from.
    pub among: u32,
    /// Of these, the chosen one and the nearest by score: engine, and what it scored.
    pub candidates: Vec<(u32, Scored)>,
}

/// Where routers put the decisions on every so many requests; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Decisions {
    every: u32,
    kept: Arc<Mutex<Vec<Decision>>>,
}

impl Decisions {
    /// Of every so many requests one; 0: of none.
    pub fn every(every: u32) -> Self {
        Self { every, kept: Arc::default() }
    }

    /// Whether the decision on this request is to be kept.
    pub fn wants(&self, request: u32) -> bool {
        self.every > 0 && request.is_multiple_of(self.every)
    }

    /// Keeps one: `engines` and `scores` have a value a candidate, of which `at` was chosen.
    pub fn keep(&self, request: u32, time: f64, engines: &[u32], at: usize, scores: Vec<Scored>) {
        let Some((&engine, chosen)) = engines.get(at).zip(scores.get(at).map(|s| s.score)) else {
            return;
        };
        let among = engines.len() as u32;
        let mut candidates: Vec<_> = engines.iter().copied().zip(scores).collect();
        let off = |(other, scored): &(u32, Scored)| {
            if *other == engine { -1.0 } else { (scored.score - chosen).abs() }
        };
        candidates.sort_by(|a, b| off(a).total_cmp(&off(b)));
        candidates.truncate(KEPT);
        let decision = Decision { request, time, engine, among, candidates };
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(decision);
    }

    /// All that were kept, in the order in which they were taken.
    pub fn take(&self) -> Vec<Decision> {
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(of: &[f64]) -> Vec<Scored> {
        of.iter().map(|&score| Scored { score, terms: Vec::new() }).collect()
    }

    #[test]
    fn the_chosen_one_comes_first_then_the_nearest() {
        let decisions = Decisions::every(10);
        assert!(decisions.wants(20) && !decisions.wants(21));
        let (engines, of) = ([7, 8, 9], [5.0, 2.0, 2.5]);
        decisions.keep(20, 1.0, &engines, 1, scores(&of));
        decisions.keep(30, 2.0, &engines, 3, scores(&of));
        let (kept, again) = (decisions.clone().take(), decisions.take());
        assert_eq!((kept.len(), again.len()), (1, 0));
        assert_eq!((kept[0].engine, kept[0].among), (8, 3));
        let order: Vec<u32> = kept[0].candidates.iter().map(|(engine, _)| *engine).collect();
        assert_eq!(order, [8, 9, 7]);
    }

    #[test]
    fn of_a_large_fleet_a_few_are_kept() {
        let decisions = Decisions::every(1);
        let engines: Vec<u32> = (0..100).collect();
        let of: Vec<f64> = (0..100).map(f64::from).collect();
        decisions.keep(0, 0.0, &engines, 50, scores(&of));
        assert_eq!(decisions.take()[0].candidates.len(), KEPT);
    }

    #[test]
    fn nobody_asks_by_default() {
        assert!(!Decisions::default().wants(0));
    }
}
