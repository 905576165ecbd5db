//! Fuzz input as a stream of numbers; all zeros once it is used up.

/// The rest of an input.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// Whether all of it was read.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// So many bytes, or what is left.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (first, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        first
    }

    /// A length and so many bytes.
    pub fn part(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()) << 8 | usize::from(self.byte());
        self.bytes(length)
    }

    /// Eight bytes as a number.
    pub fn number(&mut self) -> u64 {
        self.bytes(8).iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    /// Below `bound`, which must be above 0.
    pub fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }

    /// A number that a host may pass for seconds, good or bad.
    pub fn float(&mut self) -> f64 {
        match self.byte() {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            3 => 1e300,
            4 => -1e300,
            5 => f64::from_bits(self.number()),
            6 => 1.7e12,
            7 => -3_600.0,
            8 => 3_600.0,
            small => f64::from(small) * f64::from(self.byte()) / 256.0,
        }
    }
}
