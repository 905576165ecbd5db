//! Traces: rows that came as columns.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use routecore_replay::Row;

use super::columns::{bytes, column};
use crate::errors::to_py;
use crate::locked::Locked;
use crate::threads::Inside;

/// Requests to replay, held in Rust.
#[pyclass(frozen)]
pub struct Trace {
    inner: Locked<Arc<routecore_replay::Trace>>,
}

impl Trace {
    /// The trace as it is now; growing it later does not disturb who has it.
    pub fn get(&self) -> Arc<routecore_replay::Trace> {
        self.inner.apart(|trace, _| Arc::clone(trace))
    }
}

#[pymethods]
impl Trace {
    #[new]
    fn new(block: u32) -> PyResult<Self> {
        let trace = routecore_replay::Trace::new(block).map_err(to_py)?;
        Ok(Self { inner: Locked::new(Arc::new(trace)) })
    }

    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (*, arrival, input, output, session, delay, id_counts, ids, after_counts, after))]
    fn extend(
        &self,
        arrival: &Bound<'_, PyAny>,
        input: &Bound<'_, PyAny>,
        output: &Bound<'_, PyAny>,
        session: &Bound<'_, PyAny>,
        delay: &Bound<'_, PyAny>,
        id_counts: &Bound<'_, PyAny>,
        ids: &Bound<'_, PyAny>,
        after_counts: &Bound<'_, PyAny>,
        after: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let _inside = Inside::enter(arrival.py());
        let arrivals = column::<f64>("arrival", arrival, None)?;
        let n = Some(arrivals.len());
        let inputs = column::<u32>("input", input, n)?;
        let outputs = column::<u32>("output", output, n)?;
        let sessions = column::<i64>("session", session, n)?;
        let delays = column::<f64>("delay", delay, n)?;
        let id_counts = column::<u32>("id_counts", id_counts, n)?;
        let after_counts = column::<u32>("after_counts", after_counts, n)?;
        let total = |counts: &[u32]| Some(counts.iter().map(|&count| count as usize).sum());
        let ids = column::<u64>("ids", ids, total(&id_counts))?;
        let after = column::<u32>("after", after, total(&after_counts))?;
        let (mut ids, mut after) = (&ids[..], &after[..]);
        self.inner.apart(|trace, _| {
            let trace = Arc::make_mut(trace);
            for at in 0..arrivals.len() {
                let (own_ids, later_ids) = ids.split_at(id_counts[at] as usize);
                let (own_after, later_after) = after.split_at(after_counts[at] as usize);
                (ids, after) = (later_ids, later_after);
                let row = Row {
                    arrival: arrivals[at],
                    input: inputs[at],
                    output: outputs[at],
                    ids: own_ids,
                    session: u64::try_from(sessions[at]).ok(),
                    after: own_after,
                    delay: delays[at],
                };
                trace.push(row).map_err(to_py)?;
            }
            Ok(())
        })
    }

    fn __len__(&self) -> usize {
        self.get().len()
    }

    /// The first requests as a trace of their own.
    fn head(&self, rows: usize) -> Self {
        Self { inner: Locked::new(Arc::new(self.get().head(rows))) }
    }

    #[getter]
    fn block(&self) -> u32 {
        self.get().block()
    }

    #[getter]
    fn input_tokens(&self) -> u64 {
        self.get().input_tokens()
    }

    /// Input tokens, output tokens and session (−1: none) of each request, as packed columns.
    fn columns<'py>(&self, py: Python<'py>) -> [Bound<'py, PyBytes>; 3] {
        let trace = self.get();
        let requests = 0..trace.len() as u32;
        let sessions: Vec<i64> =
            requests.clone().map(|at| trace.session(at).map_or(-1, |id| id as i64)).collect();
        let inputs: Vec<u32> = requests.clone().map(|at| trace.input(at)).collect();
        let outputs: Vec<u32> = requests.map(|at| trace.output(at)).collect();
        [
            bytes(py, &inputs, u32::to_ne_bytes),
            bytes(py, &outputs, u32::to_ne_bytes),
            bytes(py, &sessions, i64::to_ne_bytes),
        ]
    }
}
