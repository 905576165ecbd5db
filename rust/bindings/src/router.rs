//! The compiled half of every Python router: recognise the list, get a view, pick.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};
use routecore::strategy::Scored;
use routecore::{Fleet, Key, Params, Stat, View};

use crate::errors::{guarded, lock, to_py};
use crate::known_list::{KnownList, State, url_list};
use crate::prompt;
use crate::table::{ResidentEngineStats, ResidentRequestStats, Table};
use crate::values;

/// Lists remembered: one per model served behind the same router, and a few that failed over.
const MAX_BOUND: usize = 32;

/// A strategy over lists of endpoint objects.
#[pyclass(frozen)]
pub struct Router {
    name: String,
    block: usize,
    weights: HashMap<String, f64>,
    reads: Vec<Stat>,
    router: Mutex<routecore::Router>,
    lists: Mutex<Vec<Arc<KnownList>>>,
}

/// Where a decision reads from.
enum Source {
    /// The columns of the shared table.
    Resident(Py<Table>),
    /// Values copied from objects; counts in flight from the table if there is one.
    Plain(Vec<(Stat, Vec<f64>)>, Option<Py<Table>>),
}

type Row = (Py<PyString>, bool, f64, Vec<(&'static str, f64, &'static str)>);

impl Router {
    fn find(&self, endpoints: &Bound<'_, PyAny>) -> PyResult<Arc<KnownList>> {
        let last = lock(&self.lists).first().cloned();
        match last {
            Some(last) if last.is_same(endpoints) => Ok(last),
            _ => self.find_slow(endpoints),
        }
    }

    #[cold]
    fn find_slow(&self, endpoints: &Bound<'_, PyAny>) -> PyResult<Arc<KnownList>> {
        // Python runs in here, so the lock is only held to copy the list and to change it.
        let lists = lock(&self.lists).clone();
        let mut found = lists.iter().find(|bound| bound.is_same(endpoints)).cloned();
        if found.is_none() {
            let urls = url_list(endpoints)?;
            if urls.is_empty() {
                let name = &self.name;
                return Err(to_py(format!(
                    "{name}: the endpoint list is empty; pass at least one endpoint"
                )));
            }
            // A tuple is worth knowing by identity, a list of fresh objects is not.
            let fresh = !endpoints.is_instance_of::<PyTuple>();
            let equal = |bound: &&Arc<KnownList>| fresh && bound.has_urls(endpoints, &urls);
            found = lists.iter().find(equal).cloned();
        }
        let bound = match found {
            Some(bound) => bound,
            None => Arc::new(KnownList::new(endpoints, &self.weights)?),
        };
        let mut kept = lock(&self.lists);
        kept.retain(|other| !Arc::ptr_eq(other, &bound));
        kept.insert(0, Arc::clone(&bound));
        let keep = kept.len().min(MAX_BOUND);
        let dropped = kept.split_off(keep);
        drop(kept);
        drop(dropped); // frees Python objects: never under the lock
        Ok(bound)
    }

    fn source(
        &self,
        bound: &KnownList,
        engine_stats: &Bound<'_, PyAny>,
        request_stats: &Bound<'_, PyAny>,
    ) -> Source {
        let ours = request_stats.cast::<ResidentRequestStats>().ok().map(pyo3::Bound::get);
        let engine = engine_stats.cast::<ResidentEngineStats>().ok().map(pyo3::Bound::get);
        let py = engine_stats.py();
        let scraped = |stat: &&Stat| {
            matches!(
                stat,
                Stat::Running
                    | Stat::Queuing
                    | Stat::ActiveConnections
                    | Stat::KvUsage
                    | Stat::HitRate
            )
        };
        if let Some(view) = ours {
            let resident = engine.is_some_and(|other| other.table.is(&view.table));
            if resident || !self.reads.iter().any(|stat| scraped(&stat)) {
                return Source::Resident(view.table.clone_ref(py));
            }
        }
        let reads = self.reads.iter().filter(|stat| ours.is_none() || scraped(stat));
        let columns = reads.map(|&stat| {
            let mut column = Vec::with_capacity(bound.len());
            values::read(bound, stat, engine_stats, request_stats, &mut column);
            (stat, column)
        });
        Source::Plain(columns.collect(), ours.map(|view| view.table.clone_ref(py)))
    }

