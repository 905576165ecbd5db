//! Endpoint URLs ↔ rows, and the events and columns that fill them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use routecore::hash::{endpoint_id, request_key};
use routecore::load::RowStats;
use routecore::{Fleet, Stat};

use crate::errors::{lock, to_py};

/// Lists bound since a row was last used, before an idle row may be freed.
const IDLE_BINDS: u64 = 256;

/// Tables made so far: an address may be used again, a number is not.
static TABLES: AtomicU64 = AtomicU64::new(0);

pub struct Inner {
    pub fleet: Fleet,
    pub serial: u64,
    rows: HashMap<String, u32>,
    urls: Vec<Option<String>>,
    used: Vec<u64>,
    clock: u64,
    sweep_at: usize,
}

impl Inner {
    /// The row of a URL, given one if it has none. Now and then rows nobody uses are freed.
    pub fn add(&mut self, url: &str) -> u32 {
        if let Some(&row) = self.rows.get(url) {
            self.used[row as usize] = self.clock;
            return row;
        }
        if self.fleet.table.live() >= self.sweep_at {
            self.sweep();
            self.sweep_at = 2 * self.fleet.table.live() + 64;
        }
        let row = self.fleet.table.add(endpoint_id(url.as_bytes()));
        let entry = Some(url.to_owned());
        if let Some(slot) = self.urls.get_mut(row as usize) {
            *slot = entry;
            self.used[row as usize] = self.clock;
        } else {
            self.urls.push(entry);
            self.used.push(self.clock);
        }
        self.rows.insert(url.to_owned(), row);
        row
    }

    /// A new list of endpoints was met: time, for rows, passes.
    pub fn tick(&mut self) {
        self.clock += 1;
    }

    fn remove(&mut self, url: &str) -> bool {
        let Some(row) = self.rows.remove(url) else { return false };
        self.fleet.remove(row);
        self.urls[row as usize] = None;
        true
    }

    fn sweep(&mut self) {
        let idle = |&(row, _): &(usize, &Option<String>)| {
            self.used[row] + IDLE_BINDS < self.clock
                && self.fleet.table.get(Stat::InFlight, row as u32) == 0.0
        };
        let gone: Vec<String> =
            self.urls.iter().enumerate().filter(idle).filter_map(|(_, url)| url.clone()).collect();
        for url in gone {
            self.remove(&url);
        }
    }

    fn known(&self, url: &str) -> PyResult<u32> {
        let unknown = || to_py(format!("unknown endpoint {url:?}: add() it first"));
        self.rows.get(url).copied().ok_or_else(unknown)
    }
}

/// The packed stat table behind `EndpointTable`, shared by monitor, scraper and routers.
#[pyclass(frozen)]
pub struct Table {
    pub inner: Mutex<Inner>,
}

/// Text of a Python string; a lone surrogate, which UTF-8 has no bytes for, becomes U+FFFD.
pub fn text<'a>(value: &'a Bound<'_, PyString>) -> Cow<'a, str> {
    value.to_cow().unwrap_or_else(|_| Cow::Owned(value.to_string_lossy().into_owned()))
}

fn id_of(request_id: &Bound<'_, PyAny>) -> PyResult<u128> {
    let id = request_id.str()?;
    let id = text(&id);
    Ok(request_key(id.as_bytes()))
}

fn rows_for(inner: &Inner, urls: Option<Vec<String>>) -> PyResult<Vec<u32>> {
    match urls {
        Some(urls) => urls.iter().map(|url| inner.known(url)).collect(),
        None => Ok((0..inner.fleet.table.rows() as u32).collect()),
    }
}

type StatsTuple = (f64, f64, u32, u32, u64, f64, f64, u64);

#[pymethods]
impl Table {
    #[new]
    #[pyo3(signature = (window=60.0, lease=600.0))]
    fn new(window: f64, lease: f64) -> Self {
        let inner = Inner {
            fleet: Fleet::new(window, lease),
            serial: TABLES.fetch_add(1, Ordering::Relaxed),
            rows: HashMap::new(),
            urls: Vec::new(),
            used: Vec::new(),
            clock: 0,
            sweep_at: 64,
        };
        Self { inner: Mutex::new(inner) }
    }

    fn configure(&self, window: f64, lease: f64) {
        lock(&self.inner).fleet.load.configure(window, lease);
    }

    fn add(&self, url: &Bound<'_, PyString>) -> u32 {
        let name = text(url);
        let mut inner = lock(&self.inner);
        inner.tick();
        inner.add(&name)
    }

    fn remove(&self, url: &Bound<'_, PyString>) -> bool {
        lock(&self.inner).remove(&text(url))
    }

    fn row(&self, url: &Bound<'_, PyString>) -> Option<u32> {
        lock(&self.inner).rows.get(&*text(url)).copied()
    }

    #[getter]
    fn urls(&self) -> Vec<Option<String>> {
        lock(&self.inner).urls.clone()
    }

    #[getter]
    fn rows(&self) -> usize {
        lock(&self.inner).fleet.table.rows()
    }

    #[getter]
    fn live(&self) -> usize {
        lock(&self.inner).fleet.table.live()
    }

    #[getter]
    fn leases_expired(&self) -> u64 {
        lock(&self.inner).fleet.load.leases_expired()
    }

    #[getter]
    fn in_flight(&self) -> usize {
        lock(&self.inner).fleet.load.in_flight()
    }

