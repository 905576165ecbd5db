//! Tries those who wait: whether each goes, and where, is rejected, or waits on.

use std::collections::HashMap;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyString;
use routecore::Fleet;
use routecore::admission::{Floor, Rejected};
use routecore::fleet::{Lookup, SharedIndex};

use crate::choice::{Wanted, count, weigh};
use crate::endpoint_list::EndpointList;
use crate::list_state::ListState;
use crate::living::Living;
use crate::locked::Quiet;
use crate::source::Kind;

/// No endpoint can be chosen: not a matter of waiting.
const NOBODY: &str = "endpoints";

/// What is known of a request that waits.
pub struct Asker {
    pub wanted: Wanted,
    /// Under which id it holds its place; none where the host reports under one unknown here.
    pub request: Option<u128>,
}

/// All who wait.
#[derive(Default)]
pub struct Waiters {
    pub hold: routecore::admission::Hold,
    pub askers: HashMap<u64, Arc<Asker>>,
}

pub static HOLDS: Living<Waiters> = Living::new();

impl Waiters {
    /// In a process that was forked: who waits does so in its parent.
    pub fn forked(&mut self) {
        self.hold = routecore::admission::Hold::new(*self.hold.limits());
        self.askers.clear();
    }
}

/// A verdict as Python reads it: waiter, URL if it goes, seconds waited, reason if it is rejected,
/// seconds after which to come again. Those who wait on have none.
pub type Verdict = (u64, Option<Py<PyString>>, f64, Option<&'static str>, f64);
/// One look at the fleet, for several waiters.
pub struct Round<'a> {
    pub known: &'a EndpointList,
    pub rows: &'a [u32],
    pub kind: Kind,
    pub index: &'a SharedIndex,
    pub now: f64,
    pub time: f64,
}

impl Round<'_> {
    /// One try. `first`: it has just arrived.
    #[allow(clippy::too_many_arguments)]
    pub fn offer(
        &self,
        router: &mut routecore::Router,
        state: &mut ListState,
        fleet: &mut Fleet,
        inner: &mut Waiters,
        lookup: &mut Lookup,
        (id, first): (u64, bool),
        quiet: &Quiet<'_>,
    ) -> Option<Verdict> {
        let asker = Arc::clone(inner.askers.get(&id)?);
        let Asker { wanted, request } = &*asker;
        if let Some(prompt) = wanted.prompt() {
            lookup.find(&self.index.read(), prompt);
        }
        let hold = &mut inner.hold;
        let row_of = |&at: &u32| self.rows[at as usize];
        let floor = Floor { table: &fleet.table, engine: fleet.engine() };
        let all = self.rows.iter().copied().filter(|&row| fleet.table.is_eligible(row));
        let tried = !first || hold.is_tried(id);
        if tried && !hold.is_shut(floor, all, self.now) {
            let now = Some(&*fleet);
            let offered = weigh(
                router,
                self.known,
                state,
                now,
                self.kind,
                wanted,
                lookup,
                |view, at, pos| {
                    let rows = at.iter().map(row_of);
                    let added = |pos| view.added(pos);
                    let go = hold.offer(floor, rows, id, pos, added, self.now)?;
                    Some((go, at[go.pos] as usize, view.cached(go.pos)))
                },
            );
            let Some(offered) = offered else {
                hold.leave(id);
                inner.askers.remove(&id);
                return Some((id, None, 0.0, Some(NOBODY), 0.0));
            };
            if let Some((go, at, cached)) = offered {
                let learned = if wanted.held.is_empty() { 0.0 } else { lookup.learned(go.pos) };
                count(state, Some(fleet), self.kind, (at, cached, learned), wanted);
                if let Some(request) = *request {
                    fleet.reserve(self.rows[at], request, self.time);
                }
                inner.askers.remove(&id);
                let url = quiet.another(&self.known.strings()[at]);
                return Some((id, Some(url), go.waited, None, 0.0));
            }
        }
        if first && let Err(rejected) = hold.keep(id, self.now) {
            inner.askers.remove(&id);
            return Some(rejection(id, rejected));
        }
        None
    }
}

pub fn rejection(id: u64, rejected: Rejected) -> Verdict {
    (id, None, 0.0, Some(rejected.reason.name()), rejected.retry_after)
}
