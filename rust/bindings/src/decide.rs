//! Choices of a router: recognise the list, read what there is to read, pick, count.

use std::mem::take;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyString;
use routecore::fleet::Lookup;
use routecore::{Fleet, Stat};

use crate::call::Call;
use crate::choice::{Choice, Wanted, count, pick};
use crate::endpoint_list::EndpointList;
use crate::given::{Care, Given};
use crate::list_state::ListState;
use crate::locked::{Held, Quiet};
use crate::router::Router;
use crate::router_state::{Met, RouterState, meet, meet_other};
use crate::rows::Inner;
use crate::side::{is_own, is_scraped};
use crate::source::{Kind, Source};
use crate::table::Table;
use crate::values::Columns;
use crate::views::{ResidentEngineStats, ResidentRequestStats};

/// What came of an attempt.
pub enum Seen {
    Chosen(Py<PyString>),
    /// Picked, not counted: the endpoint that stands there has to be looked at first.
    Picked(Arc<EndpointList>, Choice),
    /// No endpoint is eligible.
    Nobody,
}

impl Router {
    /// The URL of the endpoint that one request goes to.
    pub fn choose(&self, call: Call<'_, '_>, wanted: &Wanted) -> PyResult<Py<PyString>> {
        self.looked_up(wanted, call.request_stats, |lookup| {
            let mut seen = None;
            match self.quick(call, wanted, lookup, &mut seen) {
                Some(url) => Ok(url),
                None => self.choose_slowly(call, seen, wanted, lookup),
            }
        })
    }

    /// A choice that needs more than a look at the list in front, and what came of that.
    #[cold]
    #[inline(never)]
    pub fn choose_slowly(
        &self,
        call: Call<'_, '_>,
        seen: Option<PyResult<Seen>>,
        wanted: &Wanted,
        lookup: &mut Lookup,
    ) -> PyResult<Py<PyString>> {
        let seen = match seen {
            Some(seen) => seen?,
            None => self.attempt(call, wanted, lookup, Care::Compare)?,
        };
        if let Some(url) = self.settle(call, seen, wanted)? {
            return Ok(url);
        }
        // The choice has left the list, or says something else by now.
        let seen = self.attempt(call, wanted, lookup, Care::Read)?;
        self.settle(call, seen, wanted)?.ok_or_else(|| self.none())
    }

    /// The table whose columns answer the call, if they have all that the strategy reads.
    #[inline]
    pub fn resident<'a>(&self, call: Call<'a, '_>) -> Option<&'a Table> {
        let view = call.request_stats.cast::<ResidentRequestStats>().ok()?.get();
        let engine = || call.engine_stats.cast::<ResidentEngineStats>().ok().map(Bound::get);
        let ours = !self.scraped || engine().is_some_and(|other| other.table.is(&view.table));
        ours.then(|| view.table.get())
    }

    /// A choice from any list and any stats.
    fn attempt(
        &self,
        call: Call<'_, '_>,
        wanted: &Wanted,
        lookup: &mut Lookup,
        care: Care,
    ) -> PyResult<Seen> {
        let py = call.endpoints.py();
        let (Met { known, same }, columns) = self.at_hand(call, care)?;
        let mut source = self.read(call, &known, columns)?;
        // What was read anew just now is not looked at again.
        let given = (same && care == Care::Compare).then_some(call.given);
        let (seen, slept) = self.routing.with(py, |routing, quiet| {
            routing.bring(&known);
            let seen = self.pick(routing, &mut source, wanted, lookup, given, quiet);
            (seen, take(&mut routing.slept))
        });
        self.lost(py, slept);
        Ok(seen)
    }

