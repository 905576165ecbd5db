//! Text of Python strings.

use std::borrow::Cow;

use pyo3::prelude::*;
use pyo3::types::PyString;
use routecore::hash::request_key;

use crate::threads::Inside;

/// A lone surrogate, which UTF-8 has no bytes for, becomes U+FFFD.
pub fn text<'a>(value: &'a Bound<'_, PyString>) -> Cow<'a, str> {
    value.to_cow().unwrap_or_else(|_| Cow::Owned(value.to_string_lossy().into_owned()))
}

/// The key of a request, by what Python writes for its id.
pub fn id_of(request_id: &Bound<'_, PyAny>) -> PyResult<u128> {
    if let Ok(id) = request_id.cast_exact::<PyString>() {
        return Ok(request_key(text(id).as_bytes()));
    }
    let _inside = Inside::enter(request_id.py()); // of a `uuid.UUID` it is Python code
    let id = request_id.str()?;
    Ok(request_key(text(&id).as_bytes()))
}
