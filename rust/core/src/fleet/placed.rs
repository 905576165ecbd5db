//! Prefixes that engines have computed: those that other routers are to be told of, and theirs.

use std::collections::VecDeque;

use super::Fleet;
use crate::index::Pin;

/// Prefixes that wait to be told, at most; above it the oldest are not told.
const MOST_WAITING: usize = 1 << 12;

/// Where which prefixes were computed, to be told.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    waiting: VecDeque<(u32, Pin)>,
    /// Whether the row's engine tells of its cache itself, to every router.
    exact: Vec<bool>,
    /// Prefixes that were not told: there were too many.
    lost: u64,
}

impl Placed {
    pub(super) fn computed(&mut self, row: u32, pin: Pin) {
        if self.is_exact(row) {
            return;
        }
        if self.waiting.len() >= MOST_WAITING {
            self.waiting.pop_front();
            self.lost += 1;
        }
        self.waiting.push_back((row, pin));
    }

    pub(super) fn set_exact(&mut self, row: u32, exact: bool) {
        let at = row as usize;
        if self.exact.len() <= at {
            self.exact.resize(at + 1, false);
        }
        self.exact[at] = exact;
    }

    fn is_exact(&self, row: u32) -> bool {
        self.exact.get(row as usize).copied().unwrap_or(false)
    }
}

/// Endpoint ids and prefixes, in one piece of memory that is used again.
#[derive(Debug, Default)]
pub struct Prefixes {
    keys: Vec<u64>,
    /// Endpoint, and where its prefix ends.
    ends: Vec<(u64, usize)>,
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

impl Fleet {
    /// Prefixes are kept to be told, from now on.
    pub fn keep_placed(&mut self) {
        if self.placed.is_none() {
            self.placed = Some(Box::default());
        }
    }

    /// Takes what was computed since the last call, as far as it is still there.
    pub fn take_placed(&mut self, into: &mut Prefixes) {
        let Prefixes { keys, ends, block_tokens, lost } = into;
        keys.clear();
        ends.clear();
        *block_tokens = self.block_tokens;
        let Some(placed) = &mut self.placed else { return };
        *lost = placed.lost;
        let index = self.index.read();
        for (row, pin) in placed.waiting.drain(..) {
            // A pin may be over, and its number used again: what it names now is there as well.
            if let Some(id) = self.table.id(row)
                && index.append_chain(row, pin, keys)
            {
                ends.push((id, keys.len()));
            }
        }
    }

    /// Another router says that the row's engine has computed the prefix. `block_tokens`: tokens
    /// of a block, where this router has not seen any yet.
    pub fn place(&mut self, row: u32, chain: &[u64], block_tokens: f64) {
        let exact = self.placed.as_ref().is_some_and(|placed| placed.is_exact(row));
        if exact || self.table.id(row).is_none() {
            return;
        }
        let known = self.block_tokens > 0.0;
        let capacity = self.capacity(row, if known { self.block_tokens } else { block_tokens });
        let shared = self.index.clone();
        let mut index = shared.write();
        if index.capacity(row) != capacity {
            index.set_capacity(row, capacity);
        }
        index.place(row, chain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::{Prompt, Unit};

    fn fleet() -> Fleet {
        let mut fleet = Fleet::new(60.0, 600.0);
        fleet.add(7);
        fleet.add(8);
        fleet.keep_placed();
        fleet
    }

    fn told(fleet: &mut Fleet) -> Vec<(u64, Vec<u64>)> {
        let mut found = Prefixes::default();
        fleet.take_placed(&mut found);
        found.iter().map(|(id, keys)| (id, keys.to_vec())).collect()
    }

    fn request(fleet: &mut Fleet, row: u32, id: u128, chain: &[u64], served: bool) {
        let size = 16 * chain.len() as u64;
        fleet.chosen_for(row, &Prompt::new(chain.to_vec(), size, 16, Unit::Tokens), 0.0);
        fleet.sent(row, id, id as f64);
        if served {
            fleet.first_token(row, id, id as f64 + 0.5);
        }
        fleet.end(row, id, id as f64 + 0.9, served);
    }

    #[test]
    fn what_was_computed_is_told_once_and_what_failed_never() {
        let mut fleet = fleet();
        request(&mut fleet, 0, 1, &[1, 2, 3], true);
        request(&mut fleet, 1, 2, &[1, 2, 9], false);
        request(&mut fleet, 1, 3, &[1, 2, 4], true);
        assert_eq!(told(&mut fleet), [(7, vec![1, 2, 3]), (8, vec![1, 2, 4])]);
        assert!(told(&mut fleet).is_empty());
        // Its engine lost it meanwhile.
        request(&mut fleet, 0, 4, &[1, 2, 3, 5], true);
        fleet.cache_lost(0);
        assert!(told(&mut fleet).is_empty());
    }

    #[test]
    fn what_another_router_placed_counts_as_own_and_leaves_room_for_it() {
        let mut fleet = fleet();
        fleet.place(1, &[1, 2, 3], 16.0);
        assert_eq!(fleet.index().read().held(1), 3);
        assert!(told(&mut fleet).is_empty(), "it is not told again");
        fleet.table.set(crate::Stat::KvCapacity, 0, 16.0 * 32.0);
        for head in 0..100 {
            let chain: Vec<u64> = (0..20).map(|at| 1000 * head + at).collect();
            fleet.place(0, &chain, 16.0);
        }
        assert!((20..=32).contains(&fleet.index().read().held(0)));
        fleet.place(77, &[5], 16.0); // no such row
        fleet.place(0, &[], 16.0);
    }

    #[test]
    fn what_waits_to_be_told_is_bounded() {
        let mut fleet = fleet();
        for id in 0..2 * MOST_WAITING as u128 {
            request(&mut fleet, 0, id, &[1, 2], true);
        }
        let mut found = Prefixes::default();
        fleet.take_placed(&mut found);
        assert_eq!((found.iter().count(), found.lost), (MOST_WAITING, MOST_WAITING as u64));
    }
}
