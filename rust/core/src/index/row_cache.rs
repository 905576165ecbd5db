//! What one row holds, in the order in which it will leave.

use super::runs::{Entry, NONE, Pool};

/// A doubly linked list of entries, oldest first.
#[derive(Debug, Clone, Copy)]
pub struct List {
    oldest: u32,
    newest: u32,
}

impl List {
    const EMPTY: Self = Self { oldest: NONE, newest: NONE };

    pub fn oldest(self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// Adds the entry as the newest.
    pub fn push(&mut self, entries: &mut Pool<Entry>, id: u32) {
        self.link(entries, self.newest, id, NONE);
    }

    /// Adds the entry so that it leaves right after `other`.
    pub fn push_after(&mut self, entries: &mut Pool<Entry>, other: u32, id: u32) {
        let newer = entries[other].newer;
        self.link(entries, other, id, newer);
    }

    pub fn remove(&mut self, entries: &mut Pool<Entry>, id: u32) {
        let Entry { older, newer, .. } = entries[id];
        match older {
            NONE => self.oldest = newer,
            _ => entries[older].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            _ => entries[newer].older = older,
        }
    }

    /// Its entries, oldest first.
    pub fn iter(self, entries: &Pool<Entry>) -> impl Iterator<Item = Entry> {
        let next = |entry: &Entry| (entry.newer != NONE).then(|| entries[entry.newer]);
        std::iter::successors(self.oldest().map(|id| entries[id]), next)
    }

    pub fn pop_oldest(&mut self, entries: &mut Pool<Entry>) -> Option<u32> {
        let id = self.oldest()?;
        self.remove(entries, id);
        Some(id)
    }

    fn link(&mut self, entries: &mut Pool<Entry>, older: u32, id: u32, newer: u32) {
        entries[id].older = older;
        entries[id].newer = newer;
        match older {
            NONE => self.oldest = id,
            _ => entries[older].newer = id,
        }
        match newer {
            NONE => self.newest = id,
            _ => entries[newer].older = id,
        }
    }
}

/// The two lists of a row, and its sums in blocks.
#[derive(Debug, Clone)]
pub struct RowCache {
    /// Nobody uses these: they may leave.
    pub idle: List,
    /// Requests in flight use these.
    pub in_use: List,
    pub held: u32,
    pub pinned: u32,
    /// Of the pinned ones, those that no engine is known to have computed.
    pub unconfirmed: u32,
    pub capacity: u32,
}

impl RowCache {
    pub fn new(capacity: u32) -> Self {
        Self {
            idle: List::EMPTY,
            in_use: List::EMPTY,
            held: 0,
            pinned: 0,
            unconfirmed: 0,
            capacity,
        }
    }
}
