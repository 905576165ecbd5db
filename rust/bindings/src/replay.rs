//! Trace replay: columns in, figures out, without the GIL while it runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use pyo3::buffer::{Element, PyBuffer};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use routecore::admission::Limits;
use routecore::prompt::Unit;
use routecore::{Key, Params};
use routecore_replay::engine::Report;
use routecore_replay::events::Residency;
use routecore_replay::gateway::{Assigned, Usage};
use routecore_replay::report::Spread;
use routecore_replay::timing::Profile;
use routecore_replay::{
    Change, Conditions, EngineConfig, Gateway, LiveRouter, Outcome, Request, Row, Several, Summary,
    run,
};

use crate::errors::{guarded, to_py};
use crate::locked::{Kept, Locked};
use crate::prompt::{Blocks, blocks as blocks_of};
use crate::threads::{attached, detached_long, must_stop};

/// Requests between two looks at signals and the progress callback.
const WATCH_EVERY: u64 = 4096;
/// Steps of the simulation between two looks for signals, such as Ctrl-C.
const SIGNALS_EVERY: u64 = 1 << 14;

fn column<T: Element + Copy>(
    name: &str,
    values: &Bound<'_, PyAny>,
    length: Option<usize>,
) -> PyResult<Vec<T>> {
    // An empty array has no memory to point at, which the buffer type refuses.
    if values.len().is_ok_and(|n| n == 0) && length.unwrap_or(0) == 0 {
        return Ok(Vec::new());
    }
    let Ok(buffer) = PyBuffer::<T>::get(values) else {
        let kind = std::any::type_name::<T>();
        return Err(to_py(format!("column {name:?}: expected a one-dimensional buffer of {kind}")));
    };
    let values = buffer.to_vec(values.py())?;
    match length {
        Some(length) if values.len() != length => {
            Err(to_py(format!("column {name:?}: expected {length} values, got {}", values.len())))
        }
        _ => Ok(values),
    }
}

fn bytes<'py, T: Copy, const N: usize>(
    py: Python<'py>,
    values: &[T],
    encode: impl Fn(T) -> [u8; N],
) -> Bound<'py, PyBytes> {
    let encoded: Vec<u8> = values.iter().flat_map(|&value| encode(value)).collect();
    PyBytes::new(py, &encoded)
}

/// Requests to replay, held in Rust.
#[pyclass(frozen)]
pub struct Trace {
    inner: Locked<Arc<routecore_replay::Trace>>,
}

impl Trace {
    /// The trace as it is now; growing it later does not disturb who has it.
    fn get(&self) -> Arc<routecore_replay::Trace> {
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

/// A gateway that stops for signals and tells how far it got; keeps the first Python error.
struct Watched<'p> {
    inner: Box<dyn Gateway + Send + 'p>,
    progress: Option<Py<PyAny>>,
    seen: u64,
    events: u64,
    error: Option<PyErr>,
}

impl Gateway for Watched<'_> {
    fn choose(&mut self, now: f64, request: &Request<'_>) -> Option<u32> {
        self.seen += 1;
        if self.seen.is_multiple_of(WATCH_EVERY) {
            self.error = attached(|py| {
                py.check_signals()?;
                self.progress.as_ref().map_or(Ok(()), |call| call.call1(py, (self.seen,)).map(drop))
            })
            .err();
        }
        self.inner.choose(now, request)
    }

    fn on_first_token(&mut self, now: f64, id: u32, engine: u32) {
        self.inner.on_first_token(now, id, engine);
    }

    fn on_end(&mut self, now: f64, id: u32, engine: u32, usage: Usage, ok: bool) {
        self.inner.on_end(now, id, engine, usage, ok);
    }

    fn on_error(&mut self, now: f64, id: u32, engine: u32) {
        self.inner.on_error(now, id, engine);
    }

    fn on_stats(&mut self, now: f64, engine: u32, report: &Report) {
        self.inner.on_stats(now, engine, report);
    }

    fn on_kv_events(&mut self, now: f64, engine: u32, batch: &[Residency]) {
        self.inner.on_kv_events(now, engine, batch);
    }

    fn on_down(&mut self, now: f64, engine: u32) {
        self.inner.on_down(now, engine);
    }

    fn on_up(&mut self, now: f64, engine: u32) {
        self.inner.on_up(now, engine);
    }

    fn holds(&self, id: u32) -> bool {
        self.inner.holds(id)
    }

    fn expired(&mut self, now: f64, into: &mut Vec<u32>) {
        self.inner.expired(now, into);
    }

    fn due(&mut self, into: &mut Vec<u32>) {
        self.inner.due(into);
    }

    fn wake_at(&self, now: f64) -> f64 {
        self.inner.wake_at(now)
    }

    fn stopped(&mut self) -> bool {
        self.events += 1;
        if self.error.is_none() && self.events.is_multiple_of(SIGNALS_EVERY) {
            #[allow(clippy::redundant_closure_for_method_calls)] // the method is not general enough
            let signalled = attached(|py| py.check_signals());
            self.error = signalled.err();
        }
        self.error.is_some() || must_stop() || self.inner.stopped()
    }
}

