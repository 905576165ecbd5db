//! Own keys of token blocks: a chain over re-hashed token ids, so that a lookup needs no engine.
//!
//! `local = xxh3_64(token ids as u32, little-endian)`, `key = fold(previous key, local ^ extra)`.
//! Locals are independent of one another and pipeline; only the fold, one multiplication, is
//! serial. The root holds the index's seed and the LoRA adapter; multimodal items and a cache salt
//! enter at the block that engines list them under.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::hash::mix;

// Seeds that keep the kinds of extra keys apart: a text "7" is not the number 7.
const TEXT: u64 = 0x7465_7874;
const NUMBER: u64 = 0x6E75_6D62;
const LIST: u64 = 0x6C69_7374;

/// The next key of a chain: both halves of one 64 × 64 bit product, as in wyhash.
///
/// The second factor depends on the chain too, so that no chosen token block makes it zero.
pub fn fold(previous: u64, local: u64) -> u64 {
    let a = previous ^ 0xA076_1D64_78BD_642F;
    let product = u128::from(a) * u128::from(local ^ previous.rotate_left(32));
    (product as u64) ^ ((product >> 64) as u64)
}

/// Hash of one block's token ids, wherever it stands.
pub fn local(tokens: &[u32]) -> u64 {
    if cfg!(target_endian = "little") {
        xxh3_64(bytemuck::cast_slice(tokens))
    } else {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        xxh3_64(&bytes)
    }
}

/// What a chain starts from. `lora`: hash of the adapter's name, 0 for the base model.
pub fn root(seed: u64, lora: u64) -> u64 {
    fold(mix(seed ^ 0x9E37_79B9_7F4A_7C15), lora)
}

/// A text or byte string among a block's extra keys, or the name of an adapter; never 0.
pub fn text_key(bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, TEXT).max(1)
}

/// A number among a block's extra keys.
pub fn number_key(number: i128) -> u64 {
    xxh3_64_with_seed(&number.to_le_bytes(), NUMBER)
}

/// A list, such as (multimodal identifier, offset): its items one after the other.
pub fn list_key(items: impl IntoIterator<Item = u64>) -> u64 {
    items.into_iter().fold(LIST, fold)
}

/// Appends the keys of all full blocks. `extra(i)` is block i's [`list_key`], 0 where it has none.
pub fn chain(
    root: u64,
    tokens: &[u32],
    block: usize,
    extra: impl Fn(usize) -> u64,
    keys: &mut Vec<u64>,
) {
    let mut previous = root;
    keys.extend(tokens.chunks_exact(block.max(1)).enumerate().map(|(i, tokens)| {
        previous = fold(previous, local(tokens) ^ extra(i));
        previous
    }));
}

/// Blocks of a prompt that an engine could take from its cache: it always computes the last token.
pub fn usable(tokens: usize, block: usize) -> usize {
    tokens.saturating_sub(1) / block.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(seed: u64, tokens: &[u32]) -> Vec<u64> {
        let mut out = Vec::new();
        chain(root(seed, 0), tokens, 4, |_| 0, &mut out);
        out
    }

    #[test]
    fn equal_prefixes_share_exactly_their_keys() {
        let a = keys(1, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let b = keys(1, &[1, 2, 3, 4, 5, 6, 7, 9]);
        assert_eq!((a.len(), b.len()), (2, 2)); // full blocks only
        assert_eq!(a[0], b[0]);
        assert_ne!(a[1], b[1]);
    }

    #[test]
    fn the_same_block_behind_other_blocks_has_another_key() {
        let a = keys(1, &[1, 2, 3, 4, 9, 9, 9, 9]);
        let b = keys(1, &[4, 3, 2, 1, 9, 9, 9, 9]);
        assert_ne!(a[1], b[1]);
    }

    #[test]
    fn seed_adapter_and_extra_keys_separate() {
        let tokens = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_ne!(keys(1, &tokens), keys(2, &tokens));
        assert_ne!(root(1, 0), root(1, text_key(b"adapter")));
        let image = list_key([list_key([text_key(b"image"), number_key(2)])]);
        let mut with = Vec::new();
        chain(root(1, 0), &tokens, 4, |i| if i == 1 { image } else { 0 }, &mut with);
        assert_eq!(with[0], keys(1, &tokens)[0]);
        assert_ne!(with[1], keys(1, &tokens)[1]);
        assert_ne!(text_key(b"7"), number_key(7));
        assert_ne!(list_key([1, 2]), list_key([2, 1]));
    }

    #[test]
    fn the_block_that_ends_a_prompt_is_never_usable() {
        assert_eq!([0, 1, 16, 17, 32, 33].map(|n| usable(n, 16)), [0, 0, 0, 1, 1, 2]);
    }
}
