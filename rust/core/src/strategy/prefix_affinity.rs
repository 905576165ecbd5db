//! Equal prompt heads go to the same endpoint, without any index.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use super::affinity::{cap, home, scores};
use super::choose::{Ties, least_loaded, load_scores};
use super::{Key, Params, Rule, Scored, View};
use crate::error::RouteError;
use crate::hash::{Hashed, PrefixKey};
use crate::rng::Rng;

/// Requests whose keys are counted to find prefixes that too many share.
const WINDOW: usize = 4096;
/// A key is common only once it was seen this often in the window: fewer is chance.
const FLOOR: f64 = 8.0;

/// Home of the prompt's head under a load bound (consistent hashing with bounded loads).
///
/// 1. The head is hashed in segments that double ([`crate::hash::PrefixHasher`]).
/// 2. The key is the shallowest hash whose share of recent requests is at most 2 / n; a
///    segment is counted only while the one before it is too common. So a system prompt that
///    everybody shares does not send everybody to one endpoint.
/// 3. The home is the first endpoint in rendezvous order within `load_factor · (R + 1) / n`.
///
/// No prompt: least connections. Replicas and restarts agree without talking: placement depends
/// on URLs and prompt alone, depth on traffic that all of them see alike.
/// Sources: Mirrokni et al. 2018 (bounded loads); `DualMap`, arXiv 2602.06502 (adaptive depth).
#[derive(Debug, Clone)]
pub struct PrefixAffinity {
    load_factor: f64,
    counts: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
    recent: VecDeque<u64>,
    requests: VecDeque<u8>,
}

impl PrefixAffinity {
    /// The deepest segment to look at, given the counts so far.
    fn depth(&self, key: &PrefixKey, n: usize) -> usize {
        let bound = (2.0 * self.requests.len() as f64 / n as f64).max(FLOOR);
        let common = |hash: &u64| self.counts.get(hash).is_some_and(|&c| f64::from(c) > bound);
        let hashes = key.hashes();
        hashes.iter().position(|hash| !common(hash)).unwrap_or(hashes.len().saturating_sub(1))
    }

    fn count(&mut self, hashes: &[u64]) {
        if self.requests.len() == WINDOW {
            for _ in 0..self.requests.pop_front().unwrap_or(0) {
                let Some(old) = self.recent.pop_front() else { break };
                if let Some(count) = self.counts.get_mut(&old) {
                    *count -= 1;
                    if *count == 0 {
                        self.counts.remove(&old);
                    }
                }
            }
        }
        self.requests.push_back(hashes.len() as u8);
        for &hash in hashes {
            self.recent.push_back(hash);
            *self.counts.entry(hash).or_default() += 1;
        }
    }
}

impl Rule for PrefixAffinity {
    const NAME: &'static str = "prefix_affinity";
    const PARAMS: &'static str = "load_factor, block_chars, endpoint_weights";

    fn build(params: &mut Params) -> Result<Self, RouteError> {
        let keys = WINDOW * crate::hash::MAX_SEGMENTS;
        Ok(Self {
            load_factor: params.number("load_factor", 1.25, 1.0, 1e6)?,
            counts: HashMap::with_capacity_and_hasher(2 * keys, BuildHasherDefault::default()),
            recent: VecDeque::with_capacity(keys + 16),
            requests: VecDeque::with_capacity(WINDOW + 1),
        })
    }

    fn select(&mut self, view: View<'_>, key: &Key, rng: &mut Rng) -> Option<usize> {
        let Key::Prefix(key) = key else { return least_loaded(view, Ties::Random, rng) };
        if key.hashes().is_empty() || view.is_empty() {
            return least_loaded(view, Ties::Random, rng);
        }
        let depth = self.depth(key, view.len());
        self.count(&key.hashes()[..=depth]);
        home(view, key.hashes()[depth], cap(view, self.load_factor))
    }

    fn score(&self, view: View<'_>, key: &Key) -> Vec<Scored> {
        match key {
            Key::Prefix(key) if !key.hashes().is_empty() && !view.is_empty() => {
                let hash = key.hashes()[self.depth(key, view.len())];
                scores(view, hash, cap(view, self.load_factor))
            }
            _ => load_scores(view),
        }
    }
}
