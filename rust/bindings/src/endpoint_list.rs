//! A list of endpoint objects that a router has met: their URLs and flags, read once.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};
use routecore::Candidates;
use routecore::hash::endpoint_id;

use crate::attribute::{Flag, Flags, Look, Optional, context_length, is_settled};
use crate::chosen::Chosen;
use crate::errors::{to_py, tolerated};
use crate::given::{Care, Given};
use crate::locked::{Kept, Quiet};
use crate::objects::{Objects, urls_of};
use crate::text::text;

/// Capacity of each endpoint by URL, as the user gave it.
pub type Weights = HashMap<String, f64>;

pub struct EndpointList {
    /// Names it for as long as the process lives, which an address does not.
    pub serial: u64,
    foreign: Kept<Objects>,
    /// Whether its objects are all our own, which cannot change. The others are looked at again.
    pub settled: bool,
    pub names: Vec<String>,
    ids: Vec<u64>,
    weights: Vec<f64>,
    /// Tokens of the longest request that each takes, where it says.
    lengths: Vec<Option<f64>>,
    /// False for all but the first of several endpoints with one URL.
    first_of_url: Vec<bool>,
    flags: Vec<Flag>,
    order: Vec<u32>,
    /// Where to look next, in a list whose objects may change.
    next: AtomicUsize,
    /// Whether [`Objects::look`] sees that they say the same when they do.
    looks: AtomicBool,
}

/// Lists up to this long are compared as a whole each time.
const WHOLE: usize = 256;
/// Places of a longer list that are looked at each time.
pub const LOOKS: usize = 16;
/// Places of a list up to that long whose objects may have changed, and that are looked at each
/// time: beside those that are out, and the one that is about to be chosen.
const TURNS: usize = 1;

/// Lists met so far.
static LISTS: AtomicU64 = AtomicU64::new(0);

impl EndpointList {
    /// Meets the endpoints of a list or tuple. Runs Python.
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
        let mut says = Flags::default();
        let flags: Vec<Flag> =
            objects.iter().map(|endpoint| says.of(&endpoint)).collect::<PyResult<_>>()?;
        let mut info = Optional::default();
        let lengths: Vec<Option<f64>> = objects
            .iter()
            .map(|endpoint| context_length(&endpoint, &mut info))
            .collect::<PyResult<_>>()?;
        let settled = objects.iter().all(|endpoint| is_settled(&endpoint));
        let look = if !settled && flags.iter().all(|flag| *flag == Flag::In) {
            Some((Look::at(&objects.get_item(0)?)?, PyList::new(py, &urls)?.unbind()))
        } else {
            None
        };
        let mut order: Vec<u32> = (0..names.len() as u32).collect();
        order.sort_by(|&a, &b| names[a as usize].cmp(&names[b as usize]));
        let weight = |name: &String| weights.get(name).copied().unwrap_or(1.0);
        let weights =
            if weights.is_empty() { Vec::new() } else { names.iter().map(weight).collect() };
        let ids = names.iter().map(|name| endpoint_id(name.as_bytes())).collect();
        Ok(Self {
            serial: LISTS.fetch_add(1, Ordering::Relaxed),
            settled,
            looks: AtomicBool::new(look.is_some()),
            foreign: Kept::new(Objects {
                tuple: endpoints.cast_exact::<PyTuple>().ok().map(|tuple| tuple.clone().unbind()),
                each: objects.iter().map(Bound::unbind).collect(),
                copy: Some(objects.unbind()),
                strings: urls.into_iter().map(Bound::unbind).collect(),
                look,
            }),
            ids,
            weights,
            lengths: if lengths.iter().any(Option::is_some) { lengths } else { Vec::new() },
            first_of_url,
            flags,
            order,
            names,
            next: AtomicUsize::new(0),
        })
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// The stable id of the endpoint at this place.
    pub fn id(&self, at: usize) -> u64 {
        self.ids[at]
    }

    /// Tokens of the longest request that the endpoints take, by place, of those that say.
    pub fn lengths(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        self.lengths.iter().enumerate().filter_map(|(at, tokens)| Some((at, (*tokens)?)))
    }

    /// Whether any endpoint sleeps.
    pub fn has_sleepers(&self) -> bool {
        self.flags.contains(&Flag::Asleep)
    }

    /// Whether the endpoint at this place sleeps; nothing for a second one of the same URL.
    pub fn sleeps(&self, at: usize) -> Option<bool> {
        self.first_of_url[at].then(|| self.flags[at] == Flag::Asleep)
    }

    /// URLs as the endpoints gave them.
    pub fn strings(&self) -> &[Py<PyString>] {
        &self.foreign.strings
    }

    /// Whether this is the very tuple that was met.
    pub fn is_tuple(&self, tuple: &Py<PyTuple>) -> bool {
        self.foreign.tuple.as_ref().is_some_and(|known| known.is(tuple))
    }

    /// A copy of the list that was met, if this one may hold the same objects.
    pub fn to_compare(&self, list: &Py<PyList>, quiet: &Quiet<'_>) -> Option<Py<PyList>> {
        let copy = self.foreign.copy.as_ref()?;
        let same = quiet.len(list) == self.len() && self.stands(list, 0, quiet);
        same.then(|| quiet.another(copy))
    }

    /// Whether it is too long to be compared as a whole each time.
    pub fn is_long(&self) -> bool {
        self.len() > WHOLE
    }

    /// Whether the object at this place is the one that was met there.
    pub fn stands(&self, list: &Py<PyList>, at: usize, quiet: &Quiet<'_>) -> bool {
        quiet.stands(list, at, &self.foreign.each[at])
    }

