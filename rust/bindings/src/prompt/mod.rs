//! Request bodies → prompt hashes. Whatever has no prompt gives no hash; nothing here fails.
//!
//! One reading for every strategy, and for replay: `names.rs` has the keys of all APIs;
//! `fields.rs` finds what a body has; `reader.rs` puts it in the order in which engines see it; `messages.rs` and `media.rs` read
//! conversations and what is in them; `text.rs` has the bytes.

mod fields;
mod media;
mod messages;
mod names;
mod reader;
mod text;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use routecore::hash::{MAX_SEGMENTS, PrefixHasher, mix, session_key};
use routecore::prompt::{BlockHasher, MAX_BLOCKS, Unit};
use routecore::{Key, Prompt};

use fields::Fields;
pub use names::KEYS;
use reader::Reader;
use text::with_bytes;

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

/// The prompt head's key; [`Key::None`] for a body without a prompt.
pub fn prefix_key(body: &Bound<'_, PyAny>, block: usize) -> Key {
    let Ok(body) = body.cast::<PyDict>() else { return Key::None };
    let fields = Fields::of(body);
    let Some(prompt) = fields.prompt() else { return Key::None };
    let mut hasher = PrefixHasher::new(block, fields.tenant);
    Reader::new(&mut hasher, block << (MAX_SEGMENTS - 1), fields.tenant).body(&fields, prompt);
    Key::Prefix(hasher.finish())
}

/// The prompt as a chain of blocks; [`Key::None`] for a body without a prompt.
pub fn blocks(body: &Bound<'_, PyAny>, blocks: Blocks) -> Key {
    let Ok(body) = body.cast::<PyDict>() else { return Key::None };
    let fields = Fields::of(body);
    let Some(prompt) = fields.prompt() else { return Key::None };
    let (unit, block) =
        if prompt.is_ids() { (Unit::Tokens, blocks.tokens) } else { (Unit::Bytes, blocks.chars) };
    let seed = mix(blocks.seed ^ fields.tenant) ^ u64::from(block);
    let mut hasher = BlockHasher::new(block, unit, seed);
    let prompts = Reader::new(&mut hasher, MAX_BLOCKS * block as usize, seed).body(&fields, prompt);
    Key::Prompt(asked(hasher.finish(), &fields, prompts))
}

/// A body whose token ids are known by other means.
pub struct Tokenized<'py> {
    fields: Option<Fields<'py>>,
}

impl<'py> Tokenized<'py> {
    /// What it says beside the ids.
    pub fn new(body: &Bound<'py, PyAny>) -> Self {
        Self { fields: body.cast::<PyDict>().ok().map(Fields::of) }
    }

    /// The name that an engine may know as that of a LoRA adapter: one that is named as such, or
    /// the model's.
    pub fn adapter(&self) -> Option<Vec<u8>> {
        self.fields.as_ref()?.adapter()
    }

    /// What the prompt is salted with: a text as it is, any other value as one that no text is.
    pub fn salt(&self) -> Option<Vec<u8>> {
        self.fields.as_ref()?.salt()
    }

    /// The prompt as a chain of blocks.
    pub fn blocks(&self, ids: &[u32], blocks: Blocks) -> Key {
        let tenant = self.fields.as_ref().map_or(0, |fields| fields.tenant);
        let seed = mix(blocks.seed ^ tenant) ^ u64::from(blocks.tokens);
        let mut hasher = BlockHasher::new(blocks.tokens, Unit::Tokens, seed);
        hasher.reserve(4 * ids.len());
        let mut bytes = [0; 4 * 64];
        for ids in ids.chunks(64) {
            for (bytes, id) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(ids) {
                *bytes = id.to_le_bytes();
            }
            hasher.feed(&bytes[..4 * ids.len()]);
        }
        let prompt = hasher.finish();
        Key::Prompt(match &self.fields {
            Some(fields) => asked(prompt, fields, 1),
            None => prompt,
        })
    }
}

/// The prompt, with what the request asks for.
fn asked(prompt: Prompt, fields: &Fields<'_>, prompts: u32) -> Prompt {
    let sequences = fields.sequences.saturating_mul(prompts.max(1));
    Prompt { sequences, max_tokens: fields.max_tokens, ..prompt }
}

/// The session's key.
pub fn session(id: &Bound<'_, PyString>) -> Key {
    let mut key = 0;
    with_bytes(id, 1 << 16, |bytes| key = session_key(bytes, 0));
    Key::Session(key)
}
