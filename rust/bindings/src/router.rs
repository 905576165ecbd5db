//! The compiled half of every Python router: read the request, choose, explain.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use routecore::fleet::{Lookup, SharedIndex};
use routecore::strategy::Scored;
use routecore::{Key, Params, Stat};

use crate::call::called;
use crate::choice::{Wanted, count, explain, pick};
use crate::endpoint_list::Weights;
use crate::errors::{guarded, to_py};
use crate::given::Care;
use crate::health::{StandingTuple, standings};
use crate::kv_events::{Held, KvIndex};
use crate::locked::Locked;
use crate::prompt::{self, Blocks, Tokenized};
use crate::router_state::{ROUTER_STATES, RouterState};
use crate::side::is_scraped;
use crate::source::Kind;
use crate::table::Table;
use crate::threads::{Inside, detached, must_stop};
use crate::token_ids::read_tokens;
use crate::views::ResidentRequestStats;

/// A strategy over lists of endpoint objects.
#[pyclass(frozen)]
pub struct Router {
    pub name: String,
    pub blocks: Blocks,
    pub weights: Weights,
    pub reads: Vec<Stat>,
    /// Whether it reads what only engines know, or figures of the monitor's window.
    pub scraped: bool,
    pub windows: bool,
    /// Where prompts are remembered for hosts without our monitor; for strategies that ask.
    pub own: Option<(Table, Instant)>,
    /// Tokens of a KV cache whose size no engine has reported.
    pub kv_tokens: f64,
    /// What engines tell of their caches themselves.
    pub kv_index: Option<Py<KvIndex>>,
    /// Called with prompts whose token ids cannot be read, which then go by their text.
    no_ids: Option<Py<PyAny>>,
    pub routing: Arc<Locked<RouterState>>,
}

thread_local! {
    /// Room for one lookup at a time; taken out while in use, since Python may call in again.
    static LOOKUP: RefCell<Lookup> = RefCell::default();
}

type Terms = Vec<(&'static str, f64, &'static str)>;
type Row = (Py<PyString>, bool, f64, Terms, Option<StandingTuple>);

impl Router {
    pub fn none(&self) -> PyErr {
        to_py(format!("{}: no endpoint is eligible; all are asleep or unhealthy", self.name))
    }

    pub fn wanted(
        &self,
        session: Option<&Bound<'_, PyString>>,
        body: Option<&Bound<'_, PyAny>>,
        ids: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Wanted> {
        let mut held = Vec::new();
        let key = match (session, body) {
            (Some(id), _) => prompt::session(id),
            (None, Some(body)) if self.own.is_some() => {
                let by_tokens = ids.map(|ids| self.by_tokens(body, ids, &mut held));
                match (by_tokens, &self.no_ids) {
                    (Some(Ok(key)), _) => key,
                    (Some(Err(error)), Some(on_unread)) => {
                        on_unread.call1(body.py(), (error.value(body.py()),))?;
                        prompt::blocks(body, self.blocks)
                    }
                    (Some(Err(error)), None) => return Err(error),
                    (None, _) => prompt::blocks(body, self.blocks),
                }
            }
            (None, Some(body)) => prompt::prefix_key(body, self.blocks.chars as usize),
            (None, None) => Key::None,
        };
        Ok(Wanted::new(key, held))
    }

    fn by_tokens(
        &self,
        body: &Bound<'_, PyAny>,
        ids: &Bound<'_, PyAny>,
        held: &mut Vec<Held>,
    ) -> PyResult<Key> {
        let mut tokens = Vec::new();
        read_tokens(ids, &mut tokens)?;
        let body = Tokenized::new(body);
        if let Some(index) = &self.kv_index {
            let (adapter, salt) = (body.adapter(), body.salt());
            index.get().held(&tokens, adapter.as_deref(), salt.as_deref(), held);
        }
        Ok(body.blocks(&tokens, self.blocks))
    }

    /// The index that has what these stats are about.
    fn index<'a>(&'a self, request_stats: &'a Bound<'_, PyAny>) -> Option<&'a SharedIndex> {
        let (own, clock) = self.own.as_ref()?;
        if let Ok(view) = request_stats.cast::<ResidentRequestStats>() {
            return Some(&view.get().table.get().index);
        }
        // Nobody tells this table the time, nor of ends.
        let now = clock.elapsed().as_secs_f64();
        own.inner.apart(|inner, _| inner.fleet.advance(now));
        Some(&own.index)
    }

    /// Runs `f` with what the endpoints hold of the prompt. Lookups do not wait for each other.
    pub fn looked_up<T>(
        &self,
        wanted: &Wanted,
        request_stats: &Bound<'_, PyAny>,
        f: impl FnOnce(&mut Lookup) -> T,
    ) -> T {
        let (Key::Prompt(prompt), Some(index)) = (&wanted.key, self.index(request_stats)) else {
            return f(&mut Lookup::default());
        };
        let mut lookup = LOOKUP.take();
        lookup.find(&index.read(), prompt);
        let result = f(&mut lookup);
        LOOKUP.set(lookup);
        result
    }
}

