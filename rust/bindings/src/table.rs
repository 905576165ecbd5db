//! Endpoint URLs ↔ rows, and the events and columns that fill them.

use std::collections::HashMap;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use routecore::fleet::SharedIndex;
use routecore::speed::Profile;
use routecore::trust::Verdict;
use routecore::{Fleet, Stat};

use crate::columns::{StatsTuple, column_of, stats_tuple};
use crate::errors::{guarded, to_py};
use crate::health::{self, News, Settings, StandingTuple};
use crate::locked::Locked;
use crate::read::{Read, Seconds};
use crate::rows::{FLEETS, Inner};
use crate::side::is_scraped;
use crate::text::{id_of, text};
use crate::threads::Inside;

/// Learned constants of the engines, see `Table::engine`.
type Engine = ([f64; 4], [f64; 3], f64, [f64; 2], f64, f64);

/// The packed stat table behind `EndpointTable`, shared by monitor, scraper and routers.
#[pyclass(frozen)]
pub struct Table {
    pub inner: Arc<Locked<Inner>>,
    /// The fleet's own, to be read without its lock.
    pub index: SharedIndex,
}

#[pymethods]
impl Table {
    #[new]
    #[pyo3(signature = (window=60.0, lease=600.0))]
    pub fn new(window: f64, lease: f64) -> Self {
        let inner = Inner::new(window, lease);
        Self { index: inner.fleet.index(), inner: FLEETS.add(inner) }
    }

    fn configure(&self, window: f64, lease: f64) -> PyResult<()> {
        self.with(|inner| {
            inner.fleet.load.configure(window, lease);
            Ok(())
        })
    }

    fn add(&self, url: &Bound<'_, PyString>) -> PyResult<u32> {
        let name = text(url);
        self.with(|inner| {
            inner.tick();
            Ok(inner.add(&name))
        })
    }

    fn remove(&self, url: &Bound<'_, PyString>) -> PyResult<bool> {
        let name = text(url);
        self.with(|inner| Ok(inner.remove(&name)))
    }

    fn row(&self, url: &Bound<'_, PyString>) -> PyResult<Option<u32>> {
        let name = text(url);
        self.with(|inner| Ok(inner.row(&name)))
    }

    #[getter]
    fn urls(&self) -> PyResult<Vec<Option<String>>> {
        self.with(|inner| Ok(inner.urls().to_vec()))
    }

    #[getter]
    fn rows(&self) -> PyResult<usize> {
        self.with(|inner| Ok(inner.fleet.table.rows()))
    }

    #[getter]
    fn live(&self) -> PyResult<usize> {
        self.with(|inner| Ok(inner.fleet.table.live()))
    }

    #[getter]
    fn leases_expired(&self) -> PyResult<u64> {
        self.with(|inner| Ok(inner.fleet.load.leases_expired()))
    }

    #[getter]
    fn in_flight(&self) -> PyResult<usize> {
        self.with(|inner| Ok(inner.fleet.load.in_flight()))
    }

    #[pyo3(signature = (columns, urls=None))]
    fn load_columns(
        &self,
        columns: &Bound<'_, PyDict>,
        urls: Option<Read<Vec<String>>>,
    ) -> PyResult<()> {
        let _inside = Inside::enter(columns.py());
        let columns = columns.iter().map(|(name, values)| column_of(&name, &values));
        let read: Vec<_> = guarded(|| columns.collect::<PyResult<_>>())?;
        self.with(|inner| {
            let rows = inner.rows_of(urls.map(|urls| urls.0))?;
            inner.fleet.table.load(&read, &rows).map_err(to_py)
        })
    }

    fn column(&self, name: &str) -> PyResult<Vec<f64>> {
        let stat = Stat::named(name).map_err(to_py)?;
        self.with(|inner| Ok(inner.fleet.table.column(stat).to_vec()))
    }

    fn clear_stats(&self, url: &Bound<'_, PyString>) -> PyResult<()> {
        let name = text(url);
        self.with(|inner| {
            let Some(row) = inner.row(&name) else { return Ok(()) };
            for &stat in Stat::ALL.iter().filter(|&&stat| is_scraped(stat)) {
                inner.fleet.table.set(stat, row, f64::NAN);
            }
            Ok(())
        })
    }

