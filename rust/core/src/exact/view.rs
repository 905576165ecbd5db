//! What one cache group of one engine holds: its hashes, and the lanes that they set.

use super::engine_map::{Counts, EngineMap};
use super::holders::Edit;
use super::{Lanes, TIERS, Tier};

#[derive(Debug, Clone)]
pub struct View {
    pub group: u32,
    pub map: EngineMap,
    pub lanes: Lanes,
}

impl View {
    pub fn new(group: u32, lane: u32) -> Self {
        Self { group, map: EngineMap::default(), lanes: [lane; TIERS] }
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

    pub fn store(&mut self, hash: u64, key: u64, tier: Tier, edits: &mut Vec<Edit>) {
        let none = Counts::default();
        match self.map.put(hash, key, tier) {
            Some((old, before)) if old != key => {
                self.change(old, before, none, edits);
                self.change(key, none, none.plus(tier), edits);
            }
            known => {
                let before = known.map_or(none, |(_, before)| before);
                self.change(key, before, before.plus(tier), edits);
            }
        }
    }

    /// Takes one store of the block back; false if this tier has none.
    pub fn remove(&mut self, hash: u64, tier: Tier, edits: &mut Vec<Edit>) -> bool {
        let Some((key, before)) = self.map.take(hash, tier) else { return false };
        self.change(key, before, before.minus(tier), edits);
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
        let held = self.map.iter().filter(|(_, counts)| counts.within(tier));
        edits.extend(held.map(|(key, _)| Edit { key, lane, held: true }));
    }

    /// Forgets all blocks and gives their memory back.
    pub fn clear(&mut self, edits: &mut Vec<Edit>) {
        let map = std::mem::take(&mut self.map);
        for (key, counts) in map.iter() {
            self.change(key, counts, Counts::default(), edits);
        }
    }
}
