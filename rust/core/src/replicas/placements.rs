//! Prefixes between routers: each placement as the last key that the others know, and what is new.

use std::collections::{HashMap, VecDeque};

use super::chains::{Chains, ROOT};
use super::message::Placement;
use crate::fleet::{Fleet, Prefixes};
use crate::prompt::MAX_BLOCKS;

/// New keys that a router tells a second, at most: 128 kB. What is beyond is told with a later turn.
pub const KEYS_A_SECOND: f64 = 16_384.0;
/// One in so many placements is told from its first block on, for those who missed what was before.
const WHOLE: u64 = 16;
/// Keys of heard placements that wait to be applied, at most.
const MOST_WAITING: usize = 1 << 20;

/// Placements and keys since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlacementCounts {
    /// Told to the others.
    pub sent: u64,
    /// Heard of the others.
    pub heard: u64,
    /// Of the heard ones, those that continue what is not known here.
    pub unknown: u64,
    /// Not told, or not applied: there were too many.
    pub lost: u64,
}

/// A prefix that another router placed.
#[derive(Debug)]
struct Waiting {
    id: u64,
    chain: Vec<u64>,
    block_tokens: f64,
}

/// What is told and heard of prefixes.
#[derive(Debug, Default)]
pub struct Placements {
    chains: Chains,
    waiting: VecDeque<Waiting>,
    waiting_keys: usize,
    budget: f64,
    last: f64,
    counts: PlacementCounts,
    before: u64,
}

impl Placements {
    /// What is to be told of these prefixes.
    pub fn tell(&mut self, placed: &Prefixes, now: f64) -> Vec<Placement> {
        let passed = (now - self.last).clamp(0.0, 1.0);
        self.last = now;
        self.budget = (self.budget + passed * KEYS_A_SECOND).min(KEYS_A_SECOND);
        self.counts.lost += placed.lost.saturating_sub(self.before);
        self.before = placed.lost;
        let mut told = Vec::new();
        for (id, chain) in placed.iter() {
            let known = match self.counts.sent % WHOLE {
                0 => 0,
                _ => self.chains.known(chain),
            };
            let new = (self.budget as usize).min(chain.len() - known);
            if new < chain.len() - known {
                self.counts.lost += 1;
            }
            if known + new == 0 {
                continue;
            }
            self.budget -= new as f64;
            let parent = if known == 0 { ROOT } else { chain[known - 1] };
            let keys = chain[known..known + new].to_vec();
            self.chains.learn(ROOT, &chain[..known + new]);
            self.counts.sent += 1;
            told.push(Placement { id, parent, keys });
        }
        told
    }

    /// Others placed these.
    pub fn hear(&mut self, heard: Vec<Placement>, block_tokens: f64) {
        for Placement { id, parent, keys } in heard {
            self.counts.heard += 1;
            let mut chain = Vec::with_capacity(keys.len());
            let most = MAX_BLOCKS.saturating_sub(keys.len());
            if !self.chains.walk(parent, most, &mut chain) {
                self.counts.unknown += 1;
                continue;
            }
            self.chains.learn(parent, &keys);
            chain.extend(keys);
            self.wait(Waiting { id, chain, block_tokens });
        }
    }

    /// Another router had these before this one came.
    pub fn join(&mut self, known: Vec<(u64, Vec<u64>)>, block_tokens: f64) {
        for (id, chain) in known {
            self.chains.learn(ROOT, &chain);
            self.wait(Waiting { id, chain, block_tokens });
        }
    }

    fn wait(&mut self, waiting: Waiting) {
        if self.waiting_keys + waiting.chain.len() > MOST_WAITING {
            self.counts.lost += 1;
            return;
        }
        self.waiting_keys += waiting.chain.len();
        self.waiting.push_back(waiting);
    }

    /// Lets the fleet know of so many of them, at most. Whether there are more.
    pub fn apply(&mut self, fleet: &mut Fleet, rows: &HashMap<u64, u32>, most: usize) -> bool {
        for Waiting { id, chain, block_tokens } in
            self.waiting.drain(..most.min(self.waiting.len()))
        {
            self.waiting_keys -= chain.len();
            if let Some(&row) = rows.get(&id) {
                fleet.place(row, &chain, block_tokens);
            }
        }
        !self.waiting.is_empty()
    }

    /// Placements since the start.
    pub fn counts(&self) -> PlacementCounts {
        self.counts
    }
}
