//! What a body of whatever API has: one pass over its keys.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyList, PyString};
use routecore::hash::session_key;
use routecore::media::Kind;

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
    pub effort: Value<'py>,
    pub before: Value<'py>,
    pub system: Value<'py>,
    pub instructions: Value<'py>,
    pub media: Vec<(Kind, Bound<'py, PyAny>)>,
    /// Embeddings in place of text.
    pub embeds: Value<'py>,
    pub ids: Value<'py>,
    messages: Value<'py>,
    /// Also the stored prompt that an `input` is put into.
    pub prompt: Value<'py>,
    input: Value<'py>,
    text: Value<'py>,
    inputs: Value<'py>,
    query: Value<'py>,
    others: Value<'py>,
    model: Value<'py>,
    adapter: Value<'py>,
    salt: Value<'py>,
}

/// What may stand one level deeper.
const NESTED: [&str; 7] = [
    "max_tokens",
    "max_new_tokens",
    "num_predict",
    "n",
    "best_of",
    "num_return_sequences",
    "adapter_id",
];

type Value<'py> = Option<Bound<'py, PyAny>>;

impl<'py> Fields<'py> {
    pub fn of(body: &Bound<'py, PyDict>) -> Self {
        let mut found = Self { sequences: 1, ..Self::default() };
        for (name, value) in body {
            if let Ok(name) = name.cast::<PyString>()
                && let Ok(name) = name.to_str()
                && !value.is_none()
            {
                found.take(name, value);
            }
        }
        found
    }

    fn take(&mut self, name: &str, value: Bound<'py, PyAny>) {
        let slot = match name {
            "model" => {
                self.belongs(&value, 0);
                &mut self.model
            }
            "lora_name" | "lora_path" | "adapter_id" | "adapter" => {
                self.belongs(&value, 1);
                &mut self.adapter
            }
            "cache_salt" => {
                self.belongs(&value, 2);
                &mut self.salt
            }
            "extra_key" => {
                self.belongs(&value, 3);
                return;
            }
            // Another template makes another prompt from the first token on.
            "chat_template" => {
                self.belongs(&value, 4);
                return;
            }
            "messages" => &mut self.messages,
            "prompt" => &mut self.prompt,
            "input" => &mut self.input,
            "text" => &mut self.text,
            "inputs" => &mut self.inputs,
            "prompt_token_ids" | "input_ids" | "token_ids" => &mut self.ids,
            "prompt_embeds" | "input_embeds" => &mut self.embeds,
            "query" | "queries" | "text_1" => &mut self.query,
            "text_2" | "texts" | "passages" => &mut self.others,
            "documents" => &mut self.documents,
            "tools" => &mut self.tools,
            "functions" => &mut self.functions,
            "system" => &mut self.system,
            "instructions" => &mut self.instructions,
            "previous_response_id" | "conversation" => &mut self.before,
            "chat_template_kwargs" => &mut self.kwargs,
            "reasoning_effort" | "reasoning" => &mut self.effort,
            "image_data" | "images" => return self.media.push((Kind::Image, value)),
            "audio_data" => return self.media.push((Kind::Audio, value)),
            "video_data" => return self.media.push((Kind::Video, value)),
            "max_tokens"
            | "max_completion_tokens"
            | "max_output_tokens"
            | "max_new_tokens"
            | "num_predict" => return self.limit(&value),
            "n" | "best_of" | "num_return_sequences" => return self.several(&value),
            "sampling_params" | "parameters" | "options" => return self.nested(&value),
            _ => return,
        };
        *slot = Some(value);
    }

    /// What SGLang, TGI and Ollama keep one level deeper.
    fn nested(&mut self, value: &Bound<'py, PyAny>) {
        // One for each prompt of a batch: the first speaks for all.
        let first = first(value);
        if let Ok(map) = first.as_ref().unwrap_or(value).cast::<PyDict>() {
            for (name, value) in map {
                if let Ok(name) = name.cast::<PyString>()
                    && let Ok(name) = name.to_str()
                    && NESTED.contains(&name)
                    && !value.is_none()
                {
                    self.take(name, value);
                }
            }
        }
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
        if let Some(ids) = self.ids.as_ref().filter(ids) {
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
            (&self.query, self.others.as_ref().or(self.documents.as_ref()))
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
        let bare = self.embeds.is_some() || !self.media.is_empty();
        if bare { Some(Prompt::Media) } else { self.query.as_ref().map(Prompt::Text) }
    }

    pub fn adapter(&self) -> Option<Vec<u8>> {
        plain(self.adapter.as_ref()).or_else(|| plain(self.model.as_ref()))
    }

    pub fn salt(&self) -> Option<Vec<u8>> {
        let salt = self.salt.as_ref()?;
        plain(Some(salt)).or_else(|| Some([b"\0", written(salt).as_slice()].concat()))
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
