//! Where a stat comes from, and how its value is read.

use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt};
use routecore::Stat;

use crate::errors::tolerated;

/// Whose objects: the engines' own stats, or the router's count of their requests.
#[derive(Clone, Copy, PartialEq)]
pub enum Side {
    Engine,
    Requests,
}

/// Stats that only the engine knows.
pub fn is_scraped(stat: Stat) -> bool {
    matches!(
        stat,
        Stat::Running | Stat::Queuing | Stat::ActiveConnections | Stat::KvUsage | Stat::HitRate
    )
}

/// Stats that no host has: a router counts or learns them itself.
pub fn is_own(stat: Stat) -> bool {
    matches!(
        stat,
        Stat::QueuedTokens
            | Stat::QueuedMs
            | Stat::QueuedPairs
            | Stat::ContextTokens
            | Stat::KvTokens
            | Stat::KvCapacity
            | Stat::ContextLength
            | Stat::PrefillSlowness
            | Stat::StepSlowness
            | Stat::QueueCaution
            | Stat::PrefillSent
            | Stat::RequestsSent
    )
}

/// A finite number ≥ 0, or not known. Only exact floats and ints cannot change themselves.
pub fn number(value: &Bound<'_, PyAny>, settled: &mut bool) -> PyResult<f64> {
    if value.is_exact_instance_of::<PyFloat>() {
        let read = value.extract::<f64>().unwrap_or(f64::NAN);
        return Ok(if read.is_finite() && read >= 0.0 { read } else { f64::NAN });
    }
    let integer = value.is_exact_instance_of::<PyInt>();
    *settled &= integer;
    // By way of a float, as Python has it, an int costs an object.
    let small = if integer { value.extract::<i64>().ok() } else { None };
    let read = match small {
        Some(small) => Some(small as f64),
        None => tolerated(value.py(), value.extract::<f64>())?,
    };
    Ok(read.filter(|value| value.is_finite() && *value >= 0.0).unwrap_or(f64::NAN))
}
