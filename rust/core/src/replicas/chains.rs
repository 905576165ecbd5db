//! Which block follows which in prompts that routers told each other of.
//!
//! A block's key stands for all before it, so that the last key that both know says where a prompt
//! continues. What was not used for long is forgotten: half of the memory at a time.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use crate::hash::Hashed;

/// Keys that are remembered: up to twice as many, of some 20 bytes each.
pub const MOST_KEYS: usize = 1 << 18;

/// What stands before a prompt's first block.
pub const ROOT: u64 = 0;

type Before = HashMap<u64, u64, BuildHasherDefault<Hashed>>;

/// Key → the key before it.
#[derive(Debug, Default)]
pub struct Chains {
    young: Before,
    old: Before,
}

impl Chains {
    /// Remembers the blocks of a prompt behind the first `known`.
    pub fn learn(&mut self, before: u64, keys: &[u64]) {
        let mut before = before;
        for &key in keys {
            self.put(key, before);
            before = key;
        }
    }

    /// How many leading blocks of the prompt are known.
    pub fn known(&mut self, chain: &[u64]) -> usize {
        // From the end: a prompt that is known is known wholly, as a rule.
        let known = |at: usize| self.get(chain[at]).is_some();
        (0..chain.len()).rev().find(|&at| known(at)).map_or(0, |at| at + 1)
    }

    /// All blocks up to this one, appended in their order; false where one of them is not known, or
    /// there are more than `most`.
    pub fn walk(&mut self, last: u64, most: usize, into: &mut Vec<u64>) -> bool {
        let start = into.len();
        let mut key = last;
        while key != ROOT {
            let Some(before) = self.use_again(key).filter(|_| into.len() - start < most) else {
                into.truncate(start);
                return false;
            };
            into.push(key);
            key = before;
        }
        into[start..].reverse();
        true
    }

    fn get(&self, key: u64) -> Option<u64> {
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    fn use_again(&mut self, key: u64) -> Option<u64> {
        if let Some(&before) = self.young.get(&key) {
            return Some(before);
        }
        let before = *self.old.get(&key)?;
        self.put(key, before);
        Some(before)
    }

    fn put(&mut self, key: u64, before: u64) {
        if key == ROOT {
            return;
        }
        if self.young.len() >= MOST_KEYS && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_found_by_its_last_block() {
        let mut chains = Chains::default();
        chains.learn(ROOT, &[1, 2, 3]);
        chains.learn(2, &[7, 8]);
        let mut found = vec![99];
        assert!(chains.walk(8, 9, &mut found));
        assert_eq!(found, [99, 1, 2, 7, 8]);
        assert!(!chains.walk(8, 3, &mut found) && !chains.walk(5, 9, &mut found));
        assert_eq!(found, [99, 1, 2, 7, 8]);
        assert_eq!(chains.known(&[1, 2, 7, 9]), 3);
        assert_eq!(chains.known(&[4, 5]), 0);
    }

    #[test]
    fn a_ring_ends_and_memory_is_bounded() {
        let mut chains = Chains::default();
        chains.learn(3, &[1, 2, 3]);
        assert!(!chains.walk(3, 1 << 16, &mut Vec::new()));
        for key in 10..10 + 3 * MOST_KEYS as u64 {
            chains.learn(ROOT, &[key]);
            assert!(chains.walk(10, 1, &mut Vec::new()), "in use all the time");
        }
        assert!(chains.young.len() <= MOST_KEYS && chains.old.len() <= MOST_KEYS);
        assert!(!chains.walk(11, 1, &mut Vec::new()), "not used for long");
    }
}
