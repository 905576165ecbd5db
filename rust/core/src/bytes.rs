//! Numbers, and what is made of them, as bytes: little endian, field by field.

/// What can be written as bytes and read back.
pub(crate) trait Saved: Sized {
    /// Appends itself.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads itself; `None` where the bytes are no such thing.
    fn take(from: &mut Reader<'_>) -> Option<Self>;
}

/// Bytes that are left to read.
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
}

macro_rules! plain {
    ($($kind:ty),*) => { $(
        impl Saved for $kind {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn take(from: &mut Reader<'_>) -> Option<Self> {
                from.bytes().map(Self::from_le_bytes)
            }
        }
    )* };
}
plain!(u8, u32, u64);

/// Finite ones only: nothing that was learned is anything else.
impl Saved for f64 {
    fn put(&self, out: &mut Vec<u8>) {
        let value = if self.is_finite() { *self } else { 0.0 };
        out.extend_from_slice(&value.to_le_bytes());
    }

    fn take(from: &mut Reader<'_>) -> Option<Self> {
        from.bytes().map(Self::from_le_bytes).filter(|value| value.is_finite())
    }
}

impl Saved for usize {
    fn put(&self, out: &mut Vec<u8>) {
        (*self as u64).put(out);
    }

    fn take(from: &mut Reader<'_>) -> Option<Self> {
        // Counters go on from here: none may be near its end.
        u64::take(from)?.try_into().ok().filter(|&n: &usize| n < 1 << 31)
    }
}

impl Saved for bool {
    fn put(&self, out: &mut Vec<u8>) {
        u8::from(*self).put(out);
    }

    fn take(from: &mut Reader<'_>) -> Option<Self> {
        u8::take(from).filter(|&byte| byte < 2).map(|byte| byte == 1)
    }
}

impl<T: Saved, const N: usize> Saved for [T; N] {
    fn put(&self, out: &mut Vec<u8>) {
        for item in self {
            item.put(out);
        }
    }

    fn take(from: &mut Reader<'_>) -> Option<Self> {
        (0..N).map(|_| T::take(from)).collect::<Option<Vec<_>>>()?.try_into().ok()
    }
}

impl<T: Saved> Saved for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.len().put(out);
        for item in self {
            item.put(out);
        }
    }

    fn take(from: &mut Reader<'_>) -> Option<Self> {
        let len = usize::take(from)?;
        // An item is a byte at least: a length that lies reserves nothing.
        (len <= from.0.len()).then_some(())?;
        (0..len).map(|_| T::take(from)).collect()
    }
}

/// Writes the fields named before the semicolon; those behind it start anew.
macro_rules! saved {
    ($kind:ident $(<$($n:ident),*>)? { $($field:ident),* $(; $($fresh:ident),*)? }) => {
        impl $(<$(const $n: usize),*>)? $crate::bytes::Saved for $kind $(<$($n),*>)? {
            fn put(&self, out: &mut Vec<u8>) {
                let Self { $($field,)* $($($fresh: _,)*)? } = self;
                $($crate::bytes::Saved::put($field, out);)*
            }

            fn take(from: &mut $crate::bytes::Reader<'_>) -> Option<Self> {
                Some(Self {
                    $($field: $crate::bytes::Saved::take(from)?,)*
                    $($($fresh: Default::default(),)*)?
                })
            }
        }
    };
}
pub(crate) use saved;
