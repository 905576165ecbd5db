//! Events → edits: the part of a publisher that knows blocks, groups and tiers.

use std::sync::RwLock;

use super::slower::{Said, remove_parts};
use super::{EDITS_PER_LOCK, Publisher, Work, with};
use crate::exact::event::{Event, Kind, Place, Removed, Stored};
use crate::exact::slots::WINDOW;
use crate::exact::view::View;
use crate::exact::{ExactIndex, RankState, Tier, keys};

/// Cache groups of one engine; hybrid models have a handful.
const MAX_GROUPS: usize = 16;

impl Publisher {
    pub(super) fn clear(&mut self, work: &mut Work, index: &RwLock<ExactIndex>) {
        work.flush(index);
        // From here on no lookup sees any of it, however long the clearing takes.
        let state = RankState { block: self.block, exact: false, fresh: false, suspended: true };
        self.published = Some(state);
        with(index, |index| index.set_rank(self.row, self.rank, state));
        for view in &mut self.views {
            view.clear(&mut work.edits);
        }
        work.flush(index);
        self.block = 0;
    }

    pub(super) fn apply(&mut self, work: &mut Work, index: &RwLock<ExactIndex>) {
        self.counters.batches += 1;
        self.counters.malformed += work.batch.malformed;
        self.counters.unknown_types += work.batch.unknown_types;
        if let Some(rank) = work.batch.rank {
            self.counters.other_ranks += u64::from(rank != self.rank);
            // One stream of several ranks: who holds what cannot be known.
            if *self.named.get_or_insert(rank) != rank {
                self.stream.distrust();
            }
        }
        if work.batch.malformed > 0 {
            // It may have been a removal: what is held is no longer certain to be all there is.
            self.stream.distrust();
        }
        let events = std::mem::take(&mut work.batch.events);
        for event in &events {
            match event {
                Event::Stored(stored) => self.store(stored, work, index),
                Event::Removed(removed) => self.remove(removed, work),
                Event::Cleared => {
                    self.counters.cleared += 1;
                    self.clear(work, index);
                    self.stream.cleared();
                }
            }
            if work.edits.len() >= EDITS_PER_LOCK {
                work.flush(index);
            }
        }
        work.batch.events = events;
        work.flush(index);
    }

    /// Whether a group keeps whole prefixes. Where no kind was ever reported, group 0 does.
    fn is_full(&mut self, group: u32, kind: Option<Kind>) -> bool {
        let known = self.kinds.iter_mut().find(|(known, _)| *known == group);
        match (kind, known) {
            (Some(kind), Some((_, full))) => {
                *full = kind == Kind::Full;
                *full
            }
            (Some(kind), None) => {
                if self.kinds.len() < MAX_GROUPS {
                    self.kinds.push((group, kind == Kind::Full));
                }
                kind == Kind::Full
            }
            (None, Some((_, full))) => *full,
            (None, None) => group == 0,
        }
    }

    /// The group's view, made where there is none and room for one.
    fn view(&mut self, group: u32, index: &RwLock<ExactIndex>) -> Option<usize> {
        if let Some(at) = self.views.iter().position(|view| view.group == group) {
            return Some(at);
        }
        if self.views.len() == MAX_GROUPS {
            return None;
        }
        self.tell(index); // a rank has to be known before its groups
        let lane = with(index, ExactIndex::take_lane)?;
        self.views.push(View::new(group, lane));
        self.tell_groups(index);
        Some(self.views.len() - 1)
    }

    fn tell_groups(&self, index: &RwLock<ExactIndex>) {
        let groups = self.views.iter().map(|view| view.lanes);
        with(index, |index| index.set_groups(self.row, self.rank, groups));
    }

