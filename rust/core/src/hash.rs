//! The stable hashes. A released value never changes: replicas and restarts agree by it.

use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed, xxh3_128};

/// Finaliser of `SplitMix64`: spreads one word over all 64 bits.
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The id of an endpoint: xxh3-64 of its URL bytes.
pub fn endpoint_id(url: &[u8]) -> u64 {
    xxh3_64(url)
}

/// A request's name, wide enough that two never meet by chance.
pub fn request_key(id: &[u8]) -> u128 {
    xxh3_128(id)
}

/// A session key under the seed of its model, LoRA adapter and salt.
pub fn session_key(key: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(key, seed)
}

/// xxh3-64 of a block: the implementation that is quick on short inputs.
pub fn short_hash(block: &[u8]) -> u64 {
    xxh3_64(block)
}

/// xxh3-64 of an image or the like, however large: at the speed of memory.
pub fn digest(bytes: &[u8], seed: u64) -> u64 {
    long_hash(bytes, seed)
}

/// Chains one block's hash to the key of all before it: a folded 64 × 64 → 128 bit product
/// (the mixing step of wyhash; Wang Yi 2019).
pub fn fold(key: u64, block: u64) -> u64 {
    let product =
        u128::from(key ^ 0xA076_1D64_78BD_642F) * u128::from(block ^ 0xE703_7ED1_A0B4_28DB);
    (product >> 64) as u64 ^ product as u64 ^ key.rotate_left(23)
}

/// xxh3-64, by the implementation that is quicker at this length.
fn long_hash(bytes: &[u8], seed: u64) -> u64 {
    if bytes.len() < 1024 {
        xxh3_64_with_seed(bytes, seed)
    } else {
        twox_hash::XxHash3_64::oneshot_with_seed(seed, bytes)
    }
}

/// Highest-random-weight score of an endpoint for a key (rendezvous; Thaler and Ravishankar 1998).
pub fn rendezvous(key: u64, id: u64) -> u64 {
    mix(key ^ id.rotate_left(32) ^ 0x9E37_79B9_7F4A_7C15)
}

/// Hasher of maps whose keys are hashes already: hashing them again would only cost.
#[derive(Debug, Default)]
pub(crate) struct Hashed(u64);

impl std::hash::Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Most segments that one prompt is cut into.
pub const MAX_SEGMENTS: usize = 10;

/// Chained hashes of a prompt's head, in segments that double: one block, one more, two more, …
///
/// Hash k covers the first `block * 2^k` bytes: `h[k] = xxh3(segment k, seed = h[k-1])`, so equal
/// hashes mean equal prefixes, and the deepest costs one xxh3 pass over the bytes. A prompt
/// shorter than one block has one hash, of all its bytes. Text behind the last segment is not
/// read. The last, unfinished segment gives no hash, so that a conversation that grows keeps its.
#[derive(Clone)]
pub struct PrefixHasher {
    state: Xxh3,
    block: usize,
    room: usize,
    seed: u64,
    hashes: [u64; MAX_SEGMENTS],
    depth: usize,
    fed: bool,
}

impl PrefixHasher {
    /// `block`: bytes of the first segment, at least 1. `seed`: model, LoRA adapter and salt.
    pub fn new(block: usize, seed: u64) -> Self {
        let block = block.max(1);
        Self {
            state: Xxh3::with_seed(seed),
            block,
            room: block,
            seed,
            hashes: [0; MAX_SEGMENTS],
            depth: 0,
            fed: false,
        }
    }

    /// Whether further bytes would change nothing.
    pub fn is_full(&self) -> bool {
        self.depth == MAX_SEGMENTS
    }

    /// Feeds the next bytes of the prompt.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_full() {
            self.fed = true;
            let (now, later) = bytes.split_at(self.room.min(bytes.len()));
            if now.len() == self.room {
                // One call where a segment lies in one piece: the common case of one long text.
                let whole = self.room == self.segment();
                let hash = if whole {
                    long_hash(now, self.seed)
                } else {
                    self.state.update(now);
                    self.state.digest()
                };
                self.seed = hash;
                self.hashes[self.depth] = hash;
                self.depth += 1;
                self.room = self.segment();
                self.state = Xxh3::with_seed(hash);
            } else {
                self.state.update(now);
                self.room -= now.len();
            }
            bytes = later;
        }
    }

    /// The hashes, shallowest first; empty when nothing was fed.
    pub fn finish(mut self) -> PrefixKey {
        if self.depth == 0 && self.fed {
            self.hashes[0] = self.state.digest();
            self.depth = 1;
        }
        PrefixKey { hashes: self.hashes, depth: self.depth }
    }

    fn segment(&self) -> usize {
        if self.depth == 0 { self.block } else { self.block << (self.depth - 1) }
    }
}

/// What a [`PrefixHasher`] leaves: at most [`MAX_SEGMENTS`] hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixKey {
    hashes: [u64; MAX_SEGMENTS],
    depth: usize,
}

impl PrefixKey {
    /// Shallowest first.
    pub fn hashes(&self) -> &[u64] {
        &self.hashes[..self.depth]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &[&[u8]]) -> PrefixKey {
        let mut hasher = PrefixHasher::new(16, 7);
        for part in parts {
            hasher.feed(part);
        }
        hasher.finish()
    }

    #[test]
    fn cutting_a_prompt_into_parts_changes_nothing() {
        let text: Vec<u8> = (0..200_u8).collect();
        let whole = key(&[&text]);
        for cut in 0..text.len() {
            assert_eq!(key(&[&text[..cut], &text[cut..]]), whole);
        }
        assert_eq!(whole.hashes().len(), 4); // 16, 32, 64, 128; 256 is not reached
    }

    #[test]
    fn equal_heads_share_exactly_their_hashes() {
        let mut other = vec![1_u8; 64];
        let first = key(&[&other]);
        other[40] = 2;
        let second = key(&[&other]);
        assert_eq!(first.hashes()[..2], second.hashes()[..2]);
        assert_ne!(first.hashes()[2], second.hashes()[2]);
    }

    #[test]
    fn both_implementations_are_one_hash() {
        let bytes: Vec<u8> = (0..70_000_u32).map(|i| ((i * 31) >> 3) as u8).collect();
        for len in [0, 1, 240, 241, 1023, 1024, 1025, 4096, 65_536, 70_000] {
            let seed = mix(len as u64);
            let expected = xxh3_64_with_seed(&bytes[..len], seed);
            assert_eq!(twox_hash::XxHash3_64::oneshot_with_seed(seed, &bytes[..len]), expected);
        }
    }

    #[test]
    fn short_and_empty_prompts_have_one_and_no_hash() {
        assert_eq!(key(&[b"hi"]).hashes().len(), 1);
        assert_ne!(key(&[b"hi"]), key(&[b"ho"]));
        assert!(key(&[]).hashes().is_empty());
    }
}
