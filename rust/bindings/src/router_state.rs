//! What a router keeps under its one lock: the strategy, and the lists of endpoints it has met.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::endpoint_list::EndpointList;
use crate::given::{Care, Given};
use crate::list_state::ListState;
use crate::living::Living;
use crate::locked::{Locked, Quiet};

/// Lists remembered: one per model served behind the same router, and a few that failed over.
const MAX_LISTS: usize = 32;

/// Those of all routers.
pub static ROUTER_STATES: Living<RouterState> = Living::new();

pub struct RouterState {
    pub router: routecore::Router,
    /// What its draws come from.
    pub seed: u64,
    /// Latest first.
    pub lists: Vec<(Arc<EndpointList>, ListState)>,
    /// Whether another list came to the front, and nobody asked yet who sleeps in it.
    pub turned: bool,
    /// Ids of endpoints that fell asleep.
    pub slept: Vec<u64>,
}

/// What the list in front is to the caller's.
pub enum Front {
    Same,
    /// Perhaps the same: compare with this copy of the list of this serial number.
    Like(Py<PyList>, u64),
    Other,
}

impl RouterState {
    pub fn new(router: routecore::Router, seed: u64) -> Self {
        Self { router, seed, lists: Vec::new(), turned: false, slept: Vec::new() }
    }

    /// What the list in front is to the caller's, as far as a look without Python can say.
    pub fn front(&mut self, given: Given<'_>, quiet: &Quiet<'_>) -> Front {
        let Some((known, state)) = self.lists.first_mut() else { return Front::Other };
        match given {
            _ if !known.settled => Front::Other,
            Given::Tuple(tuple) if known.is_tuple(tuple) => Front::Same,
            Given::List(list) if state.glance(known, list, quiet) => Front::Same,
            Given::List(list) => match known.to_compare(list, quiet) {
                Some(copy) => Front::Like(copy, known.serial),
                None => Front::Other,
            },
            Given::Tuple(_) => Front::Other,
        }
    }

    /// Whether the list in front is still this one, which all of the caller's was compared with.
    pub fn was_compared(&mut self, given: Given<'_>, serial: u64, quiet: &Quiet<'_>) -> bool {
        let Some((known, state)) = self.lists.first_mut() else { return false };
        if known.serial != serial {
            return false;
        }
        if let Given::List(list) = given
            && known.is_long()
        {
            state.note_compared(list, quiet);
        }
        true
    }

    /// Brings this list to the front, whatever other threads did to it meanwhile.
    pub fn bring(&mut self, known: &Arc<EndpointList>) {
        let at = self.lists.iter().position(|(other, _)| Arc::ptr_eq(other, known));
        match at {
            Some(0) => return,
            Some(at) => self.lists[..=at].rotate_right(1),
            None => {
                self.lists.insert(0, (Arc::clone(known), ListState::of(known)));
                self.lists.truncate(MAX_LISTS);
            }
        }
        self.turned = true;
    }
}

/// The known list of these endpoints, met now if need be. Runs Python.
pub fn meet(
    routing: &Locked<RouterState>,
    endpoints: &Bound<'_, PyAny>,
    care: Care,
    met: impl FnOnce() -> PyResult<EndpointList>,
) -> PyResult<Met> {
    let py = endpoints.py();
    let front =
        routing.with(py, |routing, _| routing.lists.first().map(|(known, _)| Arc::clone(known)));
    if let Some(known) = front
        && known.is_known(endpoints, care)?
    {
        return Ok(Met { known, same: true });
    }
    meet_other(routing, endpoints, met)
}

/// The same of endpoints that are not the list in front.
pub fn meet_other(
    routing: &Locked<RouterState>,
    endpoints: &Bound<'_, PyAny>,
    met: impl FnOnce() -> PyResult<EndpointList>,
) -> PyResult<Met> {
    let py = endpoints.py();
    let lists: Vec<Arc<EndpointList>> = routing
        .with(py, |routing, _| routing.lists.iter().map(|(known, _)| Arc::clone(known)).collect());
    // Of objects that may change, several lists may know different values.
    for known in &lists {
        if known.is_known(endpoints, Care::Read)? {
            return Ok(Met { known: Arc::clone(known), same: true });
        }
    }
    // Objects made anew for each call are known by their URLs; objects met a second time are
    // worth knowing themselves, and a tuple always is.
    if !endpoints.is_instance_of::<PyTuple>() {
        for known in lists {
            if known.has_values(endpoints)? {
                let Ok(first) = endpoints.get_item(0) else { break };
                let first = first.as_unbound();
                let again = routing.with(py, |routing, quiet| {
                    let mut states = routing.lists.iter_mut();
                    let found = states.find(|(other, _)| Arc::ptr_eq(other, &known));
                    found.is_some_and(|(_, state)| state.note_double(first, quiet))
                });
                if !again {
                    return Ok(Met { known, same: false });
                }
                break;
            }
        }
    }
    Ok(Met { known: Arc::new(met()?), same: true })
}

/// A list that was met, now or before.
pub struct Met {
    pub known: Arc<EndpointList>,
    /// Whether the caller's are the very objects that are known, not others that say the same.
    pub same: bool,
}
