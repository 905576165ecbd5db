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

    // What is behind the last block counts in the size, unread.
    fn is_full(&self) -> bool {
        self.is_full()
    }

    fn taken(&self) -> u64 {
        self.fed()
    }

    fn count(&mut self, bytes: u64) {
        self.count(bytes);
    }
}

/// Characters that are encoded at a time.
const PIECE: usize = 1 << 16;

/// Bytes of a string's first `limit` characters, in pieces, as long as `f` wants more; how many
/// characters that were.
pub fn pieces(text: &Bound<'_, PyString>, limit: usize, mut f: impl FnMut(&[u8]) -> bool) -> usize {
    let all = text.len().unwrap_or(0).min(limit);
    if all <= PIECE {
        with_bytes(text, limit, f);
        return all;
    }
    let mut at = 0;
    if is_ascii(text)
        && let Ok(bytes) = text.to_cow()
    {
        // Its characters are its bytes: nothing is cut out, nothing encoded.
        while at < all && f(&bytes.as_bytes()[at..all.min(at + PIECE)]) {
            at += PIECE;
        }
        return all.min(at + PIECE);
    }
    while at < all {
        let end = all.min(at + PIECE);
        let slice = pyo3::types::PySlice::new(text.py(), at as isize, end as isize, 1);
        let piece = text.as_any().get_item(slice).ok().and_then(|p| p.cast_into::<PyString>().ok());
        at = end;
        if piece.and_then(|piece| with_bytes(&piece, PIECE, &mut f)) != Some(true) {
            break;
        }
    }
    at
}

fn is_ascii(text: &Bound<'_, PyString>) -> bool {
    let found = text.call_method0(intern!(text.py(), "isascii"));
    found.and_then(|found| found.extract()).unwrap_or(false)
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