/// A gateway written in Python.
struct Callback<'p> {
    object: Py<PyAny>,
    error: &'p Locked<Kept<Option<PyErr>>>,
}

impl Callback<'_> {
    fn keep<T>(&self, result: PyResult<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let mut error = Some(error);
                self.error.apart(|kept, _| {
                    if kept.is_none() {
                        kept.swap(&mut error);
                    }
                });
                None // a later error is freed here
            }
        }
    }
}

impl Gateway for Callback<'_> {
    fn choose(&mut self, now: f64, request: &Request<'_>) -> Option<u32> {
        self.keep(attached(|py| {
            let blocks = bytes(py, request.blocks, u32::to_ne_bytes);
            let args = (now, request.id, request.input_tokens, request.session, blocks);
            self.object.call_method1(py, "choose", args)?.extract::<Option<u32>>(py)
        }))
        .flatten()
    }

    fn on_first_token(&mut self, now: f64, id: u32, engine: u32) {
        let args = (now, id, engine);
        self.keep(attached(|py| self.object.call_method1(py, "on_first_token", args)));
    }

    fn on_end(&mut self, now: f64, id: u32, engine: u32, _: Usage, ok: bool) {
        let args = (now, id, engine, ok);
        self.keep(attached(|py| self.object.call_method1(py, "on_end", args)));
    }

    fn on_stats(&mut self, now: f64, engine: u32, report: &Report) {
        let Report { running, waiting, kv_usage, hit_rate } = *report;
        let args = (now, engine, running, waiting, kv_usage, hit_rate);
        self.keep(attached(|py| self.object.call_method1(py, "on_stats", args)));
    }

    fn on_down(&mut self, now: f64, engine: u32) {
        self.keep(attached(|py| self.object.call_method1(py, "on_down", (now, engine))));
    }

    fn on_up(&mut self, now: f64, engine: u32) {
        self.keep(attached(|py| self.object.call_method1(py, "on_up", (now, engine))));
    }

    fn stopped(&mut self) -> bool {
        self.error.apart(|kept, _| kept.is_some())
    }
}

/// Bytes taken for a token where a prompt is text.
const BYTES_PER_TOKEN: u32 = 4;

/// The prompt of a request body at a grain of `block` tokens: the chained hashes of its full
/// blocks, packed, and its size in tokens; `None` for a body without a prompt.
#[pyfunction]
pub fn prompt_blocks<'py>(
    py: Python<'py>,
    body: &Bound<'py, PyAny>,
    block: u32,
) -> PyResult<Option<(Bound<'py, PyBytes>, u64)>> {
    guarded(|| {
        let blocks = Blocks { chars: block * BYTES_PER_TOKEN, tokens: block, seed: 0 };
        let Key::Prompt(prompt) = blocks_of(body, blocks) else { return Ok(None) };
        let tokens = match prompt.unit {
            Unit::Tokens => prompt.size,
            Unit::Bytes => prompt.size.div_ceil(u64::from(BYTES_PER_TOKEN)),
        };
        Ok(Some((bytes(py, &prompt.chain, u64::to_ne_bytes), tokens)))
    })
}

fn params(given: &Bound<'_, PyDict>) -> PyResult<Params> {
    let mut params = Params::default();
    for (name, value) in given {
        let name: String = name.extract()?;
        if let Ok(number) = value.extract::<f64>() {
            params.numbers.insert(name, number);
        } else if let Ok(word) = value.extract::<String>() {
            params.words.insert(name, word);
        } else if let Ok(map) = value.extract::<BTreeMap<String, f64>>() {
            params.weights = map;
        } else {
            return Err(to_py(format!(
                "parameter {name:?}: expected a number, a word or a dict of weights"
            )));
        }
    }
    Ok(params)
}

/// One engine as Python names it: profile, block, KV blocks, token budget, sequences, speed.
type EngineTuple = (String, u32, u32, u32, u32, f64);
/// A strategy as Python names it: word, parameters, engine weights (or none), a seed a router.
type StrategyTuple<'py> = (String, Bound<'py, PyDict>, Vec<f64>, Vec<u64>);

fn engine(given: EngineTuple) -> PyResult<EngineConfig> {
    let (profile, block, kv_blocks, token_budget, max_sequences, speed) = given;
    let Some(found) = Profile::named(&profile) else {
        return Err(to_py(format!("unknown engine profile {profile:?}")));
    };
    let timing = found.timing;
    Ok(EngineConfig { timing, block, kv_blocks, token_budget, max_sequences, speed })
}

/// Replays a trace behind a strategy, a list of engines, or a Python gateway.
#[allow(clippy::too_many_arguments)]
#[pyfunction]
#[pyo3(signature = (trace, engines, *, strategy=None, assigned=None, gateway=None, speedup=1.0,
    jitter=0.0, seed=0, stats_period=0.0, stats_delay=0.0, kv_event_delay=None,
    changes=Vec::new(), hold=false, progress=None))]
