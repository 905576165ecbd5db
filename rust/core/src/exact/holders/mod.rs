//! Block key → the lanes that hold it, in flat tables that grow by a quarter.
//!
//! A lane is one bit of a fleet: a row, data-parallel rank, cache group and tier. A slot is 16
//! bytes: the key, and either up to four lanes or the place of a bitmap over all lanes. Slots lie
//! in shards, so that growing one stops readers for microseconds, not for the whole table.

mod shard;

use shard::{FEW, LANE_MASK, Pool, SHARD_BITS, Shard, bits, few, is_pooled, place};

use super::slots::WINDOW;

/// Most lanes that a table can tell apart.
pub const MAX_LANES: u32 = LANE_MASK as u32;

/// One change: the lane now holds the block, or no longer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edit {
    /// The block's own key.
    pub key: u64,
    /// Which bit.
    pub lane: u32,
    /// Held from now on, or not.
    pub held: bool,
}
/// The table: which lanes hold a block.
#[derive(Debug, Clone)]
pub struct Holders {
    shards: Vec<Shard>,
    stride: usize,
}

impl Default for Holders {
    fn default() -> Self {
        let shard = Shard { slots: Vec::new(), entries: 0, pool: Pool::new(1) };
        Self { shards: vec![shard; 1 << SHARD_BITS], stride: 1 }
    }
}

impl Holders {
    fn shard(&self, key: u64) -> &Shard {
        &self.shards[(key >> (64 - SHARD_BITS)) as usize]
    }

    /// Makes room for lanes `0..lanes`.
    pub fn widen(&mut self, lanes: usize) {
        let stride = lanes.div_ceil(64).next_power_of_two();
        if stride > self.stride {
            self.stride = stride;
            self.shards.iter_mut().for_each(|shard| shard.repack(stride));
        }
    }

    /// Words of a bitmap over all lanes.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Applies changes in order; repeated ones change nothing.
    pub fn edit(&mut self, edits: &[Edit]) {
        for edits in edits.chunks(WINDOW) {
            // Reads where all of them belong first, so that their cache misses overlap.
            let read = |edit: &Edit| self.shard(edit.key).first(edit.key);
            std::hint::black_box(edits.iter().map(read).fold(0, |all, value| all ^ value));
            self.edit_few(edits);
        }
    }

    fn edit_few(&mut self, edits: &[Edit]) {
        for edit in edits {
            let shard = &mut self.shards[(edit.key >> (64 - SHARD_BITS)) as usize];
            if edit.held {
                shard.add(edit.key, edit.lane);
            } else {
                shard.remove(edit.key, edit.lane);
                if shard.pool.free.len() > 64 && shard.pool.free.len() * 2 > shard.pool.sets() {
                    shard.repack(self.stride);
                }
            }
        }
    }

    /// Whether the lane holds the block.
    #[cfg(test)]
    fn holds(&self, key: u64, lane: u32) -> bool {
        let shard = self.shard(key);
        let value = shard.value(key);
        if is_pooled(value) {
            return is_set(shard.pool.get(place(value)), u64::from(lane));
        }
        few(value).contains(&(u64::from(lane) + 1))
    }

    /// Walks a chain of keys while any lane of `alive` holds every block so far.
    ///
    /// `died(lane, k)` is called once for each lane that misses block `k`. Lanes still set in
    /// `alive` at the end hold all of `keys`. One pass serves all lanes.
    pub fn walk(&self, keys: &[u64], alive: &mut [u64], died: impl FnMut(u32, u32)) {
        if self.stride == 1 {
            self.walk_narrow(keys, alive, died);
        } else {
            self.walk_wide(keys, alive, died);
        }
    }

    fn walk_narrow(&self, keys: &[u64], alive: &mut [u64], mut died: impl FnMut(u32, u32)) {
        let mut left = alive[0];
        for (depth, &key) in keys.iter().enumerate() {
            let shard = self.shard(key);
            let value = shard.value(key);
            let mask = if is_pooled(value) {
                shard.pool.words[place(value)]
            } else {
                few(value).iter().fold(0, |mask, &lane| {
                    mask | u64::from(lane != 0) << (lane.wrapping_sub(1) & 63)
                })
            };
            let dead = left & !mask;
            if dead != 0 {
                bits(&[dead], |lane| died(lane, depth as u32));
                left &= mask;
                if left == 0 {
                    break;
                }
            }
        }
        alive[0] = left;
    }

