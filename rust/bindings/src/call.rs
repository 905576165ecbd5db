//! One call of a router, as Python makes it.

use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::errors::guarded;
use crate::given::Given;
use crate::table::Table;
use crate::threads::Inside;
use crate::views::ResidentRequestStats;

/// What a caller hands over.
#[derive(Clone, Copy)]
pub struct Call<'a, 'py> {
    pub endpoints: &'a Bound<'py, PyAny>,
    /// The same: a list or a tuple.
    pub given: Given<'a>,
    pub engine_stats: &'a Bound<'py, PyAny>,
    pub request_stats: &'a Bound<'py, PyAny>,
}

impl<'a> Call<'a, '_> {
    pub fn counted(&self) -> Option<&'a Table> {
        let view = self.request_stats.cast::<ResidentRequestStats>().ok()?;
        Some(view.get().table.get())
    }
}

/// Runs `f` over the call, its endpoints in a list or tuple: of any other kind they are read once.
pub fn called<T>(
    endpoints: &Bound<'_, PyAny>,
    engine_stats: &Bound<'_, PyAny>,
    request_stats: &Bound<'_, PyAny>,
    f: impl FnOnce(Call<'_, '_>) -> PyResult<T>,
) -> PyResult<T> {
    guarded(|| {
        let _inside = Inside::enter(endpoints.py());
        if let Some(given) = Given::of(endpoints) {
            return f(Call { endpoints, given, engine_stats, request_stats });
        }
        let list = PyList::empty(endpoints.py());
        for endpoint in endpoints.try_iter()? {
            list.append(endpoint?)?;
        }
        let given = Given::List(list.as_unbound());
        f(Call { endpoints: list.as_any(), given, engine_stats, request_stats })
    })
}
