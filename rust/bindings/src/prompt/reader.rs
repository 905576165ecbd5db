//! A body in the order in which an engine sees it.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use routecore::media::Kind;

use super::fields::{Fields, Prompt};
use super::text::{SEPARATOR, Sink, pieces};

/// Nesting beyond this is not read.
pub const MAX_DEPTH: usize = 16;
/// Values of a body that are read, lists of token ids aside. No prompt that anything can cache has as
/// many, and a body of a million takes no longer than this.
const MAX_VALUES: u32 = 1 << 16;

/// Puts what it reads into a sink.
pub struct Reader<'a, S> {
    pub sink: &'a mut S,
    /// Characters of a text that are looked at.
    limit: usize,
    /// Values that may still be read.
    left: u32,
    /// What images are hashed with, so that nobody can prepare two that are alike.
    pub seed: u64,
}

impl<'a, S: Sink> Reader<'a, S> {
    pub fn new(sink: &'a mut S, limit: usize, seed: u64) -> Self {
        Self { sink, limit, left: MAX_VALUES, seed }
    }

    /// Characters of a text that are looked at.
    pub fn limit(&self) -> usize {
        self.limit.saturating_sub(self.sink.taken() as usize)
    }

    /// Whether nothing more is read: more would change nothing that is kept, or it is too much.
    pub fn is_over(&self) -> bool {
        self.left == 0 || self.sink.is_full()
    }

    /// Takes leave to read a value.
    pub fn may_read(&mut self) -> bool {
        let over = self.is_over();
        self.left = self.left.saturating_sub(1);
        !over
    }

    /// Of a list of `all` items `read` were read, since the sink had taken `before` bytes: the rest
    /// counts by their mean.
    pub fn count_rest(&mut self, before: u64, read: usize, all: usize) {
        let mean = (self.sink.taken() - before) as f64 / read.max(1) as f64;
        self.sink.count((mean * all.saturating_sub(read) as f64) as u64);
    }

    /// Reads all that an engine renders; how many prompts it is.
    pub fn body(&mut self, fields: &Fields<'_>, prompt: Prompt<'_, '_>) -> u32 {
        if !prompt.is_ids() {
            self.head(fields, prompt);
        }
        for (kind, value) in fields.media() {
            self.media_in(value, kind, 0);
        }
        if let Some(embeds) = fields.embeds.get() {
            self.embeds(embeds);
        }
        match prompt {
            Prompt::Ids(ids) => self.ids(ids),
            Prompt::Chat(messages) => self.conversation(messages, 0),
            Prompt::Text(texts) => self.texts(texts, Self::plain),
            Prompt::Marked(texts) => self.texts(texts, Self::marked),
            Prompt::Input(input) => self.input(input),
            Prompt::Pairs(query, others) => self.pairs(query, others),
            Prompt::Media => 1,
        }
    }

    /// What stands before the conversation.
    fn head(&mut self, fields: &Fields<'_>, prompt: Prompt<'_, '_>) {
        if let Some(effort) = fields.effort.get() {
            self.value(effort, 0);
        }
        // Switches turn up at the end of a prompt, texts at its head.
        if let Some(Ok(kwargs)) = fields.kwargs.as_ref().map(|kwargs| kwargs.cast::<PyDict>()) {
            for (name, value) in kwargs {
                if !value.is_instance_of::<PyInt>() && !value.is_instance_of::<PyFloat>() {
                    self.value(&name, 0);
                    self.value(&value, 0);
                }
            }
        }
        let documents = fields.documents.as_ref().filter(|_| !matches!(prompt, Prompt::Pairs(..)));
        let stored = fields.prompt.as_ref().filter(|_| matches!(prompt, Prompt::Input(_)));
        for tools in [&fields.tools, &fields.functions].into_iter().flatten() {
            self.tools(tools, 0);
        }
        for value in [documents, fields.before.get(), stored].into_iter().flatten() {
            self.value(value, 0);
        }
        for system in [&fields.system, &fields.instructions].into_iter().flatten() {
            let items = system.cast::<PyList>().ok().and_then(|list| list.get_item(0).ok());
            if items.is_some_and(|item| has_role(&item)) {
                self.conversation(system, 0);
            } else {
                self.turn(b"system", system);
            }
        }
    }

