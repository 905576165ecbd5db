//! Which endpoint holds which prompt prefix, learned from where requests were sent.
//!
//! Prompts are chains of block hashes (each hash stands for its block and all before it). Chains
//! that many prompts share are kept once, as *runs*: a run is a stretch of blocks that nobody
//! forks, with the rows that hold it. So a match compares whole runs, and touching a prompt costs
//! its runs, not its blocks.
//!
//! A row holds a run wholly or not at all; where it would hold a part, the run is split. What a
//! row holds is bounded by its capacity. What requests in flight use is pinned; the rest leaves
//! least recently released first, tails before heads, as in the engines.
//!
//! New blocks make room only once they are confirmed: an engine that refuses a request has evicted
//! nothing for it. Until then they come on top, and all that is pinned is no more than fits.
//! Read next: `runs.rs` (the forest of runs), `row_cache.rs` (what one row holds, in order of leaving).

mod placed;
mod row_cache;
mod runs;
mod saved;

use std::ops::Range;

use row_cache::RowCache;
use runs::{Bits, Entry, NONE, Run, Runs};

/// A request's hold on the prefix it uses on a row; give it back with [`PrefixIndex::release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin(u32);

/// How many leading blocks of a prompt each row holds, and has in use.
#[derive(Debug, Clone, Default)]
pub struct Depths {
    held: Depth,
    busy: Depth,
}

impl Depths {
    /// Leading blocks that `row` holds.
    pub fn of(&self, row: u32) -> u32 {
        self.held.of(row)
    }

    /// Both for neighbouring rows, held and in use; `None` beyond the rows that hold anything.
    pub fn of_run(&self, rows: &Range<usize>) -> Option<(&[u32], &[u32])> {
        Some((self.held.depth.get(rows.clone())?, self.busy.depth.get(rows.clone())?))
    }

    /// Leading blocks that requests in flight on `row` use.
    pub fn in_use(&self, row: u32) -> u32 {
        self.busy.of(row)
    }
}

/// A depth per row, and the rows that are not at their end yet.
#[derive(Debug, Clone, Default)]
struct Depth {
    depth: Vec<u32>,
    alive: Bits,
}

impl Depth {
    fn of(&self, row: u32) -> u32 {
        self.depth.get(row as usize).copied().unwrap_or(0)
    }

    fn start(&mut self, rows: usize) {
        self.depth.clear();
        self.depth.resize(rows, 0);
        self.alive.clear();
    }

    /// `rows` have the run that starts after `at` blocks. The others end there: each row's depth
    /// is written once.
    fn pass(&mut self, rows: &Bits, at: usize) {
        if at == 0 {
            self.alive.extend_from_slice(rows);
            return;
        }
        for word in 0..self.alive.len() {
            let here = rows.get(word).copied().unwrap_or(0);
            let ended = self.alive[word] & !here;
            self.alive[word] &= here;
            self.write(word, ended, at);
        }
    }

    fn end(&mut self, at: usize) {
        for word in 0..self.alive.len() {
            self.write(word, self.alive[word], at);
        }
    }

    fn write(&mut self, word: usize, mut rows: u64, at: usize) {
        let all = 64 * word..64 * (word + 1);
        if rows == u64::MAX
            && let Some(depths) = self.depth.get_mut(all)
        {
            return depths.fill(at as u32);
        }
        while rows != 0 {
            let row = word * 64 + rows.trailing_zeros() as usize;
            if let Some(depth) = self.depth.get_mut(row) {
                *depth = at as u32;
            }
            rows &= rows - 1;
        }
    }
}

/// The learned index: bounded per row, answered for all rows in one pass.
#[derive(Debug, Default)]
pub struct PrefixIndex {
    runs: Runs,
    row_caches: Vec<RowCache>,
    default_capacity: u32,
}

impl PrefixIndex {
    /// `capacity`: blocks that a row may hold unless set otherwise.
    pub fn new(capacity: u32) -> Self {
        Self { default_capacity: capacity, ..Self::default() }
    }

    /// Blocks that `row` holds now.
    pub fn held(&self, row: u32) -> u32 {
        self.row_caches.get(row as usize).map_or(0, |row_cache| row_cache.held)
    }

