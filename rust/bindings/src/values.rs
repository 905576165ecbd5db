//! The plain path: stats of anybody's dicts and objects, each field that is needed read once.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use routecore::Stat;

use crate::known_list::KnownList;

/// `mapping[url]`, or nothing, whatever the mapping.
fn item<'py>(mapping: &Bound<'py, PyAny>, url: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
    match mapping.cast_exact::<PyDict>() {
        Ok(dict) => dict.get_item(url).ok().flatten(),
        Err(_) => mapping.get_item(url).ok(),
    }
}

/// A finite number ≥ 0, or not known.
fn number(value: &Bound<'_, PyAny>) -> f64 {
    match value.extract::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => value,
        _ => f64::NAN,
    }
}

fn attr(object: &Bound<'_, PyAny>, name: &Bound<'_, PyString>) -> f64 {
    object.getattr(name).map_or(f64::NAN, |value| number(&value))
}

/// Whether a mapping has anything in it.
pub fn has_items(mapping: &Bound<'_, PyAny>) -> bool {
    !mapping.is_none() && mapping.len().is_ok_and(|n| n > 0)
}

/// One value per endpoint of the list, `NaN` where not known.
pub fn read(
    bound: &KnownList,
    stat: Stat,
    engine_stats: &Bound<'_, PyAny>,
    request_stats: &Bound<'_, PyAny>,
    out: &mut Vec<f64>,
) {
    let py = engine_stats.py();
    let from_engine = has_items(engine_stats);
    let (active, running) =
        (intern!(py, "active_connections"), intern!(py, "num_running_requests"));
    let queuing = intern!(py, "num_queuing_requests");
    let load = |object: &Bound<'_, PyAny>| match object.getattr_opt(active) {
        Ok(Some(value)) => number(&value),
        _ => attr(object, running) + attr(object, queuing),
    };
    let mut each = |mapping: &Bound<'_, PyAny>, get: &dyn Fn(&Bound<'_, PyAny>) -> f64, absent| {
        out.clear();
        if mapping.is_none() {
            out.resize(bound.len(), absent);
            return;
        }
        let strings = bound.strings.iter();
        out.extend(strings.map(|url| item(mapping, url.bind(py)).map_or(absent, |o| get(&o))));
    };
    let name = PyString::intern(py, stat.name());
    match stat {
        Stat::InFlight if from_engine => each(engine_stats, &load, f64::NAN),
        Stat::InFlight => {
            let prefill = intern!(py, "in_prefill_requests");
            let decode = intern!(py, "in_decoding_requests");
            each(request_stats, &|o| attr(o, prefill) + attr(o, decode), 0.0);
        }
        Stat::ActiveConnections => each(engine_stats, &load, f64::NAN),
        Stat::Qps | Stat::InPrefill | Stat::InDecoding => {
            each(request_stats, &|o| attr(o, &name), 0.0);
        }
        Stat::Ttft | Stat::AvgLatency => each(request_stats, &|o| attr(o, &name), f64::NAN),
        _ => each(engine_stats, &|o| attr(o, &name), f64::NAN),
    }
}
