//! A prompt as the prefix index sees it: a chain of block hashes and a size.

use crate::hash::{fold, short_hash};

/// Blocks of one prompt that are looked at, at most; what is behind them is prefilled anyway.
pub const MAX_BLOCKS: usize = 1 << 16;

/// Bytes that a token of an image, of audio or of a file takes among a prompt's bytes.
pub const MEDIA_TOKEN_BYTES: usize = 4;

/// What a prompt is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes of UTF-8 text; tokens are estimated from them.
    Bytes,
    /// Token ids.
    Tokens,
}

/// The chained hashes of a prompt's full blocks, how long it is, and what it may generate.
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
    /// Units of the size that stand for images, audio and files, at [`MEDIA_TOKEN_BYTES`] a token.
    pub media: u64,
    /// Sequences to generate: `n` of each prompt of a batch.
    pub sequences: u32,
    /// Tokens that each sequence may have at most, where the request says.
    pub max_tokens: Option<u32>,
}

impl Prompt {
    /// A prompt of text or ids alone, for one sequence of any length.
    pub fn new(chain: Vec<u64>, size: u64, block: u32, unit: Unit) -> Self {
        Self { chain, size, block, unit, media: 0, sequences: 1, max_tokens: None }
    }

    /// Tokens of its images, audio and files, as guessed from their kind and size.
    pub fn media_tokens(&self) -> f64 {
        self.media as f64 * unit_bytes(self.unit) as f64 / MEDIA_TOKEN_BYTES as f64
    }
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
    media: u64,
    chain: Vec<u64>,
    unit: Unit,
}

impl BlockHasher {
    /// `block`: units of a block, at least 1. `seed`: what must not share.
    pub fn new(block: u32, unit: Unit, seed: u64) -> Self {
        let bytes = block.max(1) as usize * unit_bytes(unit);
        let (part, chain) = (Vec::new(), Vec::new());
        Self { last: seed, bytes, part, fed: 0, media: 0, chain, unit }
    }

    /// Makes room for a prompt of so many bytes.
    pub fn reserve(&mut self, bytes: usize) {
        self.chain.reserve((bytes / self.bytes).min(MAX_BLOCKS));
    }

    /// Whether all blocks that are kept of a prompt are there: what follows is only counted.
    pub fn is_full(&self) -> bool {
        self.chain.len() >= MAX_BLOCKS
    }

    /// Feeds the next bytes: text, or token ids as little-endian `u32`.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        self.fed = self.fed.saturating_add(bytes.len() as u64);
        if self.is_full() {
            return;
        }
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

    /// Feeds an image or the like: so many tokens of what its digest stands for.
    pub fn feed_media(&mut self, digest: u64, tokens: u32) {
        media_bytes(digest, tokens, |bytes| self.feed(bytes));
        self.media += u64::from(tokens) * MEDIA_TOKEN_BYTES as u64;
    }

    /// Counts bytes that the engine reads once more, such as a query beside each document.
    pub fn count(&mut self, bytes: u64) {
        self.fed = self.fed.saturating_add(bytes);
    }

    /// Bytes that were fed.
    pub fn fed(&self) -> u64 {
        self.fed
    }

    /// The prompt; a last block that is not full is no block, but counts in the size.
    pub fn finish(self) -> Prompt {
        let unit = unit_bytes(self.unit);
        let (size, block) = (self.fed / unit as u64, (self.bytes / unit) as u32);
        let media = self.media / unit as u64;
        Prompt { media, ..Prompt::new(self.chain, size, block, self.unit) }
    }

    fn push(&mut self, block: &[u8]) {
        if self.chain.len() < MAX_BLOCKS {
            self.last = fold(self.last, short_hash(block));
            self.chain.push(self.last);
        }
    }
}

/// What stands for an image among the bytes of a prompt, a piece at a time.
pub fn media_bytes(digest: u64, tokens: u32, mut f: impl FnMut(&[u8])) {
    let mut piece = [0; 64 * 8];
    for word in piece.as_chunks_mut::<8>().0 {
        *word = digest.to_le_bytes();
    }
    let mut left = tokens as usize * MEDIA_TOKEN_BYTES;
    while left > 0 {
        let now = left.min(piece.len());
        f(&piece[..now]);
        left -= now;
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
    fn an_image_takes_its_place_and_is_counted_apart() {
        let with = |digest, unit| {
            let mut hasher = BlockHasher::new(16, unit, 7);
            hasher.feed(&[1; 64]);
            hasher.feed_media(digest, 1000);
            hasher.feed(&[2; 64]);
            hasher.finish()
        };
        let (one, other) = (with(5, Unit::Bytes), with(6, Unit::Bytes));
        assert_eq!((one.size, one.media, one.media_tokens()), (4128, 4000, 1000.0));
        assert_eq!(one.chain[..4], other.chain[..4]);
        assert!(one.chain[4..].iter().zip(&other.chain[4..]).all(|(a, b)| a != b));
        assert_eq!(with(5, Unit::Tokens).media_tokens(), 1000.0);
    }

    #[test]
    fn a_huge_prompt_has_a_bounded_chain() {
        let mut hasher = BlockHasher::new(16, Unit::Bytes, 0);
        hasher.feed(&vec![0; 16 * MAX_BLOCKS + 99]);
        let prompt = hasher.finish();
        assert_eq!((prompt.chain.len(), prompt.size), (MAX_BLOCKS, 16 * MAX_BLOCKS as u64 + 99));
    }
}