    /// Runs `f` over the candidates and their columns, under the locks and without Python.
    fn with_view<T>(
        &self,
        bound: &KnownList,
        source: &Source,
        f: impl FnOnce(&mut routecore::Router, &mut State, Option<&mut Fleet>) -> T,
    ) -> T {
        let mut router = lock(&self.router);
        let mut state = lock(&bound.state);
        let windows =
            self.reads.iter().any(|s| matches!(s, Stat::Qps | Stat::Ttft | Stat::AvgLatency));
        let table = match source {
            Source::Resident(table) | Source::Plain(_, Some(table)) => Some(table.get()),
            Source::Plain(_, None) => None,
        };
        let mut inner = table.map(|table| lock(&table.inner));
        if let Some(inner) = &mut inner {
            bound.refresh(&mut state, inner);
        }
        if let Some(inner) = &mut inner
            && windows
        {
            let Fleet { table, load } = &mut inner.fleet;
            load.publish_windows(table, KnownList::rows(&state));
        }
        if let Source::Plain(columns, _) = source {
            for (stat, column) in columns {
                for (row, &value) in column.iter().enumerate() {
                    state.scratch.set(*stat, row as u32, value);
                }
            }
            let State { scratch, plain, .. } = &mut *state;
            scratch.fill_unknown(Stat::InFlight, &plain.candidates.rows);
            if let Some(inner) = &inner {
                for &stat in Stat::ALL.iter().filter(|s| !columns.iter().any(|c| c.0 == **s)) {
                    for row in 0..bound.len() {
                        let value = inner.fleet.table.get(stat, state_row(&state, row));
                        state.scratch.set(stat, row as u32, value);
                    }
                }
            }
        }
        f(&mut router, &mut state, inner.as_mut().map(|inner| &mut inner.fleet))
    }

    fn none(&self) -> PyErr {
        to_py(format!("{}: no endpoint is eligible; all are asleep or unhealthy", self.name))
    }

    fn key(&self, session: Option<&Bound<'_, PyString>>, body: Option<&Bound<'_, PyAny>>) -> Key {
        match (session, body) {
            (Some(id), _) => prompt::session(id),
            (None, Some(body)) => prompt::prefix_key(body, self.block),
            (None, None) => Key::None,
        }
    }

    fn pick(&self, bound: &KnownList, source: &Source, key: &Key) -> Option<usize> {
        self.with_view(bound, source, |router, state, fleet| {
            pick(router, state, fleet, source, key)
        })
    }
}

fn state_row(state: &State, at: usize) -> u32 {
    KnownList::rows(state).get(at).copied().unwrap_or(u32::MAX)
}

/// One choice, counted as load where there is a table to count in.
fn pick(
    router: &mut routecore::Router,
    state: &mut State,
    fleet: Option<&mut Fleet>,
    source: &Source,
    key: &Key,
) -> Option<usize> {
    let at = match (source, &fleet) {
        (Source::Resident(_), Some(fleet)) => {
            let view = View { table: &fleet.table, candidates: &state.resident.candidates };
            state.resident.positions[router.pick(view, key)?]
        }
        _ => {
            let view = View { table: &state.scratch, candidates: &state.plain.candidates };
            state.plain.positions[router.pick(view, key)?]
        }
    } as usize;
    if let Some(fleet) = fleet {
        let row = state_row(state, at);
        fleet.load.chosen(&mut fleet.table, row);
    }
    Some(at)
}

#[pymethods]
impl Router {
    #[new]
    fn new(strategy: &str, params: &Bound<'_, PyDict>, seed: u64, block: usize) -> PyResult<Self> {
        let mut read = Params::default();
        let mut weights = HashMap::new();
        for (name, value) in params {
            let name: String = name.extract()?;
            if name == "endpoint_weights" {
                weights = value.extract()?;
                if let Some((url, w)) =
                    weights.iter().find(|(_, w): &(&String, &f64)| !w.is_finite() || **w <= 0.0)
                {
                    return Err(to_py(format!(
                        "endpoint_weights[{url:?}]: expected a finite number above 0, got {w}"
                    )));
                }
            } else if let Ok(number) = value.extract::<f64>() {
                read.numbers.insert(name, number);
            } else if let Ok(word) = value.extract::<String>() {
                read.words.insert(name, word);
            } else if let Ok(map) = value.extract::<BTreeMap<String, f64>>() {
                read.weights = map;
            } else {
                let kind = value.get_type().name()?;
                return Err(to_py(format!(
                    "parameter {name:?}: expected a number, a word or a dict of weights, got {kind}"
                )));
            }
        }
        let router = routecore::Router::new(strategy, read, seed).map_err(to_py)?;
        Ok(Self {
            name: strategy.to_owned(),
            block,
            weights,
            reads: router.reads(),
            router: Mutex::new(router),
            lists: Mutex::new(Vec::new()),
        })
    }

