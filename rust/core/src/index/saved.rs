//! The index, written and read: its runs, parents first, and what each row holds, in the order in
//! which it leaves.

use super::PrefixIndex;
use super::runs::{Entry, NONE};
use crate::bytes::{Reader, Saved};

impl PrefixIndex {
    /// Blocks of all runs; what rows share counts once.
    pub fn blocks(&self) -> usize {
        self.runs.all().map(|(_, run)| run.blocks.len()).sum()
    }

    /// Blocks that a row may hold unless set otherwise.
    pub(crate) fn default_capacity(&self) -> u32 {
        self.default_capacity
    }

    /// Appends what `rows` hold and an engine is known to have computed.
    pub(crate) fn put(&self, rows: &[u32], out: &mut Vec<u8>) {
        let caches: Vec<(u32, Vec<u32>)> = rows.iter().map(|&row| self.cached(row)).collect();
        let mut runs: Vec<u32> = caches.iter().flat_map(|(_, held)| held).copied().collect();
        runs.sort_unstable();
        runs.dedup();
        runs.sort_by_key(|&id| self.runs.run(id).start); // parents first
        let most = runs.iter().max().map_or(0, |&id| id as usize + 1);
        let mut numbers = vec![0_u32; most];
        for (number, &id) in (1..).zip(&runs) {
            numbers[id as usize] = number;
        }
        runs.len().put(out);
        for &id in &runs {
            let run = self.runs.run(id);
            // Whoever holds a run holds its parent: it has a number, if there is one.
            numbers.get(run.parent as usize).copied().unwrap_or(0).put(out);
            run.blocks.to_vec().put(out);
        }
        for (capacity, held) in caches {
            capacity.put(out);
            held.iter().map(|&id| numbers[id as usize]).collect::<Vec<_>>().put(out);
        }
    }

    /// What the row may hold, and the confirmed runs that it holds, in the order of leaving.
    fn cached(&self, row: u32) -> (u32, Vec<u32>) {
        let Some(row_cache) = self.row_caches.get(row as usize) else {
            return (self.default_capacity, Vec::new());
        };
        let entries = &self.runs.entries;
        let mut held: Vec<u32> = row_cache.idle.iter(entries).map(|entry| entry.run).collect();
        let used = row_cache.in_use.iter(entries).filter(|entry| entry.confirmed);
        let mut used: Vec<u32> = used.map(|entry| entry.run).collect();
        // From the tail up, as if each had been released just now.
        used.sort_by_key(|&run| std::cmp::Reverse(self.runs.run(run).start));
        held.append(&mut used);
        (row_cache.capacity, held)
    }

    /// Reads what [`PrefixIndex::put`] wrote; `None` where it is no such forest.
    pub(crate) fn take(from: &mut Reader<'_>, rows: &[u32], capacity: u32) -> Option<Self> {
        let mut index = Self::new(capacity);
        let count = usize::take(from)?;
        (count <= from.0.len()).then_some(())?;
        // By number: the run, none where another chain has its hash; and its parent's number.
        let mut ids = vec![None];
        let mut parents = vec![0];
        for number in 1..=count {
            let parent = u32::take(from)? as usize;
            let blocks = Vec::<u64>::take(from)?;
            (parent < number && !blocks.is_empty()).then_some(())?;
            let (above, start) = match (parent, ids[parent]) {
                (0, _) => (Some(NONE), 0),
                (_, Some(id)) => (Some(id), end_of(&index, id)?),
                _ => (None, 0),
            };
            ids.push(above.and_then(|above| index.runs.add(above, start, &blocks)));
            parents.push(parent);
        }
        for &row in rows {
            let capacity = u32::take(from)?;
            let held = Vec::<u32>::take(from)?;
            index.stock(row, capacity, &held, &ids, &parents)?;
        }
        // What nobody holds would never leave.
        index.runs.all().all(|(_, run)| run.is_held()).then_some(())?;
        for &row in rows {
            index.make_room(row);
        }
        Some(index)
    }

    /// Puts what a row holds in its cache.
    fn stock(
        &mut self,
        row: u32,
        capacity: u32,
        held: &[u32],
        ids: &[Option<u32>],
        parents: &[usize],
    ) -> Option<()> {
        self.row_cache(row).capacity = capacity.min(1 << 30);
        let mut left = vec![false; ids.len()];
        for &number in held {
            let left = left.get_mut(number as usize).filter(|left| number > 0 && !**left)?;
            *left = true;
        }
        for &number in held {
            // Whoever holds a run holds all before it, and these leave later.
            let parent = parents[number as usize];
            (parent == 0 || left[parent]).then_some(())?;
            left[number as usize] = false;
            let Some(run) = ids[number as usize] else { continue };
            let entry = Entry { users: 0, confirmed: true, ..Entry::pinned(run, row) };
            let entry = self.runs.hold(run, row, entry);
            self.runs.set_busy(run, row, false);
            let len = self.runs.run(run).len();
            let row_cache = &mut self.row_caches[row as usize];
            row_cache.idle.push(&mut self.runs.entries, entry);
            row_cache.held = row_cache.held.checked_add(len)?;
        }
        Some(())
    }
}

/// Blocks up to the end of the run.
fn end_of(index: &PrefixIndex, id: u32) -> Option<u32> {
    let run = index.runs.run(id);
    run.start.checked_add(run.len())
}
