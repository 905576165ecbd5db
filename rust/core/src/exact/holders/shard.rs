//! A part of the table: slots by key, and the bitmaps of blocks that many lanes hold.

use crate::exact::slots::{ahead, grown, home, is_full, shrunk};

/// Lanes that a slot names itself: 4 × 15 bits, so that a bitmap is only made for five or more.
pub const FEW: usize = 4;
const LANE_BITS: u32 = 15;
pub const LANE_MASK: u64 = (1 << LANE_BITS) - 1;
/// Marks a value that is the place of a bitmap.
const POOLED: u64 = 1 << 63;
/// 512 shards: one of 4,000 blocks, of a fleet's two million, grows in some 50 µs.
pub const SHARD_BITS: u32 = 9;

/// Bitmaps of one length, one after the other.
#[derive(Debug, Clone)]
pub struct Pool {
    pub words: Vec<u64>,
    stride: usize,
    pub free: Vec<u32>,
}

impl Pool {
    pub fn new(stride: usize) -> Self {
        Self { words: Vec::new(), stride, free: Vec::new() }
    }

    pub fn get(&self, place: usize) -> &[u64] {
        &self.words[place * self.stride..][..self.stride]
    }

    fn get_mut(&mut self, place: usize) -> &mut [u64] {
        &mut self.words[place * self.stride..][..self.stride]
    }

    pub fn sets(&self) -> usize {
        self.words.len() / self.stride
    }

    fn take(&mut self) -> usize {
        if let Some(place) = self.free.pop() {
            return place as usize;
        }
        let place = self.sets();
        if self.words.len() == self.words.capacity() {
            self.words.reserve_exact((place / 8 + 2) * self.stride);
        }
        self.words.resize(self.words.len() + self.stride, 0);
        place
    }
}

#[derive(Debug, Clone)]
pub struct Shard {
    pub slots: Vec<(u64, u64)>,
    pub entries: usize,
    pub pool: Pool,
}

/// Lanes + 1 of an inline value; 0 ends the list.
pub fn few(value: u64) -> [u64; FEW] {
    [0, 1, 2, 3].map(|at| (value >> (at * LANE_BITS)) & LANE_MASK)
}

fn pack(lanes: [u64; FEW]) -> u64 {
    lanes.iter().rev().fold(0, |value, lane| value << LANE_BITS | lane)
}

pub fn is_pooled(value: u64) -> bool {
    value & POOLED != 0
}

pub fn place(value: u64) -> usize {
    (value & !POOLED) as usize
}

impl Shard {
    /// The key's slot, or the empty one where it would go. Never called on a table without slots.
    fn probe(&self, key: u64) -> (usize, u64) {
        let len = self.slots.len();
        let mut at = home(key << SHARD_BITS, len);
        loop {
            let (found, value) = self.slots[at];
            if found == key || value == 0 {
                return (at, value);
            }
            at += 1;
            if at == len {
                at = 0;
            }
        }
    }

    pub fn first(&self, key: u64) -> u64 {
        self.slots.get(home(key << SHARD_BITS, self.slots.len())).map_or(0, |slot| slot.1)
    }

    pub fn value(&self, key: u64) -> u64 {
        if self.slots.is_empty() { 0 } else { self.probe(key).1 }
    }

    fn resize(&mut self, len: usize) {
        let old = std::mem::replace(&mut self.slots, vec![(0, 0); len]);
        for (key, value) in old {
            if value != 0 {
                let (at, _) = self.probe(key);
                self.insert(at, key, value);
            }
        }
    }

    pub fn add(&mut self, key: u64, lane: u32) {
        if is_full(self.entries, self.slots.len()) {
            self.resize(grown(self.slots.len()));
        }
        let (at, value) = self.probe(key);
        let with = self.with(value, lane);
        if value == 0 {
            self.entries += 1;
            self.insert(at, key, with);
        } else {
            self.slots[at].1 = with;
        }
    }

