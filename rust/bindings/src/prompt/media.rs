//! Images, audio, video and files: each by a digest of all of it, and by what it weighs.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};
use routecore::hash::{digest, fold};
use routecore::media::{Kind, content, tokens};

use super::reader::{MAX_DEPTH, Reader};
use super::text::{Sink, with_bytes};

/// What is found of one image or the like.
#[derive(Default)]
struct Found {
    digest: u64,
    tokens: u32,
}

/// What kind of media a content part is: by its type, else by what it has.
pub fn kind_of(kind: &str, part: &Bound<'_, PyDict>) -> Option<Kind> {
    Some(match kind {
        "image_url" | "input_image" | "image" | "image_pil" | "image_embeds" => Kind::Image,
        "input_audio" | "audio_url" | "audio" | "audio_embeds" => Kind::Audio,
        "video_url" | "input_video" | "video" | "video_embeds" => Kind::Video,
        "file" | "input_file" | "document" => Kind::File,
        "" => {
            let has = |name: &str| part.contains(name).unwrap_or(false);
            match () {
                () if has("image_url") || has("image") => Kind::Image,
                () if has("input_audio") || has("audio_url") || has("audio") => Kind::Audio,
                () if has("video_url") || has("video") => Kind::Video,
                () if has("file") => Kind::File,
                () => return None,
            }
        }
        _ => return None,
    })
}

impl<S: Sink> Reader<'_, S> {
    /// A content part that is an image or the like.
    pub fn media_part(&mut self, part: &Bound<'_, PyDict>, kind: Kind, depth: usize) {
        let py = part.py();
        // A document may be words after all.
        if kind == Kind::File
            && let Ok(Some(source)) = part.get_item(intern!(py, "source"))
            && let Ok(source) = source.cast::<PyDict>()
            && let Ok(Some(kind)) = source.get_item(intern!(py, "type"))
            && let Some(name) = match kind.cast::<PyString>().map(|kind| kind.to_str()) {
                Ok(Ok("text")) => Some(intern!(py, "data")),
                Ok(Ok("content")) => Some(intern!(py, "content")),
                _ => None,
            }
            && let Ok(Some(words)) = source.get_item(name)
        {
            return self.content(&words, depth + 1, false);
        }
        let mut found = Found::default();
        self.look(part.as_any(), kind, &mut found, 0);
        // The client's own name for it is what engines cache it under.
        if let Ok(Some(name)) = part.get_item(intern!(py, "uuid"))
            && let Ok(name) = name.cast::<PyString>()
            && let Some(named) = with_bytes(name, usize::MAX, |bytes| digest(bytes, self.seed))
        {
            found.digest = named;
        }
        self.sink.take_media(
            found.digest,
            found.tokens.max(tokens(kind, &[]) * u32::from(found.tokens == 0)),
        );
    }

    /// All media of a value: one, or a list of them.
    pub fn media_in(&mut self, value: &Bound<'_, PyAny>, kind: Kind, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        if let Ok(list) = value.cast::<PyList>() {
            for item in list {
                if !self.may_read() {
                    return;
                }
                self.media_in(&item, kind, depth + 1);
            }
            return;
        }
        let mut found = Found::default();
        self.look(value, kind, &mut found, 0);
        if found.tokens > 0 {
            self.sink.take_media(found.digest, found.tokens);
        }
    }

    /// An image or the like by its URL, data URL or base64.
    pub fn payload(&mut self, bytes: &[u8], kind: Kind) {
        self.sink.take_media(digest(content(bytes), self.seed), tokens(kind, bytes));
    }

    /// A data URL where none is expected; whether it is one.
    pub fn data_url(&mut self, text: &Bound<'_, PyString>) -> bool {
        text.len().is_ok_and(|n| n > 1024)
            && with_bytes(text, 5, |head| head == b"data:") == Some(true)
            && with_bytes(text, usize::MAX, |bytes| self.payload(bytes, Kind::File)).is_some()
    }

    /// Embeddings of a prompt: base64 of a tensor, or rows of numbers.
    pub fn embeds(&mut self, value: &Bound<'_, PyAny>) {
        if let Ok(text) = value.cast::<PyString>() {
            with_bytes(text, usize::MAX, |bytes| {
                // Rows of some thousand numbers of two bytes.
                let rows = (bytes.len() / 4 * 3 / 8192).clamp(1, 1 << 20) as u32;
                self.sink.take_media(digest(bytes, self.seed), rows);
            });
        } else {
            self.value(value, 0);
        }
    }

    /// Folds every text that carries content into what is found.
    fn look(&mut self, value: &Bound<'_, PyAny>, kind: Kind, found: &mut Found, depth: usize) {
        if depth > MAX_DEPTH || !self.may_read() {
            return;
        }
        if let Ok(text) = value.cast::<PyString>() {
            with_bytes(text, usize::MAX, |bytes| {
                let seen = digest(content(bytes), self.seed);
                found.digest = if found.tokens == 0 { seen } else { fold(found.digest, seen) };
                found.tokens = found.tokens.saturating_add(tokens(kind, bytes));
            });
        } else if let Ok(map) = value.cast::<PyDict>() {
            for (name, item) in map {
                let name = name.cast::<PyString>().ok().and_then(|name| name.to_str().ok());
                let attribute = matches!(
                    name,
                    Some(
                        "type"
                            | "detail"
                            | "format"
                            | "media_type"
                            | "mime_type"
                            | "filename"
                            | "title"
                            | "context"
                            | "citations"
                            | "cache_control"
                            | "uuid"
                    )
                );
                if self.is_over() {
                    return;
                }
                if !attribute {
                    self.look(&item, kind, found, depth + 1);
                }
            }
        } else if let Ok(list) = value.cast::<PyList>() {
            for item in list {
                if self.is_over() {
                    return;
                }
                self.look(&item, kind, found, depth + 1);
            }
        }
    }
}