    fn walk_wide(&self, keys: &[u64], alive: &mut [u64], mut died: impl FnMut(u32, u32)) {
        let count = |words: &[u64]| words.iter().map(|word| word.count_ones()).sum::<u32>();
        let mut left = count(alive);
        for (depth, &key) in keys.iter().enumerate() {
            if left == 0 {
                return;
            }
            let shard = self.shard(key);
            let value = shard.value(key);
            if is_pooled(value) {
                let set = shard.pool.get(place(value));
                if alive.iter().zip(set).all(|(alive, set)| alive & !set == 0) {
                    continue;
                }
                for (at, (alive, &set)) in alive.iter_mut().zip(set).enumerate() {
                    bits(&[*alive & !set], |lane| died(at as u32 * 64 + lane, depth as u32));
                    *alive &= set;
                }
                left = count(alive);
            } else {
                let mut stay = [0_u64; FEW];
                let mut kept = 0;
                for lane in few(value) {
                    if lane != 0 && is_set(alive, lane - 1) {
                        stay[kept] = lane;
                        kept += 1;
                    }
                }
                if kept as u32 == left {
                    continue;
                }
                for &lane in &stay[..kept] {
                    alive[(lane - 1) as usize / 64] &= !(1 << ((lane - 1) % 64));
                }
                bits(alive, |lane| died(lane, depth as u32));
                alive.fill(0);
                for &lane in &stay[..kept] {
                    alive[(lane - 1) as usize / 64] |= 1 << ((lane - 1) % 64);
                }
                left = kept as u32;
            }
        }
    }

    /// Blocks that any lane holds.
    pub fn blocks(&self) -> usize {
        self.shards.iter().map(|shard| shard.entries).sum()
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        let of = |shard: &Shard| {
            16 * shard.slots.capacity()
                + 8 * shard.pool.words.capacity()
                + 4 * shard.pool.free.capacity()
                + size_of::<Shard>()
        };
        self.shards.iter().map(of).sum()
    }
}

fn is_set(set: &[u64], lane: u64) -> bool {
    set[lane as usize / 64] >> (lane % 64) & 1 == 1
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::hash::mix;
    use crate::rng::Rng;

    /// Random changes over chains of keys; then every lane's walk against sets.
    fn agree(lanes: u32, steps: usize, seed: u64) {
        let (mut rng, mut holders) = (Rng::new(seed), Holders::default());
        let mut naive: HashMap<u64, HashSet<u32>> = HashMap::new();
        let chains: Vec<Vec<u64>> = (0..40)
            .map(|chain| (0..12).map(|i| mix(if i < 4 { i } else { chain * 100 + i })).collect())
            .collect();
        holders.widen(lanes as usize);
        for step in 0..steps {
            let key = chains[rng.below(40)][rng.below(12)];
            let lane = rng.below(lanes as usize) as u32;
            // First mostly filling, then mostly emptying: sets grow into bitmaps and back.
            let held = rng.below(10) < if step * 2 < steps { 8 } else { 2 };
            holders.edit(&[Edit { key, lane, held }]);
            let set = naive.entry(key).or_default();
            if held {
                set.insert(lane)
            } else {
                set.remove(&lane)
            };
            if step % (steps / 20) == 0 {
                check(&holders, &naive, &chains, lanes);
            }
        }
        check(&holders, &naive, &chains, lanes);
        for (key, set) in naive {
            for lane in set {
                holders.edit(&[Edit { key, lane, held: false }]);
            }
        }
        assert_eq!(holders.blocks(), 0);
    }

    fn check(
        holders: &Holders,
        naive: &HashMap<u64, HashSet<u32>>,
        chains: &[Vec<u64>],
        lanes: u32,
    ) {
        assert_eq!(holders.blocks(), naive.values().filter(|set| !set.is_empty()).count());
        for keys in chains {
            let mut alive = vec![0; holders.stride()];
            (0..lanes).for_each(|lane| alive[lane as usize / 64] |= 1 << (lane % 64));
            let mut depth = vec![keys.len(); lanes as usize];
            holders.walk(keys, &mut alive, |lane, at| depth[lane as usize] = at as usize);
            for lane in 0..lanes {
                let held = |key: &&u64| naive.get(key).is_some_and(|set| set.contains(&lane));
                let expected = keys.iter().take_while(held).count();
                assert_eq!(depth[lane as usize], expected, "lane {lane}");
                assert_eq!(is_set(&alive, u64::from(lane)), expected == keys.len());
            }
        }
    }

    #[test]
    fn walks_agree_with_sets_for_fleets_of_all_sizes() {
        for (lanes, steps) in [(1, 2000), (3, 4000), (64, 40_000), (65, 40_000), (700, 60_000)] {
            agree(lanes, steps, u64::from(lanes));
        }
    }

    #[test]
    fn a_fleet_that_grows_keeps_what_it_holds() {
        let mut holders = Holders::default();
        for lane in 0..300 {
            holders.widen(lane as usize + 1);
            holders.edit(&[Edit { key: 7, lane, held: true }]);
        }
        assert!((0..300).all(|lane| holders.holds(7, lane)));
        assert!(!holders.holds(8, 0));
    }
}
