//! Token ids of Python objects.

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::errors::to_py;

/// Token ids of a buffer of 32 or 64 bit integers, or of a sequence of integers.
pub fn read_tokens(given: &Bound<'_, PyAny>, out: &mut Vec<u32>) -> PyResult<()> {
    let py = given.py();
    let bad = || to_py("token_ids: expected integers of 0 to 2**32 - 1, in a list or a buffer");
    out.clear();
    if let Ok(list) = given.cast::<PyList>() {
        out.reserve(list.len());
        for token in list.iter() {
            out.push(token.extract().map_err(|_| bad())?);
        }
    } else if let Ok(buffer) = PyBuffer::<u32>::get(given) {
        out.resize(buffer.item_count(), 0);
        buffer.copy_to_slice(py, out)?;
    } else if let Ok(buffer) = PyBuffer::<i64>::get(given) {
        let mut all = 0;
        let mut narrow = |token: i64| {
            all |= token;
            token as u32
        };
        match buffer.as_slice(py) {
            Some(tokens) => out.extend(tokens.iter().map(|token| narrow(token.get()))),
            None => out.extend(buffer.to_vec(py)?.into_iter().map(narrow)),
        }
        u32::try_from(all).map_err(|_| bad())?; // a bit too high in any, or a sign
    } else if let Ok(buffer) = PyBuffer::<i32>::get(given) {
        for token in buffer.to_vec(py)? {
            out.push(u32::try_from(token).map_err(|_| bad())?);
        }
    } else {
        for token in given.try_iter().map_err(|_| bad())? {
            out.push(token?.extract().map_err(|_| bad())?);
        }
    }
    Ok(())
}
