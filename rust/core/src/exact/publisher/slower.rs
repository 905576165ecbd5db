//! Events of slower tiers → edits: blocks reported a second time, by hash only, or in chunks.
//!
//! Offloading connectors repeat blocks that the device reported, with less said of them, or keep chunks
//! of several blocks under hashes of their own. What the device said of a block stands.

use super::{Publisher, Work};
use crate::exact::event::Stored;
use crate::exact::holders::Edit;
use crate::exact::view::View;
use crate::exact::{Tier, keys};

/// What is known of an event before its blocks are looked at.
pub(super) struct Said {
    /// What the chain of keys starts from.
    pub start: u64,
    pub tier: Tier,
    /// Place of the group's view.
    pub group: usize,
    /// Tokens of a hash.
    pub block: usize,
    /// Whether it is the start of a prompt.
    pub root: bool,
    /// Blocks that there is room for.
    pub free: usize,
}

/// Name of a block within a chunk, counted from the chunk's end; the last has the chunk's own.
fn part(hash: u64, from_end: usize) -> u64 {
    if from_end == 0 { hash } else { keys::fold(hash, from_end as u64) }
}

/// Takes back the blocks of a chunk before its last; whether there were any.
pub(super) fn remove_parts(view: &mut View, hash: u64, tier: Tier, edits: &mut Vec<Edit>) -> bool {
    let parts = (1..).take_while(|&at| view.remove(part(hash, at), tier, edits));
    parts.count() > 0
}

impl Publisher {
    /// Blocks reported by hash only: those that are known are on a tier more.
    pub(super) fn offload(&mut self, at: usize, stored: &Stored, tier: Tier, work: &mut Work) {
        for &hash in &work.batch.hashes[stored.hashes.clone()] {
            match self.views[at].map.get(hash) {
                Some((key, _)) => self.views[at].store(hash, key, tier, &mut work.edits),
                None => {
                    self.counters.unknown_hashes += 1;
                    self.stream.distrust();
                }
            }
        }
    }

    /// Blocks or chunks of a slower tier.
    pub(super) fn store_slow(&mut self, said: &Said, stored: &Stored, work: &mut Work) {
        let hashes = &work.batch.hashes[stored.hashes.clone()];
        let tokens = &work.batch.tokens[stored.tokens.clone()];
        let extras = &work.batch.extras[stored.extras.clone()];
        let view = &mut self.views[said.group];
        let first = hashes.first().and_then(|&hash| view.map.get(hash));
        let keyed = stored.keyed;
        if said.root && !keyed && self.tenants && first.is_none() {
            // It may be any tenant's: better nobody's than everybody's.
            self.stream.distrust();
            return self.counters.unknown_hashes += hashes.len() as u64;
        }
        let own = self.block as usize;
        if said.block != own {
            self.chunked = true;
            view.count_by_key();
        }
        let (mut previous, mut taken) = (said.start, 0);
        for (at, (&hash, chunk)) in hashes.iter().zip(tokens.chunks(said.block)).enumerate() {
            let extra = extras.get(at).copied().unwrap_or(0);
            // Behind a chunk that ends within a block nothing can follow.
            let (blocks, whole) = (chunk.chunks_exact(own), chunk.len() % own == 0);
            let count = blocks.len();
            for (nth, tokens) in blocks.enumerate() {
                let mark = if nth == 0 { extra } else { 0 };
                let mut key = keys::fold(previous, keys::local(tokens) ^ mark);
                let name = part(hash, count - nth - usize::from(whole));
                if let Some((known, _)) = view.map.get(name)
                    && !keyed
                {
                    key = known; // reported before, with all that it depends on
                }
                if taken < said.free {
                    view.store(name, key, said.tier, &mut work.edits);
                }
                (previous, taken) = (key, taken + 1);
            }
            if !whole && at + 1 < hashes.len() {
                self.stream.distrust();
                self.counters.unknown_parents += 1;
                break;
            }
        }
        self.full(taken.saturating_sub(said.free));
    }
}
