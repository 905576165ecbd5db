//! Whom a request goes to should its endpoint fail: what the strategy would choose without it.

use pyo3::prelude::*;
use pyo3::types::PyString;
use routecore::Fleet;
use routecore::fleet::Lookup;

use crate::call::called;
use crate::choice::{Wanted, view};
use crate::endpoint_list::EndpointList;
use crate::given::Care;
use crate::list_state::ListState;
use crate::router::Router;
use crate::source::Kind;

/// Places in the list of the strategy's next choices, each without those before it; none of them
/// is counted. Endpoints that are left alone are among them only where all are.
#[allow(clippy::too_many_arguments)]
fn next_best(
    router: &routecore::Router,
    known: &EndpointList,
    state: &mut ListState,
    fleet: Option<&Fleet>,
    kind: Kind,
    wanted: &Wanted,
    lookup: &mut Lookup,
    (first, count): (usize, usize),
) -> Vec<usize> {
    let disturbed = state.is_disturbed(known, fleet, kind);
    let state = &*state;
    let all = if kind == Kind::Resident { &state.resident } else { &state.plain };
    let open = &state.around.open;
    let among = if disturbed && !open.positions.is_empty() { open } else { all };
    let mut router = router.clone();
    let mut taken = vec![first];
    while taken.len() <= count {
        let rest = known.part(among, |at| !taken.contains(&(at as usize)));
        let view = view(&router, known, (state, &rest), fleet, kind, wanted, lookup);
        let Some(at) = router.pick(view, &wanted.key) else { break };
        taken.push(rest.positions[at] as usize);
    }
    taken.remove(0);
    taken
}

/// The URL that a request goes to, and after it those that it would go to without the ones before.
///
/// With `first`, where it goes is known already: nothing is chosen, and nothing counts as load.
#[pyfunction]
#[pyo3(signature = (
    router, endpoints, engine_stats, request_stats, session, body, ids, first, count, /
))]
#[allow(clippy::too_many_arguments)]
pub fn ranked(
    router: &Bound<'_, Router>,
    endpoints: &Bound<'_, PyAny>,
    engine_stats: &Bound<'_, PyAny>,
    request_stats: &Bound<'_, PyAny>,
    session: Option<&Bound<'_, PyString>>,
    body: Option<&Bound<'_, PyAny>>,
    ids: Option<&Bound<'_, PyAny>>,
    first: Option<Py<PyString>>,
    count: usize,
) -> PyResult<Vec<Py<PyString>>> {
    let py = endpoints.py();
    let router = router.get();
    called(endpoints, engine_stats, request_stats, |call| {
        let wanted = router.wanted(session, body, ids)?;
        let chosen = match first {
            Some(url) => url,
            None => router.choose(call, &wanted)?,
        };
        if count == 0 {
            return Ok(vec![chosen]);
        }
        let known = router.meet(call, Care::Read)?.known;
        let named = chosen.bind(py).to_cow()?;
        let Some(first) = known.names.iter().position(|name| *name == named) else {
            drop(named);
            return Ok(vec![chosen]);
        };
        drop(named);
        let mut source = router.source(call, &known)?;
        let kind = Kind::of(&source);
        let (found, slept) = router.looked_up(&wanted, request_stats, |lookup| {
            router.routing.with(py, |routing, quiet| {
                routing.bring(&known);
                let found =
                    router.with_view(routing, &mut source, quiet, |core, known, state, fleet| {
                        let (fleet, asked) = (fleet.as_deref(), (first, count));
                        next_best(core, known, state, fleet, kind, &wanted, lookup, asked)
                    });
                (found, std::mem::take(&mut routing.slept))
            })
        });
        router.lost(py, slept);
        let others = found.into_iter().map(|at| known.strings()[at].clone_ref(py));
        Ok(std::iter::once(chosen).chain(others).collect())
    })
}
