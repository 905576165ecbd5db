//! Request bodies out of JSON: texts are most of them, and are found many bytes at a time.
//!
//! Only what every reader of JSON reads alike: of anything else the caller asks another reader.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString};

/// Nesting beyond this is left to others.
const MAX_DEPTH: usize = 64;
/// Digits of a whole number that any 64 bits hold.
const MAX_DIGITS: usize = 18;
/// Bytes of a text that are looked at together.
const STEP: usize = 32;
const WORD: usize = 8;

/// The value of a body; None for what is left to others, and for `null`.
#[pyfunction]
#[pyo3(signature = (content, /))]
pub fn json<'py>(content: &Bound<'py, PyBytes>) -> Option<Bound<'py, PyAny>> {
    let mut reader =
        Reader { py: content.py(), bytes: content.as_bytes(), at: 0, items: vec![], text: vec![] };
    let value = reader.value(0)?;
    reader.space();
    (reader.at == reader.bytes.len()).then_some(value)
}

struct Reader<'a, 'py> {
    py: Python<'py>,
    bytes: &'a [u8],
    at: usize,
    /// Items of the lists that are open.
    items: Vec<Bound<'py, PyAny>>,
    /// A text with escapes, so far.
    text: Vec<u8>,
}

impl<'py> Reader<'_, 'py> {
    fn value(&mut self, depth: usize) -> Option<Bound<'py, PyAny>> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.space();
        match self.peek()? {
            b'"' => Some(self.string()?.into_any()),
            b'{' => self.map(depth),
            b'[' => self.list(depth),
            b't' => self.word(b"true", PyBool::new(self.py, true).to_owned().into_any()),
            b'f' => self.word(b"false", PyBool::new(self.py, false).to_owned().into_any()),
            b'n' => self.word(b"null", self.py.None().into_bound(self.py)),
            _ => self.number(),
        }
    }

    fn map(&mut self, depth: usize) -> Option<Bound<'py, PyAny>> {
        let map = PyDict::new(self.py);
        self.at += 1;
        self.space();
        if self.took(b'}') {
            return Some(map.into_any());
        }
        loop {
            self.space();
            let name = self.name()?;
            self.space();
            if !self.took(b':') {
                return None;
            }
            let value = self.value(depth + 1)?;
            map.set_item(name, value).ok()?;
            self.space();
            if self.took(b'}') {
                return Some(map.into_any());
            }
            if !self.took(b',') {
                return None;
            }
        }
    }

    fn list(&mut self, depth: usize) -> Option<Bound<'py, PyAny>> {
        let before = self.items.len();
        self.at += 1;
        self.space();
        if self.took(b']') {
            return Some(PyList::empty(self.py).into_any());
        }
        loop {
            let item = self.value(depth + 1)?;
            self.items.push(item);
            self.space();
            if self.took(b']') {
                let list = PyList::new(self.py, self.items.drain(before..)).ok()?;
                return Some(list.into_any());
            }
            if !self.took(b',') {
                return None;
            }
        }
    }

    /// A key: those of most messages are made once.
    fn name(&mut self) -> Option<Bound<'py, PyString>> {
        if self.peek()? != b'"' {
            return None;
        }
        for known in [intern!(self.py, "role"), intern!(self.py, "content")] {
            let name = known.to_str().ok()?.as_bytes();
            let rest = self.bytes.get(self.at + 1..)?;
            if rest.starts_with(name) && rest.get(name.len()) == Some(&b'"') {
                self.at += name.len() + 2;
                return Some(known.clone());
            }
        }
        self.string()
    }

    fn string(&mut self) -> Option<Bound<'py, PyString>> {
        self.at += 1;
        let rest = self.bytes.get(self.at..)?;
        let plain = plain(rest);
        if rest.get(plain) == Some(&b'"') {
            self.at += plain + 1;
            return PyString::from_bytes(self.py, &rest[..plain]).ok();
        }
        self.text.clear();
        loop {
            let rest = self.bytes.get(self.at..)?;
            let plain = self::plain(rest);
            self.text.extend_from_slice(&rest[..plain]);
            self.at += plain + 1;
            match rest.get(plain)? {
                b'"' => return PyString::from_bytes(self.py, &self.text).ok(),
                b'\\' => self.escape()?,
                _ => return None, // a control character
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        let byte = match self.peek()? {
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 0x08,
            b'f' => 0x0c,
            b'u' => {
                let mut code = self.unit()?;
                if (0xd800..0xdc00).contains(&code) && self.peek()? == b'\\' {
                    self.at += 1;
                    if self.peek()? != b'u' {
                        return None;
                    }
                    let low = self.unit()?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                    code = 0x10000 + ((code - 0xd800) << 10) + low;
                }
                let found = char::from_u32(code)?; // half a pair is none
                self.text.extend_from_slice(found.encode_utf8(&mut [0; 4]).as_bytes());
                return Some(());
            }
            _ => return None,
        };
        self.at += 1;
        self.text.push(byte);
        Some(())
    }

    /// `u` and four digits.
    fn unit(&mut self) -> Option<u32> {
        let digits = self.bytes.get(self.at + 1..self.at + 5)?;
        self.at += 5;
        digits.iter().try_fold(0, |code, &digit| Some(code << 4 | char::from(digit).to_digit(16)?))
    }

    fn number(&mut self) -> Option<Bound<'py, PyAny>> {
        let start = self.at;
        let minus = self.took(b'-');
        let first = self.peek()?;
        let (value, count) = self.digits();
        if count == 0 || count > 1 && first == b'0' {
            return None;
        }
        let point = self.took(b'.');
        if point && self.digits().1 == 0 {
            return None;
        }
        let raised = self.took(b'e') || self.took(b'E');
        if raised {
            let _ = self.took(b'+') || self.took(b'-');
            if self.digits().1 == 0 {
                return None;
            }
        }
        if point || raised {
            let text = str::from_utf8(&self.bytes[start..self.at]).ok()?;
            let number = text.parse::<f64>().ok().filter(|number| number.is_finite())?;
            return Some(PyFloat::new(self.py, number).into_any());
        }
        if count > MAX_DIGITS {
            return None;
        }
        Some(PyInt::new(self.py, if minus { -value } else { value }).into_any())
    }

    /// Passes digits: their value, if it fits, and how many they were.
    fn digits(&mut self) -> (i64, usize) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (mut value, mut count) = (0_i64, 0);
        for byte in rest.iter().take_while(|byte| byte.is_ascii_digit()) {
            value = value.wrapping_mul(10).wrapping_add(i64::from(byte - b'0'));
            count += 1;
        }
        self.at += count;
        (value, count)
    }

    fn word(&mut self, word: &[u8], value: Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        let found = self.bytes.get(self.at..)?.starts_with(word);
        self.at += word.len();
        found.then_some(value)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn took(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }
}

