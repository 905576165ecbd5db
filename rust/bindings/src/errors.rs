//! Errors of the core as Python exceptions.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use routecore::error::caught;

pyo3::import_exception!(routecore.errors, RouteError);

/// A core error as the Python class users catch.
pub fn to_py(error: impl ToString) -> PyErr {
    RouteError::new_err(error.to_string())
}

/// Locks even behind a thread that panicked: counts may be off by one, the router lives.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `f`; a panic becomes a `RouteError`, never a `PanicException` that passes `except Exception`.
pub fn guarded<T>(f: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    caught(f).unwrap_or_else(|error| Err(to_py(error)))
}
