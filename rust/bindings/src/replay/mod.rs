//! Trace replay: columns in, figures out, without the GIL while it runs.

mod columns;
mod decisions;
mod gateways;
mod trace;

use std::collections::BTreeMap;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use routecore::admission::Limits;
use routecore::prompt::Unit;
use routecore::{Key, Params};
use routecore_replay::decisions::Decisions;
use routecore_replay::gateway::Assigned;
use routecore_replay::report::Spread;
use routecore_replay::timing::Profile;
use routecore_replay::{
    Change, Conditions, EngineConfig, Gateway, LiveRouter, Outcome, Several, Share, Summary, run,
};

pub use trace::Trace;

use crate::errors::{guarded, to_py};
use crate::locked::{Kept, Locked};
use crate::prompt::{Blocks, blocks as blocks_of};
use crate::threads::{Inside, detached_long, must_stop};
use columns::{bytes, column};
use decisions::tuples;
use gateways::{Callback, Watched};

/// Bytes taken for a token where a prompt is text.
const BYTES_PER_TOKEN: u32 = 4;

/// The prompt of a request body at a grain of `block` tokens: the chained hashes of its full
/// blocks, packed, its size in tokens, the sequences to generate and the tokens that each may have;
/// `None` for a body without a prompt.
#[pyfunction]
pub fn prompt_blocks<'py>(
    py: Python<'py>,
    body: &Bound<'py, PyAny>,
    block: u32,
) -> PyResult<Option<(Bound<'py, PyBytes>, u64, u32, Option<u32>)>> {
    let _inside = Inside::enter(py);
    guarded(|| {
        let blocks =
            Blocks { chars: block.saturating_mul(BYTES_PER_TOKEN), tokens: block, seed: 0 };
        let Key::Prompt(prompt) = blocks_of(body, blocks) else { return Ok(None) };
        let tokens = match prompt.unit {
            Unit::Tokens => prompt.size,
            Unit::Bytes => prompt.size.div_ceil(u64::from(BYTES_PER_TOKEN)),
        };
        let chain = bytes(py, &prompt.chain, u64::to_ne_bytes);
        Ok(Some((chain, tokens, prompt.sequences, prompt.max_tokens)))
    })
}

fn params(given: &Bound<'_, PyDict>) -> PyResult<Params> {
    let mut params = Params::default();
    for (name, value) in given.copy()?.iter() {
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
    changes=Vec::new(), hold=None, decisions=0, share=None, progress=None))]
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
    hold: Option<BTreeMap<String, f64>>,
    decisions: u32,
    share: Option<(f64, f64, f64)>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let _inside = Inside::enter(py);
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
    let requests = trace.get().len() as u32;
    let kept = Decisions::every(requests.div_ceil(decisions.max(1)) * u32::from(decisions > 0));
    let error = Locked::new(Kept::default());
    let inner: Box<dyn Gateway + Send> = if let Some((word, given, weights, seeds)) = strategy {
        let given = params(&given)?;
        let but = |given: &BTreeMap<String, f64>| {
            Limits::but(given.iter().map(|(name, &value)| (name.as_str(), value)))
        };
        let hold = hold.as_ref().map(but).transpose().map_err(to_py)?;
        let share = share.map(|(every, delay, loss)| Share { every, delay, loss });
        let live = |(origin, &seed): (usize, &u64)| {
            let router = LiveRouter::new(&word, given.clone(), seed, &fleet)?;
            let router = router.with_weights(weights.clone()).with_decisions(kept.clone());
            let router = match hold {
                Some(limits) => router.with_hold(limits),
                None => router,
            };
            let router = match kv_event_delay {
                Some(_) => router.with_kv_events(),
                None => router,
            };
            Ok(match share {
                Some(share) => router.with_replicas(origin as u64, share.every),
                None => router,
            })
        };
        let routers = seeds.iter().enumerate().map(live).collect::<Result<Vec<_>, _>>();
        let routers = routers.map_err(|error: routecore::RouteError| to_py(error))?;
        if routers.is_empty() {
            return Err(to_py("routers: expected at least 1, got 0"));
        }
        let boxed = routers.into_iter().map(|r| Box::new(r) as Box<dyn Gateway + Send>);
        let several = Several::new(boxed.collect(), seed);
        Box::new(match share {
            Some(share) => several.sharing(share),
            None => several,
        })
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
    let found = figures(py, &outcome, &summary)?;
    found.set_item("decisions", tuples(kept.take()))?;
    Ok(found)
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
    found.set_item("admitted", bytes(py, &outcome.admitted, f64::to_ne_bytes))?;
    found.set_item("turned_away", bytes(py, &outcome.turned_away, f64::to_ne_bytes))?;
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
