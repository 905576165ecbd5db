//! Errors of the core as Python exceptions.

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use routecore::error::caught;

pyo3::import_exception!(routecore.errors, RouteError);

/// A core error as the Python class users catch.
pub fn to_py(error: impl ToString) -> PyErr {
    RouteError::new_err(error.to_string())
}

/// The same, raised because of another.
pub fn because(py: Python<'_>, error: impl ToString, cause: Option<PyErr>) -> PyErr {
    let error = to_py(error);
    error.set_cause(py, cause);
    error
}

/// What a foreign object gave, or nothing where it raised. What is no `Exception` (an interrupt,
/// an exit, a task that is cancelled) is nobody's to pass over.
#[inline]
pub fn tolerated<T>(py: Python<'_>, result: PyResult<T>) -> PyResult<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_instance_of::<PyException>(py) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Runs `f`; a panic becomes a `RouteError`, never a `PanicException` that passes `except Exception`.
pub fn guarded<T>(f: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    caught(f).unwrap_or_else(|error| Err(to_py(error)))
}
