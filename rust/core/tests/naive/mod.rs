//! The obvious versions: too simple to be wrong, too slow to ship.

use std::collections::HashMap;

/// A block of one row: who uses it, whether it is confirmed, and when it was let go.
#[derive(Debug, Clone, Copy, Default)]
struct Block {
    users: u32,
    confirmed: bool,
    released: u64,
}

/// The prefix index as one dictionary of prefixes per row.
#[derive(Debug, Default)]
pub struct NaiveIndex {
    rows: HashMap<u32, HashMap<Vec<u64>, Block>>,
    capacity: HashMap<u32, usize>,
    default_capacity: usize,
    clock: u64,
}

impl NaiveIndex {
    pub fn new(default_capacity: usize) -> Self {
        Self { default_capacity, ..Self::default() }
    }

    pub fn depth(&self, row: u32, chain: &[u64]) -> usize {
        let Some(blocks) = self.rows.get(&row) else { return 0 };
        (1..=chain.len()).take_while(|&n| blocks.contains_key(&chain[..n])).count()
    }

    pub fn in_use(&self, row: u32, chain: &[u64]) -> usize {
        let Some(blocks) = self.rows.get(&row) else { return 0 };
        let used = |n: &usize| blocks.get(&chain[..*n]).is_some_and(|block| block.users > 0);
        (1..=chain.len()).take_while(used).count()
    }

    pub fn held(&self, row: u32) -> usize {
        self.rows.get(&row).map_or(0, HashMap::len)
    }

    pub fn pinned(&self, row: u32) -> usize {
        self.rows.get(&row).map_or(0, |blocks| blocks.values().filter(|b| b.users > 0).count())
    }

    pub fn set_capacity(&mut self, row: u32, blocks: usize) {
        self.capacity.insert(row, blocks);
        self.make_room(row);
    }

    /// Blocks of the chain that are pinned.
    pub fn pin(&mut self, row: u32, chain: &[u64]) -> usize {
        let known = self.depth(row, chain);
        for n in 1..=known {
            self.block(row, &chain[..n]).users += 1;
        }
        let capacity = self.capacity.get(&row).copied().unwrap_or(self.default_capacity);
        let room = capacity.saturating_sub(self.pinned(row)).min(chain.len() - known);
        for n in known + 1..=known + room {
            self.block(row, &chain[..n]).users += 1;
        }
        known + room
    }

    pub fn confirm(&mut self, row: u32, chain: &[u64]) {
        for n in 1..=chain.len() {
            self.block(row, &chain[..n]).confirmed = true;
        }
        self.make_room(row);
    }

    pub fn release(&mut self, row: u32, chain: &[u64]) {
        for n in (1..=chain.len()).rev() {
            self.clock += 1;
            let clock = self.clock;
            let block = self.block(row, &chain[..n]);
            block.users -= 1;
            block.released = clock;
            if block.users == 0 && !block.confirmed {
                self.rows.get_mut(&row).and_then(|blocks| blocks.remove(&chain[..n]));
            }
        }
        self.make_room(row);
    }

    pub fn drop_row(&mut self, row: u32) {
        self.rows.remove(&row);
        self.capacity.remove(&row);
    }

    fn block(&mut self, row: u32, prefix: &[u64]) -> &mut Block {
        self.rows.entry(row).or_default().entry(prefix.to_vec()).or_default()
    }

    /// Only what an engine is known to have computed takes room.
    fn make_room(&mut self, row: u32) {
        let capacity = self.capacity.get(&row).copied().unwrap_or(self.default_capacity);
        let blocks = self.rows.entry(row).or_default();
        while blocks.values().filter(|block| block.confirmed).count() > capacity {
            let idle = blocks.iter().filter(|(_, block)| block.users == 0);
            let Some(oldest) = idle.min_by_key(|(_, b)| b.released).map(|(key, _)| key.clone())
            else {
                break;
            };
            blocks.remove(&oldest);
        }
    }
}