    fn with(&mut self, value: u64, lane: u32) -> u64 {
        if is_pooled(value) {
            let set = self.pool.get_mut(place(value));
            set[lane as usize / 64] |= 1 << (lane % 64);
            return value;
        }
        let mut lanes = few(value);
        for slot in &mut lanes {
            if *slot == u64::from(lane) + 1 {
                return value;
            }
            if *slot == 0 {
                *slot = u64::from(lane) + 1;
                return pack(lanes);
            }
        }
        let place = self.pool.take();
        let set = self.pool.get_mut(place);
        set.fill(0);
        for lane in lanes.map(|lane| lane as usize - 1).into_iter().chain([lane as usize]) {
            set[lane / 64] |= 1 << (lane % 64);
        }
        POOLED | place as u64
    }

    pub fn remove(&mut self, key: u64, lane: u32) {
        if self.slots.is_empty() {
            return;
        }
        let (at, value) = self.probe(key);
        if value == 0 {
            return;
        }
        let left = self.without(value, lane);
        self.slots[at].1 = left;
        if left == 0 {
            self.entries -= 1;
            self.close_gap(at);
            if let Some(len) = shrunk(self.entries, self.slots.len()) {
                self.resize(len);
            }
        }
    }

    fn without(&mut self, value: u64, lane: u32) -> u64 {
        if !is_pooled(value) {
            let (mut lanes, mut kept) = ([0; FEW], 0);
            for slot in few(value) {
                if slot != 0 && slot != u64::from(lane) + 1 {
                    lanes[kept] = slot;
                    kept += 1;
                }
            }
            return pack(lanes);
        }
        let set = self.pool.get_mut(place(value));
        set[lane as usize / 64] &= !(1 << (lane % 64));
        // Back to the slot at three, not four: a lane that comes and goes moves nothing.
        if set.iter().map(|word| word.count_ones()).sum::<u32>() >= FEW as u32 {
            return value;
        }
        let (mut lanes, mut kept) = ([0; FEW], 0);
        bits(set, |lane| {
            lanes[kept] = u64::from(lane) + 1;
            kept += 1;
        });
        self.pool.free.push(place(value) as u32);
        pack(lanes)
    }

    /// Puts a new entry where a probe ended. Entries stay in the order of their homes: whoever
    /// belongs behind the new one moves a slot on.
    fn insert(&mut self, mut at: usize, key: u64, value: u64) {
        let len = self.slots.len();
        let own = home(key << SHARD_BITS, len);
        while at != own {
            let before = if at == 0 { len - 1 } else { at - 1 };
            let from = home(self.slots[before].0 << SHARD_BITS, len);
            if ahead(from, at, len) >= ahead(own, at, len) {
                break;
            }
            self.slots[at] = self.slots[before];
            at = before;
        }
        self.slots[at] = (key, value);
    }

    /// Moves back what was pushed past a slot that is empty now, up to the first that is at home.
    fn close_gap(&mut self, mut gap: usize) {
        let len = self.slots.len();
        loop {
            let next = if gap + 1 == len { 0 } else { gap + 1 };
            let (key, value) = self.slots[next];
            if value == 0 || home(key << SHARD_BITS, len) == next {
                self.slots[gap].1 = 0;
                return;
            }
            self.slots[gap] = (key, value);
            gap = next;
        }
    }

    /// Copies the bitmaps in use next to one another, of `stride` words each.
    pub fn repack(&mut self, stride: usize) {
        let sets = self.pool.sets() - self.pool.free.len();
        let words = Vec::with_capacity(sets * stride);
        let old = std::mem::replace(&mut self.pool, Pool { words, stride, free: Vec::new() });
        for (_, value) in self.slots.iter_mut().filter(|(_, value)| is_pooled(*value)) {
            let place = self.pool.take();
            let set = old.get(self::place(*value));
            let shared = set.len().min(stride);
            self.pool.get_mut(place)[..shared].copy_from_slice(&set[..shared]);
            *value = POOLED | place as u64;
        }
    }
}

/// Calls `f` with every lane of a bitmap.
pub fn bits(set: &[u64], mut f: impl FnMut(u32)) {
    for (at, &word) in set.iter().enumerate() {
        let mut word = word;
        while word != 0 {
            f(at as u32 * 64 + word.trailing_zeros());
            word &= word - 1;
        }
    }
}
