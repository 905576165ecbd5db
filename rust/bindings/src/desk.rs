//! What a router keeps under its one lock: the strategy, and the lists of endpoints it has met.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::errors::lock;
use crate::known_list::{KnownList, State};

/// Lists remembered: one per model served behind the same router, and a few that failed over.
const MAX_LISTS: usize = 32;

pub struct Desk {
    pub router: routecore::Router,
    /// Latest first.
    pub lists: Vec<(Arc<KnownList>, State)>,
    /// Whether the list in front was only glanced at: then the choice must be seen to stand there.
    pub glanced: bool,
}

/// The desk, locked, with the list that a decision is about in front.
pub type Open<'a> = MutexGuard<'a, Desk>;

/// The desk with the known list of these endpoints in front.
///
/// Comparing lists may run Python, which must not happen under the lock: it is left meanwhile.
/// A long list that was compared before is only glanced at, unless `whole`.
pub fn find<'a>(
    desk: &'a Mutex<Desk>,
    endpoints: &Bound<'_, PyAny>,
    whole: bool,
    met: impl FnOnce() -> PyResult<KnownList>,
) -> PyResult<Open<'a>> {
    let mut open = lock(desk);
    open.glanced = false;
    if let Some((known, state)) = open.lists.first_mut() {
        if known.is_tuple(endpoints) {
            return Ok(open);
        }
        if let Ok(list) = endpoints.cast_exact::<PyList>() {
            if !whole && known.glance(list, state) {
                open.glanced = true;
                return Ok(open);
            }
            if let Some(copy) = known.to_compare(list) {
                let serial = known.serial;
                drop(open);
                if list.eq(copy).unwrap_or(false)
                    && let Some(open) = compared(desk, list, serial)
                {
                    return Ok(open);
                }
                return find_slow(desk, endpoints, met);
            }
        }
    }
    drop(open);
    find_slow(desk, endpoints, met)
}

/// The desk again, if the list in front is still the one just found equal to the caller's.
fn compared<'a>(desk: &'a Mutex<Desk>, list: &Bound<'_, PyList>, serial: u64) -> Option<Open<'a>> {
    loop {
        let mut open = lock(desk);
        open.glanced = false;
        let (known, state) = open.lists.first_mut()?;
        if known.serial != serial {
            return None;
        }
        let same = state.compared.as_ref().is_some_and(|other| list.is(other.bind(list.py())));
        if same || !known.is_long() {
            return Some(open);
        }
        let old = state.compared.replace(list.clone().unbind());
        drop(open);
        drop(old); // frees Python objects: never under the lock
    }
}

#[cold]
fn find_slow<'a>(
    desk: &'a Mutex<Desk>,
    endpoints: &Bound<'_, PyAny>,
    met: impl FnOnce() -> PyResult<KnownList>,
) -> PyResult<Open<'a>> {
    let lists: Vec<Arc<KnownList>> =
        lock(desk).lists.iter().map(|(known, _)| Arc::clone(known)).collect();
    if let Some(known) = lists.iter().find(|known| known.is_same(endpoints)) {
        return Ok(take_up(desk, known));
    }
    // Objects made anew for each call are known by their URLs; objects met a second time are
    // worth knowing themselves, and a tuple always is.
    if !endpoints.is_instance_of::<PyTuple>()
        && let Some(known) = lists.iter().find(|known| known.has_urls(endpoints))
        && let Ok(first) = endpoints.get_item(0)
    {
        let mut open = take_up(desk, known);
        let double = open.lists[0].1.double.replace(first.clone().unbind());
        if !double.as_ref().is_some_and(|double| first.is(double.bind(first.py()))) {
            if double.is_some() {
                drop(open);
                drop(double); // frees a Python object: never under the lock
                open = take_up(desk, known);
            }
            return Ok(open);
        }
        drop(open);
    }
    Ok(take_up(desk, &Arc::new(met()?)))
}

/// The desk with this list in front, whatever other threads did to it meanwhile.
pub fn take_up<'a>(desk: &'a Mutex<Desk>, known: &Arc<KnownList>) -> Open<'a> {
    loop {
        let mut open = lock(desk);
        open.glanced = false;
        let at = open.lists.iter().position(|(other, _)| Arc::ptr_eq(other, known));
        if let Some(at) = at {
            open.lists[..=at].rotate_right(1);
            return open;
        }
        open.lists.insert(0, (Arc::clone(known), known.state()));
        if open.lists.len() <= MAX_LISTS {
            return open;
        }
        let dropped = open.lists.split_off(MAX_LISTS);
        drop(open);
        drop(dropped); // frees Python objects: never under the lock
    }
}

/// Capacity of each endpoint by URL, as the user gave it.
pub type Weights = HashMap<String, f64>;
