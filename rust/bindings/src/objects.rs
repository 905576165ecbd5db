//! The objects of a list of endpoints.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};

use crate::attribute::Look;
use crate::errors::{because, tolerated};
use crate::locked::Foreign;

/// What of a known list are Python objects.
#[derive(Default)]
pub struct Objects {
    /// The caller's own tuple, if it was one: it stays as it is, so identity says who is in it.
    pub tuple: Option<Py<PyTuple>>,
    pub copy: Option<Py<PyList>>,
    pub each: Vec<Py<PyAny>>,
    pub strings: Vec<Py<PyString>>,
    /// A quick look at all that may change, where nobody was out; and the strings as it takes them.
    pub look: Option<(Look, Py<PyList>)>,
}

impl Foreign for Objects {
    fn is_nothing(&self) -> bool {
        self.each.is_empty()
    }
}

/// The URL of each endpoint. Runs Python.
pub fn urls_of<'py>(endpoints: &Bound<'py, PyList>) -> PyResult<Vec<Bound<'py, PyString>>> {
    let py = endpoints.py();
    let mut urls = Vec::with_capacity(endpoints.len());
    for (at, endpoint) in endpoints.iter().enumerate() {
        let (url, cause) = match endpoint.getattr(intern!(py, "url")) {
            Ok(url) => (url.cast_into::<PyString>().ok(), None),
            Err(error) => {
                let raised = error.clone_ref(py);
                tolerated(py, Err::<(), _>(error))?;
                (None, Some(raised))
            }
        };
        let Some(url) = url else {
            let kind = endpoint.get_type().name()?;
            let text =
                format!("endpoint {at}: expected an object with a str attribute url, got {kind}");
            return Err(because(py, text, cause));
        };
        urls.push(url);
    }
    Ok(urls)
}
