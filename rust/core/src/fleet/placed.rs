//! Prefixes that engines have computed: told to other routers, and heard of them.

use super::Fleet;
use crate::load::Fate;
use crate::placed::Prefixes;
use crate::stats::Stat;

impl Fleet {
    /// Tells the index what became of the pins of requests.
    pub(crate) fn settle(&mut self) {
        let mut settled = self.load.settled().peekable();
        if settled.peek().is_none() {
            return;
        }
        let mut index = self.index.write();
        for (row, pin, fate) in settled {
            match fate {
                Fate::Computed => {
                    index.confirm(row, pin);
                    if let Some(placed) = &mut self.placed {
                        placed.computed(row, pin);
                    }
                }
                Fate::Over => {
                    index.release(row, pin);
                    let tokens = f64::from(index.pinned(row)) * self.block_tokens;
                    self.table.set(Stat::KvTokens, row, tokens);
                }
            }
        }
    }

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
        let tokens = if self.block_tokens > 0.0 { self.block_tokens } else { block_tokens };
        if tokens <= 0.0 {
            return;
        }
        let capacity = self.capacity(row, tokens);
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
    use crate::placed::MOST_WAITING;
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
