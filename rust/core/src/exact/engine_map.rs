//! One engine's own block hashes → our keys, with counts per tier: what its removals refer to.

use super::Tier;
use super::slots::{ahead, grown, home, is_full, shrunk};

// Bits of a count of device, host and disk: they share one word with nothing to spare.
const BITS: [u32; 3] = [11, 11, 10];
const SHIFT: [u32; 3] = [0, 11, 22];

/// How often a block is stored on each tier; all zero means nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts(u32);

impl Counts {
    /// Times stored and not removed.
    pub fn of(self, tier: Tier) -> u32 {
        let tier = tier as usize;
        (self.0 >> SHIFT[tier]) & ((1 << BITS[tier]) - 1)
    }

    /// One store more. A count at its end stays: the block then leaves early, never late.
    #[must_use]
    pub fn plus(self, tier: Tier) -> Self {
        let full = self.of(tier) == (1 << BITS[tier as usize]) - 1;
        Self(self.0 + (u32::from(!full) << SHIFT[tier as usize]))
    }

    /// One removal; none below zero.
    #[must_use]
    pub fn minus(self, tier: Tier) -> Self {
        Self(self.0 - (u32::from(self.of(tier) > 0) << SHIFT[tier as usize]))
    }

    /// Whether the block is on this tier or a faster one.
    pub fn within(self, tier: Tier) -> bool {
        let bits = SHIFT[tier as usize] + BITS[tier as usize];
        self.0 & (u32::MAX >> (32 - bits)) != 0
    }

    fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// Twenty bytes, in words of four so that none is lost to alignment; no counts: an empty slot.
#[derive(Debug, Clone, Copy)]
struct Slot([u32; 5]);

impl Slot {
    const EMPTY: Self = Self([0; 5]);

    fn new(hash: u64, key: u64, counts: Counts) -> Self {
        Self([hash as u32, (hash >> 32) as u32, key as u32, (key >> 32) as u32, counts.0])
    }

    fn hash(self) -> u64 {
        u64::from(self.0[0]) | u64::from(self.0[1]) << 32
    }

    fn key(self) -> u64 {
        u64::from(self.0[2]) | u64::from(self.0[3]) << 32
    }

    fn counts(self) -> Counts {
        Counts(self.0[4])
    }
}

/// Open addressing over [`Slot`]s. Gives memory back as it empties.
#[derive(Debug, Clone, Default)]
pub struct EngineMap {
    slots: Vec<Slot>,
    entries: usize,
}

/// Engines may number their blocks: a multiplication spreads small numbers.
fn start(hash: u64, len: usize) -> usize {
    home(hash.wrapping_mul(0x9E37_79B9_7F4A_7C15), len)
}

impl EngineMap {
    fn probe(&self, hash: u64) -> usize {
        let len = self.slots.len();
        let mut at = start(hash, len);
        loop {
            let slot = self.slots[at];
            if slot.counts().is_none() || slot.hash() == hash {
                return at;
            }
            at += 1;
            if at == len {
                at = 0;
            }
        }
    }

    /// Our key of the engine's block and where it lies.
    pub fn get(&self, hash: u64) -> Option<(u64, Counts)> {
        if self.slots.is_empty() {
            return None;
        }
        let slot = self.slots[self.probe(hash)];
        (!slot.counts().is_none()).then(|| (slot.key(), slot.counts()))
    }

    /// Stores a block; gives what was known under its hash before.
    pub fn put(&mut self, hash: u64, key: u64, tier: Tier) -> Option<(u64, Counts)> {
        if is_full(self.entries, self.slots.len()) {
            self.resize(grown(self.slots.len()));
        }
        let at = self.probe(hash);
        let slot = self.slots[at];
        if slot.counts().is_none() {
            self.entries += 1;
            self.insert(at, Slot::new(hash, key, Counts::default().plus(tier)));
            return None;
        }
        // The same hash for other tokens is another block: it starts anew.
        let before = if slot.key() == key { slot.counts() } else { Counts::default() };
        self.slots[at] = Slot::new(hash, key, before.plus(tier));
        Some((slot.key(), slot.counts()))
    }

