//! The compiled half of every Python router: recognise the list, get a view, pick.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use routecore::fleet::{Lookup, SharedIndex};
use routecore::speed::KV_TOKENS;
use routecore::strategy::Scored;
use routecore::{Asked, Fleet, Key, Params, Stat, View};

use crate::desk::{Desk, Open, Weights, find, take_up};
use crate::errors::{guarded, lock, to_py};
use crate::known_list::{KnownList, State};
use crate::prompt::{self, Blocks};
use crate::table::{ResidentEngineStats, ResidentRequestStats, Table};
use crate::values::{Columns, is_own, is_scraped};

/// A strategy over lists of endpoint objects.
#[pyclass(frozen)]
pub struct Router {
    name: String,
    blocks: Blocks,
    weights: Weights,
    reads: Vec<Stat>,
    /// Whether it reads what only engines know, or figures of the monitor's window.
    scraped: bool,
    windows: bool,
    /// Where prompts are remembered for hosts without our monitor; for strategies that ask.
    own: Option<(Table, Instant)>,
    /// Tokens of a KV cache whose size no engine has told.
    kv_tokens: f64,
    desk: Mutex<Desk>,
}

thread_local! {
    /// Room for one lookup at a time; taken out while in use, since Python may call in again.
    static LOOKUP: RefCell<Lookup> = RefCell::default();
}

