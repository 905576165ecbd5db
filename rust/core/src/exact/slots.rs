//! The arithmetic of both open-addressing tables: where entries belong, when a table grows.
//!
//! Between 0.58 and 0.72 full: (16 + 20) / 0.576 = 62.5 bytes a block, and short probes. Entries
//! stay in the order of their homes, so that a removal moves back few of them.

/// Entries whose places are read ahead.
pub const WINDOW: usize = 32;

/// Where a hash belongs in a table of `len` slots: its high bits, scaled.
pub fn home(hash: u64, len: usize) -> usize {
    ((u128::from(hash) * len as u128) >> 64) as usize
}
/// Slots of a full table when it grows: a quarter more, so that memory stays tight.
pub fn grown(slots: usize) -> usize {
    slots + slots / 4 + 4
}

/// Whether a table of `slots` has no place for one entry more.
pub fn is_full(entries: usize, slots: usize) -> bool {
    (entries + 1) * 25 > slots * 18
}

/// The slots that `entries` should have once they fill less than 9/20 of `slots`: none for none.
pub fn shrunk(entries: usize, slots: usize) -> Option<usize> {
    if entries == 0 {
        return Some(0);
    }
    (slots > 16 && entries * 20 < slots * 9).then_some(entries * 3 / 2 + 8)
}

/// Steps forward from one slot to another, round the end.
pub fn ahead(from: usize, to: usize, len: usize) -> usize {
    if to >= from { to - from } else { to + len - from }
}
