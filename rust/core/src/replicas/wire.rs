//! Bytes: numbers of fixed and of varying length, and sections that say how long they are.

/// Appends a number, seven bits a byte, lowest first.
pub fn put_varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

/// Appends a number of eight bytes, lowest first.
pub fn put_u64(into: &mut Vec<u8>, value: u64) {
    into.extend_from_slice(&value.to_le_bytes());
}

/// Appends a section: its kind, its length, and what `fill` appends.
pub fn put_section(into: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut body = Vec::new();
    fill(&mut body);
    into.push(kind);
    put_varint(into, body.len() as u64);
    into.extend_from_slice(&body);
}

/// What is left to be read. Everything is `None` past the end.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// Whether nothing is left.
    pub fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    /// The next so many bytes.
    pub fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(bytes)?;
        self.0 = tail;
        Some(head)
    }

    /// One byte.
    pub fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// A number of eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// A number of varying length; none that is longer than 64 bits.
    pub fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// The next section: its kind and its bytes.
    pub fn section(&mut self) -> Option<(u8, Self)> {
        let kind = self.byte()?;
        let len = usize::try_from(self.varint()?).ok()?;
        Some((kind, Self(self.take(len)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_none_is_read_past_the_end() {
        for value in [0, 1, 127, 128, 300, 1 << 35, u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(Reader(&bytes).varint(), Some(value));
            assert_eq!(Reader(&bytes[..bytes.len() - 1]).varint(), None);
        }
        assert_eq!(Reader(&[0xFF; 10]).varint(), None, "more than 64 bits");
        assert_eq!(Reader(&[0x80; 40]).varint(), None);
        assert!(Reader(&[7; 7]).u64().is_none() && Reader(&[1, 9, 0]).section().is_none());
    }
}
