//! Attributes of eight objects of one class at once, read by `routecore.routers.looks`.
//!
//! The interpreter specialises each look for the class, which makes it several times as fast as a
//! look from outside.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};
use routecore::Stat;

use crate::errors::tolerated;
use crate::side::{Side, number};

/// Objects and their places in the list.
pub type Placed<'py> = (usize, Bound<'py, PyAny>);

/// How to read the stats of objects of a class: of each one attribute, or the sum of two.
pub struct Eight {
    kind: Py<PyType>,
    /// Empty where it would be in vain.
    readers: Vec<(Py<PyAny>, Option<Py<PyAny>>)>,
}

impl Eight {
    /// For objects of the class of this one. Runs Python.
    pub fn of(side: Side, stats: &[Stat], object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let found: PyResult<Option<Vec<_>>> =
            stats.iter().map(|&stat| readers(side, stat, object)).collect();
        let kind = object.get_type().unbind();
        Ok(Self { kind, readers: found?.unwrap_or_default() })
    }

    /// Whether it was made for objects of this one's class.
    pub fn fits(&self, object: &Bound<'_, PyAny>) -> bool {
        self.kind.as_ptr() == object.get_type_ptr().cast()
    }

    /// Reads as many of the objects as there are whole eights of the class; how many. Runs Python.
    pub fn read(&mut self, all: &[Placed<'_>], columns: &mut [Vec<f64>]) -> PyResult<usize> {
        if self.readers.is_empty() {
            return Ok(0);
        }
        let mut done = 0;
        for eight in all.as_chunks::<8>().0 {
            if !eight.iter().all(|(_, object)| self.fits(object)) {
                break;
            }
            for ((first, second), column) in self.readers.iter().zip(&mut *columns) {
                let seen = match values(first, eight)? {
                    Some(values) => match second {
                        Some(second) => self::values(second, eight)?.map(|more| add(values, more)),
                        None => Some(values),
                    },
                    None => None,
                };
                let Some(seen) = seen else {
                    self.readers.clear(); // some lack it, or a getter raises
                    return Ok(done);
                };
                for ((at, _), value) in eight.iter().zip(seen) {
                    column[*at] = value;
                }
            }
            done += 8;
        }
        Ok(done)
    }
}

fn add(a: [f64; 8], b: [f64; 8]) -> [f64; 8] {
    std::array::from_fn(|at| a[at] + b[at])
}

/// What the attribute says of each; nothing where a look raises.
#[allow(clippy::many_single_char_names)]
fn values(reader: &Py<PyAny>, eight: &[Placed<'_>; 8]) -> PyResult<Option<[f64; 8]>> {
    let py = eight[0].1.py();
    let [a, b, c, d, e, f, g, h] = eight.each_ref().map(|(_, object)| object);
    let Some(said) = tolerated(py, reader.bind(py).call1((a, b, c, d, e, f, g, h)))? else {
        return Ok(None);
    };
    let Ok(said) = said.cast_exact::<PyTuple>() else { return Ok(None) };
    let (mut values, mut settled) = ([f64::NAN; 8], false);
    for (value, said) in values.iter_mut().zip(said.iter_borrowed()) {
        *value = number(&said, &mut settled)?;
    }
    Ok(Some(values))
}

/// What reads this stat of such objects; nothing where each may have other attributes.
#[allow(clippy::type_complexity)]
fn readers(
    side: Side,
    stat: Stat,
    object: &Bound<'_, PyAny>,
) -> PyResult<Option<(Py<PyAny>, Option<Py<PyAny>>)>> {
    static READER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = object.py();
    let reader = READER.import(py, "routecore.routers.looks", "reader")?;
    let of = |name: &str| reader.call1((name,)).map(Bound::unbind);
    let has = |name| Ok::<_, PyErr>(tolerated(py, object.hasattr(name))?.unwrap_or(false));
    Ok(Some(match (side, stat) {
        (Side::Engine, Stat::InFlight | Stat::ActiveConnections) => {
            if has(intern!(py, "active_connections"))? {
                (of("active_connections")?, None)
            } else if has(intern!(py, "__dataclass_fields__"))? {
                (of("num_running_requests")?, Some(of("num_queuing_requests")?))
            } else {
                return Ok(None);
            }
        }
        (Side::Requests, Stat::InFlight) => {
            (of("in_prefill_requests")?, Some(of("in_decoding_requests")?))
        }
        _ => (of(stat.name())?, None),
    }))
}
