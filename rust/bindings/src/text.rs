//! Text of Python strings.

use std::borrow::Cow;

use pyo3::prelude::*;
use pyo3::types::PyString;
use routecore::hash::request_key;

/// A lone surrogate, which UTF-8 has no bytes for, becomes U+FFFD.
pub fn text<'a>(value: &'a Bound<'_, PyString>) -> Cow<'a, str> {
    value.to_cow().unwrap_or_else(|_| Cow::Owned(value.to_string_lossy().into_owned()))
}

/// The key of a request, by what Python writes for its id.
pub fn id_of(request_id: &Bound<'_, PyAny>) -> PyResult<u128> {
    let id = request_id.str()?;
    let id = text(&id);
    Ok(request_key(id.as_bytes()))
}
