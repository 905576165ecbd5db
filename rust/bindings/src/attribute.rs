//! Attributes that foreign objects may lack.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType};

/// Looks up one such attribute in many objects.
///
/// Where it is absent Python raises and clears an exception, which costs ten times the look. So
/// objects of a type that lacked it before go through the built-in `getattr` with a default.
#[derive(Default)]
pub struct Optional {
    lacking: Option<Py<PyType>>,
}

impl Optional {
    /// The attribute, `None` where it is absent or raises.
    pub fn get<'py>(
        &mut self,
        object: &Bound<'py, PyAny>,
        name: &Bound<'py, PyString>,
    ) -> Option<Bound<'py, PyAny>> {
        let py = object.py();
        let kind = object.get_type();
        if self.lacking.as_ref().is_some_and(|lacking| kind.is(lacking.bind(py))) {
            static GETATTR: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
            let getattr = GETATTR.import(py, "builtins", "getattr").ok()?;
            // The name stands for "absent": no attribute is that very string.
            let value = getattr.call1((object, name, name)).ok()?;
            return (!value.is(name)).then_some(value);
        }
        let found = object.getattr_opt(name).ok()?;
        if found.is_none() {
            self.lacking = Some(kind.unbind());
        }
        found
    }
}

/// Whether endpoints are awake and healthy, as far as they say.
#[derive(Default)]
pub struct Flags {
    sleep: Optional,
    healthy: Optional,
}

impl Flags {
    /// An endpoint that says nothing may be chosen.
    pub fn usable(&mut self, endpoint: &Bound<'_, PyAny>) -> bool {
        let py = endpoint.py();
        let truth = |flag: Option<Bound<'_, PyAny>>| flag.and_then(|flag| flag.is_truthy().ok());
        let asleep = truth(self.sleep.get(endpoint, intern!(py, "sleep"))).unwrap_or(false);
        !asleep && truth(self.healthy.get(endpoint, intern!(py, "healthy"))).unwrap_or(true)
    }
}
