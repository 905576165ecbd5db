//! Request bodies → prompt hashes. Whatever has no prompt gives no hash; nothing here fails.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyString, PyTuple};
use routecore::Key;
use routecore::hash::{MAX_SEGMENTS, PrefixHasher, session_key};

/// Nesting beyond this is not read.
const MAX_DEPTH: usize = 16;
const SEPARATOR: &[u8] = b"\x1f";

/// Bytes of a string's first `limit` characters; lone surrogates keep bytes of their own.
fn with_bytes(text: &Bound<'_, PyString>, limit: usize, f: impl FnOnce(&[u8])) {
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
        f(utf8.as_bytes());
    } else if let Ok(encoded) = text.call_method1(intern!(py, "encode"), ("utf-8", "surrogatepass"))
        && let Ok(bytes) = encoded.cast::<PyBytes>()
    {
        f(bytes.as_bytes());
    }
}

/// Model, LoRA adapter and salt: prompts under different ones share no cache.
fn seed(body: &Bound<'_, PyDict>) -> u64 {
    let py = body.py();
    let names = [intern!(py, "model"), intern!(py, "lora_name"), intern!(py, "cache_salt")];
    let mut seed = 0;
    for (at, name) in names.into_iter().enumerate() {
        if let Ok(Some(value)) = body.get_item(name)
            && let Ok(text) = value.cast::<PyString>()
        {
            with_bytes(text, 4096, |bytes| seed = session_key(bytes, seed ^ at as u64));
        }
    }
    seed
}

fn feed(hasher: &mut PrefixHasher, value: &Bound<'_, PyAny>, limit: usize, depth: usize) {
    if hasher.is_full() || depth > MAX_DEPTH {
        return;
    }
    if let Ok(text) = value.cast::<PyString>() {
        with_bytes(text, limit, |bytes| hasher.feed(bytes));
        hasher.feed(SEPARATOR);
    } else if let Ok(number) = value.cast::<PyInt>() {
        // Token ids: four bytes each; what does not fit is no token and keeps its low bits.
        let id = number.extract::<i64>().unwrap_or(-1);
        hasher.feed(&(id as u32).to_le_bytes());
    } else if let Ok(map) = value.cast::<PyDict>() {
        for (name, item) in map {
            feed(hasher, &name, limit, depth + 1);
            feed(hasher, &item, limit, depth + 1);
            if hasher.is_full() {
                return;
            }
        }
    } else if let Ok(list) = value.cast::<PyList>() {
        for item in list {
            feed(hasher, &item, limit, depth + 1);
            if hasher.is_full() {
                return;
            }
        }
    } else if let Ok(tuple) = value.cast::<PyTuple>() {
        for item in tuple {
            feed(hasher, &item, limit, depth + 1);
        }
    }
}

/// The prompt head's key; [`Key::None`] for a body without a prompt.
pub fn prefix_key(body: &Bound<'_, PyAny>, block: usize) -> Key {
    let Ok(body) = body.cast::<PyDict>() else { return Key::None };
    let py = body.py();
    let mut hasher = PrefixHasher::new(block, seed(body));
    let limit = block << (MAX_SEGMENTS - 1);
    let parts = [intern!(py, "messages"), intern!(py, "prompt"), intern!(py, "input")];
    let Some(prompt) = parts.into_iter().find_map(|name| body.get_item(name).ok().flatten()) else {
        return Key::None;
    };
    // Engines render tools and system before the conversation.
    for name in [intern!(py, "tools"), intern!(py, "system")] {
        if let Ok(Some(value)) = body.get_item(name) {
            feed(&mut hasher, &value, limit, 0);
        }
    }
    feed(&mut hasher, &prompt, limit, 0);
    Key::Prefix(hasher.finish())
}

/// The session's key under the body's model, LoRA adapter and salt.
pub fn session(id: &Bound<'_, PyString>) -> Key {
    let mut key = 0;
    with_bytes(id, 1 << 16, |bytes| key = session_key(bytes, 0));
    Key::Session(key)
}
