//! Choices that may have to wait for room.

use std::collections::HashMap;
use std::mem::take;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use routecore::Key;
use routecore::admission::{Ask, Floor, Limits, Reason};
use routecore::fleet::Lookup;
use routecore::hash::session_key;
use routecore::prompt::Unit;

use crate::call::{Call, called};
use crate::choice::{Wanted, weigh};
use crate::errors::{guarded, to_py};
use crate::given::Care;
use crate::locked::Locked;
use crate::prompt;
use crate::read::Read;
use crate::router::Router;
use crate::source::Kind;
use crate::table::Table;
use crate::text::{id_of, text};
use crate::threads::Inside;
use crate::tries::{Asker, HOLDS, Round, Verdict, Waiters, rejection};

/// Tokens of a byte, to bound what waits; room is counted by what the fleet has learned.
const TOKENS_PER_BYTE: f64 = 0.25;
/// Waiting, their prompt tokens, admitted, of these held, seconds waited, rejected, left.
type Counts = (usize, u64, u64, u64, f64, Vec<(&'static str, u64)>, u64);
/// Where a request would go, tokens in use there, added by it, and there is room for.
type Wait = (Py<PyString>, f64, f64, f64);

/// The requests of one router that wait for room.
#[pyclass(frozen)]
pub struct Hold {
    router: Py<Router>,
    inner: Arc<Locked<Waiters>>,
}

/// What can serve the request: the model that its body names.
fn lane_of(body: &Bound<'_, PyAny>) -> u64 {
    let Ok(body) = body.cast::<PyDict>() else { return 0 };
    let Ok(Some(model)) = body.get_item("model") else { return 0 };
    model.cast::<PyString>().map_or(0, |model| session_key(text(model).as_bytes(), 0))
}

/// The table to which ends are reported.
fn counted<'a>(call: Call<'a, '_>) -> PyResult<&'a Table> {
    call.counted().ok_or_else(|| {
        to_py("hold: expected request stats of a RequestStatsMonitor, which tells of ends")
    })
}

impl Hold {
    fn wanted(
        &self,
        session: Option<&Bound<'_, PyString>>,
        body: Option<&Bound<'_, PyAny>>,
        ids: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Wanted> {
        let router = self.router.get();
        let mut wanted = router.wanted(session, body, ids)?;
        wanted.may_wait = true;
        if let (None, Some(body)) = (wanted.prompt(), body)
            && let Key::Prompt(prompt) = prompt::blocks(body, router.blocks)
        {
            wanted.beside = Some(prompt);
        }
        Ok(wanted)
    }
}

#[pymethods]
impl Hold {
    #[new]
    #[pyo3(signature = (router, *, room=None, look_ahead=None, reserve_after_s=None,
        max_requests=None, max_tokens=None, max_wait_s=None, priority_s=None, sessions=false,
        session_idle_s=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        router: Py<Router>,
        room: Option<f64>,
        look_ahead: Option<usize>,
        reserve_after_s: Option<f64>,
        max_requests: Option<usize>,
        max_tokens: Option<u64>,
        max_wait_s: Option<f64>,
        priority_s: Option<f64>,
        sessions: bool,
        session_idle_s: Option<f64>,
    ) -> PyResult<Self> {
        let usual = Limits::default();
        let limits = Limits {
            room: room.unwrap_or(usual.room),
            look_ahead: look_ahead.unwrap_or(usual.look_ahead),
            reserve_after: reserve_after_s.unwrap_or(usual.reserve_after),
            max_requests: max_requests.unwrap_or(usual.max_requests),
            max_tokens: max_tokens.unwrap_or(usual.max_tokens),
            max_wait: max_wait_s.unwrap_or(usual.max_wait),
            priority_seconds: priority_s.unwrap_or(usual.priority_seconds),
            sessions,
            session_idle: session_idle_s.unwrap_or(usual.session_idle),
        };
        limits.check().map_err(to_py)?;
        let hold = routecore::admission::Hold::new(limits);
        let inner = Waiters { hold, askers: HashMap::new() };
        Ok(Self { router, inner: HOLDS.add(inner) })
    }

    /// Gives a request its place; the number of the waiter. `turn_of`: the session that it is a
    /// turn of, whatever the strategy goes by.
    #[pyo3(signature = (session, body, ids, request, priority, patience, now, turn_of=None, /))]
    #[allow(clippy::too_many_arguments)]
    fn arrive(
        &self,
        py: Python<'_>,
        session: Option<&Bound<'_, PyString>>,
        body: Option<&Bound<'_, PyAny>>,
        ids: Option<&Bound<'_, PyAny>>,
        request: Option<&Bound<'_, PyAny>>,
        priority: Read<f64>,
        patience: Option<Read<f64>>,
        now: f64,
        turn_of: Option<&Bound<'_, PyString>>,
    ) -> PyResult<u64> {
        guarded(|| {
            let _inside = Inside::enter(py);
            let wanted = self.wanted(session, body, ids)?;
            let request = request.map(id_of).transpose()?;
            let lane = body.map_or(0, lane_of);
            let tokens = wanted.prompt().map_or(0.0, |prompt| {
                let scale = if prompt.unit == Unit::Bytes { TOKENS_PER_BYTE } else { 1.0 };
                prompt.size as f64 * scale
            });
            let session = turn_of.map(|name| session_key(text(name).as_bytes(), 0));
            let (priority, patience) = (priority.0, patience.map(|seconds| seconds.0));
            let ask = Ask { lane, tokens, priority, patience, session, request };
            let asker = Arc::new(Asker { wanted, request });
            Ok(self.inner.with(py, |inner, _| {
                let id = inner.hold.arrive(ask, now);
                inner.askers.insert(id, asker);
                id
            }))
        })
    }

    /// Tries these waiters, in order; the verdicts on those who do not wait on. `now`: seconds of
    /// a clock that never steps. `time`: seconds of the monitor's. `first`: they just arrived.
    #[pyo3(signature = (endpoints, engine_stats, request_stats, waiters, now, time, first, /))]
    #[allow(clippy::too_many_arguments)]
    fn retry(
        &self,
        endpoints: &Bound<'_, PyAny>,
        engine_stats: &Bound<'_, PyAny>,
        request_stats: &Bound<'_, PyAny>,
        waiters: Vec<u64>,
        now: f64,
        time: f64,
        first: bool,
    ) -> PyResult<Vec<Verdict>> {
        let py = endpoints.py();
        called(endpoints, engine_stats, request_stats, |call| {
            let (table, router) = (counted(call)?, self.router.get());
            let known = router.meet(call, Care::Read)?.known;
            let mut source = router.source(call, &known)?;
            let (kind, index) = (Kind::of(&source), &table.index);
            let (verdicts, slept) = router.routing.with(py, |routing, quiet| {
                routing.bring(&known);
                let verdicts =
                    router.with_view(routing, &mut source, quiet, |core, known, state, fleet| {
                        let mut verdicts = Vec::new();
                        let Some(fleet) = fleet else { return verdicts };
                        let rows = state.rows.clone();
                        let round = Round { known, rows: &rows, kind, index, now, time };
                        let mut lookup = Lookup::default();
                        self.inner.inside(quiet, |inner| {
                            let flies = |row, request| fleet.load.look(row, request).is_some();
                            inner.hold.rest(now, flies);
                            let floor = Floor { table: &fleet.table, engine: fleet.engine() };
                            inner.hold.look(floor, rows.iter().copied(), now);
                            for &id in &waiters {
                                let waiter = (id, first);
                                let verdict = round.offer(
                                    core,
                                    state,
                                    fleet,
                                    inner,
                                    &mut lookup,
                                    waiter,
                                    quiet,
                                );
                                verdicts.extend(verdict);
                            }
                        });
                        verdicts
                    });
                (verdicts, take(&mut routing.slept))
            });
            router.lost(py, slept);
            Ok(verdicts)
        })
    }

    /// What the request would wait for: where it would go, tokens in use there, added, and room.
    /// `None`: it would go at once.
    #[pyo3(signature = (endpoints, engine_stats, request_stats, session, body, ids, now, /))]
    #[allow(clippy::too_many_arguments)]
    fn explain(
        &self,
        endpoints: &Bound<'_, PyAny>,
        engine_stats: &Bound<'_, PyAny>,
        request_stats: &Bound<'_, PyAny>,
        session: Option<&Bound<'_, PyString>>,
        body: Option<&Bound<'_, PyAny>>,
        ids: Option<&Bound<'_, PyAny>>,
        now: f64,
    ) -> PyResult<Option<Wait>> {
        let py = endpoints.py();
        called(endpoints, engine_stats, request_stats, |call| {
            let wanted = self.wanted(session, body, ids)?;
            let (table, router) = (counted(call)?, self.router.get());
            let known = router.meet(call, Care::Read)?.known;
            let mut source = router.source(call, &known)?;
            let (kind, index) = (Kind::of(&source), &table.index);
            let found = router.routing.with(py, |routing, quiet| {
                routing.bring(&known);
                router.with_view(routing, &mut source, quiet, |core, known, state, fleet| {
                    let fleet = &*fleet?;
                    let mut lookup = Lookup::default();
                    if let Some(prompt) = wanted.prompt() {
                        lookup.find(&index.read(), prompt);
                    }
                    let floor = Floor { table: &fleet.table, engine: fleet.engine() };
                    let rows = state.rows.clone();
                    let mut core = core.clone();
                    let picked = weigh(
                        &mut core,
                        known,
                        state,
                        Some(fleet),
                        kind,
                        &wanted,
                        &mut lookup,
                        |view, at, pos| (at[pos] as usize, view.added(pos)),
                    );
                    let (at, added) = picked?;
                    self.inner.inside(quiet, |inner| {
                        let wait = inner.hold.would_wait(floor, rows[at], added, now)?;
                        let url = quiet.another(&known.strings()[at]);
                        Some((url, wait.in_use, added, wait.room))
                    })
                })
            });
            Ok(found)
        })
    }

    /// The request has gone by itself; whether it waited.
    fn leave(&self, py: Python<'_>, waiter: u64) -> bool {
        self.inner.with(py, |inner, _| {
            inner.askers.remove(&waiter);
            inner.hold.leave(waiter)
        })
    }

    /// Verdicts on those who have waited for as long as they may.
    fn expired(&self, py: Python<'_>, now: f64) -> Vec<Verdict> {
        self.inner.with(py, |inner, _| {
            let mut gone = Vec::new();
            while let Some((id, rejected)) = inner.hold.expired(now) {
                inner.askers.remove(&id);
                gone.push(rejection(id, rejected));
            }
            gone
        })
    }

    /// Those to be tried now, in order.
    fn due(&self, py: Python<'_>) -> Vec<u64> {
        self.inner.with(py, |inner, _| {
            let mut due = Vec::new();
            inner.hold.due(&mut due);
            due
        })
    }

    /// When something happens without an end of a request; infinite when nobody waits.
    fn wake_at(&self, py: Python<'_>, now: f64) -> f64 {
        self.inner.with(py, |inner, _| inner.hold.wake_at(now))
    }

    /// Those of its kind who stand before the waiter.
    fn before(&self, py: Python<'_>, waiter: u64) -> usize {
        self.inner.with(py, |inner, _| inner.hold.before(waiter))
    }

    #[getter]
    fn counts(&self, py: Python<'_>) -> Counts {
        self.inner.with(py, |inner, _| {
            let (hold, seen) = (&inner.hold, inner.hold.counts());
            let rejected = Reason::ALL.iter().map(|reason| reason.name()).zip(seen.rejected);
            let waiting = (hold.waiting(), hold.waiting_tokens());
            let rejected = rejected.collect();
            (waiting.0, waiting.1, seen.admitted, seen.held, seen.waited, rejected, seen.left)
        })
    }
}
