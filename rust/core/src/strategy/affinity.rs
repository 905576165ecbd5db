//! Homes by hash, with a bound on load.

use crate::hash::rendezvous;
use crate::stats::Stat;
use crate::strategy::{Scored, Term, View};

/// Load above which a home passes a key on: `factor * (R + 1) / n` requests (Mirrokni et al. 2018).
pub fn cap(view: View<'_>, factor: f64) -> f64 {
    let total: f64 = view.values(Stat::InFlight).filter(|load| load.is_finite()).sum();
    if total == 0.0 { f64::INFINITY } else { factor * (total + 1.0) / view.len() as f64 }
}

/// The first endpoint in rendezvous order whose load is within `cap`; the home if none is.
pub fn home(view: View<'_>, key: u64, cap: f64) -> Option<usize> {
    let mut home: Option<(u64, usize)> = None;
    let mut within: Option<(u64, usize)> = None;
    for (pos, load) in view.values(Stat::InFlight).enumerate() {
        let here = (rendezvous(key, view.candidates.ids[pos]), pos);
        if home.is_none_or(|best| here.0 > best.0) {
            home = Some(here);
        }
        // Not known passes: no reason to move a key away from its home.
        let over = load > cap;
        if !over && within.is_none_or(|best| here.0 > best.0) {
            within = Some(here);
        }
    }
    within.or(home).map(|(_, pos)| pos)
}

/// What rendezvous and the bound say of each candidate.
pub fn scores(view: View<'_>, key: u64, cap: f64) -> Vec<Scored> {
    let score = |(pos, load): (usize, f64)| {
        let share = rendezvous(key, view.candidates.ids[pos]) as f64 / u64::MAX as f64;
        let terms = vec![
            Term { name: "rendezvous", value: share, unit: "1" },
            Term { name: "in_flight", value: load, unit: "requests" },
            Term { name: "load_cap", value: cap, unit: "requests" },
        ];
        Scored { score: if load > cap { share - 1.0 } else { share }, terms }
    };
    view.values(Stat::InFlight).enumerate().map(score).collect()
}