    /// Tools: each with its fields in one order, whatever the client's.
    fn tools(&mut self, value: &Bound<'_, PyAny>, depth: usize) {
        const ORDER: [&str; 6] =
            ["type", "name", "description", "parameters", "input_schema", "function"];
        if let Ok(list) = value.cast::<PyList>()
            && depth == 0
        {
            for tool in list {
                if !self.may_read() {
                    return;
                }
                self.tools(&tool, 1);
            }
            return;
        }
        let Ok(map) = value.cast::<PyDict>() else { return self.value(value, depth) };
        for name in ORDER {
            if let Ok(Some(value)) = map.get_item(name)
                && !value.is_none()
            {
                self.sink.take(name.as_bytes());
                self.sink.take(SEPARATOR);
                if name == "function" && depth < 2 {
                    self.tools(&value, 2);
                } else {
                    self.value(&value, depth);
                }
            }
        }
        for (name, value) in map {
            if self.is_over() {
                return;
            }
            let known = |name: &str| ORDER.contains(&name);
            let known = name.cast::<PyString>().is_ok_and(|n| n.to_str().is_ok_and(known));
            if !known && !value.is_none() && !is_hint(&name) {
                self.value(&name, depth);
                self.value(&value, depth);
            }
        }
    }

    /// A list of prompts, or one.
    fn texts(
        &mut self,
        value: &Bound<'_, PyAny>,
        read: fn(&mut Self, &Bound<'_, PyAny>, usize),
    ) -> u32 {
        let Ok(list) = value.cast::<PyList>() else {
            read(self, value, 0);
            return 1;
        };
        let (before, mut count) = (self.sink.taken(), 0);
        for item in list {
            if !self.may_read() {
                break;
            }
            read(self, &item, 1);
            count += 1;
        }
        self.count_rest(before, count, list.len());
        list.len() as u32
    }

    /// Token ids, or a list of lists of them.
    fn ids(&mut self, value: &Bound<'_, PyAny>) -> u32 {
        let Ok(list) = value.cast::<PyList>() else { return 1 };
        if list.get_item(0).is_ok_and(|item| item.is_instance_of::<PyInt>()) {
            self.value(value, 0);
            return 1;
        }
        self.texts(value, Self::value)
    }

    /// A text is what a user says; a list may be of texts or of items.
    fn input(&mut self, value: &Bound<'_, PyAny>) -> u32 {
        let texts = value
            .cast::<PyList>()
            .ok()
            .filter(|list| list.get_item(0).is_ok_and(|item| !item.is_instance_of::<PyDict>()));
        let Some(texts) = texts else { return self.conversation(value, 0) };
        let (before, mut count) = (self.sink.taken(), 0);
        for item in texts {
            if !self.may_read() {
                break;
            }
            self.conversation(&item, 1);
            count += 1;
        }
        self.count_rest(before, count, texts.len());
        texts.len() as u32
    }

    /// Texts that are each read beside the query.
    fn pairs(&mut self, query: &Bound<'_, PyAny>, others: &Bound<'_, PyAny>) -> u32 {
        let before = self.sink.taken();
        self.plain(query, 0);
        let query = self.sink.taken() - before;
        let n = self.texts(others, Self::plain);
        self.sink.count(query * u64::from(n.saturating_sub(1)));
        n
    }

    /// A text and what separates it from the next.
    pub fn text(&mut self, text: &Bound<'_, PyString>) {
        let limit = self.limit();
        let sink = &mut *self.sink;
        let read = pieces(text, limit, |bytes| {
            sink.take(bytes);
            !sink.is_full()
        });
        self.count_beyond(text, read);
        self.sink.take(SEPARATOR);
    }

    /// Characters of a text beyond those that were read count as a byte each.
    pub fn count_beyond(&mut self, text: &Bound<'_, PyString>, read: usize) {
        let beyond = text.len().unwrap_or(0).saturating_sub(read);
        self.sink.count(beyond as u64);
    }

    fn plain(&mut self, value: &Bound<'_, PyAny>, depth: usize) {
        match value.cast::<PyString>() {
            Ok(text) => self.text(text),
            Err(_) => self.value(value, depth),
        }
    }

    /// Any JSON value. What is null is not there; hints for the cache are no content.
    pub fn value(&mut self, value: &Bound<'_, PyAny>, depth: usize) {
        if depth > MAX_DEPTH || !self.may_read() {
            return;
        }
        if let Ok(text) = value.cast::<PyString>() {
            if !self.data_url(text) {
                self.text(text);
            }
        } else if let Ok(truth) = value.cast::<PyBool>() {
            self.sink.take(if truth.is_true() { b"\x01t" } else { b"\x01f" });
        } else if let Ok(number) = value.cast::<PyInt>() {
            // Token ids: four bytes each; what does not fit is no token and keeps its low bits.
            let id = number.extract::<i64>().unwrap_or(-1);
            self.sink.take(&(id as u32).to_le_bytes());
        } else if let Ok(map) = value.cast::<PyDict>() {
            for (name, item) in map {
                if item.is_none() || is_hint(&name) {
                    continue;
                }
                self.value(&name, depth + 1);
                self.value(&item, depth + 1);
                if self.is_over() {
                    return;
                }
            }
        } else if let Ok(list) = value.cast::<PyList>() {
            let ids = self.leading_ids(list);
            for item in list.iter().skip(ids) {
                self.value(&item, depth + 1);
                if self.is_over() {
                    return;
                }
            }
        } else if let Ok(tuple) = value.cast::<PyTuple>() {
            for item in tuple {
                if self.is_over() {
                    return;
                }
                self.value(&item, depth + 1);
            }
        } else if let Ok(number) = value.cast::<PyFloat>() {
            self.sink.take(&number.value().to_le_bytes());
        }
    }

    /// Feeds the token ids that a list starts with, many at a time; how many there are.
    fn leading_ids(&mut self, list: &Bound<'_, PyList>) -> usize {
        let mut bytes = [0; 4096];
        let before = self.sink.taken();
        let (mut fed, mut full) = (0, 0);
        for item in list {
            let Ok(number) = item.cast_exact::<PyInt>() else { break };
            let id = number.extract::<i64>().unwrap_or(-1);
            bytes[full..full + 4].copy_from_slice(&(id as u32).to_le_bytes());
            (fed, full) = (fed + 1, full + 4);
            if full == bytes.len() {
                self.sink.take(&bytes);
                full = 0;
                if self.sink.is_full() {
                    self.count_rest(before, fed, list.len());
                    return list.len();
                }
            }
        }
        self.sink.take(&bytes[..full]);
        fed
    }

    /// A text with images in it: `![](data:image/png;base64,…)`.
    fn marked(&mut self, value: &Bound<'_, PyAny>, depth: usize) {
        const MARK: &str = "](data:";
        let text = value.cast::<PyString>().ok();
        let text = text.filter(|text| text.len().is_ok_and(|n| n <= self.limit()));
        let text = text.and_then(|text| text.to_cow().ok());
        let Some(mut rest) = text.as_deref().filter(|text| text.contains(MARK)) else {
            return self.value(value, depth);
        };
        while let Some(at) = rest.find(MARK) {
            let (words, image) = rest.split_at(at + 2);
            self.sink.take(words.as_bytes());
            let end = image.find(')').unwrap_or(image.len());
            self.payload(&image.as_bytes()[..end], Kind::Image);
            rest = &image[end..];
        }
        self.sink.take(rest.as_bytes());
        self.sink.take(SEPARATOR);
    }
}

/// Names of what says how to cache, not what.
fn is_hint(name: &Bound<'_, PyAny>) -> bool {
    name.cast::<PyString>().ok().and_then(|name| name.to_str().ok()) == Some("cache_control")
}

fn has_role(item: &Bound<'_, PyAny>) -> bool {
    item.cast::<PyDict>().is_ok_and(|item| item.contains("role").unwrap_or(false))
}
