//! Homes by hash, by capacity, with a bound on load.

use crate::hash::rendezvous;
use crate::stats::Stat;
use crate::strategy::{Scored, Term, View};

/// Load per unit of capacity above which a home passes a key on: `factor * (R + 1) / Σ weight`
/// requests (Mirrokni et al. 2018); the weights sum to n where none were given.
pub fn cap(view: View<'_>, factor: f64) -> f64 {
    let total: f64 = view.values(Stat::InFlight).filter(|load| load.is_finite()).sum();
    let weights = &view.candidates.weights;
    let capacity = if weights.is_empty() { view.len() as f64 } else { weights.iter().sum() };
    if total == 0.0 { f64::INFINITY } else { factor * (total + 1.0) / capacity }
}

/// A candidate's draw for the key; the highest is the home.
///
/// By capacity it is `ln(u) / weight`, u the hash as a share in (0, 1): each candidate gets keys
/// in proportion to its weight, and a change of one weight moves keys only to or from it
/// (Schindelhauer and Schomaker 2005). Equal draws go by the hash itself.
fn draw(view: View<'_>, key: u64, pos: usize) -> (f64, u64) {
    let hash = rendezvous(key, view.candidates.ids[pos]);
    let weighted = !view.candidates.weights.is_empty();
    (if weighted { share(hash).ln() / view.weight(pos) } else { 0.0 }, hash)
}

/// A hash as a share of all hashes, never 0 or 1.
fn share(hash: u64) -> f64 {
    ((hash >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

/// The first endpoint in rendezvous order whose load is within its bound; the home if none is.
pub fn home(view: View<'_>, key: u64, cap: f64) -> Option<usize> {
    let mut home: Option<((f64, u64), usize)> = None;
    let mut within: Option<((f64, u64), usize)> = None;
    for (pos, load) in view.values(Stat::InFlight).enumerate() {
        let here = (draw(view, key, pos), pos);
        if home.is_none_or(|best| here.0 > best.0) {
            home = Some(here);
        }
        // Not known passes: no reason to move a key away from its home.
        let over = load > cap * view.weight(pos);
        if !over && within.is_none_or(|best| here.0 > best.0) {
            within = Some(here);
        }
    }
    within.or(home).map(|(_, pos)| pos)
}

/// What rendezvous and the bound say of each candidate: `u^(1 / weight)`, in the order of the draws.
pub fn scores(view: View<'_>, key: u64, cap: f64) -> Vec<Scored> {
    let weighted = !view.candidates.weights.is_empty();
    let score = |(pos, load): (usize, f64)| {
        let (draw, hash) = draw(view, key, pos);
        let value = if weighted { draw.exp() } else { hash as f64 / u64::MAX as f64 };
        let cap = cap * view.weight(pos);
        let mut terms = vec![
            Term { name: "rendezvous", value, unit: "1" },
            Term { name: "in_flight", value: load, unit: "requests" },
            Term { name: "load_cap", value: cap, unit: "requests" },
        ];
        if weighted {
            terms.push(Term { name: "weight", value: view.weight(pos), unit: "1" });
        }
        Scored { score: if load > cap { value - 1.0 } else { value }, terms }
    };
    view.values(Stat::InFlight).enumerate().map(score).collect()
}
