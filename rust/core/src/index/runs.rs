//! The forest of runs: stretches of block hashes, each with the rows that hold it.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::ops::{Index, IndexMut};

use smallvec::SmallVec;

use crate::hash::Hashed;

/// No run: the parent of a chain's first run.
pub const NONE: u32 = u32::MAX;

/// A bit per row, 64 to a word; missing words are zero.
pub type Bits = SmallVec<[u64; 1]>;

/// Blocks that follow each other in every prompt seen so far.
#[derive(Debug, Default)]
pub struct Run {
    /// The run before it, or [`NONE`].
    pub parent: u32,
    /// Blocks before it in its chain.
    pub start: u32,
    /// Its block hashes, at least one.
    pub blocks: Box<[u64]>,
    /// The rows that hold it, a bit each.
    pub rows: Bits,
    /// Of these, the rows on which requests in flight use it.
    pub busy: Bits,
    /// The entry of each row, in row order.
    entries: SmallVec<[u32; 2]>,
}

impl Run {
    pub fn len(&self) -> u32 {
        self.blocks.len() as u32
    }

    /// Whether a row holds it.
    pub fn is_held(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Leading blocks that the chain shares with this run.
    pub fn common(&self, chain: &[u64]) -> usize {
        let n = self.blocks.len().min(chain.len());
        let (ours, theirs) = (&self.blocks[..n], &chain[..n]);
        // A chain that still agrees at the end agreed all along: one look for the usual case.
        if ours.last() == theirs.last() {
            return n;
        }
        ours.iter().zip(theirs).position(|(a, b)| a != b).unwrap_or(n)
    }

    /// Where the row's entry stands in `entries`; `Err` where it would have to be put.
    fn place(&self, row: u32) -> Result<usize, usize> {
        let (word, bit) = (row as usize / 64, row % 64);
        let before: u32 = self.rows.iter().take(word).map(|bits| bits.count_ones()).sum();
        let bits = self.rows.get(word).copied().unwrap_or(0);
        let at = (before + (bits & ((1 << bit) - 1)).count_ones()) as usize;
        if bits >> bit & 1 == 1 { Ok(at) } else { Err(at) }
    }
}

fn mark(bits: &mut Bits, row: u32, on: bool) {
    let (word, bit) = (row as usize / 64, row % 64);
    if bits.len() <= word {
        bits.resize(word + 1, 0);
    }
    if on {
        bits[word] |= 1 << bit;
    } else {
        bits[word] &= !(1 << bit);
    }
}

/// That a row holds a run. Stands in exactly one list of its row's cache.
#[derive(Debug, Clone, Copy, Default)]
pub struct Entry {
    pub run: u32,
    pub row: u32,
    /// Neighbours in the list: `older` leaves before this one.
    pub older: u32,
    pub newer: u32,
    /// Requests in flight that use it.
    pub users: u32,
    /// Whether an engine is known to have computed it.
    pub confirmed: bool,
}

impl Entry {
    /// New on a row, in use by one request.
    pub fn pinned(run: u32, row: u32) -> Self {
        Self { run, row, older: NONE, newer: NONE, users: 1, confirmed: false }
    }
}

/// Values by number; freed numbers are used again.
#[derive(Debug)]
pub struct Pool<T> {
    items: Vec<T>,
    free: Vec<u32>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { items: Vec::new(), free: Vec::new() }
    }
}

impl<T: Default> Pool<T> {
    fn put(&mut self, item: T) -> u32 {
        if let Some(id) = self.free.pop() {
            self.items[id as usize] = item;
            return id;
        }
        self.items.push(item);
        (self.items.len() - 1) as u32
    }

    fn take(&mut self, id: u32) -> T {
        self.free.push(id);
        std::mem::take(&mut self.items[id as usize])
    }

    fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }
}

impl<T> Index<u32> for Pool<T> {
    type Output = T;
    fn index(&self, id: u32) -> &T {
        &self.items[id as usize]
    }
}

impl<T> IndexMut<u32> for Pool<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        &mut self.items[id as usize]
    }
}

/// All runs and entries.
#[derive(Debug, Default)]
pub struct Runs {
    runs: Pool<Run>,
    pub entries: Pool<Entry>,
    /// First block of a run → the run. A chained hash stands for all before it, so this is all
    /// it takes to go from a run to its children.
    first: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
}

impl Runs {
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    pub fn run(&self, id: u32) -> &Run {
        &self.runs[id]
    }

    /// Every run with its number.
    pub fn all(&self) -> impl Iterator<Item = (u32, &Run)> {
        let numbered = self.runs.items.iter().enumerate();
        numbered.filter(|(_, run)| !run.blocks.is_empty()).map(|(id, run)| (id as u32, run))
    }