    /// Forgets what the endpoint's engine had in its cache, or all engines had; and, if `learned`,
    /// what was learned of them.
    pub fn forget(&self, url: Option<&Bound<'_, PyString>>, learned: bool) -> PyResult<()> {
        let name = url.map(text);
        self.with(|inner| {
            inner.forget(name.as_deref(), learned);
            Ok(())
        })
    }

    fn set_eligible(&self, url: &Bound<'_, PyString>, eligible: bool) -> PyResult<()> {
        let name = text(url);
        self.with(|inner| {
            let row = inner.known(&name)?;
            inner.fleet.table.set_eligible(row, eligible);
            Ok(())
        })
    }

    /// What is new about belief in the endpoint's KV events, if anything.
    fn sent(
        &self,
        url: &Bound<'_, PyString>,
        id: &Bound<'_, PyAny>,
        time: Seconds,
    ) -> PyResult<Option<&'static str>> {
        let (id, name) = (id_of(id)?, text(url));
        self.with(|inner| {
            let row = inner.met(&name);
            inner.fleet.sent(row, id, time.0);
            Ok(inner.fleet.verdict(row).map(Verdict::name))
        })
    }

    fn first_token(
        &self,
        url: &Bound<'_, PyString>,
        id: &Bound<'_, PyAny>,
        time: Seconds,
    ) -> PyResult<Option<Vec<News>>> {
        let id = id_of(id)?;
        self.report(url, |fleet, row| fleet.first_token(row, id, time.0))
    }

    /// Returns who left or came back by it: nothing, as a rule. See [`health::end_of`] for errors.
    #[pyo3(signature = (url, id, time, status=None, reason=None, retry_after=None, /))]
    fn end(
        &self,
        url: &Bound<'_, PyString>,
        id: &Bound<'_, PyAny>,
        time: &Bound<'_, PyAny>,
        status: Option<&Bound<'_, PyAny>>,
        reason: Option<&Bound<'_, PyAny>>,
        retry_after: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Vec<News>>> {
        let id = id_of(id)?;
        let (at, how, readable) = health::end_of(time, status, reason, retry_after);
        let news = self.report(url, |fleet, row| fleet.end(row, id, at, how))?;
        readable.map(|()| news)
    }

    fn set_health(&self, settings: Settings, seed: u64) -> PyResult<()> {
        let policy = settings.policy();
        self.with(|inner| inner.fleet.health.configure(policy, seed).map_err(to_py))
    }

    /// Where an endpoint stands that is not in.
    fn standing(&self, url: &Bound<'_, PyString>) -> PyResult<Option<StandingTuple>> {
        let name = text(url);
        self.with(|inner| Ok(inner.row(&name).and_then(|row| health::standing(&inner.fleet, row))))
    }

    /// Whether nothing should be sent to the endpoint at this time, a probe neither.
    fn is_out(&self, url: &Bound<'_, PyString>, now: Seconds) -> PyResult<bool> {
        let name = text(url);
        self.with(|inner| {
            let Some(row) = inner.row(&name) else { return Ok(false) };
            inner.fleet.advance(now.0);
            Ok(inner.fleet.health.shuns(row))
        })
    }

    /// How many endpoints are out, by reason.
    #[getter]
    fn endpoints_out(&self) -> PyResult<HashMap<&'static str, u32>> {
        self.with(|inner| {
            let mut out = HashMap::new();
            for (_, reason) in inner.fleet.health.out() {
                *out.entry(reason.name()).or_default() += 1;
            }
            Ok(out)
        })
    }

    #[getter]
    fn ejections(&self) -> PyResult<u64> {
        self.with(|inner| Ok(inner.fleet.health.ejections()))
    }

    /// The engine's own count of a request's tokens, reported before its end. Gives what is new about
    /// belief in the endpoint's KV events, if anything.
    #[pyo3(signature = (url, id, prompt, cached, generated, /))]
    fn usage(
        &self,
        url: &Bound<'_, PyString>,
        id: &Bound<'_, PyAny>,
        prompt: Option<u64>,
        cached: Option<u64>,
        generated: Option<u64>,
    ) -> PyResult<Option<&'static str>> {
        let (id, name) = (id_of(id)?, text(url));
        self.with(|inner| {
            let Some(row) = inner.row(&name) else { return Ok(None) };
            inner.fleet.usage(row, id, prompt, cached, generated);
            Ok(inner.fleet.verdict(row).map(Verdict::name))
        })
    }

    /// What other routers have in flight on the endpoint.
    fn elsewhere(&self, url: &Bound<'_, PyString>, count: Read<u32>) -> PyResult<()> {
        let name = text(url);
        self.with(|inner| {
            let row = inner.met(&name);
            let Fleet { table, load, .. } = &mut inner.fleet;
            load.elsewhere(table, row, count.0);
            Ok(())
        })
    }

    /// What the index holds for an endpoint: blocks held, blocks in use, blocks it may hold.
    fn held(&self, url: &Bound<'_, PyString>) -> PyResult<(u32, u32, u32)> {
        let name = text(url);
        self.with(|inner| {
            let Some(row) = inner.row(&name) else { return Ok((0, 0, 0)) };
            let index = self.index.read();
            Ok((index.held(row), index.pinned(row), index.capacity(row)))
        })
    }

    /// Requests with reported cache, of these over-predicted; tokens predicted and found.
    #[getter]
    fn predictions(&self) -> PyResult<(u64, u64, u64, u64)> {
        self.with(|inner| {
            let seen = inner.fleet.predictions();
            Ok((seen.reported, seen.over, seen.predicted_tokens, seen.actual_tokens))
        })
    }

    /// Learned: prefill (base alone, per token, per pair, base beside decodes), step (base, per
    /// request, per token) in milliseconds, the tokens of an answer, what makes rates of the prefill
    /// and of the requests that were sent, how often a computed token is used again, and the most
    /// requests that were seen decoding at once.
    #[getter]
    fn engine(&self) -> PyResult<Engine> {
        self.with(|inner| {
            let Profile { prefill, step, output_tokens, reuse, sequences, .. } =
                inner.fleet.engine();
            let Profile { prefill_rate, request_rate, .. } = inner.fleet.engine();
            Ok((prefill, step, output_tokens, [prefill_rate, request_rate], reuse, sequences))
        })
    }

    fn set_kv_tokens(&self, tokens: f64) -> PyResult<()> {
        self.with(|inner| {
            inner.fleet.set_kv_tokens(tokens);
            Ok(())
        })
    }

    fn swapped(&self, url: &Bound<'_, PyString>) -> PyResult<()> {
        let name = text(url);
        self.with(|inner| {
            inner.row(&name).into_iter().for_each(|row| inner.fleet.load.swapped(row));
            Ok(())
        })
    }

    fn advance(&self, now: Seconds) -> PyResult<()> {
        self.with(|inner| {
            inner.fleet.advance(now.0);
            Ok(())
        })
    }

    fn request_stats(
        &self,
        url: &Bound<'_, PyString>,
        now: Seconds,
    ) -> PyResult<Option<StatsTuple>> {
        let name = text(url);
        self.with(|inner| {
            let Some(row) = inner.row(&name) else { return Ok(None) };
            Ok(inner.fleet.load.stats(row, now.0).map(stats_tuple))
        })
    }

    /// The same of all endpoints that had a request, of one moment.
    fn all_request_stats(&self, now: Seconds) -> PyResult<Vec<(String, StatsTuple)>> {
        self.with(|inner| {
            let (urls, load) = inner.load();
            let named = urls.iter().enumerate().filter_map(|(row, url)| Some((row, url.clone()?)));
            let seen = named.filter_map(|(row, url)| Some((url, load.stats(row as u32, now.0)?)));
            Ok(seen.map(|(url, stats)| (url, stats_tuple(stats))).collect())
        })
    }
}

impl Table {
    /// Runs `f` over what is under the lock; a panic is an error of ours to Python.
    fn with<T: Send>(&self, f: impl FnOnce(&mut Inner) -> PyResult<T> + Send) -> PyResult<T> {
        guarded(|| self.inner.apart(|inner, _| f(inner))) // no Python object is kept there
    }

    /// A report that may put an endpoint out or bring it back: returns who left and who is back.
    fn report(
        &self,
        url: &Bound<'_, PyString>,
        note: impl FnOnce(&mut Fleet, u32) + Send,
    ) -> PyResult<Option<Vec<News>>> {
        let name = text(url);
        self.with(|inner| {
            let Some(row) = inner.row(&name) else { return Ok(None) };
            note(&mut inner.fleet, row);
            Ok(inner.news())
        })
    }
}
