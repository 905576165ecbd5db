//! What a body of whatever API has: one pass over its keys.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyList, PyString};
use routecore::hash::session_key;
use routecore::media::Kind;

use super::names::{Says, says};
use super::text::with_bytes;

/// Where a body has its prompt.
#[derive(Clone, Copy)]
pub enum Prompt<'a, 'py> {
    /// Token ids, or a list of prompts of them.
    Ids(&'a Bound<'py, PyAny>),
    /// A conversation.
    Chat(&'a Bound<'py, PyAny>),
    /// A text, or a list of texts.
    Text(&'a Bound<'py, PyAny>),
    /// A text that may have images in it, as TGI takes it.
    Marked(&'a Bound<'py, PyAny>),
    /// What the Responses and embeddings APIs call input.
    Input(&'a Bound<'py, PyAny>),
    /// Texts to be compared with others.
    Pairs(&'a Bound<'py, PyAny>, &'a Bound<'py, PyAny>),
    /// Nothing but embeddings or media.
    Media,
}

impl Prompt<'_, '_> {
    pub fn is_ids(self) -> bool {
        matches!(self, Self::Ids(_))
    }
}

/// The fields of a body that make its prompt, its tenant and its size.
#[derive(Default)]
pub struct Fields<'py> {
    /// Hash of the model, adapter and salts: prompts under different ones share no cache.
    pub tenant: u64,
    /// Sequences of each prompt, at least one.
    pub sequences: u32,
    pub max_tokens: Option<u32>,
    /// What stands before the conversation, in this order.
    pub tools: Value<'py>,
    pub functions: Value<'py>,
    pub documents: Value<'py>,
    pub kwargs: Value<'py>,
    pub effort: First<'py>,
    pub before: First<'py>,
    pub system: Value<'py>,
    pub instructions: Value<'py>,
    /// By kind, and of one kind by the names of their keys.
    media: Vec<(usize, Kind, Bound<'py, PyAny>)>,
    /// Embeddings in place of text.
    pub embeds: First<'py>,
    ids: First<'py>,
    messages: Value<'py>,
    /// Also the stored prompt that an `input` is put into.
    pub prompt: Value<'py>,
    input: Value<'py>,
    text: Value<'py>,
    inputs: Value<'py>,
    query: First<'py>,
    others: First<'py>,
    model: Value<'py>,
    adapter: First<'py>,
    salt: Value<'py>,
}

type Value<'py> = Option<Bound<'py, PyAny>>;

/// What may stand under several keys: the first of them counts, in whatever order they come.
#[derive(Default)]
pub struct First<'py>(Option<(usize, Bound<'py, PyAny>)>);

impl<'py> First<'py> {
    fn offer(&mut self, place: usize, value: Bound<'py, PyAny>) {
        if self.0.as_ref().is_none_or(|(first, _)| place < *first) {
            self.0 = Some((place, value));
        }
    }

    pub fn get(&self) -> Option<&Bound<'py, PyAny>> {
        self.0.as_ref().map(|(_, value)| value)
    }
}

/// Places of keys that say the same, at most: what comes after all of them stands behind that.
const BEHIND: usize = 8;

impl<'py> Fields<'py> {
    pub fn of(body: &Bound<'py, PyDict>) -> Self {
        let mut found = Self { sequences: 1, ..Self::default() };
        each(body, |name, value| {
            if let Some((says, place)) = says(name) {
                found.take(says, place, value);
            }
        });
        found.media.sort_by_key(|&(place, ..)| place);
        found
    }

    fn take(&mut self, says: Says, place: usize, value: Bound<'py, PyAny>) {
        let slot = match says {
            Says::Model => {
                self.belongs(&value, 0);
                &mut self.model
            }
            Says::Adapter => {
                self.belongs(&value, 1);
                return self.adapter.offer(place, value);
            }
            Says::Salt => {
                self.belongs(&value, 2);
                &mut self.salt
            }
            Says::ExtraKey => return self.belongs(&value, 3),
            // Another template makes another prompt from the first token on.
            Says::Template => return self.belongs(&value, 4),
            Says::Messages => &mut self.messages,
            Says::Prompt => &mut self.prompt,
            Says::Input => &mut self.input,
            Says::Text => &mut self.text,
            Says::Inputs => &mut self.inputs,
            Says::Ids => {
                // An empty list beside the ids is none.
                let behind = if is_ids(&value) { 0 } else { BEHIND };
                return self.ids.offer(place + behind, value);
            }
            Says::Embeds => return self.embeds.offer(place, value),
            Says::Query => return self.query.offer(place, value),
            Says::Others => return self.others.offer(place, value),
            Says::Documents => &mut self.documents,
            Says::Tools => &mut self.tools,
            Says::Functions => &mut self.functions,
            Says::System => &mut self.system,
            Says::Instructions => &mut self.instructions,
            Says::Before => return self.before.offer(place, value),
            Says::Kwargs => &mut self.kwargs,
            Says::Effort => return self.effort.offer(place, value),
            Says::Images => return self.media.push((place, Kind::Image, value)),
            Says::Audio => return self.media.push((BEHIND + place, Kind::Audio, value)),
            Says::Video => return self.media.push((2 * BEHIND + place, Kind::Video, value)),
            Says::Limit => return self.limit(&value),
            Says::Several => return self.several(&value),
            Says::Nested => return self.nested(place, &value),
        };
        *slot = Some(value);
    }

