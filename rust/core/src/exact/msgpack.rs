//! A bounded reader of MessagePack: never past the end, never deeper than the input is long.
//!
//! By hand, as nearly all of a message is token ids: 3.3 ns an id, with `rmp` 7.0, `rmp-serde` 13.

/// The input is not what was expected at some place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

/// Result of reading.
pub type Read<T> = Result<T, Unreadable>;

/// What stands next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Item<'a> {
    /// nil
    Nil,
    /// An integer of either sign.
    Int(i128),
    /// UTF-8 or not: taken as bytes.
    Text(&'a [u8]),
    /// A byte string.
    Bytes(&'a [u8]),
    /// Start of an array of so many items.
    Array(usize),
    /// Start of a map of so many pairs.
    Map(usize),
    /// A boolean, a float or an extension: nothing that a field here may be.
    Other,
}

/// Shifts that cut an unsigned number of up to 32 bits out of its first 8 bytes, by its head.
const FORM: [[u8; 2]; 256] = {
    let mut form = [[0, 56]; 256];
    form[0xCC] = [8, 56];
    form[0xCD] = [8, 48];
    form[0xCE] = [8, 32];
    form
};

/// Whether a word begins with an unsigned number of up to 32 bits.
fn is_token(word: u64) -> bool {
    let head = (word >> 56) as u8;
    head < 0x80 || head.wrapping_sub(0xCC) < 3
}

/// Bytes of such a number, its head included.
fn width(word: u64) -> usize {
    let head = (word >> 56) as u8;
    let more = |least: u8| usize::from(head >= least);
    1 + more(0xCC) + more(0xCD) + 2 * more(0xCE)
}

/// Such a number.
fn token(word: u64) -> u32 {
    let [up, down] = FORM[(word >> 56) as usize];
    ((word << up) >> down) as u32
}

/// Reads one item after the other.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Where it stands, in bytes.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Goes back to a place it was at.
    pub fn rewind(&mut self, at: usize) {
        self.at = at.min(self.bytes.len());
    }

    fn take(&mut self, len: usize) -> Read<&'a [u8]> {
        let rest = self.bytes.get(self.at..).ok_or(Unreadable)?;
        let taken = rest.get(..len).ok_or(Unreadable)?;
        self.at += len;
        Ok(taken)
    }

    /// A big-endian number of `len` bytes, at most 8.
    fn number(&mut self, len: usize) -> Read<u64> {
        Ok(self.take(len)?.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// A count of items that still have to come: each takes a byte at least.
    fn count(&self, count: u64, each: u64) -> Read<usize> {
        let left = (self.bytes.len() - self.at) as u64;
        if count.saturating_mul(each) > left { Err(Unreadable) } else { Ok(count as usize) }
    }

    /// Reads an item, or the head of an array or map.
    pub fn item(&mut self) -> Read<Item<'a>> {
        let head = self.take(1)?[0];
        let signed =
            |value: u64, bits: u32| i128::from((value << (64 - bits)) as i64 >> (64 - bits));
        Ok(match head {
            0x00..=0x7F => Item::Int(i128::from(head)),
            0x80..=0x8F => Item::Map(self.count(u64::from(head & 15), 2)?),
            0x90..=0x9F => Item::Array(self.count(u64::from(head & 15), 1)?),
            0xA0..=0xBF => Item::Text(self.take(usize::from(head & 31))?),
            0xC0 => Item::Nil,
            0xC1 => return Err(Unreadable),
            0xC2 | 0xC3 => Item::Other,
            0xC4..=0xC6 => {
                let len = self.number(1 << (head - 0xC4))?;
                Item::Bytes(self.take(len as usize)?)
            }
            0xC7..=0xC9 => {
                let len = self.number(1 << (head - 0xC7))?;
                self.take(len as usize + 1)?;
                Item::Other
            }
            0xCA | 0xCB => {
                self.take(4 << (head - 0xCA))?;
                Item::Other
            }
            0xCC..=0xCF => Item::Int(i128::from(self.number(1 << (head - 0xCC))?)),
            0xD0..=0xD3 => {
                let len = 1 << (head - 0xD0);
                Item::Int(signed(self.number(len)?, 8 * len as u32))
            }
            0xD4..=0xD8 => {
                self.take((1 << (head - 0xD4)) + 1)?;
                Item::Other
            }
            0xD9..=0xDB => {
                let len = self.number(1 << (head - 0xD9))?;
                Item::Text(self.take(len as usize)?)
            }
            0xDC | 0xDD => {
                let count = self.number(2 << (head - 0xDC))?;
                Item::Array(self.count(count, 1)?)
            }
            0xDE | 0xDF => {
                let count = self.number(2 << (head - 0xDE))?;
                Item::Map(self.count(count, 2)?)
            }
            0xE0..=0xFF => Item::Int(i128::from(head as i8)),
        })
    }

    /// Passes over one whole item, however nested.
    pub fn skip(&mut self) -> Read<()> {
        let mut left = 1_usize;
        while left > 0 {
            left -= 1;
            match self.item()? {
                // No overflow: each count was checked against the bytes that are left.
                Item::Array(count) => left += count,
                Item::Map(count) => left += 2 * count,
                _ => {}
            }
        }
        Ok(())
    }

    /// Passes over one item and gives its bytes.
    pub fn raw(&mut self) -> Read<&'a [u8]> {
        let start = self.at;
        self.skip()?;
        Ok(&self.bytes[start..self.at])
    }

    /// Passes over `count` nils, if that is what comes.
    pub fn nils(&mut self, count: usize) -> bool {
        let next = self.bytes.get(self.at..).and_then(|rest| rest.get(..count));
        let all = next.is_some_and(|next| next.iter().all(|&byte| byte == 0xC0));
        self.at += if all { count } else { 0 };
        all
    }

    /// An array's length; nil counts as absent.
    pub fn array(&mut self) -> Read<Option<usize>> {
        match self.item()? {
            Item::Array(count) => Ok(Some(count)),
            Item::Nil => Ok(None),
            _ => Err(Unreadable),
        }
    }

    /// An integer of 0 to `u32::MAX`; nil counts as absent.
    pub fn u32(&mut self) -> Read<Option<u32>> {
        match self.item()? {
            Item::Int(number) => u32::try_from(number).map(Some).map_err(|_| Unreadable),
            Item::Nil => Ok(None),
            _ => Err(Unreadable),
        }
    }

    /// Text; nil counts as absent.
    pub fn text(&mut self) -> Read<Option<&'a [u8]>> {
        match self.item()? {
            Item::Text(text) => Ok(Some(text)),
            Item::Nil => Ok(None),
            _ => Err(Unreadable),
        }
    }

    /// Appends `count` token ids: most of every message, so the usual forms go a shorter way.
    pub fn tokens(&mut self, count: usize, out: &mut Vec<u32>) -> Read<()> {
        let start = out.len();
        out.resize(start + self.count(count as u64, 1)?, 0);
        let (mut at, mut read) = (self.at, 0);
        // Two at a time and without a branch on their forms: ids of a large vocabulary mix 3 and 5
        // bytes at random, and where the next one starts is what everything waits for.
        for pair in out[start..].chunks_exact_mut(2) {
            let Some(bytes) = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<16>()) else {
                break;
            };
            let (one, _) = bytes.split_first_chunk::<8>().ok_or(Unreadable)?;
            let one = u64::from_be_bytes(*one);
            let first = width(one);
            // The second head is taken out of the first word: its own load would come later.
            let head = one << (8 * first);
            let two = bytes[first..].first_chunk::<8>().ok_or(Unreadable)?;
            if !(is_token(one) && is_token(head)) {
                break;
            }
            pair[0] = token(one);
            pair[1] = token(u64::from_be_bytes(*two));
            at += first + width(head);
            read += 2;
        }
        self.at = at;
        for token in &mut out[start + read..] {
            *token = self.u32()?.ok_or(Unreadable)?;
        }
        Ok(())
    }

    /// A 64-bit unsigned integer in its longest form, as most hashes are; none if another item is
    /// next.
    pub fn wide(&mut self) -> Option<u64> {
        let item = self.bytes.get(self.at..)?.first_chunk::<9>()?;
        let [0xCF, number @ ..] = *item else { return None };
        self.at += 9;
        Some(u64::from_be_bytes(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_head_byte_with_every_short_tail_ends_within_the_input() {
        for head in 0..=255_u8 {
            for len in 0..24 {
                let mut bytes = vec![head];
                bytes.resize(1 + len, 0xFF);
                let mut reader = Reader::new(&bytes);
                let _ = reader.skip();
                assert!(reader.at() <= bytes.len());
            }
        }
    }

    #[test]
    fn nesting_as_deep_as_the_input_needs_no_stack() {
        let mut bytes = vec![0x91; 1 << 20];
        bytes.push(0xC0);
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.skip(), Ok(()));
        assert_eq!(reader.at(), bytes.len());
    }

    #[test]
    fn a_length_beyond_the_input_reserves_nothing() {
        let bytes = [0xDD, 0xFF, 0xFF, 0xFF, 0xFF, 1];
        assert_eq!(Reader::new(&bytes).item(), Err(Unreadable));
        assert_eq!(Reader::new(&bytes).tokens(usize::MAX, &mut Vec::new()), Err(Unreadable));
    }

    #[test]
    fn integers_of_all_widths_and_signs() {
        let cases: [(&[u8], i128); 8] = [
            (&[0x7F], 127),
            (&[0xE0], -32),
            (&[0xCC, 200], 200),
            (&[0xCF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE], i128::from(u64::MAX) - 1),
            (&[0xD0, 0x80], -128),
            (&[0xD1, 0xFF, 0x00], -256),
            (&[0xD2, 0x80, 0, 0, 0], -(1 << 31)),
            (&[0xD3, 0x80, 0, 0, 0, 0, 0, 0, 0], i128::from(i64::MIN)),
        ];
        for (bytes, number) in cases {
            assert_eq!(Reader::new(bytes).item(), Ok(Item::Int(number)));
        }
    }

    #[test]
    fn tokens_of_all_forms_and_none_that_is_no_token() {
        let bytes =
            [5, 0xCC, 200, 0xCD, 1, 0, 0xCE, 0, 1, 0, 0, 0xD1, 0, 7, 0xCF, 0, 0, 0, 0, 0, 0, 0, 9];
        let mut out = Vec::new();
        assert_eq!(Reader::new(&bytes).tokens(6, &mut out), Ok(()));
        assert_eq!(out, [5, 200, 256, 65_536, 7, 9]);
        for bad in [&[0xFF_u8][..], &[0xC0], &[0xCF, 0, 0, 0, 1, 0, 0, 0, 0]] {
            assert_eq!(Reader::new(bad).tokens(1, &mut out), Err(Unreadable));
        }
    }
}
