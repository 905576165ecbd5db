//! Conversations: the same words in another dress are the same prompt.
//!
//! A message is its role, its content, and what else it has. A content is a text, or parts that
//! engines join by newlines; a single text part is that text.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};
use routecore::media::Kind;

use super::media;
use super::reader::{MAX_DEPTH, Reader};
use super::text::{SEPARATOR, Sink, pieces};

// A message begins with these names, in this order, whatever its own.
const ROLE: &[u8] = b"role\x1f";
const CONTENT: &[u8] = b"content\x1f";
/// A line that some clients put before their system text, other in each request: engines drop it.
const BILLING: &[u8] = b"x-anthropic-billing-header";

impl<S: Sink> Reader<'_, S> {
    /// Messages or items, a text of a user's, or a list of conversations; how many.
    pub fn conversation(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> u32 {
        let Ok(list) = value.cast::<PyList>() else {
            if value.is_instance_of::<PyString>() {
                self.turn(b"user", value);
            } else {
                self.message(value, depth);
            }
            return 1;
        };
        if depth > MAX_DEPTH {
            return 1;
        }
        let mut conversations = 0;
        let (before, mut count) = (self.sink.taken(), 0);
        for item in list {
            if !self.may_read() {
                break;
            }
            count += 1;
            if item.is_instance_of::<PyList>() {
                conversations += self.conversation(&item, depth + 1);
            } else {
                self.message(&item, depth + 1);
            }
        }
        self.count_rest(before, count, list.len());
        conversations.max(1)
    }

    /// What somebody said.
    pub fn turn(&mut self, role: &[u8], content: &Bound<'_, PyAny>) {
        for bytes in [ROLE, role, SEPARATOR, CONTENT] {
            self.sink.take(bytes);
        }
        self.content(content, 0, role == b"system");
        self.sink.take(SEPARATOR);
    }

    fn message(&mut self, message: &Bound<'_, PyAny>, depth: usize) {
        let py = message.py();
        if message.is_instance_of::<PyString>() {
            return self.turn(b"user", message);
        }
        let Ok(map) = message.cast::<PyDict>() else { return self.value(message, depth) };
        let role = get(map, intern!(py, "role"));
        let content = get(map, intern!(py, "content"));
        let mut rest = map.len();
        let mut system = false;
        if let Some(role) = &role {
            rest -= 1;
            if let Ok(role) = role.cast::<PyString>() {
                system = role.to_str().is_ok_and(|role| role == "system");
                self.sink.take(ROLE);
                self.text(role);
            }
        }
        rest -= usize::from(content.is_some());
        if role.is_some() || content.is_some() {
            self.sink.take(CONTENT);
            if let Some(content) = &content {
                self.content(content, depth, system);
            }
            self.sink.take(SEPARATOR);
        }
        if rest > 0 {
            self.beside(map, depth);
        }
    }

    /// What a message has beside role and content.
    fn beside(&mut self, map: &Bound<'_, PyDict>, depth: usize) {
        for (name, value) in map {
            if self.is_over() {
                return;
            }
            if value.is_none() || value.cast::<PyList>().is_ok_and(PyListMethods::is_empty) {
                continue;
            }
            let Ok(name) = name.cast::<PyString>() else { continue };
            match name.to_str() {
                // Read above; or of the API's own, and never rendered.
                Ok(
                    "role" | "content" | "id" | "status" | "annotations" | "cache_control"
                    | "phase" | "encrypted_content",
                ) => {}
                Ok("type") if is(&value, "message") => {}
                Ok("images") => self.media_in(&value, Kind::Image, depth),
                Ok("output") => {
                    self.content(&value, depth + 1, false);
                    self.sink.take(SEPARATOR);
                }
                _ => {
                    self.text(name);
                    self.value(&value, depth + 1);
                }
            }
        }
    }

    /// A text, or parts; without what separates it from the next.
    pub fn content(&mut self, value: &Bound<'_, PyAny>, depth: usize, system: bool) {
        if depth > MAX_DEPTH || self.is_over() {
            return;
        }
        if let Ok(text) = value.cast::<PyString>() {
            self.words(text, system, false);
        } else if let Ok(parts) = value.cast::<PyList>() {
            let mut open = false;
            for part in parts {
                if !self.may_read() {
                    return;
                }
                open |= self.part(&part, depth + 1, system, open);
            }
        } else if value.is_instance_of::<PyDict>() {
            self.part(value, depth + 1, system, false);
        } else {
            self.value(value, depth + 1);
        }
    }

    /// One part; whether the next text stands on a new line.
    fn part(&mut self, part: &Bound<'_, PyAny>, depth: usize, system: bool, newline: bool) -> bool {
        let py = part.py();
        if let Ok(text) = part.cast::<PyString>() {
            return self.words(text, system, newline);
        }
        let Ok(map) = part.cast::<PyDict>() else {
            self.value(part, depth);
            return false;
        };
        let kind = get(map, intern!(py, "type"));
        let kind = kind.as_ref().and_then(|kind| kind.cast::<PyString>().ok());
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let text = match kind {
            "text" | "input_text" | "output_text" | "" => get(map, intern!(py, "text")),
            "refusal" => get(map, intern!(py, "refusal")),
            "thinking" => get(map, intern!(py, "thinking")),
            _ => None,
        };
        if let Some(text) = text.as_ref().and_then(|text| text.cast::<PyString>().ok()) {
            return self.words(text, system, newline);
        }
        if kind == "tool_result" {
            for name in [intern!(py, "tool_use_id"), intern!(py, "content")] {
                if let Some(value) = get(map, name) {
                    self.content(&value, depth + 1, false);
                    self.sink.take(SEPARATOR);
                }
            }
        } else if let Some(kind) = media::kind_of(kind, map) {
            self.media_part(map, kind, depth);
        } else {
            self.value(part, depth);
        }
        false
    }

    /// Words of a content; whether there are any.
    fn words(&mut self, text: &Bound<'_, PyString>, system: bool, newline: bool) -> bool {
        let limit = self.limit();
        let sink = &mut *self.sink;
        let mut fed = false;
        let read = pieces(text, limit, |mut bytes| {
            if !fed {
                if system && bytes.starts_with(BILLING) {
                    let line = bytes.iter().position(|&byte| byte == b'\n');
                    bytes = line.map_or(&[], |at| &bytes[at + 1..]);
                    if bytes.is_empty() {
                        return false;
                    }
                }
                if newline {
                    sink.take(b"\n");
                }
                fed = true;
            }
            sink.take(bytes);
            !sink.is_full()
        });
        if fed {
            self.count_beyond(text, read);
        }
        fed
    }
}

fn get<'py>(map: &Bound<'py, PyDict>, name: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
    map.get_item(name).ok().flatten()
}

fn is(value: &Bound<'_, PyAny>, word: &str) -> bool {
    value.cast::<PyString>().ok().and_then(|text| text.to_str().ok()) == Some(word)
}