    /// The run that continues `parent` with the chain's block `at`.
    pub fn find(&self, parent: u32, chain: &[u64], at: usize) -> Option<u32> {
        let id = *self.first.get(chain.get(at)?)?;
        let run = &self.runs[id];
        (run.parent == parent && run.start as usize == at).then_some(id)
    }

    /// [`Runs::find`] with the run itself.
    pub fn next(&self, parent: u32, chain: &[u64], at: usize) -> Option<(u32, &Run)> {
        self.find(parent, chain, at).map(|id| (id, &self.runs[id]))
    }

    /// A new run, held by nobody yet; `None` if another chain has the same hash.
    pub fn add(&mut self, parent: u32, start: u32, blocks: &[u64]) -> Option<u32> {
        let std::collections::hash_map::Entry::Vacant(slot) = self.first.entry(blocks[0]) else {
            return None;
        };
        let run = Run { parent, start, blocks: blocks.into(), ..Run::default() };
        Some(*slot.insert(self.runs.put(run)))
    }

    /// The entry of a row that holds the run.
    pub fn entry_id(&self, run: u32, row: u32) -> Option<u32> {
        let run = self.runs.items.get(run as usize)?;
        run.place(row).ok().map(|at| run.entries[at])
    }

    pub fn entry_mut(&mut self, run: u32, row: u32) -> Option<&mut Entry> {
        self.entry_id(run, row).map(|id| &mut self.entries[id])
    }

    /// Notes whether requests in flight use the run on a row that holds it.
    pub fn set_busy(&mut self, run: u32, row: u32, busy: bool) {
        mark(&mut self.runs[run].busy, row, busy);
    }

    /// Makes the row a holder, in use; it must not be one yet.
    pub fn hold(&mut self, run: u32, row: u32, entry: Entry) -> u32 {
        let id = self.entries.put(entry);
        let run = &mut self.runs[run];
        let at = run.place(row).unwrap_or_else(|at| at);
        run.entries.insert(at, id);
        mark(&mut run.rows, row, true);
        mark(&mut run.busy, row, true);
        id
    }

    /// The row holds the run no longer; the last one to let go takes the run along.
    pub fn let_go(&mut self, id: u32, row: u32) {
        let run = &mut self.runs[id];
        let Ok(at) = run.place(row) else { return };
        let entry = run.entries.remove(at);
        mark(&mut run.rows, row, false);
        mark(&mut run.busy, row, false);
        self.entries.take(entry);
        if run.entries.is_empty() {
            let run = self.runs.take(id);
            if self.first.get(&run.blocks[0]) == Some(&id) {
                self.first.remove(&run.blocks[0]);
            }
            if self.first.capacity() > 1024 && self.first.len() < self.first.capacity() / 8 {
                self.first.shrink_to(2 * self.first.len());
            }
        }
    }

    /// Cuts the run's tail off, if it has one holder only.
    pub fn truncate(&mut self, id: u32, len: u32) -> bool {
        let run = &mut self.runs[id];
        let alone = run.entries.len() == 1;
        if alone {
            run.blocks = run.blocks[..len as usize].into();
        }
        alone
    }

    /// Splits the run `tail` after `at` blocks. The head gets a new number, and each holder an
    /// entry in it like the one it has. Returns the head and the (tail, head) entries.
    pub fn split(&mut self, tail: u32, at: usize) -> (u32, SmallVec<[(u32, u32); 4]>) {
        let run = &mut self.runs[tail];
        let (first, second): (Box<[u64]>, Box<[u64]>) =
            (run.blocks[..at].into(), run.blocks[at..].into());
        let (head_first, tail_first) = (first[0], second[0]);
        let mut head = Run {
            parent: run.parent,
            start: run.start,
            blocks: first,
            rows: run.rows.clone(),
            busy: run.busy.clone(),
            entries: run.entries.clone(),
        };
        run.blocks = second;
        run.start += at as u32;
        let pairs = head
            .entries
            .iter_mut()
            .map(|id| {
                let old = *id;
                *id = self.entries.put(self.entries[old]);
                (old, *id)
            })
            .collect::<SmallVec<_>>();
        let head = self.runs.put(head);
        self.runs[tail].parent = head;
        for &(_, entry) in &pairs {
            self.entries[entry].run = head;
        }
        self.first.insert(head_first, head);
        // A chain with the same hash elsewhere keeps its place: this tail is then out of reach,
        // which costs a match and nothing else.
        self.first.entry(tail_first).or_insert(tail);
        (head, pairs)
    }
}