    #[pyo3(signature = (endpoints, engine_stats, request_stats, session=None, body=None, /))]
    fn route(
        &self,
        py: Python<'_>,
        endpoints: &Bound<'_, PyAny>,
        engine_stats: &Bound<'_, PyAny>,
        request_stats: &Bound<'_, PyAny>,
        session: Option<&Bound<'_, PyString>>,
        body: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyString>> {
        guarded(|| {
            let bound = self.find(endpoints)?;
            let key = self.key(session, body);
            let source = self.source(&bound, engine_stats, request_stats);
            let at = self.pick(&bound, &source, &key).ok_or_else(|| self.none())?;
            Ok(bound.url(py, at))
        })
    }

    /// Positions in `endpoints`, as native unsigned 32-bit integers, one per key.
    fn route_batch(
        &self,
        py: Python<'_>,
        endpoints: &Bound<'_, PyAny>,
        engine_stats: &Bound<'_, PyAny>,
        request_stats: &Bound<'_, PyAny>,
        keys: &Bound<'_, PyAny>,
    ) -> PyResult<Py<PyBytes>> {
        guarded(|| {
            let bound = self.find(endpoints)?;
            let mut read = Vec::new();
            for key in keys.try_iter()? {
                let key = key?;
                let session = key.cast::<PyString>().ok();
                read.push(self.key(session, Some(&key)));
            }
            let source = self.source(&bound, engine_stats, request_stats);
            let bytes = py.detach(|| {
                self.with_view(&bound, &source, |router, state, mut fleet| {
                    let mut bytes = Vec::with_capacity(4 * read.len());
                    for key in &read {
                        let at = pick(router, state, fleet.as_deref_mut(), &source, key)?;
                        // Without a table, choices of the batch count in the scratch copy.
                        state.scratch.bump(Stat::InFlight, at as u32, 1.0);
                        bytes.extend((at as u32).to_ne_bytes());
                    }
                    Some(bytes)
                })
            });
            Ok(PyBytes::new(py, &bytes.ok_or_else(|| self.none())?).unbind())
        })
    }

    #[pyo3(signature = (endpoints, engine_stats, request_stats, session=None, body=None, /))]
    fn explain(
        &self,
        py: Python<'_>,
        endpoints: &Bound<'_, PyAny>,
        engine_stats: &Bound<'_, PyAny>,
        request_stats: &Bound<'_, PyAny>,
        session: Option<&Bound<'_, PyString>>,
        body: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(Py<PyString>, Vec<Row>)> {
        guarded(|| {
            let bound = self.find(endpoints)?;
            let key = self.key(session, body);
            let source = self.source(&bound, engine_stats, request_stats);
            let (won, positions, scores) =
                self.with_view(&bound, &source, |router, state, fleet| {
                    let (table, chosen) = match (&source, &fleet) {
                        (Source::Resident(_), Some(fleet)) => (&fleet.table, &state.resident),
                        _ => (&state.scratch, &state.plain),
                    };
                    let view = View { table, candidates: &chosen.candidates };
                    let (won, scores) = router.explain(view, &key);
                    (won.map(|at| chosen.positions[at] as usize), chosen.positions.clone(), scores)
                });
            let won = won.ok_or_else(|| self.none())?;
            let mut scored: HashMap<usize, Scored> =
                positions.iter().map(|&pos| pos as usize).zip(scores).collect();
            let rows = (0..bound.len()).map(|pos| {
                let found = scored.remove(&pos);
                let eligible = found.is_some();
                let found = found.unwrap_or(Scored { score: f64::NAN, terms: Vec::new() });
                let terms = found.terms.iter().map(|t| (t.name, t.value, t.unit)).collect();
                (bound.url(py, pos), eligible, found.score, terms)
            });
            Ok((bound.url(py, won), rows.collect()))
        })
    }
}
