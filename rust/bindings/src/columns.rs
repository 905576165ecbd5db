//! Columns and figures of a table, as Python passes and reads them.

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use routecore::Stat;
use routecore::load::RowStats;

use crate::errors::to_py;

/// In the order of [`RowStats`].
pub type StatsTuple = (f64, f64, u32, u32, u64, f64, f64, u64);

/// [`RowStats`] as Python reads it; what is not known is -1.
pub fn stats_tuple(stats: RowStats) -> StatsTuple {
    let RowStats { qps, ttft, in_prefill, in_decoding, finished, uptime, avg_latency, swapped } =
        stats;
    let known = |value: Option<f64>| value.unwrap_or(-1.0);
    let (ttft, latency) = (known(ttft), known(avg_latency));
    (qps, ttft, in_prefill, in_decoding, finished, uptime, latency, swapped)
}

/// A column by its name, from a buffer of floats.
pub fn column_of(name: &Bound<'_, PyAny>, values: &Bound<'_, PyAny>) -> PyResult<(Stat, Vec<f64>)> {
    let name: String = name.extract()?;
    let stat = Stat::named(&name).map_err(to_py)?;
    let Ok(buffer) = PyBuffer::<f64>::get(values) else {
        return Err(to_py(format!(
            "column {name:?}: expected a one-dimensional buffer of float64 (dtype 'd')"
        )));
    };
    if buffer.dimensions() != 1 {
        let found = buffer.dimensions();
        return Err(to_py(format!("column {name:?}: expected 1 dimension, got {found}")));
    }
    Ok((stat, buffer.to_vec(values.py())?))
}
