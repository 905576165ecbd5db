//! The caller's endpoints, and how well they must be known.

use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

/// The caller's endpoints, as far as they can be recognised without running Python.
#[derive(Clone, Copy)]
pub enum Given<'a> {
    Tuple(&'a Py<PyTuple>),
    List(&'a Py<PyList>),
}

impl<'a> Given<'a> {
    pub fn of(endpoints: &'a Bound<'_, PyAny>) -> Option<Self> {
        if let Ok(tuple) = endpoints.cast_exact::<PyTuple>() {
            return Some(Self::Tuple(tuple.as_unbound()));
        }
        endpoints.cast_exact::<PyList>().ok().map(|list| Self::List(list.as_unbound()))
    }
}

/// How well a list must be known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// Compared as a whole; what changeable objects say is looked at in part. The choice must be
    /// seen to stand there and to say what it said.
    Compare,
    /// By identity, and what changeable objects say is read anew.
    Read,
}
