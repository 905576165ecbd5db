//! Request bodies → prompt hashes. Whatever has no prompt gives no hash; nothing here fails.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyString, PyTuple};
use routecore::Key;
use routecore::hash::{MAX_SEGMENTS, PrefixHasher, mix, session_key};
use routecore::prompt::{BlockHasher, MAX_BLOCKS, Unit};

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

/// What takes the bytes of a prompt.
trait Sink {
    fn take(&mut self, bytes: &[u8]);
    fn is_full(&self) -> bool;
}

impl Sink for PrefixHasher {
    fn take(&mut self, bytes: &[u8]) {
        self.feed(bytes);
    }

    fn is_full(&self) -> bool {
        self.is_full()
    }
}

impl Sink for BlockHasher {
    fn take(&mut self, bytes: &[u8]) {
        self.feed(bytes);
    }

    fn is_full(&self) -> bool {
        false // what is behind the last block still counts in the size
    }
}

/// Feeds the token ids that a list starts with, many at a time; how many there are.
fn feed_ids(hasher: &mut impl Sink, list: &Bound<'_, PyList>) -> usize {
    let mut bytes = [0; 4096];
    let (mut fed, mut full) = (0, 0);
    for item in list {
        let Ok(number) = item.cast_exact::<PyInt>() else { break };
        let id = number.extract::<i64>().unwrap_or(-1);
        bytes[full..full + 4].copy_from_slice(&(id as u32).to_le_bytes());
        (fed, full) = (fed + 1, full + 4);
        if full == bytes.len() {
            hasher.take(&bytes);
            full = 0;
            if hasher.is_full() {
                break;
            }
        }
    }
    hasher.take(&bytes[..full]);
    fed
}

fn feed(hasher: &mut impl Sink, value: &Bound<'_, PyAny>, limit: usize, depth: usize) {
    if hasher.is_full() || depth > MAX_DEPTH {
        return;
    }
    if let Ok(text) = value.cast::<PyString>() {
        with_bytes(text, limit, |bytes| hasher.take(bytes));
        hasher.take(SEPARATOR);
    } else if let Ok(number) = value.cast::<PyInt>() {
        // Token ids: four bytes each; what does not fit is no token and keeps its low bits.
        let id = number.extract::<i64>().unwrap_or(-1);
        hasher.take(&(id as u32).to_le_bytes());
    } else if let Ok(map) = value.cast::<PyDict>() {
        for (name, item) in map {
            feed(hasher, &name, limit, depth + 1);
            feed(hasher, &item, limit, depth + 1);
            if hasher.is_full() {
                return;
            }
        }
    } else if let Ok(list) = value.cast::<PyList>() {
        let ids = feed_ids(hasher, list);
        for item in list.iter().skip(ids) {
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

/// What of a body is the prompt; nothing for a body without one.
fn prompt_of<'py>(body: &Bound<'py, PyDict>) -> Option<Bound<'py, PyAny>> {
    let py = body.py();
    let parts = [intern!(py, "messages"), intern!(py, "prompt"), intern!(py, "input")];
    parts.into_iter().find_map(|name| body.get_item(name).ok().flatten())
}

/// Feeds all that an engine renders: tools and system stand before the conversation.
fn feed_all(
    hasher: &mut impl Sink,
    body: &Bound<'_, PyDict>,
    prompt: &Bound<'_, PyAny>,
    limit: usize,
) {
    let py = body.py();
    for name in [intern!(py, "tools"), intern!(py, "system")] {
        if let Ok(Some(value)) = body.get_item(name) {
            feed(hasher, &value, limit, 0);
        }
    }
    feed(hasher, prompt, limit, 0);
}

/// The prompt head's key; [`Key::None`] for a body without a prompt.
pub fn prefix_key(body: &Bound<'_, PyAny>, block: usize) -> Key {
    let Ok(body) = body.cast::<PyDict>() else { return Key::None };
    let Some(prompt) = prompt_of(body) else { return Key::None };
    let mut hasher = PrefixHasher::new(block, seed(body));
    feed_all(&mut hasher, body, &prompt, block << (MAX_SEGMENTS - 1));
    Key::Prefix(hasher.finish())
}

/// How prompts are cut into blocks for the prefix index.
#[derive(Clone, Copy)]
pub struct Blocks {
    /// Bytes of a block of text.
    pub chars: u32,
    /// Token ids of a block, where the prompt is given as such.
    pub tokens: u32,
    /// What keeps other processes from foreseeing where a prompt goes.
    pub seed: u64,
}

/// The prompt as a chain of blocks; [`Key::None`] for a body without a prompt.
pub fn blocks(body: &Bound<'_, PyAny>, blocks: Blocks) -> Key {
    let Ok(body) = body.cast::<PyDict>() else { return Key::None };
    let Some(prompt) = prompt_of(body) else { return Key::None };
    let first = prompt.cast::<PyList>().ok().and_then(|list| list.get_item(0).ok());
    // A list of lists of token ids is many prompts in one request; as text it is sized alike.
    let ids = first.is_some_and(|first| first.is_instance_of::<PyInt>());
    let (unit, block) =
        if ids { (Unit::Tokens, blocks.tokens) } else { (Unit::Bytes, blocks.chars) };
    let seed = mix(blocks.seed ^ seed(body)) ^ u64::from(block);
    let mut hasher = BlockHasher::new(block, unit, seed);
    feed_all(&mut hasher, body, &prompt, MAX_BLOCKS * block as usize);
    Key::Prompt(hasher.finish())
}

/// The prompt as a chain of blocks, where its token ids are known.
pub fn token_blocks(body: &Bound<'_, PyAny>, ids: &[u32], blocks: Blocks) -> Key {
    let seed = body.cast::<PyDict>().map_or(0, |body| self::seed(body));
    let seed = mix(blocks.seed ^ seed) ^ u64::from(blocks.tokens);
    let mut hasher = BlockHasher::new(blocks.tokens, Unit::Tokens, seed);
    hasher.reserve(4 * ids.len());
    let mut bytes = [0; 4 * 64];
    for ids in ids.chunks(64) {
        for (bytes, id) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(ids) {
            *bytes = id.to_le_bytes();
        }
        hasher.feed(&bytes[..4 * ids.len()]);
    }
    Key::Prompt(hasher.finish())
}

/// A text of the body, such as its model.
pub fn text_of(body: &Bound<'_, PyAny>, name: &str) -> Option<Vec<u8>> {
    let value = body.cast::<PyDict>().ok()?.get_item(name).ok()??;
    let mut bytes = None;
    with_bytes(value.cast::<PyString>().ok()?, 4096, |text| bytes = Some(text.to_vec()));
    bytes
}

/// The session's key under the body's model, LoRA adapter and salt.
pub fn session(id: &Bound<'_, PyString>) -> Key {
    let mut key = 0;
    with_bytes(id, 1 << 16, |bytes| key = session_key(bytes, 0));
    Key::Session(key)
}