/// Where a decision reads from.
enum Source<'a> {
    /// The columns of the shared table.
    Resident(&'a Table),
    /// Values copied from objects; counts in flight from the table if there is one.
    Plain(Option<Box<Columns>>, Option<&'a Table>),
    /// Values copied from objects; prompts remembered in the router's own table.
    Own(Option<Box<Columns>>, &'a Table),
}

type Row = (Py<PyString>, bool, f64, Vec<(&'static str, f64, &'static str)>);

impl Router {
    /// The desk with the list of these endpoints in front, and where to read their stats.
    fn open<'a>(
        &'a self,
        endpoints: &Bound<'_, PyAny>,
        engine_stats: &'a Bound<'_, PyAny>,
        request_stats: &'a Bound<'_, PyAny>,
        whole: bool,
    ) -> PyResult<(Open<'a>, Source<'a>)> {
        let ours = request_stats.cast::<ResidentRequestStats>().ok().map(pyo3::Bound::get);
        let resident = ours.filter(|view| {
            let engine = || engine_stats.cast::<ResidentEngineStats>().ok().map(pyo3::Bound::get);
            !self.scraped || engine().is_some_and(|other| other.table.is(&view.table))
        });
        let met = || KnownList::new(endpoints, &self.name, &self.weights);
        let mut open = find(&self.desk, endpoints, whole || resident.is_none(), met)?;
        if let Some(view) = resident {
            return Ok((open, Source::Resident(view.table.get())));
        }
        // Reading runs Python, so the desk is left meanwhile, with the columns in our hands.
        let (known, state) = &mut open.lists[0];
        let (known, mut columns) = (Arc::clone(known), state.columns.take().unwrap_or_default());
        drop(open);
        columns.read(&known, &self.reads, ours.is_some(), engine_stats, request_stats);
        let columns = Some(columns);
        let source = match (ours, &self.own) {
            (Some(view), _) => Source::Plain(columns, Some(view.table.get())),
            (None, Some((table, _))) => Source::Own(columns, table),
            (None, None) => Source::Plain(columns, None),
        };
        Ok((take_up(&self.desk, &known), source))
    }

    /// Runs `f` over the candidates and their columns, under the locks and without Python.
    fn with_view<T>(
        &self,
        mut open: Open<'_>,
        source: &mut Source<'_>,
        f: impl FnOnce(&mut routecore::Router, &KnownList, &mut State, Option<&mut Fleet>) -> T,
    ) -> T {
        let Desk { router, lists, .. } = &mut *open;
        let (known, state) = &mut lists[0];
        let mut inner = match *source {
            Source::Resident(table) | Source::Plain(_, Some(table)) | Source::Own(_, table) => {
                Some(lock(&table.inner))
            }
            Source::Plain(_, None) => None,
        };
        if let Some(inner) = &mut inner {
            known.refresh(state, inner);
            if self.own.is_some() {
                inner.fleet.set_kv_tokens(self.kv_tokens);
            }
            if self.windows {
                let Fleet { table, load, .. } = &mut inner.fleet;
                load.publish_windows(table, &state.rows);
            }
        }
        let counted = matches!(source, Source::Plain(..));
        if let Source::Plain(columns, _) | Source::Own(columns, _) = source {
            for (stat, column) in columns.iter().flat_map(|columns| columns.iter()) {
                state.scratch.fill(stat, column);
            }
            if let Some(inner) = &inner {
                let ours = |stat: &&Stat| is_own(**stat) || (counted && !is_scraped(**stat));
                for &stat in self.reads.iter().filter(ours) {
                    for (at, &row) in state.rows.iter().enumerate() {
                        state.scratch.set(stat, at as u32, inner.fleet.table.get(stat, row));
                    }
                }
            }
            // What nobody knows of an endpoint is neither its gain nor its loss.
            let counts =
                |stat: &&Stat| matches!(stat, Stat::InFlight | Stat::InPrefill | Stat::InDecoding);
            for &stat in self.reads.iter().filter(counts) {
                state.scratch.fill_unknown(stat, &state.plain.candidates.rows);
            }
            // What stood there instead is freed by the caller: never under the lock.
            std::mem::swap(columns, &mut state.columns);
        }
        f(router, known, state, inner.as_mut().map(|inner| &mut inner.fleet))
    }

    fn none(&self) -> PyErr {
        to_py(format!("{}: no endpoint is eligible; all are asleep or unhealthy", self.name))
    }

    fn key(&self, session: Option<&Bound<'_, PyString>>, body: Option<&Bound<'_, PyAny>>) -> Key {
        match (session, body) {
            (Some(id), _) => prompt::session(id),
            (None, Some(body)) if self.own.is_some() => prompt::blocks(body, self.blocks),
            (None, Some(body)) => prompt::prefix_key(body, self.blocks.chars as usize),
            (None, None) => Key::None,
        }
    }

    /// The index that has what these stats are about.
    fn index<'a>(&'a self, request_stats: &'a Bound<'_, PyAny>) -> Option<&'a SharedIndex> {
        let (own, clock) = self.own.as_ref()?;
        if let Ok(view) = request_stats.cast::<ResidentRequestStats>() {
            return Some(&view.get().table.get().index);
        }
        // Nobody tells this table the time, nor of ends.
        lock(&own.inner).fleet.advance(clock.elapsed().as_secs_f64());
        Some(&own.index)
    }

    /// Runs `f` with what the endpoints hold of the prompt. Lookups do not wait for each other.
    fn looked_up<T>(
        &self,
        key: &Key,
        request_stats: &Bound<'_, PyAny>,
        f: impl FnOnce(&mut Lookup) -> T,
    ) -> T {
        let mut lookup = LOOKUP.take();
        if let Key::Prompt(prompt) = key
            && let Some(index) = self.index(request_stats)
        {
            lookup.find(&index.read(), prompt);
        }
        let result = f(&mut lookup);
        LOOKUP.set(lookup);
        result
    }

    /// The URL of the endpoint that one request goes to.
    fn choose(
        &self,
        endpoints: &Bound<'_, PyAny>,
        engine_stats: &Bound<'_, PyAny>,
        request_stats: &Bound<'_, PyAny>,
        key: &Key,
    ) -> PyResult<Py<PyString>> {
        self.looked_up(key, request_stats, |lookup| {
            for whole in [false, true] {
                let (open, mut source) =
                    self.open(endpoints, engine_stats, request_stats, whole)?;
                let kind = Kind::of(&source);
                let list = endpoints.cast_exact::<PyList>().ok().filter(|_| open.glanced);
                let url = self.with_view(open, &mut source, |router, known, state, fleet| {
                    let at = pick(router, state, fleet.as_deref(), kind, key, lookup)?;
                    if list.is_some_and(|list| !known.stands(list, at)) {
                        return Some(None);
                    }
                    count(state, fleet, kind, at, key, lookup);
                    Some(Some(known.url(endpoints.py(), at)))
                });
                match url {
                    Some(Some(url)) => return Ok(url),
                    Some(None) => {}
                    None => break,
                }
            }
            Err(self.none())
        })
    }
}

