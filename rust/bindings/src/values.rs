//! The plain path: stats of anybody's dicts and objects, each field that is needed read once.
//!
//! Foreign objects are read at every decision, since anybody may change them. Our own Structs are
//! frozen: their values are kept, and known again by the object.

use std::iter::repeat_n;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyType};
use routecore::Stat;

use crate::attribute::Optional;
use crate::eight::{Eight, Placed};
use crate::endpoint_list::EndpointList;
use crate::errors::tolerated;
use crate::side::{Side, is_own, is_scraped, number};

/// Values of one mapping, a row per endpoint of a list, and the frozen objects they came from.
#[derive(Default)]
struct Values {
    stats: Vec<Stat>,
    names: Vec<Py<PyString>>,
    objects: Vec<Option<Py<PyAny>>>,
    columns: Vec<Vec<f64>>,
    active: Optional,
    /// A type of objects that may change.
    thawed: Option<Py<PyType>>,
    eight: Option<Eight>,
}

/// What the plain path knows of a list's endpoints.
#[derive(Default)]
pub struct Columns {
    engine: Values,
    requests: Values,
}

impl Columns {
    /// Reads the stats of every endpoint of the list; `NaN` where not known. With a monitor of
    /// ours (`counted`) only what engines report is read.
    pub fn read(
        &mut self,
        known: &EndpointList,
        reads: &[Stat],
        counted: bool,
        engine_stats: &Bound<'_, PyAny>,
        request_stats: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        // Engines' connections are the load if any engine reports, else what was sent.
        let reports = !engine_stats.is_none()
            && tolerated(engine_stats.py(), engine_stats.len())?.is_some_and(|n| n > 0);
        let of_engine = |stat: Stat| is_scraped(stat) || (stat == Stat::InFlight && reports);
        let wanted = |engine: bool| {
            let ours = move |stat: &Stat| of_engine(*stat) == engine;
            let kept = reads.iter().copied().filter(ours).filter(|&stat| !is_own(stat));
            kept.filter(move |&stat| !counted || is_scraped(stat))
        };
        self.engine.read(known, Side::Engine, wanted(true), engine_stats)?;
        self.requests.read(known, Side::Requests, wanted(false), request_stats)
    }

    /// The columns read last, a value per endpoint of the list.
    pub fn iter(&self) -> impl Iterator<Item = (Stat, &[f64])> {
        let both = [&self.engine, &self.requests].into_iter();
        both.flat_map(|side| side.stats.iter().copied().zip(side.columns.iter().map(Vec::as_slice)))
    }
}

impl Values {
    fn read(
        &mut self,
        known: &EndpointList,
        side: Side,
        stats: impl Iterator<Item = Stat> + Clone,
        mapping: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if !self.stats.iter().copied().eq(stats.clone()) {
            let py = mapping.py();
            *self = Self { stats: stats.collect(), ..Self::default() };
            let names = self.stats.iter().map(|stat| PyString::intern(py, stat.name()).unbind());
            self.names = names.collect();
            self.objects = repeat_n((), known.len()).map(|()| None).collect();
            self.columns = vec![vec![f64::NAN; known.len()]; self.stats.len()];
        }
        if self.stats.is_empty() {
            return Ok(());
        }
        let py = mapping.py();
        let strings = known.strings();
        let mut looked_up = 0;
        let mut changed = Vec::new();
        let dict = mapping.cast_exact::<PyDict>().ok();
        if let Some(dict) = dict {
            // A dict made in list order needs no hashing. No Python may run while it is walked.
            for (url, object) in dict {
                let Some(expected) = strings.get(looked_up) else { break };
                if !url.is(expected.bind(py)) {
                    break;
                }
                if !self.objects[looked_up].as_ref().is_some_and(|kept| object.is(kept.bind(py))) {
                    if changed.is_empty() {
                        changed.reserve_exact(strings.len() - looked_up);
                    }
                    changed.push((looked_up, object));
                }
                looked_up += 1;
            }
        }
        for (at, url) in strings.iter().enumerate().skip(looked_up) {
            let url = url.bind(py);
            let object = match dict {
                Some(dict) => tolerated(py, dict.get_item(url))?.flatten(),
                None if mapping.is_none() => None,
                None => tolerated(py, mapping.get_item(url))?,
            };
            let kept = self.objects[at].as_ref().map(|kept| kept.bind(py));
            match object {
                Some(object) if kept.is_some_and(|kept| object.is(kept)) => {}
                Some(object) => changed.push((at, object)),
                None => self.take(at, side, None)?,
            }
        }
        let done = self.take_eights(side, &changed)?;
        for (at, object) in &changed[done..] {
            self.take(*at, side, Some(object))?;
        }
        Ok(())
    }

