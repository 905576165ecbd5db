//! Events → edits: the part of a publisher that knows blocks, groups and tiers.

use std::sync::RwLock;

use super::{EDITS_PER_LOCK, Publisher, Work, with};
use crate::exact::event::{Event, Kind, Place, Removed, Stored};
use crate::exact::slots::WINDOW;
use crate::exact::view::View;
use crate::exact::{ExactIndex, RankState, keys};

/// Cache groups of one engine; hybrid models have a handful.
const MAX_GROUPS: usize = 16;

impl Publisher {
    pub(super) fn clear(&mut self, work: &mut Work, index: &RwLock<ExactIndex>) {
        work.flush(index);
        // From here on no lookup sees any of it, however long the clearing takes.
        self.told = Some(RankState { block: self.block, exact: false, suspended: true });
        let state = self.told.unwrap_or_default();
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
        self.counters.other_ranks += u64::from(work.batch.rank.is_some_and(|r| r != self.rank));
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

    /// Whether a group keeps whole prefixes. Where no kind was ever told, group 0 does.
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
        let (tokens, block) = (stored.tokens.len(), stored.block as usize);
        if tokens > 0 {
            let block = if block == 0 { tokens / count } else { block };
            if block == 0 || tokens != block * count {
                self.stream.distrust();
                return self.counters.malformed += 1;
            }
            if self.block != block as u32 && !self.resize(block as u32, group, work, index) {
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
        let view = &mut self.views[at];
        let hashes = &work.batch.hashes[stored.hashes.clone()];
        if tokens == 0 {
            // Offload events of older engines: blocks that are known move to a tier more.
            for &hash in hashes {
                match view.map.get(hash) {
                    Some((key, _)) => view.store(hash, key, tier, &mut work.edits),
                    None => self.counters.unknown_hashes += 1,
                }
            }
            return;
        }
        if stored.lora != 0 && stored.lora != self.adapter {
            self.adapter = stored.lora;
            with(index, |index| index.add_adapter(stored.lora));
        }
        let start = match stored.parent {
            None => keys::root(self.seed, stored.lora),
            Some(parent) => match view.map.get(parent) {
                Some((key, _)) => key,
                None => {
                    // No loss: numbers tell those. A replay would say the same again.
                    self.stream.distrust();
                    return self.counters.unknown_parents += 1;
                }
            },
        };
        let extras = &work.batch.extras[stored.extras.clone()];
        work.keys.clear();
        keys::chain(
            start,
            &work.batch.tokens[stored.tokens.clone()],
            self.block as usize,
            |i| extras.get(i).copied().unwrap_or(0),
            &mut work.keys,
        );
        let taken = count.min(free);
        for (hashes, keys) in hashes[..taken].chunks(WINDOW).zip(work.keys.chunks(WINDOW)) {
            view.map.warm(hashes);
            for (&hash, &key) in hashes.iter().zip(keys) {
                view.store(hash, key, tier, &mut work.edits);
            }
        }
        if free < count {
            self.stream.distrust();
            self.counters.over_capacity += (count - free) as u64;
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
        for hashes in work.batch.hashes[removed.hashes.clone()].chunks(WINDOW) {
            view.map.warm(hashes);
            for &hash in hashes {
                if !view.remove(hash, tier, &mut work.edits) {
                    self.counters.unknown_removed += 1;
                }
            }
        }
    }
}