    /// The known list of the caller's, and the columns of its values, if there are any.
    fn at_hand(&self, call: Call<'_, '_>, care: Care) -> PyResult<(Met, Option<Box<Columns>>)> {
        let py = call.endpoints.py();
        let front = self.routing.with(py, |routing, _| {
            let (known, state) = routing.lists.first_mut()?;
            Some((Arc::clone(known), state.columns.take()))
        });
        if let Some((known, mut columns)) = front {
            if known.is_known(call.endpoints, care)? {
                return Ok((Met { known, same: true }, columns));
            }
            self.routing.with(py, |routing, _| {
                let theirs = routing.lists.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &known));
                if let Some((_, state)) = theirs {
                    state.columns.swap(&mut columns);
                }
            });
        }
        let met = || EndpointList::new(call.endpoints, &self.name, &self.weights);
        let met = meet_other(&self.routing, call.endpoints, met)?;
        let columns = self.columns(py, &met.known);
        Ok((met, columns))
    }

    /// Takes the columns of this list, for as long as Python is run to fill them.
    fn columns(&self, py: Python<'_>, known: &Arc<EndpointList>) -> Option<Box<Columns>> {
        self.routing.with(py, |routing, _| {
            routing.bring(known);
            routing.lists.first_mut()?.1.columns.take()
        })
    }

    pub fn meet(&self, call: Call<'_, '_>, care: Care) -> PyResult<Met> {
        let met = || EndpointList::new(call.endpoints, &self.name, &self.weights);
        meet(&self.routing, call.endpoints, care, met)
    }

    /// Where to read the stats of the list; values of foreign objects are read now.
    pub fn source<'a>(
        &'a self,
        call: Call<'a, '_>,
        known: &Arc<EndpointList>,
    ) -> PyResult<Source<'a>> {
        let columns = self.columns(call.endpoints.py(), known);
        self.read(call, known, columns)
    }

    fn read<'a>(
        &'a self,
        call: Call<'a, '_>,
        known: &Arc<EndpointList>,
        columns: Option<Box<Columns>>,
    ) -> PyResult<Source<'a>> {
        if let Some(table) = self.resident(call) {
            return Ok(Source::Resident(table));
        }
        let mut columns = columns.unwrap_or_default();
        let counted = call.counted();
        columns.read(
            known,
            &self.reads,
            counted.is_some(),
            call.engine_stats,
            call.request_stats,
        )?;
        let columns = Some(columns);
        Ok(match (counted, &self.own) {
            (Some(table), _) => Source::Plain(columns, Some(table)),
            (None, Some((table, _))) => Source::Own(columns, table),
            (None, None) => Source::Plain(columns, None),
        })
    }

    /// Picks from the list in front, and counts the choice unless the endpoint in the caller's
    /// list must be looked at first (`given`: the list, where that may be so).
    fn pick(
        &self,
        routing: &mut RouterState,
        source: &mut Source<'_>,
        wanted: &Wanted,
        lookup: &mut Lookup,
        given: Option<Given<'_>>,
        quiet: &Quiet<'_>,
    ) -> Seen {
        let kind = Kind::of(source);
        self.with_view(routing, source, quiet, |router, known, state, fleet| {
            let picked = pick(router, known, state, fleet.as_deref(), kind, wanted, lookup);
            let Some(choice) = picked else { return Seen::Nobody };
            if given.is_some_and(|given| known.is_doubtful(given, choice.0, quiet)) {
                return Seen::Picked(Arc::clone(known), choice);
            }
            count(state, fleet, kind, choice, wanted);
            Seen::Chosen(quiet.another(&known.strings()[choice.0]))
        })
    }

    /// The URL of what was picked, once it is sure; nothing if all must be looked at anew.
    fn settle(
        &self,
        call: Call<'_, '_>,
        seen: Seen,
        wanted: &Wanted,
    ) -> PyResult<Option<Py<PyString>>> {
        let py = call.endpoints.py();
        let (known, choice) = match seen {
            Seen::Chosen(url) => return Ok(Some(url)),
            Seen::Picked(known, choice) => (known, choice),
            Seen::Nobody => return Err(self.none()),
        };
        if !known.still_at(call.endpoints, choice.0)? {
            return Ok(None);
        }
        let (kind, table) = match (self.resident(call), call.counted(), &self.own) {
            (Some(table), _, _) => (Kind::Resident, Some(table)),
            (None, Some(table), _) => (Kind::Plain, Some(table)),
            (None, None, Some((table, _))) => (Kind::Own, Some(table)),
            (None, None, None) => (Kind::Plain, None),
        };
        if let Some(table) = table {
            self.routing.with(py, |routing, quiet| {
                routing.bring(&known);
                let state = &mut routing.lists[0].1;
                table.inner.inside(quiet, |inner| {
                    state.refresh(&known, inner);
                    count(state, Some(&mut inner.fleet), kind, choice, wanted);
                });
            });
        }
        Ok(Some(known.strings()[choice.0].clone_ref(py)))
    }

    /// Runs `f` over the candidates of the list in front and their columns.
    pub fn with_view<T>(
        &self,
        routing: &mut RouterState,
        source: &mut Source<'_>,
        held: &Held,
        f: impl FnOnce(
            &mut routecore::Router,
            &Arc<EndpointList>,
            &mut ListState,
            Option<&mut Fleet>,
        ) -> T,
    ) -> T {
        match *source {
            Source::Resident(table) | Source::Plain(_, Some(table)) | Source::Own(_, table) => {
                table.inner.inside(held, |inner| {
                    self.freshen(routing, inner);
                    self.fill(routing, source, Some(inner));
                    let RouterState { router, lists, .. } = routing;
                    let (known, state) = &mut lists[0];
                    f(router, known, state, Some(&mut inner.fleet))
                })
            }
            Source::Plain(_, None) => {
                self.fill(routing, source, None);
                let RouterState { router, lists, .. } = routing;
                let (known, state) = &mut lists[0];
                f(router, known, state, None)
            }
        }
    }

    /// Brings the list in front up to date with the table.
    #[inline]
    pub fn freshen(&self, routing: &mut RouterState, inner: &mut Inner) {
        let RouterState { lists, turned, slept, .. } = routing;
        let (known, state) = &mut lists[0];
        state.refresh(known, inner);
        if *turned {
            *turned = false;
            state.fell_asleep(known, inner, slept);
        }
        if self.own.is_some() {
            inner.fleet.set_kv_tokens(self.kv_tokens);
        }
        if self.windows {
            let Fleet { table, load, .. } = &mut inner.fleet;
            load.publish_windows(table, &state.rows);
        }
    }

    /// Puts values of plain objects into the scratch table of the list in front.
    fn fill(&self, routing: &mut RouterState, source: &mut Source<'_>, inner: Option<&mut Inner>) {
        let (_, state) = &mut routing.lists[0];
        let counted = matches!(source, Source::Plain(..));
        if let Source::Plain(columns, _) | Source::Own(columns, _) = source {
            for (stat, column) in columns.iter().flat_map(|columns| columns.iter()) {
                state.scratch.fill(stat, column.iter().copied());
            }
            if let Some(inner) = &inner {
                let ours = |stat: &&Stat| is_own(**stat) || (counted && !is_scraped(**stat));
                for &stat in self.reads.iter().filter(ours) {
                    let values = state.rows.iter().map(|&row| inner.fleet.table.get(stat, row));
                    state.scratch.fill(stat, values);
                }
            }
            // What nobody knows of an endpoint is neither its gain nor its loss. Costs need every
            // count; scores know themselves what to make of one that is not known.
            let costs = self.own.is_some();
            let counts = |stat: &&Stat| match stat {
                Stat::InFlight => true,
                Stat::InPrefill | Stat::InDecoding => costs,
                _ => false,
            };
            for &stat in self.reads.iter().filter(counts) {
                state.scratch.fill_unknown(stat, &state.plain.candidates.rows);
            }
            // What stood there instead is freed by the caller: never under the lock.
            state.columns.swap(columns);
        }
    }

    /// Forgets what engines reported of their caches, where these are lost.
    pub fn lost(&self, py: Python<'_>, ids: Vec<u64>) {
        if let Some(index) = self.kv_index.as_ref().filter(|_| !ids.is_empty()) {
            index.get().lost(py, &ids);
        }
    }
}
