//! A list of endpoint objects that a router has met: their URLs, rows and flags, read once.

use std::collections::HashMap;
use std::sync::Mutex;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};
use routecore::hash::endpoint_id;
use routecore::{Candidates, StatTable};

use crate::errors::{lock, to_py};
use crate::table::{Inner, text};

/// Candidates of a bound list, and where each stands in the list.
pub struct Chosen {
    pub candidates: Candidates,
    pub positions: Vec<u32>,
}

/// What of a bound list changes.
pub struct State {
    /// Rows in the shared table, as of `epoch`.
    pub resident: Chosen,
    rows: Vec<u32>,
    epoch: Option<(u64, u64)>,
    /// Rows of their own for values read from plain objects.
    pub plain: Chosen,
    pub scratch: StatTable,
}

pub struct KnownList {
    /// The caller's own tuple, if it was one: it cannot change, so identity says all.
    tuple: Option<Py<PyTuple>>,
    objects: Py<PyList>,
    first: Py<PyAny>,
    urls: Py<PyList>,
    pub strings: Vec<Py<PyString>>,
    names: Vec<String>,
    ids: Vec<u64>,
    weights: Vec<f64>,
    usable: Vec<bool>,
    order: Vec<u32>,
    pub state: Mutex<State>,
}

fn urls_of<'py>(endpoints: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyString>>> {
    let py = endpoints.py();
    let mut urls = Vec::new();
    for endpoint in endpoints.try_iter()? {
        let endpoint = endpoint?;
        let url = endpoint.getattr(intern!(py, "url"));
        match url.map(pyo3::Bound::cast_into::<PyString>) {
            Ok(Ok(url)) => urls.push(url),
            _ => {
                let kind = endpoint.get_type().name()?;
                return Err(to_py(format!(
                    "endpoint {}: expected an object with a str attribute url, got {kind}",
                    urls.len()
                )));
            }
        }
    }
    Ok(urls)
}

fn flag(endpoint: &Bound<'_, PyAny>, name: &Bound<'_, PyString>, default: bool) -> bool {
    let value = endpoint.getattr_opt(name).ok().flatten();
    value.and_then(|value| value.is_truthy().ok()).unwrap_or(default)
}

