//! Prefixes that engines have computed, for other routers to be told.

use std::collections::VecDeque;

use crate::index::Pin;

/// Prefixes that wait to be told, at most; above it the oldest are not told.
pub(crate) const MOST_WAITING: usize = 1 << 12;

/// Where which prefixes were computed, to be told.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    pub waiting: VecDeque<(u32, Pin)>,
    /// Whether the row's engine tells of its cache itself, to every router.
    exact: Vec<bool>,
    /// Prefixes that were not told: there were too many.
    pub lost: u64,
}

impl Placed {
    /// The row's engine has computed what is pinned.
    pub fn computed(&mut self, row: u32, pin: Pin) {
        if self.is_exact(row) {
            return;
        }
        if self.waiting.len() >= MOST_WAITING {
            self.waiting.pop_front();
            self.lost += 1;
        }
        self.waiting.push_back((row, pin));
    }

    /// Whether every router hears of the row's cache by the engine itself.
    pub fn set_exact(&mut self, row: u32, exact: bool) {
        let at = row as usize;
        if self.exact.len() <= at {
            self.exact.resize(at + 1, false);
        }
        self.exact[at] = exact;
    }

    /// Whether the row's engine tells of its cache itself.
    pub fn is_exact(&self, row: u32) -> bool {
        self.exact.get(row as usize).copied().unwrap_or(false)
    }
}

/// Endpoint ids and prefixes, in one piece of memory that is used again.
#[derive(Debug, Default)]
pub struct Prefixes {
    pub(crate) keys: Vec<u64>,
    /// Endpoint, and where its prefix ends.
    pub(crate) ends: Vec<(u64, usize)>,
    /// Tokens of a block.
    pub block_tokens: f64,
    /// Prefixes that are missing, so far: there were too many.
    pub lost: u64,
}

impl Prefixes {
    /// Each endpoint's id with the block keys that it holds.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[u64])> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|&(_, end)| end));
        self.ends.iter().zip(starts).map(|(&(id, end), start)| (id, &self.keys[start..end]))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}
