//! What one cache group of one engine holds: its hashes, and the lanes that they set.

use super::engine_map::{Counts, EngineMap};
use super::holders::Edit;
use super::{Lanes, TIERS, Tier};

#[derive(Debug, Clone)]
pub struct View {
    pub group: u32,
    pub map: EngineMap,
    pub lanes: Lanes,
    /// Counts by our keys, where one block may lie under several hashes of the engine's: blocks of
    /// the device also in chunks of a slower tier.
    by_key: Option<EngineMap>,
}

impl View {
    pub fn new(group: u32, lane: u32) -> Self {
        Self { group, map: EngineMap::default(), lanes: [lane; TIERS], by_key: None }
    }

    fn change(&self, key: u64, before: Counts, after: Counts, edits: &mut Vec<Edit>) {
        for (at, &tier) in Tier::ALL.iter().enumerate() {
            let lane = self.lanes[at];
            // A tier without a lane of its own goes with the faster one.
            if (at == 0 || lane != self.lanes[at - 1]) && after.within(tier) != before.within(tier)
            {
                edits.push(Edit { key, lane, held: after.within(tier) });
            }
        }
    }

    /// From now on blocks may lie under several hashes.
    pub fn count_by_key(&mut self) {
        if self.by_key.is_some() {
            return;
        }
        let mut all = EngineMap::default();
        for (key, counts) in self.map.iter() {
            for tier in Tier::ALL {
                (0..counts.of(tier)).for_each(|_| _ = all.put(key, key, tier));
            }
        }
        self.by_key = Some(all);
    }

    /// One store more of a block that had `own` under its hash.
    fn plus(&mut self, key: u64, own: Counts, tier: Tier, edits: &mut Vec<Edit>) {
        let before = match &mut self.by_key {
            Some(all) => all.put(key, key, tier).map_or(Counts::default(), |(_, counts)| counts),
            None => own,
        };
        self.change(key, before, before.plus(tier), edits);
    }

    /// One store less of a block that had `own` under its hash.
    fn minus(&mut self, key: u64, own: Counts, tier: Tier, edits: &mut Vec<Edit>) {
        let before = match &mut self.by_key {
            Some(all) => all.take(key, tier).map_or(own, |(_, counts)| counts),
            None => own,
        };
        self.change(key, before, before.minus(tier), edits);
    }

    pub fn store(&mut self, hash: u64, key: u64, tier: Tier, edits: &mut Vec<Edit>) {
        let none = Counts::default();
        match self.map.put(hash, key, tier) {
            Some((old, before)) if old != key => {
                let mut left = before;
                for tier in Tier::ALL {
                    for _ in 0..before.of(tier) {
                        self.minus(old, left, tier, edits);
                        left = left.minus(tier);
                    }
                }
                self.plus(key, none, tier, edits);
            }
            known => {
                let before = known.map_or(none, |(_, before)| before);
                self.plus(key, before, tier, edits);
            }
        }
    }

    /// Takes one store of the block back; false if this tier has none.
    pub fn remove(&mut self, hash: u64, tier: Tier, edits: &mut Vec<Edit>) -> bool {
        let Some((key, before)) = self.map.take(hash, tier) else { return false };
        self.minus(key, before, tier, edits);
        true
    }

    /// Whether the tier still shares the lane of a faster one.
    pub fn lacks(&self, tier: Tier) -> bool {
        let tier = tier as usize;
        tier > 0 && self.lanes[tier] == self.lanes[tier - 1]
    }

    /// Gives the tier a lane of its own, which must be empty, and fills it.
    pub fn open(&mut self, tier: Tier, lane: u32, edits: &mut Vec<Edit>) {
        let shared = self.lanes[tier as usize];
        for slower in &mut self.lanes[tier as usize..] {
            if *slower == shared {
                *slower = lane;
            }
        }
        let all = self.by_key.as_ref().unwrap_or(&self.map);
        let held = all.iter().filter(|(_, counts)| counts.within(tier));
        edits.extend(held.map(|(key, _)| Edit { key, lane, held: true }));
    }

    /// Forgets all blocks and gives their memory back.
    pub fn clear(&mut self, edits: &mut Vec<Edit>) {
        let own = std::mem::take(&mut self.map);
        let map = self.by_key.take().unwrap_or(own);
        for (key, counts) in map.iter() {
            self.change(key, counts, Counts::default(), edits);
        }
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        self.map.bytes() + self.by_key.as_ref().map_or(0, EngineMap::bytes)
    }
}
