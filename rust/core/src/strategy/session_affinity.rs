//! A session stays where it is.

use super::affinity::{cap, home, scores};
use super::choose::{Ties, least_loaded, load_scores};
use super::{Key, Params, Rule, Scored, View};
use crate::error::{RouteError, fail};
use crate::hash::mix;
use crate::rng::Rng;
use crate::stats::Stat;

/// Points of an endpoint of capacity 1 on the ring.
const POINTS: f64 = 160.0;
/// Most points of one endpoint, however large its capacity.
const MAX_POINTS: f64 = 16_000.0;
/// Candidate sets whose rings are kept.
const MAX_RINGS: usize = 8;

/// The home of the session key: by rendezvous hashing, or on a ring of 160 points per endpoint.
///
/// With `load_factor` f a home above f · (R + 1) / n requests passes the session on to the next
/// in hash order. With capacity weights, sessions, points and bound are in proportion to them.
/// No key: least connections. Removing an endpoint moves only its own sessions.
#[derive(Debug, Clone)]
pub struct SessionAffinity {
    ring: bool,
    load_factor: f64,
    rings: Vec<(u64, Vec<(u64, u64)>)>,
}

/// Where an endpoint stands on the ring.
fn points(view: View<'_>, pos: usize, id: u64) -> impl Iterator<Item = u64> {
    let count = (POINTS * view.weight(pos)).round().clamp(1.0, MAX_POINTS) as u64;
    (0..count).map(move |point| mix(id ^ mix(point)))
}

impl SessionAffinity {
    /// Builds the ring of a set the first time it is seen; ids, not positions, so order is free.
    fn ring(&mut self, view: View<'_>) -> &[(u64, u64)] {
        let set = view.candidates.set;
        if let Some(at) = self.rings.iter().position(|ring| ring.0 == set) {
            self.rings[..=at].rotate_right(1);
        } else {
            let ids = view.candidates.ids.iter().enumerate();
            let points = |(pos, &id)| points(view, pos, id).map(move |point| (point, id));
            let mut ring: Vec<_> = ids.flat_map(points).collect();
            ring.sort_unstable();
            self.rings.insert(0, (set, ring));
            self.rings.truncate(MAX_RINGS);
        }
        &self.rings[0].1
    }

    fn on_ring(&mut self, view: View<'_>, key: u64, cap: f64) -> Option<usize> {
        let pos_of = |id: u64| view.candidates.ids.iter().position(|&other| other == id);
        let ring = self.ring(view);
        let at = ring.partition_point(|point| point.0 <= key);
        let mut walk = ring[at..].iter().chain(&ring[..at]).filter_map(|point| pos_of(point.1));
        let home = walk.next()?;
        let over = |pos: usize| view.get(Stat::InFlight, pos) > cap * view.weight(pos);
        if over(home) {
            return walk.find(|&pos| !over(pos)).or(Some(home));
        }
        Some(home)
    }

    fn cap(&self, view: View<'_>) -> f64 {
        if self.load_factor == 0.0 { f64::INFINITY } else { cap(view, self.load_factor) }
    }
}

impl Rule for SessionAffinity {
    const NAME: &'static str = "session_affinity";
    const PARAMS: &'static str = "method, load_factor, endpoint_weights";

    fn build(params: &mut Params) -> Result<Self, RouteError> {
        let ring = params.word("method", &["rendezvous", "ring"])? == 1;
        let load_factor = params.number("load_factor", 0.0, 0.0, 1e6)?;
        if load_factor != 0.0 && load_factor < 1.0 {
            fail!(
                "parameter \"load_factor\": expected 1 or more (or None for no bound), got {load_factor}"
            );
        }
        Ok(Self { ring, load_factor, rings: Vec::new() })
    }

    fn select(&mut self, view: View<'_>, key: &Key, rng: &mut Rng) -> Option<usize> {
        let Key::Session(key) = *key else { return least_loaded(view, Ties::Random, rng) };
        let cap = self.cap(view);
        if self.ring { self.on_ring(view, key, cap) } else { home(view, key, cap) }
    }

    fn score(&self, view: View<'_>, key: &Key) -> Vec<Scored> {
        let Key::Session(key) = *key else { return load_scores(view) };
        if !self.ring {
            return scores(view, key, self.cap(view));
        }
        // On the ring the score is the way from the key to the endpoint's next point, turned round.
        let near = |pos: usize, id: u64| {
            let way = |point: u64| point.wrapping_sub(key.wrapping_add(1));
            points(view, pos, id).map(way).min().unwrap_or(u64::MAX)
        };
        let mut scored = scores(view, key, self.cap(view));
        for (pos, (scored, &id)) in scored.iter_mut().zip(&view.candidates.ids).enumerate() {
            let share = 1.0 - near(pos, id) as f64 / u64::MAX as f64;
            let over = scored.terms[1].value > scored.terms[2].value;
            scored.terms[0] = super::Term { name: "ring", value: share, unit: "1" };
            scored.score = if over { share - 1.0 } else { share };
        }
        scored
    }
}