    /// What SGLang, TGI and Ollama keep one level deeper.
    fn nested(&mut self, at: usize, value: &Bound<'py, PyAny>) {
        // One for each prompt of a batch: the first speaks for all.
        let first = first(value);
        let Ok(map) = first.as_ref().unwrap_or(value).cast::<PyDict>() else { return };
        each(map, |name, value| match says(name) {
            Some((says @ (Says::Limit | Says::Several), place)) => self.take(says, place, value),
            Some((says @ Says::Adapter, _)) if name == "adapter_id" => {
                self.take(says, BEHIND + at, value);
            }
            _ => {}
        });
    }

    /// Images, audio and video beside the text, in the order in which they count.
    pub fn media(&self) -> impl Iterator<Item = (Kind, &Bound<'py, PyAny>)> {
        self.media.iter().map(|(_, kind, value)| (*kind, value))
    }

    /// Takes a name or any other value into the tenant; `place` keeps a model from being a salt.
    fn belongs(&mut self, value: &Bound<'_, PyAny>, place: u64) {
        let text = value.cast::<PyString>().ok();
        let hash = text.and_then(|text| with_bytes(text, usize::MAX, |b| session_key(b, place)));
        let hash = hash.unwrap_or_else(|| session_key(&written(value), !place));
        // A sum, so that the same word twice is not nothing.
        self.tenant = self.tenant.wrapping_add(hash);
    }

    fn limit(&mut self, value: &Bound<'_, PyAny>) {
        if let Ok(tokens) = value.extract::<u32>() {
            self.max_tokens = Some(self.max_tokens.map_or(tokens, |other| other.min(tokens)));
        }
    }

    fn several(&mut self, value: &Bound<'_, PyAny>) {
        if let Ok(n) = value.extract::<u32>() {
            self.sequences = self.sequences.max(n);
        }
    }

    /// Where the prompt is; nothing for a body without one.
    pub fn prompt(&self) -> Option<Prompt<'_, 'py>> {
        let ids = |value: &&Bound<'py, PyAny>| is_ids(value);
        if let Some(ids) = self.ids.get().filter(ids) {
            return Some(Prompt::Ids(ids));
        }
        if let Some(messages) = &self.messages {
            return Some(Prompt::Chat(messages));
        }
        // A stored prompt of the Responses API is no prompt of its own.
        let stored = |value: &&Bound<'py, PyAny>| value.is_instance_of::<PyDict>();
        if let Some(prompt) = &self.prompt
            && (self.input.is_none() || !stored(&prompt))
        {
            return Some(if ids(&prompt) { Prompt::Ids(prompt) } else { Prompt::Text(prompt) });
        }
        if let Some(input) = &self.input {
            return Some(if ids(&input) { Prompt::Ids(input) } else { Prompt::Input(input) });
        }
        if let (Some(query), Some(others)) =
            (self.query.get(), self.others.get().or(self.documents.as_ref()))
        {
            return Some(Prompt::Pairs(query, others));
        }
        // In the Responses API, `text` says how to answer.
        if let Some(text) = self.text.as_ref().filter(|text| !stored(text)) {
            return Some(Prompt::Text(text));
        }
        if let Some(inputs) = &self.inputs {
            return Some(if ids(&inputs) { Prompt::Ids(inputs) } else { Prompt::Marked(inputs) });
        }
        let bare = self.embeds.get().is_some() || !self.media.is_empty();
        if bare { Some(Prompt::Media) } else { self.query.get().map(Prompt::Text) }
    }

    pub fn adapter(&self) -> Option<Vec<u8>> {
        plain(self.adapter.get()).or_else(|| plain(self.model.as_ref()))
    }

    pub fn salt(&self) -> Option<Vec<u8>> {
        let salt = self.salt.as_ref()?;
        plain(Some(salt)).or_else(|| Some([b"\0", written(salt).as_slice()].concat()))
    }
}

/// Each entry with a name and a value that is not null.
fn each<'py>(map: &Bound<'py, PyDict>, mut f: impl FnMut(&str, Bound<'py, PyAny>)) {
    for (name, value) in map {
        if let Ok(name) = name.cast::<PyString>()
            && let Ok(name) = name.to_str()
            && !value.is_none()
        {
            f(name, value);
        }
    }
}

/// Whether it is a list of token ids, or a list of such lists.
fn is_ids(value: &Bound<'_, PyAny>) -> bool {
    first(value).is_some_and(|item| {
        item.is_instance_of::<PyInt>()
            || first(&item).is_some_and(|item| item.is_instance_of::<PyInt>())
    })
}

fn first<'py>(value: &Bound<'py, PyAny>) -> Value<'py> {
    value.cast::<PyList>().ok()?.get_item(0).ok()
}

fn plain(value: Option<&Bound<'_, PyAny>>) -> Option<Vec<u8>> {
    with_bytes(value?.cast::<PyString>().ok()?, usize::MAX, <[u8]>::to_vec)
}

/// Any JSON value as Python writes it, which tells all of them apart.
fn written(value: &Bound<'_, PyAny>) -> Vec<u8> {
    let text = value.repr().ok();
    text.and_then(|text| with_bytes(&text, usize::MAX, <[u8]>::to_vec)).unwrap_or_default()
}