    #[pyo3(signature = (columns, urls=None))]
    fn load_columns(&self, columns: &Bound<'_, PyDict>, urls: Option<Vec<String>>) -> PyResult<()> {
        let mut read = Vec::with_capacity(columns.len());
        for (name, values) in columns {
            let name: String = name.extract()?;
            let stat = Stat::named(&name).map_err(to_py)?;
            let Ok(buffer) = PyBuffer::<f64>::get(&values) else {
                return Err(to_py(format!(
                    "column {name:?}: expected a one-dimensional buffer of float64 (dtype 'd')"
                )));
            };
            if buffer.dimensions() != 1 {
                return Err(to_py(format!(
                    "column {name:?}: expected 1 dimension, got {}",
                    buffer.dimensions()
                )));
            }
            read.push((stat, buffer.to_vec(columns.py())?));
        }
        let mut inner = lock(&self.inner);
        let rows = rows_for(&inner, urls)?;
        // All or none: try on a copy only when several columns could fail one after another.
        let mut table = inner.fleet.table.clone();
        for (stat, values) in &read {
            table.load(*stat, &rows, values).map_err(to_py)?;
        }
        inner.fleet.table = table;
        Ok(())
    }

    fn column(&self, name: &str) -> PyResult<Vec<f64>> {
        let stat = Stat::named(name).map_err(to_py)?;
        Ok(lock(&self.inner).fleet.table.column(stat).to_vec())
    }

    fn clear_stats(&self, url: &Bound<'_, PyString>) {
        let mut inner = lock(&self.inner);
        let Some(&row) = inner.rows.get(&*text(url)) else { return };
        for stat in
            [Stat::Running, Stat::Queuing, Stat::ActiveConnections, Stat::KvUsage, Stat::HitRate]
        {
            inner.fleet.table.set(stat, row, f64::NAN);
        }
    }

    fn set_eligible(&self, url: &Bound<'_, PyString>, eligible: bool) -> PyResult<()> {
        let mut inner = lock(&self.inner);
        let row = inner.known(&text(url))?;
        inner.fleet.table.set_eligible(row, eligible);
        Ok(())
    }

    fn sent(&self, url: &Bound<'_, PyString>, id: &Bound<'_, PyAny>, time: f64) -> PyResult<()> {
        let id = id_of(id)?;
        let name = text(url);
        let mut inner = lock(&self.inner);
        let row = inner.add(&name);
        let Fleet { table, load } = &mut inner.fleet;
        load.sent(table, row, id, time);
        Ok(())
    }

    fn first_token(
        &self,
        url: &Bound<'_, PyString>,
        id: &Bound<'_, PyAny>,
        time: f64,
    ) -> PyResult<()> {
        let id = id_of(id)?;
        let mut inner = lock(&self.inner);
        let Some(&row) = inner.rows.get(&*text(url)) else { return Ok(()) };
        let Fleet { table, load } = &mut inner.fleet;
        load.first_token(table, row, id, time);
        Ok(())
    }

    fn end(
        &self,
        url: &Bound<'_, PyString>,
        id: &Bound<'_, PyAny>,
        time: f64,
        done: bool,
    ) -> PyResult<()> {
        let id = id_of(id)?;
        let mut inner = lock(&self.inner);
        let Some(&row) = inner.rows.get(&*text(url)) else { return Ok(()) };
        let Fleet { table, load } = &mut inner.fleet;
        load.end(table, row, id, time, done);
        Ok(())
    }

    fn elsewhere(&self, url: &Bound<'_, PyString>, count: u32) {
        let mut inner = lock(&self.inner);
        let row = inner.add(&text(url));
        let Fleet { table, load } = &mut inner.fleet;
        load.elsewhere(table, row, count);
    }

    fn swapped(&self, url: &Bound<'_, PyString>) {
        let mut inner = lock(&self.inner);
        if let Some(&row) = inner.rows.get(&*text(url)) {
            inner.fleet.load.swapped(row);
        }
    }

    fn advance(&self, now: f64) {
        let mut inner = lock(&self.inner);
        let Fleet { table, load } = &mut inner.fleet;
        load.advance(table, now);
    }

    fn request_stats(&self, url: &Bound<'_, PyString>, now: f64) -> Option<StatsTuple> {
        let mut inner = lock(&self.inner);
        let row = *inner.rows.get(&*text(url))?;
        let RowStats { qps, ttft, in_prefill, in_decoding, finished, uptime, avg_latency, swapped } =
            inner.fleet.load.stats(row, now)?;
        let known = |value: Option<f64>| value.unwrap_or(-1.0);
        let (ttft, latency) = (known(ttft), known(avg_latency));
        Some((qps, ttft, in_prefill, in_decoding, finished, uptime, latency, swapped))
    }
}

/// Base of the mapping that a monitor hands out: routers read its table, not its items.
#[pyclass(frozen, subclass)]
pub struct ResidentRequestStats {
    #[pyo3(get)]
    pub table: Py<Table>,
    #[pyo3(get)]
    now: f64,
}

#[pymethods]
impl ResidentRequestStats {
    #[new]
    fn new(table: Py<Table>, now: f64) -> Self {
        Self { table, now }
    }
}

/// Base of the mapping that a scraper hands out: routers read its table, not its items.
#[pyclass(frozen, subclass)]
pub struct ResidentEngineStats {
    #[pyo3(get)]
    pub table: Py<Table>,
}

#[pymethods]
impl ResidentEngineStats {
    #[new]
    #[pyo3(signature = (table, *_args))]
    fn new(table: Py<Table>, _args: &Bound<'_, pyo3::types::PyTuple>) -> Self {
        Self { table }
    }
}