pub fn replay<'py>(
    py: Python<'py>,
    trace: &Trace,
    engines: Vec<EngineTuple>,
    strategy: Option<StrategyTuple<'py>>,
    assigned: Option<&Bound<'py, PyAny>>,
    gateway: Option<Py<PyAny>>,
    speedup: f64,
    jitter: f64,
    seed: u64,
    stats_period: f64,
    stats_delay: f64,
    kv_event_delay: Option<f64>,
    changes: Vec<(f64, u32, String)>,
    hold: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let fleet = engines.into_iter().map(engine).collect::<PyResult<Vec<_>>>()?;
    let change = |(time, engine, kind): (f64, u32, String)| match kind.as_str() {
        "join" => Ok(Change::Join { time, engine }),
        "fail" => Ok(Change::Fail { time, engine }),
        "sick" => Ok(Change::Sick { time, engine }),
        "well" => Ok(Change::Well { time, engine }),
        _ => Err(to_py(format!("event {kind:?}: expected fail, join, sick or well"))),
    };
    let changes = changes.into_iter().map(change).collect::<PyResult<_>>()?;
    let conditions =
        Conditions { speedup, jitter, seed, stats_period, stats_delay, kv_event_delay, changes };
    let error = Locked::new(Kept::default());
    let inner: Box<dyn Gateway + Send> = if let Some((word, given, weights, seeds)) = strategy {
        let given = params(&given)?;
        let live = |&seed: &u64| {
            let router = LiveRouter::new(&word, given.clone(), seed, &fleet)?;
            let router = router.with_weights(weights.clone());
            let router = if hold { router.with_hold(Limits::default()) } else { router };
            Ok(if kv_event_delay.is_some() { router.with_kv_events() } else { router })
        };
        let routers = seeds.iter().map(live).collect::<Result<Vec<_>, _>>();
        let routers = routers.map_err(|error: routecore::RouteError| to_py(error))?;
        if routers.is_empty() {
            return Err(to_py("routers: expected at least 1, got 0"));
        }
        let boxed = routers.into_iter().map(|r| Box::new(r) as Box<dyn Gateway + Send>);
        Box::new(Several::new(boxed.collect(), seed))
    } else if let Some(assigned) = assigned {
        Box::new(Assigned(column("assigned", assigned, Some(trace.get().len()))?))
    } else if let Some(object) = gateway {
        Box::new(Callback { object, error: &error })
    } else {
        return Err(to_py("replay: expected a strategy, an assignment or a gateway"));
    };
    let mut watched = Watched { inner, progress, seen: 0, events: 0, error: None };
    let (outcome, summary) = guarded(|| {
        let trace = trace.get(); // its lock is not for the long run to hold
        detached_long(py, || {
            let outcome = run(&trace, &fleet, &conditions, &mut watched)?;
            let summary = Summary::of(&trace, &outcome, fleet.len());
            Ok((outcome, summary))
        })
        .map_err(|error: routecore::RouteError| to_py(error))
    })?;
    if must_stop() {
        return Err(to_py("replay: given up, the interpreter is about to exit"));
    }
    let raised = watched.error.take();
    drop(watched);
    if let Some(error) = raised.or(error.apart(|kept, _| kept.take())) {
        return Err(error);
    }
    figures(py, &outcome, &summary)
}

fn figures<'py>(
    py: Python<'py>,
    outcome: &Outcome,
    summary: &Summary,
) -> PyResult<Bound<'py, PyDict>> {
    let spread = |s: Spread| (s.mean, s.p50, s.p90, s.p99);
    let found = PyDict::new(py);
    found.set_item("engine", bytes(py, &outcome.engine, u32::to_ne_bytes))?;
    found.set_item("arrival", bytes(py, &outcome.arrival, f64::to_ne_bytes))?;
    found.set_item("dispatch", bytes(py, &outcome.dispatch, f64::to_ne_bytes))?;
    found.set_item("first_token", bytes(py, &outcome.first_token, f64::to_ne_bytes))?;
    found.set_item("end", bytes(py, &outcome.end, f64::to_ne_bytes))?;
    found.set_item("cached", bytes(py, &outcome.cached, u32::to_ne_bytes))?;
    found.set_item("requests", summary.requests)?;
    found.set_item("served", summary.served)?;
    found.set_item("rejected", outcome.rejected)?;
    found.set_item("shed", outcome.shed)?;
    found.set_item("failed", outcome.failed)?;
    found.set_item("preemptions", outcome.preemptions)?;
    found.set_item("token_hit_rate", summary.token_hit_rate)?;
    found.set_item("ttft_ms", spread(summary.ttft))?;
    found.set_item("tpot_ms", spread(summary.tpot))?;
    found.set_item("e2e_ms", spread(summary.e2e))?;
    found.set_item("max_over_mean_load", summary.max_over_mean_load)?;
    found.set_item("max_share", summary.max_share)?;
    found.set_item("goodput", summary.goodput)?;
    found.set_item("makespan_ms", summary.makespan)?;
    found.set_item("output_tokens_per_s", summary.output_tokens_per_s)?;
    let seconds = outcome.deciding.as_secs_f64();
    found.set_item("decisions_per_s", outcome.decisions as f64 / seconds)?;
    Ok(found)
}