    fn store(&mut self, stored: &Stored, work: &mut Work, index: &RwLock<ExactIndex>) {
        let count = stored.hashes.len();
        self.counters.stored += count as u64;
        let group = stored.group.unwrap_or(0);
        let tier = match stored.place {
            Place::Own(tier) => tier,
            Place::Shared => return self.counters.shared += 1,
            Place::Unknown => return self.counters.unknown_media += 1,
        };
        if !self.is_full(group, stored.kind) {
            return self.counters.skipped_groups += 1;
        }
        if count == 0 {
            return;
        }
        let tokens = stored.tokens.len();
        let block = if stored.block == 0 { tokens / count } else { stored.block as usize };
        // Slower tiers keep chunks of several blocks, the last one of a prompt cut short.
        let chunks = tier != Tier::Device && self.block != 0 && block != self.block as usize;
        if tokens > 0 {
            let least = if chunks { block * (count - 1) + 1 } else { block * count };
            if block == 0 || !(least..=block * count).contains(&tokens) {
                self.stream.distrust();
                return self.counters.malformed += 1;
            }
            if !chunks
                && self.block != block as u32
                && !self.resize(block as u32, group, work, index)
            {
                self.stream.distrust();
                return self.counters.skipped_groups += 1;
            }
        }
        let Some(at) = self.view(group, index) else {
            self.stream.distrust();
            return self.counters.over_capacity += count as u64;
        };
        if self.views[at].lacks(tier) {
            let Some(lane) = with(index, ExactIndex::take_lane) else {
                self.stream.distrust();
                return self.counters.over_capacity += count as u64;
            };
            self.views[at].open(tier, lane, &mut work.edits);
            work.flush(index);
            self.tell_groups(index);
        }
        let free = self.max_blocks.saturating_sub(self.blocks());
        if tokens == 0 {
            return self.offload(at, stored, tier, work);
        }
        if stored.lora != 0 && stored.lora != self.adapter {
            self.adapter = stored.lora;
            with(index, |index| index.add_adapter(stored.lora));
        }
        let extras = &work.batch.extras[stored.extras.clone()];
        let root = stored.parent.is_none();
        let marked = stored.lora != 0 || extras.first().is_some_and(|&first| first != 0);
        self.tenants |= root && marked;
        let Some(start) = self.start(at, stored) else {
            // No loss: numbers tell those. A replay would say the same again.
            self.stream.distrust();
            return self.counters.unknown_parents += 1;
        };
        if tier != Tier::Device {
            let said = Said { start, tier, group: at, block, root, free };
            return self.store_slow(&said, stored, work);
        }
        let hashes = &work.batch.hashes[stored.hashes.clone()];
        work.keys.clear();
        keys::chain(
            start,
            &work.batch.tokens[stored.tokens.clone()],
            self.block as usize,
            |i| extras.get(i).copied().unwrap_or(0),
            &mut work.keys,
        );
        let taken = count.min(free);
        let view = &mut self.views[at];
        for (hashes, keys) in hashes[..taken].chunks(WINDOW).zip(work.keys.chunks(WINDOW)) {
            view.map.warm(hashes);
            for (&hash, &key) in hashes.iter().zip(keys) {
                view.store(hash, key, tier, &mut work.edits);
            }
        }
        self.full(count - taken);
    }

    /// What the event's chain of keys starts from; none if its parent is not known.
    fn start(&self, at: usize, stored: &Stored) -> Option<u64> {
        match stored.parent {
            None => Some(keys::root(self.seed, stored.lora)),
            Some(parent) => self.views[at].map.get(parent).map(|(key, _)| key),
        }
    }

    /// Takes note of blocks for which there was no room.
    pub(super) fn full(&mut self, blocks: usize) {
        if blocks > 0 {
            self.stream.distrust();
            self.counters.over_capacity += blocks as u64;
        }
    }

    /// Takes another block size, if the group is the one that sets it: what was held is void.
    fn resize(
        &mut self,
        block: u32,
        group: u32,
        work: &mut Work,
        index: &RwLock<ExactIndex>,
    ) -> bool {
        if self.block != 0 {
            if self.views.first().is_some_and(|view| view.group != group) {
                return false;
            }
            self.counters.block_sizes += 1;
            self.clear(work, index);
            // What it forgot, the engine may still hold.
            self.stream.distrust();
        }
        self.block = block;
        self.tell(index);
        true
    }

    fn remove(&mut self, removed: &Removed, work: &mut Work) {
        self.counters.removed += removed.hashes.len() as u64;
        let group = removed.group.unwrap_or(0);
        let (Place::Own(tier), Some(view)) =
            (removed.place, self.views.iter_mut().find(|view| view.group == group))
        else {
            return;
        };
        let chunked = self.chunked && tier != Tier::Device;
        for hashes in work.batch.hashes[removed.hashes.clone()].chunks(WINDOW) {
            view.map.warm(hashes);
            for &hash in hashes {
                let mut known = view.remove(hash, tier, &mut work.edits);
                if chunked {
                    known |= remove_parts(view, hash, tier, &mut work.edits);
                }
                self.counters.unknown_removed += u64::from(!known);
            }
        }
    }
}
