//! A list of endpoint objects that a router has met: their URLs, rows and flags, read once.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};
use routecore::hash::endpoint_id;
use routecore::{Candidates, StatTable};

use crate::attribute::Flags;
use crate::desk::Weights;
use crate::errors::to_py;
use crate::table::{Inner, text};
use crate::values::Columns;

/// Candidates of a bound list, and where each stands in the list.
pub struct Chosen {
    pub candidates: Candidates,
    pub positions: Vec<u32>,
}

/// What of a known list changes.
pub struct State {
    /// Rows in the shared table, as of `epoch`.
    pub resident: Chosen,
    /// Row of each endpoint in the shared table.
    pub rows: Vec<u32>,
    epoch: Option<(u64, u64)>,
    /// Rows of their own for values read from plain objects.
    pub plain: Chosen,
    pub scratch: StatTable,
    pub columns: Option<Box<Columns>>,
    /// The caller's own list when all of it was last compared, and the place to look at next.
    pub compared: Option<Py<PyList>>,
    next: usize,
    /// First of other objects with the same URLs, when such were last met.
    pub double: Option<Py<PyAny>>,
}

pub struct KnownList {
    /// Names it for as long as the process lives, which an address does not.
    pub serial: u64,
    /// The caller's own tuple, if it was one: it cannot change, so identity says all.
    tuple: Option<Py<PyTuple>>,
    copy: Py<PyList>,
    objects: Vec<Py<PyAny>>,
    pub strings: Vec<Py<PyString>>,
    names: Vec<String>,
    ids: Vec<u64>,
    weights: Vec<f64>,
    /// False for all but the first of several endpoints with one URL.
    first_of_url: Vec<bool>,
    usable: Vec<bool>,
    order: Vec<u32>,
}

/// Lists up to this long are compared as a whole each time.
const WHOLE: usize = 256;
/// Places of a longer list that are looked at each time.
const LOOKS: usize = 16;

/// Lists met so far.
static LISTS: AtomicU64 = AtomicU64::new(0);

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

fn is_equal(url: &Bound<'_, PyAny>, known: &Bound<'_, PyString>) -> bool {
    url.eq(known).unwrap_or(false)
}

impl KnownList {
    pub fn new(endpoints: &Bound<'_, PyAny>, router: &str, weights: &Weights) -> PyResult<Self> {
        let py = endpoints.py();
        let objects = PyList::empty(py);
        for endpoint in endpoints.try_iter()? {
            objects.append(endpoint?)?;
        }
        if objects.is_empty() {
            return Err(to_py(format!(
                "{router}: the endpoint list is empty; pass at least one endpoint"
            )));
        }
        let urls = urls_of(&objects)?;
        let names: Vec<String> = urls.iter().map(|url| text(url).into_owned()).collect();
        let mut seen = HashSet::with_capacity(names.len());
        let first_of_url: Vec<bool> = names.iter().map(|name| seen.insert(name.as_str())).collect();
        let flags = objects.iter().zip(&first_of_url);
        let mut says = Flags::default();
        let usable = flags.map(|(endpoint, &first)| first && says.usable(&endpoint)).collect();
        let mut order: Vec<u32> = (0..names.len() as u32).collect();
        order.sort_by(|&a, &b| names[a as usize].cmp(&names[b as usize]));
        let weight = |name: &String| weights.get(name).copied().unwrap_or(1.0);
        let weights =
            if weights.is_empty() { Vec::new() } else { names.iter().map(weight).collect() };
        let ids = names.iter().map(|name| endpoint_id(name.as_bytes())).collect();
        Ok(Self {
            serial: LISTS.fetch_add(1, Ordering::Relaxed),
            tuple: endpoints.cast_exact::<PyTuple>().ok().map(|tuple| tuple.clone().unbind()),
            objects: objects.iter().map(pyo3::Bound::unbind).collect(),
            copy: objects.unbind(),
            strings: urls.into_iter().map(pyo3::Bound::unbind).collect(),
            ids,
            weights,
            first_of_url,
            usable,
            order,
            names,
        })
    }

    /// The changing part of a list that was just met.
    pub fn state(&self) -> State {
        let rows: Vec<u32> = (0..self.names.len() as u32).collect();
        State {
            resident: Chosen { candidates: Candidates::default(), positions: Vec::new() },
            plain: self.choose(&rows, |_| true),
            rows: Vec::new(),
            epoch: None,
            scratch: StatTable::scratch(self.names.len()),
            columns: None,
            compared: None,
            next: 0,
            double: None,
        }
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// The stable id of the endpoint at this place.
    pub fn id(&self, at: usize) -> u64 {
        self.ids[at]
    }

    /// Whether this is the very tuple that was met: it cannot have changed. Runs no Python.
    pub fn is_tuple(&self, endpoints: &Bound<'_, PyAny>) -> bool {
        self.tuple.as_ref().is_some_and(|tuple| endpoints.is(tuple.bind(endpoints.py())))
    }

    /// A copy of the list that was met, if this one may hold the same objects. Runs no Python.
    pub fn to_compare(&self, list: &Bound<'_, PyList>) -> Option<Py<PyList>> {
        let py = list.py();
        let same = list.len() == self.len() && self.stands(list, 0);
        same.then(|| self.copy.clone_ref(py))
    }

    /// Whether it is too long to be compared as a whole each time.
    pub fn is_long(&self) -> bool {
        self.len() > WHOLE
    }

    /// Whether the object at this place is the one that was met there. Runs no Python.
    pub fn stands(&self, list: &Bound<'_, PyList>, at: usize) -> bool {
        list.get_item(at).is_ok_and(|object| object.is(self.objects[at].bind(list.py())))
    }

    /// A look at a long list that was compared before, instead of at all of it: both ends and
    /// the next places in turn. An exchange in place is seen within n / 16 looks. Runs no Python.
    pub fn glance(&self, list: &Bound<'_, PyList>, state: &mut State) -> bool {
        let long = self.is_long() && list.len() == self.len();
        if !long || !state.compared.as_ref().is_some_and(|known| list.is(known.bind(list.py()))) {
            return false;
        }
        let from = state.next;
        let to = (from + LOOKS).min(self.len());
        state.next = if to == self.len() { 0 } else { to };
        let ends = [0, self.len() - 1];
        (from..to).chain(ends).all(|at| self.stands(list, at))
    }

    /// Whether these are the very objects that were met.
    pub fn is_same(&self, endpoints: &Bound<'_, PyAny>) -> bool {
        let Ok(list) = endpoints.cast_exact::<PyList>() else { return self.is_tuple(endpoints) };
        let copy = self.to_compare(list);
        copy.is_some_and(|copy| list.eq(copy.bind(list.py())).unwrap_or(false))
    }

    /// Whether other objects have the same URLs in the same order, all usable or not alike.
    pub fn has_urls(&self, endpoints: &Bound<'_, PyAny>) -> bool {
        let py = endpoints.py();
        let (mut count, mut says, name) = (0, Flags::default(), intern!(py, "url"));
        let Ok(items) = endpoints.try_iter() else { return false };
        for item in items {
            let (Ok(item), Some(string)) = (item, self.strings.get(count)) else { return false };
            let string = string.bind(py);
            let Ok(url) = item.getattr(name) else { return false };
            let alike =
                url.is(string) || (url.is_instance_of::<PyString>() && is_equal(&url, string));
            if !alike || (self.first_of_url[count] && says.usable(&item)) != self.usable[count] {
                return false;
            }
            count += 1;
        }
        count == self.len()
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
