//! What producers hand out, as routers see it: whose table it is.

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::read::Read;
use crate::table::Table;

/// Base of the mapping that a monitor hands out: routers read its table, not its items.
#[pyclass(frozen, subclass)]
pub struct ResidentRequestStats {
    #[pyo3(get)]
    pub table: Py<Table>,
    #[pyo3(get)]
    now: f64,
}

#[pymethods]
impl ResidentRequestStats {
    #[new]
    fn new(table: Py<Table>, now: Read<f64>) -> Self {
        Self { table, now: now.0 }
    }
}

/// Base of the mapping that a scraper hands out: routers read its table, not its items.
#[pyclass(frozen, subclass)]
pub struct ResidentEngineStats {
    #[pyo3(get)]
    pub table: Py<Table>,
}

#[pymethods]
impl ResidentEngineStats {
    #[new]
    #[pyo3(signature = (table, *_args))]
    fn new(table: Py<Table>, _args: &Bound<'_, PyTuple>) -> Self {
        Self { table }
    }
}
