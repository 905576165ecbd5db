//! Gateways between the simulation and Python: one that watches for signals, one that is written in
//! Python.

use pyo3::prelude::*;
use routecore_replay::engine::Report;
use routecore_replay::events::Residency;
use routecore_replay::gateway::Usage;
use routecore_replay::{Gateway, Request};

use super::columns::bytes;
use crate::locked::{Kept, Locked};
use crate::threads::{attached, must_stop};

/// Requests between two looks at signals and the progress callback.
const WATCH_EVERY: u64 = 4096;
/// Steps of the simulation between two looks for signals, such as Ctrl-C.
const SIGNALS_EVERY: u64 = 1 << 14;

/// A gateway that stops for signals and tells how far it got; keeps the first Python error.
pub struct Watched<'p> {
    pub inner: Box<dyn Gateway + Send + 'p>,
    pub progress: Option<Py<PyAny>>,
    pub seen: u64,
    pub events: u64,
    pub error: Option<PyErr>,
}

impl Gateway for Watched<'_> {
    fn choose(&mut self, now: f64, request: &Request<'_>) -> Option<u32> {
        self.seen += 1;
        if self.error.is_none() && self.seen.is_multiple_of(WATCH_EVERY) {
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
pub struct Callback<'p> {
    pub object: Py<PyAny>,
    pub error: &'p Locked<Kept<Option<PyErr>>>,
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