/// What kind of source a decision reads from.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Resident,
    Plain,
    Own,
}

impl Kind {
    fn of(source: &Source<'_>) -> Self {
        match source {
            Source::Resident(_) => Self::Resident,
            Source::Plain(..) => Self::Plain,
            Source::Own(..) => Self::Own,
        }
    }
}

/// The candidates, and all there is to read of them for this request.
fn view<'a>(
    router: &routecore::Router,
    state: &'a State,
    fleet: Option<&'a Fleet>,
    kind: Kind,
    key: &Key,
    lookup: &'a mut Lookup,
) -> (View<'a>, &'a [u32]) {
    let (table, chosen) = match fleet {
        Some(fleet) if kind == Kind::Resident => (&fleet.table, &state.resident),
        _ => (&state.scratch, &state.plain),
    };
    let view = View::new(table, &chosen.candidates);
    let Some(fleet) = fleet.filter(|_| router.needs_prompt()) else {
        return (view, &chosen.positions);
    };
    let Key::Prompt(prompt) = key else {
        return (view.asking(Asked::default(), fleet.engine()), &chosen.positions);
    };
    let (sizes, in_use) = (fleet.tokens(prompt), router.needs_in_use());
    let asked: Asked<'a> = if kind == Kind::Resident {
        let rows = chosen.candidates.rows.iter().copied();
        lookup.asked(rows, chosen.candidates.runs(), sizes, in_use)
    } else {
        let rows = chosen.positions.iter().map(|&at| state.rows[at as usize]);
        lookup.asked(rows, &[], sizes, in_use)
    };
    (view.asking(asked, fleet.engine()), &chosen.positions)
}

/// One choice: a place in the list.
fn pick(
    router: &mut routecore::Router,
    state: &State,
    fleet: Option<&Fleet>,
    kind: Kind,
    key: &Key,
    lookup: &mut Lookup,
) -> Option<usize> {
    let (view, positions) = view(router, state, fleet, kind, key, lookup);
    Some(positions[router.pick(view, key)?] as usize)
}

/// Counts the choice as load where there is a table to count in.
fn count(
    state: &State,
    fleet: Option<&mut Fleet>,
    kind: Kind,
    at: usize,
    key: &Key,
    lookup: &Lookup,
) {
    let Some(fleet) = fleet else { return };
    let row = state.rows[at];
    match key {
        Key::Prompt(prompt) => {
            let depth = lookup.depth(row);
            if kind == Kind::Own {
                fleet.chosen_unfollowed(row, prompt, depth);
            } else {
                fleet.chosen_for(row, prompt, depth);
            }
        }
        _ => fleet.chosen(row),
    }
}