    /// Distinct blocks on `row` that requests in flight use; what they share counts once.
    pub fn pinned(&self, row: u32) -> u32 {
        self.row_caches.get(row as usize).map_or(0, |row_cache| row_cache.pinned)
    }

    /// Blocks that `row` may hold.
    pub fn capacity(&self, row: u32) -> u32 {
        self.row_caches
            .get(row as usize)
            .map_or(self.default_capacity, |row_cache| row_cache.capacity)
    }

    /// Runs in the index: what its memory grows with beside the blocks.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Sets what `row` may hold; what is over leaves at once, as far as it is not in use.
    pub fn set_capacity(&mut self, row: u32, blocks: u32) {
        self.row_cache(row).capacity = blocks;
        self.make_room(row);
    }

    /// For every row, how many leading blocks of the chain it holds, and has in use, without a gap.
    pub fn match_into(&self, chain: &[u64], found: &mut Depths) {
        found.held.start(self.row_caches.len());
        found.busy.start(self.row_caches.len());
        let mut at = 0;
        let mut parent = NONE;
        while let Some((id, run)) = self.runs.next(parent, chain, at) {
            found.held.pass(&run.rows, at);
            found.busy.pass(&run.busy, at);
            let common = run.common(&chain[at..]);
            at += common;
            if common < run.blocks.len() {
                break;
            }
            parent = id;
        }
        found.held.end(at);
        found.busy.end(at);
    }

    /// Puts the chain on `row` and pins it there. New blocks count at once, but only for as long
    /// as a request holds them, until one is [confirmed](Self::confirm). Where what is pinned
    /// leaves no room for all, the head of the chain is kept. `None`: nothing of it is.
    pub fn pin(&mut self, row: u32, chain: &[u64]) -> Option<Pin> {
        self.row_cache(row);
        let (mut pin, mut at) = self.pin_known(row, chain);
        if at < chain.len() {
            let row_cache = &self.row_caches[row as usize];
            let room = row_cache.capacity.saturating_sub(row_cache.pinned) as usize;
            let chain = &chain[..chain.len().min(at + room)];
            while at < chain.len() {
                let parent = pin.map_or(NONE, |pin: Pin| pin.0);
                let run = match self.runs.find(parent, chain, at) {
                    Some(run) => self.cut_to(run, &chain[at..]),
                    None => match self.runs.add(parent, at as u32, &chain[at..]) {
                        Some(run) => run,
                        None => break, // two chains with one hash: leave the second out
                    },
                };
                let entry = self.runs.hold(run, row, Entry::pinned(run, row));
                let len = self.runs.run(run).len();
                let row_cache = &mut self.row_caches[row as usize];
                row_cache.held += len;
                row_cache.pinned += len;
                row_cache.unconfirmed += len;
                row_cache.in_use.push(&mut self.runs.entries, entry);
                at += len as usize;
                pin = Some(Pin(run));
            }
        }
        pin
    }

    /// The engine has computed the prefix: it stays after the request, and what had to leave for
    /// it has left.
    pub fn confirm(&mut self, row: u32, pin: Pin) {
        let mut run = pin.0;
        let mut blocks = 0;
        while let Some(entry) = self.runs.entry_mut(run, row) {
            if entry.confirmed {
                break; // so are all before it
            }
            entry.confirmed = true;
            blocks += self.runs.run(run).len();
            run = self.runs.run(run).parent;
        }
        if blocks > 0 {
            self.row_caches[row as usize].unconfirmed -= blocks;
            self.make_room(row);
        }
    }

    /// The request is over. Blocks that nobody else uses may leave from now on; those that were
    /// never confirmed go at once.
    pub fn release(&mut self, row: u32, pin: Pin) {
        let mut run = pin.0;
        while let Some(id) = self.runs.entry_id(run, row) {
            let Run { parent, .. } = *self.runs.run(run);
            let len = self.runs.run(run).len();
            let entry = &mut self.runs.entries[id];
            if entry.users == 0 {
                return; // a pin from before the row was dropped
            }
            entry.users -= 1;
            if entry.users == 0 {
                let confirmed = entry.confirmed;
                let row_cache = &mut self.row_caches[row as usize];
                row_cache.in_use.remove(&mut self.runs.entries, id);
                row_cache.pinned -= len;
                if confirmed {
                    self.runs.set_busy(run, row, false);
                    // From the tail up, so that heads leave last.
                    row_cache.idle.push(&mut self.runs.entries, id);
                } else {
                    row_cache.held -= len;
                    row_cache.unconfirmed -= len;
                    self.runs.let_go(run, row);
                }
            }
            run = parent;
        }
        self.make_room(row);
    }