    /// Reads as many of these as can be read eight at once; how many.
    fn take_eights(&mut self, side: Side, changed: &[Placed<'_>]) -> PyResult<usize> {
        let Some((_, object)) = changed.first().filter(|_| changed.len() >= 8) else {
            return Ok(0);
        };
        if self.is_frozen(side, object) {
            return Ok(0);
        }
        let eight = match self.eight.take().filter(|eight| eight.fits(object)) {
            Some(eight) => eight,
            None => Eight::of(side, &self.stats, object)?,
        };
        let eight = self.eight.insert(eight);
        let done = eight.read(changed, &mut self.columns)?;
        for (at, _) in &changed[..done] {
            if self.objects[*at].is_some() {
                self.objects[*at] = None;
            }
        }
        Ok(done)
    }

    /// Reads one endpoint's object, and keeps it if its values can never change.
    fn take(&mut self, at: usize, side: Side, object: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let mut settled = object.is_some_and(|object| self.is_frozen(side, object));
        let stats = self.stats.iter().zip(&self.names);
        for ((&stat, name), column) in stats.zip(&mut self.columns) {
            column[at] = match object {
                Some(object) => value(side, stat, name, object, &mut self.active, &mut settled)?,
                None if side == Side::Requests && is_count(stat) => 0.0,
                None => f64::NAN,
            };
        }
        if settled || self.objects[at].is_some() {
            self.objects[at] = object.filter(|_| settled).map(|object| object.clone().unbind());
        }
        Ok(())
    }

    /// Whether the object is exactly our Struct, which cannot change.
    fn is_frozen(&mut self, side: Side, object: &Bound<'_, PyAny>) -> bool {
        static ENGINE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        static REQUESTS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let kind = object.get_type_ptr().cast();
        if self.thawed.as_ref().is_some_and(|thawed| thawed.as_ptr() == kind) {
            return false;
        }
        let (cell, name) = match side {
            Side::Engine => (&ENGINE, "EngineStats"),
            Side::Requests => (&REQUESTS, "RequestStats"),
        };
        let ours = cell.import(object.py(), "routecore.endpoints.stats", name);
        let frozen = ours.is_ok_and(|ours| ours.as_ptr() == kind);
        if !frozen {
            self.thawed = Some(object.get_type().unbind());
        }
        frozen
    }
}

/// Whether an endpoint that no request was sent to has none of it, rather than an unknown number.
fn is_count(stat: Stat) -> bool {
    !matches!(stat, Stat::Ttft | Stat::AvgLatency)
}

fn value(
    side: Side,
    stat: Stat,
    name: &Py<PyString>,
    object: &Bound<'_, PyAny>,
    active: &mut Optional,
    settled: &mut bool,
) -> PyResult<f64> {
    let py = object.py();
    let mut attr = |name| match tolerated(py, object.getattr(name))? {
        Some(value) => number(&value, settled),
        None => Ok(f64::NAN),
    };
    match (side, stat) {
        (Side::Engine, Stat::InFlight | Stat::ActiveConnections) => {
            if let Some(value) = active.get(object, intern!(py, "active_connections"))? {
                return number(&value, settled);
            }
            let running = attr(intern!(py, "num_running_requests"))?;
            Ok(running + attr(intern!(py, "num_queuing_requests"))?)
        }
        (Side::Requests, Stat::InFlight) => {
            let prefill = attr(intern!(py, "in_prefill_requests"))?;
            Ok(prefill + attr(intern!(py, "in_decoding_requests"))?)
        }
        _ => attr(name.bind(py)),
    }
}
