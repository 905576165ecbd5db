//! A prompt as the prefix index sees it: a chain of block hashes and a size.

use crate::hash::{fold, short_hash};

/// Blocks of one prompt that are looked at, at most; what is behind them is prefilled anyway.
pub const MAX_BLOCKS: usize = 1 << 16;

/// What a prompt is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes of UTF-8 text; tokens are estimated from them.
    Bytes,
    /// Token ids.
    Tokens,
}

/// The chained hashes of a prompt's full blocks, and how long it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// One hash per full block; each stands for its block and all before it.
    pub chain: Vec<u64>,
    /// Length of the whole prompt, in units.
    pub size: u64,
    /// Length of a block, in units.
    pub block: u32,
    /// What size and block count.
    pub unit: Unit,
}

/// Cuts a prompt into blocks as it comes, in whatever pieces.
///
/// `key[k] = fold(key[k-1], xxh3(block k))`: the blocks' own hashes do not wait for each other,
/// only the folds are a chain. `key[-1]` is the seed, so prompts of other models, LoRA adapters,
/// salts or processes share nothing.
#[derive(Debug)]
pub struct BlockHasher {
    last: u64,
    bytes: usize,
    part: Vec<u8>,
    fed: u64,
    chain: Vec<u64>,
    unit: Unit,
}

impl BlockHasher {
    /// `block`: units of a block, at least 1. `seed`: what must not share.
    pub fn new(block: u32, unit: Unit, seed: u64) -> Self {
        let bytes = block.max(1) as usize * unit_bytes(unit);
        Self { last: seed, bytes, part: Vec::new(), fed: 0, chain: Vec::new(), unit }
    }

    /// Makes room for a prompt of so many bytes.
    pub fn reserve(&mut self, bytes: usize) {
        self.chain.reserve((bytes / self.bytes).min(MAX_BLOCKS));
    }

    /// Feeds the next bytes: text, or token ids as little-endian `u32`.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        self.fed += bytes.len() as u64;
        if !self.part.is_empty() {
            let (now, later) = bytes.split_at((self.bytes - self.part.len()).min(bytes.len()));
            self.part.extend_from_slice(now);
            bytes = later;
            if self.part.len() < self.bytes {
                return;
            }
            let part = std::mem::take(&mut self.part);
            self.push(&part);
            self.part = part;
            self.part.clear();
        }
        let mut blocks = bytes.chunks_exact(self.bytes);
        for block in &mut blocks {
            self.push(block);
        }
        self.part.extend_from_slice(blocks.remainder());
    }

    /// The prompt; a last block that is not full is no block, but counts in the size.
    pub fn finish(self) -> Prompt {
        let unit = unit_bytes(self.unit);
        Prompt {
            chain: self.chain,
            size: self.fed / unit as u64,
            block: (self.bytes / unit) as u32,
            unit: self.unit,
        }
    }

    fn push(&mut self, block: &[u8]) {
        if self.chain.len() < MAX_BLOCKS {
            self.last = fold(self.last, short_hash(block));
            self.chain.push(self.last);
        }
    }
}

fn unit_bytes(unit: Unit) -> usize {
    match unit {
        Unit::Bytes => 1,
        Unit::Tokens => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(parts: &[&[u8]]) -> Prompt {
        let mut hasher = BlockHasher::new(16, Unit::Bytes, 7);
        for part in parts {
            hasher.feed(part);
        }
        hasher.finish()
    }

    #[test]
    fn cutting_a_prompt_into_parts_changes_nothing() {
        let text: Vec<u8> = (0..100).collect();
        let whole = prompt(&[&text]);
        assert_eq!((whole.chain.len(), whole.size), (6, 100));
        for cut in 0..text.len() {
            assert_eq!(prompt(&[&text[..cut], &text[cut..]]), whole);
        }
        assert_eq!(prompt(&text.chunks(3).collect::<Vec<_>>()), whole);
    }

    #[test]
    fn equal_heads_share_exactly_their_blocks() {
        let mut text = vec![1_u8; 64];
        let first = prompt(&[&text]);
        text[40] = 2;
        let second = prompt(&[&text]);
        assert_eq!(first.chain[..2], second.chain[..2]);
        assert!(first.chain[2] != second.chain[2] && first.chain[3] != second.chain[3]);
    }

    #[test]
    fn equal_blocks_at_other_places_differ() {
        let prompt = prompt(&[&[1; 64]]);
        assert_ne!(prompt.chain[0], prompt.chain[1]);
        assert_ne!(
            BlockHasher::new(16, Unit::Bytes, 8).finish(),
            BlockHasher::new(16, Unit::Tokens, 8).finish()
        );
    }

    #[test]
    fn a_huge_prompt_has_a_bounded_chain() {
        let mut hasher = BlockHasher::new(16, Unit::Bytes, 0);
        hasher.feed(&vec![0; 16 * MAX_BLOCKS + 99]);
        let prompt = hasher.finish();
        assert_eq!((prompt.chain.len(), prompt.size), (MAX_BLOCKS, 16 * MAX_BLOCKS as u64 + 99));
    }
}