    /// Forgets all that `row` holds, pinned or not; pins on it mean nothing afterwards.
    pub fn drop_row(&mut self, row: u32) {
        let Some(row_cache) = self.row_caches.get_mut(row as usize) else { return };
        let (mut idle, mut in_use) = (row_cache.idle, row_cache.in_use);
        *row_cache = RowCache::new(self.default_capacity);
        for list in [&mut idle, &mut in_use] {
            while let Some(entry) = list.pop_oldest(&mut self.runs.entries) {
                let run = self.runs.entries[entry].run;
                self.runs.let_go(run, row);
            }
        }
        if self.row_caches.iter().all(|row_cache| row_cache.held == 0) {
            self.runs = Runs::default();
        }
    }

    fn row_cache(&mut self, row: u32) -> &mut RowCache {
        let rows = row as usize + 1;
        if self.row_caches.len() < rows {
            self.row_caches.resize(rows, RowCache::new(self.default_capacity));
        }
        &mut self.row_caches[row as usize]
    }

    /// Pins what the row holds of the chain already; the pin and the blocks it covers.
    fn pin_known(&mut self, row: u32, chain: &[u64]) -> (Option<Pin>, usize) {
        let (mut pin, mut at) = (None, 0);
        let mut parent = NONE;
        while let Some(run) = self.runs.find(parent, chain, at) {
            if self.runs.entry_id(run, row).is_none() {
                break;
            }
            let run = self.cut_to(run, &chain[at..]);
            let Some(id) = self.runs.entry_id(run, row) else { break };
            let len = self.runs.run(run).len();
            let entry = &mut self.runs.entries[id];
            entry.users += 1;
            if entry.users == 1 {
                self.runs.set_busy(run, row, true);
                let row_cache = &mut self.row_caches[row as usize];
                row_cache.idle.remove(&mut self.runs.entries, id);
                row_cache.in_use.push(&mut self.runs.entries, id);
                row_cache.pinned += len;
            }
            at += len as usize;
            parent = run;
            pin = Some(Pin(run));
        }
        (pin, at)
    }

    /// The run, split so that it ends where the chain leaves it.
    fn cut_to(&mut self, run: u32, chain: &[u64]) -> u32 {
        let common = self.runs.run(run).common(chain);
        if common == self.runs.run(run).blocks.len() { run } else { self.split(run, common) }
    }

    /// Splits a run after `at` blocks; the head gets the new number and is returned, so that pins
    /// on the tail stay good.
    fn split(&mut self, tail: u32, at: usize) -> u32 {
        let (head, pairs) = self.runs.split(tail, at);
        for (tail_entry, head_entry) in pairs {
            let Entry { row, users, .. } = self.runs.entries[tail_entry];
            let row_cache = &mut self.row_caches[row as usize];
            let list = if users > 0 { &mut row_cache.in_use } else { &mut row_cache.idle };
            list.push_after(&mut self.runs.entries, tail_entry, head_entry);
        }
        head
    }

    /// Lets idle blocks go until what is confirmed fits.
    fn make_room(&mut self, row: u32) {
        // A pin that outlived its row finds no cache there, and nothing to make room on.
        while let Some(row_cache) = self.row_caches.get(row as usize) {
            let over = (row_cache.held - row_cache.unconfirmed).saturating_sub(row_cache.capacity);
            let Some(oldest) = row_cache.idle.oldest().filter(|_| over > 0) else { return };
            let run = self.runs.entries[oldest].run;
            let len = self.runs.run(run).len();
            let row_cache = &mut self.row_caches[row as usize];
            row_cache.held -= over.min(len);
            if over < len && self.runs.truncate(run, len - over) {
                continue;
            }
            if over < len {
                self.split(run, (len - over) as usize);
            }
            self.row_caches[row as usize].idle.remove(&mut self.runs.entries, oldest);
            self.runs.let_go(run, row);
        }
    }
}