#[pymethods]
impl Router {
    #[new]
    fn new(
        strategy: &str,
        params: &Bound<'_, PyDict>,
        seed: u64,
        blocks: (u32, u32, u64),
    ) -> PyResult<Self> {
        let mut read = Params::default();
        let mut weights = HashMap::new();
        let mut kv_tokens = KV_TOKENS;
        for (name, value) in params {
            let name: String = name.extract()?;
            if name == "endpoint_weights" {
                weights = value.extract().map_err(|_| {
                    to_py("endpoint_weights: expected a dict of URL → capacity, a number above 0")
                })?;
                if let Some((url, w)) =
                    weights.iter().find(|(_, w): &(&String, &f64)| !w.is_finite() || **w <= 0.0)
                {
                    return Err(to_py(format!(
                        "endpoint_weights[{url:?}]: expected a finite number above 0, got {w}"
                    )));
                }
            } else if name == "kv_tokens" {
                kv_tokens = value.extract().unwrap_or(f64::NAN);
                if !(1.0..=1e12).contains(&kv_tokens) {
                    return Err(to_py(format!(
                        "kv_tokens: expected tokens from 1 to 1e12, got {value}"
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
        let router = guarded(|| routecore::Router::new(strategy, read, seed).map_err(to_py))?;
        let reads = router.reads();
        let is_window = |stat: &Stat| matches!(stat, Stat::Qps | Stat::Ttft | Stat::AvgLatency);
        let (chars, tokens, hash_seed) = blocks;
        Ok(Self {
            name: strategy.to_owned(),
            blocks: Blocks { chars, tokens, seed: hash_seed },
            kv_tokens,
            own: router.needs_prompt().then(|| (Table::new(60.0, 600.0), Instant::now())),
            weights,
            scraped: reads.iter().any(|&stat| is_scraped(stat)),
            windows: reads.iter().any(is_window),
            reads,
            desk: Mutex::new(Desk { router, lists: Vec::new(), glanced: false }),
        })
    }

    /// The URL of the endpoint to send the request to, for strategies that go by load alone.
    #[pyo3(signature = (endpoints, engine_stats, request_stats, request, request_json=None))]
    fn route_request(
        &self,
        endpoints: &Bound<'_, PyAny>,
        engine_stats: &Bound<'_, PyAny>,
        request_stats: &Bound<'_, PyAny>,
        request: &Bound<'_, PyAny>,
        request_json: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyString>> {
        let _ = (request, request_json); // the documented call has them, load does not need them
        guarded(|| self.choose(endpoints, engine_stats, request_stats, &Key::None))
    }

    #[pyo3(signature = (endpoints, engine_stats, request_stats, session=None, body=None, /))]
    fn route(
        &self,
        endpoints: &Bound<'_, PyAny>,
        engine_stats: &Bound<'_, PyAny>,
        request_stats: &Bound<'_, PyAny>,
        session: Option<&Bound<'_, PyString>>,
        body: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyString>> {
        guarded(|| {
            let key = self.key(session, body);
            self.choose(endpoints, engine_stats, request_stats, &key)
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
            let mut read = Vec::new();
            for key in keys.try_iter()? {
                let key = key?;
                let session = key.cast::<PyString>().ok();
                read.push(self.key(session, Some(&key)));
            }
            let (open, mut source) = self.open(endpoints, engine_stats, request_stats, true)?;
            let known = Arc::clone(&open.lists[0].0);
            drop(open);
            let kind = Kind::of(&source);
            let index = self.index(request_stats).cloned();
            let bytes = py.detach(|| {
                let mut lookup = Lookup::default();
                let open = take_up(&self.desk, &known);
                self.with_view(open, &mut source, |router, _, state, mut fleet| {
                    let mut bytes = Vec::with_capacity(4 * read.len());
                    for key in &read {
                        if let (Key::Prompt(prompt), Some(index)) = (key, &index) {
                            lookup.find(&index.read(), prompt);
                        }
                        let at = pick(router, state, fleet.as_deref(), kind, key, &mut lookup)?;
                        count(state, fleet.as_deref_mut(), kind, at, key, &lookup);
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
            let key = self.key(session, body);
            let (open, mut source) = self.open(endpoints, engine_stats, request_stats, true)?;
            let known = Arc::clone(&open.lists[0].0);
            let kind = Kind::of(&source);
            let (won, positions, scores) = self.looked_up(&key, request_stats, |lookup| {
                self.with_view(open, &mut source, |router, _, state, fleet| {
                    let (view, positions) =
                        view(router, state, fleet.as_deref(), kind, &key, lookup);
                    let (won, scores) = router.explain(view, &key);
                    (won.map(|at| positions[at] as usize), positions.to_vec(), scores)
                })
            });
            let won = won.ok_or_else(|| self.none())?;
            let mut scored: HashMap<usize, Scored> =
                positions.iter().map(|&pos| pos as usize).zip(scores).collect();
            let rows = (0..known.len()).map(|pos| {
                let found = scored.remove(&pos);
                let eligible = found.is_some();
                let found = found.unwrap_or(Scored { score: f64::NAN, terms: Vec::new() });
                let terms = found.terms.iter().map(|t| (t.name, t.value, t.unit)).collect();
                (known.url(py, pos), eligible, found.score, terms)
            });
            Ok((known.url(py, won), rows.collect()))
        })
    }
}