    /// Whether these are the objects that were met, and say what they said then. Runs Python.
    pub fn is_known(&self, endpoints: &Bound<'_, PyAny>, care: Care) -> PyResult<bool> {
        let py = endpoints.py();
        let each = &self.foreign.each;
        let same = match Given::of(endpoints) {
            Some(Given::Tuple(tuple)) => self.is_tuple(tuple),
            Some(Given::List(list)) => {
                let list = list.bind(py);
                let like = list.len() == self.len()
                    && list.get_item(0).is_ok_and(|first| first.is(each[0].bind(py)));
                match &self.foreign.copy {
                    // Fast, but of other objects an `__eq__` may say anything.
                    Some(copy) if like && care == Care::Compare => {
                        tolerated(py, list.eq(copy))?.unwrap_or(false)
                    }
                    _ => like && list.iter().zip(each).all(|(new, old)| new.is(old.bind(py))),
                }
            }
            None => false,
        };
        Ok(same
            && (self.settled
                || match care {
                    Care::Compare => self.looked_at(endpoints)?,
                    Care::Read => self.has_values(endpoints)?,
                }))
    }

    /// Whether the endpoints have these URLs in the same order, and all say the same of themselves.
    /// Runs Python.
    pub fn has_values(&self, endpoints: &Bound<'_, PyAny>) -> PyResult<bool> {
        let quick = self.looks.load(Ordering::Relaxed);
        if let Some((look, urls)) = self.foreign.look.as_ref().filter(|_| quick)
            && look.sees(endpoints, urls)?
        {
            return Ok(true);
        }
        let same = self.has_values_each(endpoints)?;
        if same && quick {
            self.looks.store(false, Ordering::Relaxed); // it sees less, and would be in vain again
        }
        Ok(same)
    }

    fn has_values_each(&self, endpoints: &Bound<'_, PyAny>) -> PyResult<bool> {
        let mut says = Flags::default();
        let mut count = 0;
        for endpoint in endpoints.try_iter()? {
            if count == self.len() || !self.holds(count, &endpoint?, &mut says)? {
                return Ok(false);
            }
            count += 1;
        }
        Ok(count == self.len())
    }

    /// Whether the endpoint says what was read at this place. Runs Python.
    fn holds(&self, at: usize, endpoint: &Bound<'_, PyAny>, says: &mut Flags) -> PyResult<bool> {
        let py = endpoint.py();
        let known = self.foreign.strings[at].bind(py);
        let Some(url) = tolerated(py, endpoint.getattr(intern!(py, "url")))? else {
            return Ok(false);
        };
        let alike = url.is(known)
            || (url.is_instance_of::<PyString>() && tolerated(py, url.eq(known))?.unwrap_or(false));
        Ok(alike && (!self.first_of_url[at] || says.of(endpoint)? == self.flags[at]))
    }

    /// Whether the endpoint at this place of the caller's list has to be looked at before it is
    /// chosen: another object stands there, or one that changed since, perhaps.
    pub fn is_doubtful(&self, given: Given<'_>, at: usize, quiet: &Quiet<'_>) -> bool {
        let stands = match given {
            Given::Tuple(_) => true,
            Given::List(list) => self.stands(list, at, quiet),
        };
        !stands || !self.settled
    }

    /// A look at objects that may have changed since they were met: at the next few in turn, and
    /// unless the list is long, at those that were out. Runs Python.
    fn looked_at(&self, endpoints: &Bound<'_, PyAny>) -> PyResult<bool> {
        let mut says = Flags::default();
        let from = self.next.load(Ordering::Relaxed);
        let to = (from + if self.is_long() { LOOKS } else { TURNS }).min(self.len());
        self.next.store(if to == self.len() { 0 } else { to }, Ordering::Relaxed);
        let out = |&at: &usize| self.first_of_url[at] && self.flags[at] != Flag::In;
        let others = if self.is_long() { 0 } else { self.len() };
        let rest = (0..others).filter(|at| !(from..to).contains(at)).filter(out);
        for at in (from..to).chain(rest) {
            if !self.still(endpoints, at, &mut says)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the endpoint at this place says what it said when it was met. Runs Python.
    pub fn still_at(&self, endpoints: &Bound<'_, PyAny>, at: usize) -> PyResult<bool> {
        self.still(endpoints, at, &mut Flags::default())
    }

    fn still(&self, given: &Bound<'_, PyAny>, at: usize, says: &mut Flags) -> PyResult<bool> {
        let endpoint = match given.cast_exact::<PyList>() {
            Ok(list) => list.get_item(at),
            Err(_) => given.get_item(at),
        };
        match tolerated(given.py(), endpoint)? {
            Some(endpoint) => self.holds(at, &endpoint, says),
            None => Ok(false), // the list has become shorter
        }
    }

    /// Those of the chosen whose place in the list is wanted.
    pub fn part(&self, chosen: &Chosen, wanted: impl Fn(u32) -> bool) -> Chosen {
        let mut rows = vec![u32::MAX; self.len()];
        for (&at, &row) in chosen.positions.iter().zip(&chosen.candidates.rows) {
            rows[at as usize] = if wanted(at) { row } else { u32::MAX };
        }
        self.choose(&rows, |row| row != u32::MAX)
    }

    /// Those that may be chosen, of the endpoints in these rows.
    pub fn choose(&self, rows: &[u32], eligible: impl Fn(u32) -> bool) -> Chosen {
        let usable = |&pos: &u32| {
            let at = pos as usize;
            self.first_of_url[at] && self.flags[at] == Flag::In && eligible(rows[at])
        };
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