    /// Takes one store back; gives key and counts before. None if the tier has no such block.
    pub fn take(&mut self, hash: u64, tier: Tier) -> Option<(u64, Counts)> {
        if self.slots.is_empty() {
            return None;
        }
        let at = self.probe(hash);
        let slot = self.slots[at];
        let before = slot.counts();
        if before.of(tier) == 0 {
            return None;
        }
        let after = before.minus(tier);
        self.slots[at] = Slot::new(hash, slot.key(), after);
        if after.is_none() {
            self.entries -= 1;
            self.close_gap(at);
            if let Some(len) = shrunk(self.entries, self.slots.len()) {
                self.resize(len);
            }
        }
        Some((slot.key(), before))
    }

    /// As in `holders/shard.rs`: entries stay in the order of their homes.
    fn insert(&mut self, mut at: usize, slot: Slot) {
        let len = self.slots.len();
        let own = start(slot.hash(), len);
        while at != own {
            let before = if at == 0 { len - 1 } else { at - 1 };
            let from = start(self.slots[before].hash(), len);
            if ahead(from, at, len) >= ahead(own, at, len) {
                break;
            }
            self.slots[at] = self.slots[before];
            at = before;
        }
        self.slots[at] = slot;
    }

    fn close_gap(&mut self, mut gap: usize) {
        let len = self.slots.len();
        loop {
            let next = if gap + 1 == len { 0 } else { gap + 1 };
            let slot = self.slots[next];
            if slot.counts().is_none() || start(slot.hash(), len) == next {
                self.slots[gap] = Slot::EMPTY;
                return;
            }
            self.slots[gap] = slot;
            gap = next;
        }
    }

    fn resize(&mut self, len: usize) {
        let old = std::mem::replace(&mut self.slots, vec![Slot::EMPTY; len]);
        for slot in old {
            if !slot.counts().is_none() {
                self.insert(self.probe(slot.hash()), slot);
            }
        }
    }

    /// Blocks in it.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Reads where these hashes belong, all at once: their cache misses then overlap, while a
    /// probe's next step waits for the last.
    pub fn warm(&self, hashes: &[u64]) {
        let len = self.slots.len();
        let read = |&hash: &u64| self.slots.get(start(hash, len)).map_or(0, |slot| slot.0[4]);
        std::hint::black_box(hashes.iter().map(read).fold(0, |all, word| all ^ word));
    }

    /// Every block's key and counts, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Counts)> {
        let held = self.slots.iter().filter(|slot| !slot.counts().is_none());
        held.map(|slot| (slot.key(), slot.counts()))
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn it_agrees_with_a_hash_map_while_blocks_come_and_go() {
        let (mut rng, mut map) = (Rng::new(1), EngineMap::default());
        let mut naive: HashMap<u64, u32> = HashMap::new();
        for step in 0..200_000_usize {
            // Grows, shrinks, grows: hashes as dense as an engine that numbers its blocks.
            let hash = rng.below(500 + (step / 100) % 1000) as u64;
            if rng.below(1000) < if (step / 20_000) % 2 == 0 { 700 } else { 300 } {
                map.put(hash, hash * 3, Tier::Device);
                *naive.entry(hash).or_default() += 1;
            } else {
                let known = naive.get(&hash).copied();
                assert_eq!(map.take(hash, Tier::Device).map(|(_, c)| c.of(Tier::Device)), known);
                match known {
                    Some(1) => _ = naive.remove(&hash),
                    Some(n) => _ = naive.insert(hash, n - 1),
                    None => {}
                }
            }
            assert_eq!(map.len(), naive.len());
        }
        for (&hash, &count) in &naive {
            let (key, counts) = map.get(hash).unwrap();
            assert_eq!((key, counts.of(Tier::Device)), (hash * 3, count));
        }
    }

    #[test]
    fn counts_of_tiers_do_not_touch_one_another_and_stay_in_bounds() {
        let mut counts = Counts::default();
        for _ in 0..5000 {
            counts = counts.plus(Tier::Host);
        }
        assert_eq!([0, 1, 2].map(|i| counts.of(Tier::ALL[i])), [0, 2047, 0]);
        assert!(!counts.within(Tier::Device) && counts.within(Tier::Host));
        for _ in 0..5000 {
            counts = counts.minus(Tier::Host).minus(Tier::Disk);
        }
        assert_eq!(counts, Counts::default());
    }
}