/// How many bytes stand before a quote, a backslash or a control character.
fn plain(bytes: &[u8]) -> usize {
    // Most texts are short: eight bytes first.
    if let Some(first) = bytes.first_chunk::<WORD>()
        && let Some(at) = first_end(*first)
    {
        return at;
    }
    let mut at = 0;
    for chunk in bytes.as_chunks::<STEP>().0 {
        // All of them, without a way out: the compiler then looks at many bytes at once.
        let odd = chunk.iter().fold(0, |odd, &byte| {
            odd | u8::from(byte == b'"') | u8::from(byte == b'\\') | u8::from(byte < b' ')
        });
        if odd != 0 {
            break;
        }
        at += STEP;
    }
    for word in bytes[at..].as_chunks::<WORD>().0 {
        if let Some(end) = first_end(*word) {
            return at + end;
        }
        at += WORD;
    }
    let ends = |byte: &u8| *byte == b'"' || *byte == b'\\' || *byte < b' ';
    at + bytes[at..].iter().take_while(|byte| !ends(byte)).count()
}

/// The first of eight bytes that ends plain text, found by arithmetic on all of them.
fn first_end(bytes: [u8; WORD]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let word = u64::from_le_bytes(bytes);
    // Bits above the first one found may be wrong, and do not count.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let quote = zero(word ^ (ONES * u64::from(b'"')));
    let backslash = zero(word ^ (ONES * u64::from(b'\\')));
    let control = word.wrapping_sub(ONES * u64::from(b' ')) & !word;
    let found = (quote | backslash | control) & HIGH;
    (found != 0).then(|| (found.trailing_zeros() / 8) as usize)
}