#[pymethods]
impl Router {
    #[new]
    #[pyo3(signature = (strategy, params, seed, prompts, kv_index=None, no_ids=None))]
    fn new(
        strategy: &str,
        params: &Bound<'_, PyDict>,
        seed: u64,
        prompts: (u32, u32, u64, f64),
        kv_index: Option<Py<KvIndex>>,
        no_ids: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let _inside = Inside::enter(params.py());
        let mut read = Params::default();
        let mut weights = HashMap::new();
        for (name, value) in params.copy()?.iter() {
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
        let (chars, tokens, hash_seed, kv_tokens) = prompts;
        Ok(Self {
            name: strategy.to_owned(),
            blocks: Blocks { chars, tokens, seed: hash_seed },
            kv_tokens,
            kv_index,
            no_ids,
            own: router.needs_prompt().then(|| (Table::new(60.0, 600.0), Instant::now())),
            weights,
            scraped: reads.iter().any(|&stat| is_scraped(stat)),
            windows: reads.iter().any(is_window),
            reads,
            routing: ROUTER_STATES.add(RouterState::new(router, seed)),
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
        self.choose_by_load(endpoints, engine_stats, request_stats)
    }

    #[pyo3(signature = (endpoints, engine_stats, request_stats, session=None, body=None, ids=None, /))]
    fn route(
        &self,
        endpoints: &Bound<'_, PyAny>,
        engine_stats: &Bound<'_, PyAny>,
        request_stats: &Bound<'_, PyAny>,
        session: Option<&Bound<'_, PyString>>,
        body: Option<&Bound<'_, PyAny>>,
        ids: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyString>> {
        called(endpoints, engine_stats, request_stats, |call| {
            let wanted = self.wanted(session, body, ids)?;
            self.choose(call, &wanted)
        })
    }

    /// Forgets what is remembered here of the endpoint's cache, or of all: by what was sent there,
    /// for hosts without our monitor, and by what engines reported.
    #[pyo3(signature = (url=None))]
    fn forget(&self, py: Python<'_>, url: Option<&Bound<'_, PyString>>) -> PyResult<()> {
        if let Some((own, _)) = &self.own {
            own.forget(url, false)?;
        }
        self.kv_index.iter().for_each(|index| index.get().forget(py, url));
        Ok(())
    }

    /// Positions in `endpoints`, as native unsigned 32-bit integers, one per key.
    #[pyo3(signature = (endpoints, engine_stats, request_stats, keys, ids=None))]
    fn route_batch(
        &self,
        py: Python<'_>,
        endpoints: &Bound<'_, PyAny>,
        engine_stats: &Bound<'_, PyAny>,
        request_stats: &Bound<'_, PyAny>,
        keys: &Bound<'_, PyAny>,
        ids: Option<Vec<Option<Bound<'_, PyAny>>>>,
    ) -> PyResult<Py<PyBytes>> {
        called(endpoints, engine_stats, request_stats, |call| {
            let mut read = Vec::new();
            let mut ids = ids.unwrap_or_default().into_iter();
            for key in keys.try_iter()? {
                let key = key?;
                let (session, ids) = (key.cast::<PyString>().ok(), ids.next().flatten());
                read.push(self.wanted(session, Some(&key), ids.as_ref())?);
            }
            let known = self.meet(call, Care::Read)?.known;
            let mut source = self.source(call, &known)?;
            let kind = Kind::of(&source);
            let index = self.index(request_stats).cloned();
            let (bytes, slept) = detached(py, || {
                let mut lookup = Lookup::default();
                self.routing.apart(|routing, held| {
                    routing.bring(&known);
                    let bytes = self.with_view(
                        routing,
                        &mut source,
                        held,
                        |router, known, state, mut fleet| {
                            let mut bytes = Vec::with_capacity(4 * read.len());
                            for wanted in &read {
                                if must_stop() {
                                    return None;
                                }
                                if let (Key::Prompt(prompt), Some(index)) = (&wanted.key, &index) {
                                    lookup.find(&index.read(), prompt);
                                }
                                let now = fleet.as_deref();
                                let choice =
                                    pick(router, known, state, now, kind, wanted, &mut lookup)?;
                                count(state, fleet.as_deref_mut(), kind, choice, wanted);
                                let (at, ..) = choice;
                                // Without a table, choices count in the scratch copy.
                                state.scratch.bump(Stat::InFlight, at as u32, 1.0);
                                bytes.extend((at as u32).to_ne_bytes());
                            }
                            Some(bytes)
                        },
                    );
                    (bytes, std::mem::take(&mut routing.slept))
                })
            });
            self.lost(py, slept);
            Ok(PyBytes::new(py, &bytes.ok_or_else(|| self.none())?).unbind())
        })
    }

    #[pyo3(signature = (endpoints, engine_stats, request_stats, session=None, body=None, ids=None, /))]
    fn explain(
        &self,
        endpoints: &Bound<'_, PyAny>,
        engine_stats: &Bound<'_, PyAny>,
        request_stats: &Bound<'_, PyAny>,
        session: Option<&Bound<'_, PyString>>,
        body: Option<&Bound<'_, PyAny>>,
        ids: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(Py<PyString>, Vec<Row>)> {
        let py = endpoints.py();
        called(endpoints, engine_stats, request_stats, |call| {
            let wanted = self.wanted(session, body, ids)?;
            let known = self.meet(call, Care::Read)?.known;
            let mut source = self.source(call, &known)?;
            let kind = Kind::of(&source);
            let (found, slept) = self.looked_up(&wanted, request_stats, |lookup| {
                self.routing.with(py, |routing, quiet| {
                    routing.bring(&known);
                    let found = self.with_view(
                        routing,
                        &mut source,
                        quiet,
                        |router, known, state, fleet| {
                            let fleet = fleet.as_deref();
                            let found =
                                explain(router, known, state, fleet, kind, &wanted, lookup)?;
                            Some((found, standings(&state.rows, fleet)))
                        },
                    );
                    (found, std::mem::take(&mut routing.slept))
                })
            });
            self.lost(py, slept);
            let ((won, scores), standings) = found.ok_or_else(|| self.none())?;
            let mut scored: HashMap<u32, Scored> = scores.into_iter().collect();
            let url = |pos: usize| known.strings()[pos].clone_ref(py);
            let rows = (0..known.len()).map(|pos| {
                let found = scored.remove(&(pos as u32));
                let eligible = found.is_some();
                let found = found.unwrap_or(Scored { score: f64::NAN, terms: Vec::new() });
                let terms = found.terms.iter().map(|t| (t.name, t.value, t.unit)).collect();
                let standing = standings.get(pos).copied().flatten();
                (url(pos), eligible, found.score, terms, standing)
            });
            Ok((url(won), rows.collect()))
        })
    }
}
