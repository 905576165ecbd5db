//! The bytes of prompts, and what takes them.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use routecore::hash::PrefixHasher;
use routecore::prompt::{BlockHasher, media_bytes};

/// Stands behind every text, so that two never run together.
pub const SEPARATOR: &[u8] = b"\x1f";

/// What takes the bytes of a prompt.
pub trait Sink {
    fn take(&mut self, bytes: &[u8]);

    /// An image or the like, by its digest and tokens.
    fn take_media(&mut self, digest: u64, tokens: u32);

    /// Whether more would change nothing.
    fn is_full(&self) -> bool {
        false
    }

    /// Bytes taken so far, where that counts.
    fn taken(&self) -> u64 {
        0
    }

    /// Bytes that the engine reads once more.
    fn count(&mut self, _bytes: u64) {}
}

impl Sink for PrefixHasher {
    fn take(&mut self, bytes: &[u8]) {
        self.feed(bytes);
    }

    fn take_media(&mut self, digest: u64, tokens: u32) {
        media_bytes(digest, tokens, |bytes| self.feed(bytes));
    }

    fn is_full(&self) -> bool {
        self.is_full()
    }
}

impl Sink for BlockHasher {
    fn take(&mut self, bytes: &[u8]) {
        self.feed(bytes);
    }

    fn take_media(&mut self, digest: u64, tokens: u32) {
        self.feed_media(digest, tokens);
    }

    // Never full: what is behind the last block still counts in the size.

    fn taken(&self) -> u64 {
        self.fed()
    }

    fn count(&mut self, bytes: u64) {
        self.count(bytes);
    }
}

/// Bytes of a string's first `limit` characters; lone surrogates keep bytes of their own.
pub fn with_bytes<T>(
    text: &Bound<'_, PyString>,
    limit: usize,
    f: impl FnOnce(&[u8]) -> T,
) -> Option<T> {
    let py = text.py();
    // Cut before encoding: a long non-ASCII text would be encoded, and kept, as a whole.
    let head = match text.len() {
        Ok(n) if n > limit => text
            .as_any()
            .get_item(pyo3::types::PySlice::new(py, 0, limit as isize, 1))
            .ok()
            .and_then(|head| head.cast_into::<PyString>().ok()),
        _ => None,
    };
    let text = head.as_ref().unwrap_or(text);
    if let Ok(utf8) = text.to_cow() {
        return Some(f(utf8.as_bytes()));
    }
    let encoded = text.call_method1(intern!(py, "encode"), ("utf-8", "surrogatepass")).ok()?;
    Some(f(encoded.cast::<PyBytes>().ok()?.as_bytes()))
}