impl KnownList {
    pub fn new(endpoints: &Bound<'_, PyAny>, weights: &HashMap<String, f64>) -> PyResult<Self> {
        let py = endpoints.py();
        let objects = PyList::empty(py);
        for endpoint in endpoints.try_iter()? {
            objects.append(endpoint?)?;
        }
        let urls = urls_of(&objects)?;
        let names: Vec<String> = urls.iter().map(|url| text(url).into_owned()).collect();
        let mut usable = Vec::with_capacity(names.len());
        let mut seen = HashMap::with_capacity(names.len());
        for (at, endpoint) in objects.iter().enumerate() {
            let first = *seen.entry(names[at].as_str()).or_insert(at) == at;
            let awake = !flag(&endpoint, intern!(py, "sleep"), false);
            usable.push(first && awake && flag(&endpoint, intern!(py, "healthy"), true));
        }
        let mut order: Vec<u32> = (0..names.len() as u32).collect();
        order.sort_by(|&a, &b| names[a as usize].cmp(&names[b as usize]));
        let weight = |name: &String| weights.get(name).copied().unwrap_or(1.0);
        let weights =
            if weights.is_empty() { Vec::new() } else { names.iter().map(weight).collect() };
        let none = || Chosen { candidates: Candidates::default(), positions: Vec::new() };
        let ids = names.iter().map(|name| endpoint_id(name.as_bytes())).collect();
        let bound = Self {
            first: objects.get_item(0)?.unbind(),
            tuple: endpoints.cast_exact::<PyTuple>().ok().map(|tuple| tuple.clone().unbind()),
            objects: objects.unbind(),
            urls: PyList::new(py, &urls)?.unbind(),
            strings: urls.into_iter().map(pyo3::Bound::unbind).collect(),
            ids,
            weights,
            usable,
            order,
            state: Mutex::new(State {
                resident: none(),
                rows: Vec::new(),
                epoch: None,
                plain: none(),
                scratch: StatTable::scratch(names.len()),
            }),
            names,
        };
        let rows: Vec<u32> = (0..bound.names.len() as u32).collect();
        let plain = bound.choose(&rows, |_| true);
        lock(&bound.state).plain = plain;
        Ok(bound)
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether these are the very objects that were bound: the same tuple, which cannot have
    /// changed, or a list of the same objects.
    pub fn is_same(&self, endpoints: &Bound<'_, PyAny>) -> bool {
        let py = endpoints.py();
        let Ok(list) = endpoints.cast::<PyList>() else {
            return self.tuple.as_ref().is_some_and(|tuple| endpoints.is(tuple.bind(py)));
        };
        list.get_item(0).is_ok_and(|first| first.is(self.first.bind(py)))
            && list.len() == self.len()
            && list.eq(self.objects.bind(py)).unwrap_or(false)
    }

    /// Whether the list's endpoints have the same URLs in the same order, all usable or not alike.
    pub fn has_urls(&self, objects: &Bound<'_, PyAny>, urls: &Bound<'_, PyList>) -> bool {
        let py = urls.py();
        let same = || urls.eq(self.urls.bind(py)).unwrap_or(false);
        urls.len() == self.len() && same() && self.same_flags(objects)
    }

    fn same_flags(&self, objects: &Bound<'_, PyAny>) -> bool {
        let py = objects.py();
        let Ok(items) = objects.try_iter() else { return false };
        let mut seen = HashMap::new();
        items.zip(&self.usable).enumerate().all(|(at, (item, usable))| {
            let Ok(item) = item else { return false };
            let first = *seen.entry(self.names[at].as_str()).or_insert(at) == at;
            let awake = !flag(&item, intern!(py, "sleep"), false);
            (first && awake && flag(&item, intern!(py, "healthy"), true)) == *usable
        })
    }

    /// Brings rows and eligibility up to the table's epoch.
    pub fn refresh(&self, state: &mut State, inner: &mut Inner) {
        let stamp = (inner.serial, inner.fleet.table.epoch());
        if state.epoch == Some(stamp) {
            return;
        }
        inner.tick();
        state.rows = self.names.iter().map(|name| inner.add(name)).collect();
        let stats = &inner.fleet.table;
        state.resident = self.choose(&state.rows, |row| stats.is_eligible(row));
        state.epoch = Some((stamp.0, stats.epoch()));
    }

    /// Row of each endpoint in the shared table, as of the last refresh.
    pub fn rows(state: &State) -> &[u32] {
        &state.rows
    }

    pub fn url(&self, py: Python<'_>, pos: usize) -> Py<PyString> {
        self.strings[pos].clone_ref(py)
    }

    fn choose(&self, rows: &[u32], eligible: impl Fn(u32) -> bool) -> Chosen {
        let usable = |&pos: &u32| self.usable[pos as usize] && eligible(rows[pos as usize]);
        let positions: Vec<u32> = (0..rows.len() as u32).filter(usable).collect();
        let place: HashMap<u32, u32> =
            positions.iter().enumerate().map(|(at, &pos)| (pos, at as u32)).collect();
        let pick = |pos: &u32| *pos as usize;
        let weights = if self.weights.is_empty() {
            Vec::new()
        } else {
            positions.iter().map(|pos| self.weights[pick(pos)]).collect()
        };
        let candidates = Candidates::new(
            positions.iter().map(|pos| rows[pick(pos)]).collect(),
            positions.iter().map(|pos| self.ids[pick(pos)]).collect(),
            weights,
            self.order.iter().filter_map(|pos| place.get(pos).copied()).collect(),
        );
        Chosen { candidates, positions }
    }
}

/// The URLs of a list that is not known by its objects.
pub fn url_list<'py>(endpoints: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    PyList::new(endpoints.py(), urls_of(endpoints)?)
}
