//! Arguments whose conversion may run Python.

use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt};

use crate::threads::Inside;

/// An argument that is converted inside, see [`Inside`]: a `__float__`, an `__index__` or the
/// iteration of a sequence may be anybody's code, and runs before the function does.
pub struct Read<T>(pub T);

/// A time or a duration of a host's.
pub type Seconds = Read<f64>;

impl<'a, 'py, T: FromPyObject<'a, 'py>> FromPyObject<'a, 'py> for Read<T> {
    type Error = T::Error;

    #[inline]
    fn extract(value: Borrowed<'a, 'py, PyAny>) -> Result<Self, T::Error> {
        if value.is_exact_instance_of::<PyFloat>() || value.is_exact_instance_of::<PyInt>() {
            return T::extract(value).map(Self);
        }
        let _inside = Inside::enter(value.py());
        T::extract(value).map(Self)
    }
}
