//! Columns of numbers, in and out.

use pyo3::buffer::{Element, PyBuffer};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::to_py;

pub fn column<T: Element + Copy>(
    name: &str,
    values: &Bound<'_, PyAny>,
    length: Option<usize>,
) -> PyResult<Vec<T>> {
    // An empty array has no memory to point at, which the buffer type refuses.
    if values.len().is_ok_and(|n| n == 0) && length.unwrap_or(0) == 0 {
        return Ok(Vec::new());
    }
    let Ok(buffer) = PyBuffer::<T>::get(values) else {
        let kind = std::any::type_name::<T>();
        return Err(to_py(format!("column {name:?}: expected a one-dimensional buffer of {kind}")));
    };
    let values = buffer.to_vec(values.py())?;
    match length {
        Some(length) if values.len() != length => {
            Err(to_py(format!("column {name:?}: expected {length} values, got {}", values.len())))
        }
        _ => Ok(values),
    }
}

pub fn bytes<'py, T: Copy, const N: usize>(
    py: Python<'py>,
    values: &[T],
    encode: impl Fn(T) -> [u8; N],
) -> Bound<'py, PyBytes> {
    let encoded: Vec<u8> = values.iter().flat_map(|&value| encode(value)).collect();
    PyBytes::new(py, &encoded)
}
