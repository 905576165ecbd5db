//! Attributes of foreign objects: those that may be absent, and those that may change.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyList, PyString, PyType};

use crate::errors::tolerated;

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
    #[inline]
    pub fn get<'py>(
        &mut self,
        object: &Bound<'py, PyAny>,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = object.py();
        let kind = object.get_type_ptr();
        if self.lacking.as_ref().is_some_and(|lacking| lacking.as_ptr() == kind.cast()) {
            static GETATTR: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
            let getattr = GETATTR.import(py, "builtins", "getattr")?;
            // The name stands for "absent": no attribute is that very string.
            let value = tolerated(py, getattr.call1((object, name, name)))?;
            return Ok(value.filter(|value| !value.is(name)));
        }
        let found = tolerated(py, object.getattr_opt(name))?.flatten();
        if found.is_none() {
            self.lacking = Some(object.get_type().unbind());
        }
        Ok(found)
    }
}

/// What an endpoint says of itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// It may be chosen; so may one that says nothing.
    In,
    Asleep,
    Unhealthy,
}

/// Whether endpoints are awake and healthy, as far as they say.
#[derive(Default)]
pub struct Flags {
    sleep: Optional,
    healthy: Optional,
}

impl Flags {
    pub fn of(&mut self, endpoint: &Bound<'_, PyAny>) -> PyResult<Flag> {
        let py = endpoint.py();
        let truth = |flag: Option<Bound<'_, PyAny>>| match flag {
            Some(flag) => tolerated(py, flag.is_truthy()),
            None => Ok(None),
        };
        if truth(self.sleep.get(endpoint, intern!(py, "sleep"))?)?.unwrap_or(false) {
            return Ok(Flag::Asleep);
        }
        let healthy = truth(self.healthy.get(endpoint, intern!(py, "healthy"))?)?;
        Ok(if healthy.unwrap_or(true) { Flag::In } else { Flag::Unhealthy })
    }
}

/// Tokens of the longest request that an endpoint takes, as far as it says. Runs Python.
pub fn context_length(
    endpoint: &Bound<'_, PyAny>,
    model_info: &mut Optional,
) -> PyResult<Option<f64>> {
    static READ: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = endpoint.py();
    let Some(info) = model_info.get(endpoint, intern!(py, "model_info"))? else { return Ok(None) };
    if info.is_none() {
        return Ok(None);
    }
    let read = READ.import(py, "routecore.endpoints.context", "context_length")?;
    let limit = tolerated(py, read.call1((info,)))?;
    Ok(limit.and_then(|limit| limit.extract().ok()))
}

/// A look at endpoints of one kind, by one of `routecore.routers.looks`.
pub struct Look(Py<PyAny>);

impl Look {
    /// For endpoints like this one. Runs Python.
    pub fn at(endpoint: &Bound<'_, PyAny>) -> PyResult<Self> {
        static LOOKS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = endpoint.py();
        let has = |name| Ok::<_, PyErr>(tolerated(py, endpoint.hasattr(name))?.unwrap_or(false));
        let at =
            usize::from(has(intern!(py, "sleep"))?) + 2 * usize::from(has(intern!(py, "healthy"))?);
        let looks = LOOKS.import(py, "routecore.routers.looks", "LOOKS")?;
        Ok(Self(looks.get_item(at)?.unbind()))
    }

    /// Whether it sees that they all have these URLs and may be chosen. Runs Python.
    pub fn sees(&self, endpoints: &Bound<'_, PyAny>, urls: &Py<PyList>) -> PyResult<bool> {
        let py = endpoints.py();
        let seen = tolerated(py, self.0.bind(py).call1((endpoints, urls)))?;
        Ok(seen.is_some_and(|seen| seen.is(PyBool::new(py, true))))
    }
}

/// Whether the endpoint is exactly our frozen Struct: all that it says, it says for ever.
pub fn is_settled(endpoint: &Bound<'_, PyAny>) -> bool {
    static OURS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let ours = OURS.import(endpoint.py(), "routecore.endpoints.stats", "EndpointInfo");
    ours.is_ok_and(|ours| endpoint.get_type().is(ours))
}
