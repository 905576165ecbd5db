//! The usual choice: the list in front once more, and all that is read in our own table.
//!
//! Results are small, and written to where they are read. To move what was just written stalls a
//! processor for some nanoseconds, which is a tenth of such a choice.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyString;
use routecore::error::caught;
use routecore::fleet::Lookup;

use crate::call::{Call, called};
use crate::choice::{Wanted, count, pick};
use crate::decide::Seen;
use crate::errors::{to_py, tolerated};
use crate::given::Given;
use crate::locked::Quiet;
use crate::router::Router;
use crate::router_state::{Front, RouterState};
use crate::source::Kind;
use crate::table::Table;
use crate::threads::Inside;

/// Of requests that go by load alone.
static BY_LOAD: Wanted = Wanted::nothing();

impl Router {
    /// The URL of the endpoint that a request goes to of which nothing is asked.
    #[inline]
    pub fn choose_by_load(
        &self,
        endpoints: &Bound<'_, PyAny>,
        engine_stats: &Bound<'_, PyAny>,
        request_stats: &Bound<'_, PyAny>,
    ) -> PyResult<Py<PyString>> {
        let mut seen = None;
        let quick = || {
            let given = Given::of(endpoints)?;
            let call = Call { endpoints, given, engine_stats, request_stats };
            self.quick(call, &BY_LOAD, &mut Lookup::default(), &mut seen)
        };
        match caught(quick) {
            Ok(Some(url)) => return Ok(url),
            Ok(None) => {}
            Err(error) => return Err(to_py(error)),
        }
        called(endpoints, engine_stats, request_stats, |call| {
            self.looked_up(&BY_LOAD, request_stats, |lookup| {
                self.choose_slowly(call, seen, &BY_LOAD, lookup)
            })
        })
    }

    /// The choice, where the list in front is the caller's and cannot have changed, and the table
    /// has all that the strategy reads. If not, `seen` is what came of it, if anything.
    #[inline]
    pub fn quick(
        &self,
        call: Call<'_, '_>,
        wanted: &Wanted,
        lookup: &mut Lookup,
        seen: &mut Option<PyResult<Seen>>,
    ) -> Option<Py<PyString>> {
        let table = self.resident(call)?;
        let (py, given) = (call.endpoints.py(), call.given);
        let (mut url, mut like) = (None, None);
        self.routing.with(py, |routing, quiet| match routing.front(given, quiet) {
            Front::Same => {
                url = self.pick_there(routing, table, wanted, lookup, given, quiet, seen);
            }
            Front::Like(copy, serial) => like = Some((copy, serial)),
            Front::Other => {}
        });
        let Some((copy, serial)) = like else { return url };
        let _inside = Inside::enter(py); // an `__eq__` may be anybody's
        match tolerated(py, call.endpoints.eq(copy)) {
            Ok(Some(true)) => {}
            Ok(_) => return None,
            Err(error) => {
                *seen = Some(Err(error));
                return None;
            }
        }
        self.routing.with(py, |routing, quiet| {
            if routing.was_compared(given, serial, quiet) {
                url = self.pick_there(routing, table, wanted, lookup, given, quiet, seen);
            }
        });
        url
    }

    /// Picks from the list in front and counts the choice, unless another object stands there.
    #[inline]
    #[allow(clippy::too_many_arguments)]
    fn pick_there(
        &self,
        routing: &mut RouterState,
        table: &Table,
        wanted: &Wanted,
        lookup: &mut Lookup,
        given: Given<'_>,
        quiet: &Quiet<'_>,
        seen: &mut Option<PyResult<Seen>>,
    ) -> Option<Py<PyString>> {
        let kind = Kind::Resident;
        table.inner.inside(quiet, |inner| {
            self.freshen(routing, inner);
            let (known, state) = routing.lists.first_mut()?;
            let (router, fleet) = (&mut routing.router, &mut inner.fleet);
            let choice = pick(router, known, state, Some(fleet), kind, wanted, lookup)?;
            if known.is_doubtful(given, choice.0, quiet) {
                *seen = Some(Ok(Seen::Picked(Arc::clone(known), choice)));
                return None;
            }
            count(state, Some(fleet), kind, choice, wanted);
            Some(quiet.another(&known.strings()[choice.0]))
        })
    }
}
