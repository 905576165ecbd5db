//! One choice: what it reads, and what it leaves behind.

use routecore::fleet::{Lookup, Reported};
use routecore::strategy::Scored;
use routecore::{Asked, Fleet, Key, Prompt, Stat, View};

use crate::around::Around;
use crate::chosen::Chosen;
use crate::endpoint_list::EndpointList;
use crate::kv_events::Held;
use crate::list_state::ListState;
use crate::source::Kind;

/// What a strategy looks at of one request.
pub struct Wanted {
    pub key: Key,
    /// What engines report that they hold of its prompt, by endpoint id.
    pub held: Vec<Held>,
    /// Its prompt, where it may have to wait and the strategy goes by something else.
    pub beside: Option<Prompt>,
    /// Whether it may have to wait: then what it would add to a cache is asked of any strategy.
    pub may_wait: bool,
}

impl Wanted {
    pub fn new(key: Key, held: Vec<Held>) -> Self {
        Self { key, held, beside: None, may_wait: false }
    }

    /// Of a request that goes by load alone.
    pub const fn nothing() -> Self {
        Self { key: Key::None, held: Vec::new(), beside: None, may_wait: false }
    }

    pub fn prompt(&self) -> Option<&Prompt> {
        match &self.key {
            Key::Prompt(prompt) => Some(prompt),
            _ => self.beside.as_ref(),
        }
    }
}

/// These candidates, and all there is to read of them for this request.
#[inline]
pub fn view<'a>(
    router: &routecore::Router,
    known: &EndpointList,
    (state, chosen): (&'a ListState, &'a Chosen),
    fleet: Option<&'a Fleet>,
    kind: Kind,
    wanted: &Wanted,
    lookup: &'a mut Lookup,
) -> View<'a> {
    let table = match fleet {
        Some(fleet) if kind == Kind::Resident => &fleet.table,
        _ => &state.scratch,
    };
    let view = View::new(table, &chosen.candidates);
    let asks = router.needs_prompt() || wanted.may_wait;
    let Some(fleet) = fleet.filter(|_| asks) else { return view };
    let Some(prompt) = wanted.prompt() else {
        return view.asking(Asked::default(), fleet.engine());
    };
    let sizes = fleet.tokens(prompt);
    let in_use = router.needs_in_use() || wanted.may_wait;
    let rows = chosen.positions.iter().map(|&at| state.rows[at as usize]);
    if kind == Kind::Resident {
        let (rows, runs) = (chosen.candidates.rows.iter().copied(), chosen.candidates.runs());
        lookup.look(rows, runs, sizes, in_use);
    } else {
        lookup.look(rows.clone(), &[], sizes, in_use);
    }
    if !wanted.held.is_empty() {
        let ids = chosen.positions.iter().map(|&at| known.id(at as usize));
        let reported = rows
            .zip(ids)
            .map(|(row, id)| (row, reported_by(&wanted.held, id).filter(|_| fleet.believes(row))));
        lookup.observe(reported, sizes);
    }
    view.asking(lookup.asked(sizes), fleet.engine())
}

/// What the engine of this endpoint reported.
fn reported_by(held: &[Held], id: u64) -> Option<Reported> {
    let at = held.binary_search_by_key(&id, |held| held.id).ok()?;
    Some(Reported { tokens: held[at].tokens, exact: held[at].exact })
}

/// A choice: the place in the list, the tokens of the prompt that are cached there, and those that
/// should be by what was sent there, where engines reported.
pub type Choice = (usize, f64, f64);

#[inline]
pub fn pick(
    router: &mut routecore::Router,
    known: &EndpointList,
    state: &mut ListState,
    fleet: Option<&Fleet>,
    kind: Kind,
    wanted: &Wanted,
    lookup: &mut Lookup,
) -> Option<Choice> {
    let disturbed = state.is_disturbed(known, fleet, kind);
    let state = &*state;
    if !disturbed {
        let chosen = all(state, kind);
        let view = view(router, known, (state, chosen), fleet, kind, wanted, lookup);
        let asks = !view.asked.cached.is_empty();
        let at = router.pick(view, &wanted.key)?;
        let cached = if asks { lookup.cached(at) } else { 0.0 };
        let learned = if wanted.held.is_empty() { 0.0 } else { lookup.learned(at) };
        return Some((chosen.positions[at] as usize, cached, learned));
    }
    pick_around(router, known, state, fleet, kind, wanted, lookup)
}

/// The same while somebody is not in.
#[inline(never)]
fn pick_around(
    router: &mut routecore::Router,
    known: &EndpointList,
    state: &ListState,
    fleet: Option<&Fleet>,
    kind: Kind,
    wanted: &Wanted,
    lookup: &mut Lookup,
) -> Option<Choice> {
    let (mut cached, mut learned) = (0.0, 0.0);
    let ask = |chosen: &Chosen, forced: Option<usize>| {
        let view = view(router, known, (state, chosen), fleet, kind, wanted, lookup);
        let at = forced.or_else(|| router.pick(view, &wanted.key));
        cached = at.map_or(0.0, |at| view.cached(at));
        if !wanted.held.is_empty() {
            learned = at.map_or(0.0, |at| lookup.learned(at));
        }
        at
    };
    let at = decide(state, fleet, kind, ask)?.1;
    Some((at, cached, learned))
}

/// Runs `f` over the candidates that a choice is among, their places in the list, and the one of
/// them that it falls on: for a choice that may have to wait.
#[allow(clippy::too_many_arguments)]
pub fn weigh<T>(
    router: &mut routecore::Router,
    known: &EndpointList,
    state: &mut ListState,
    fleet: Option<&Fleet>,
    kind: Kind,
    wanted: &Wanted,
    lookup: &mut Lookup,
    f: impl FnOnce(View<'_>, &[u32], usize) -> T,
) -> Option<T> {
    let disturbed = state.is_disturbed(known, fleet, kind);
    let state = &*state;
    let mut chosen = None;
    let ask = |among: &Chosen, forced: Option<usize>| {
        let view = view(router, known, (state, among), fleet, kind, wanted, lookup);
        chosen = forced.or_else(|| router.pick(view, &wanted.key));
        chosen
    };
    let (among, _) = decide(state, fleet.filter(|_| disturbed), kind, ask)?;
    let view = view(router, known, (state, among), fleet, kind, wanted, lookup);
    Some(f(view, &among.positions, chosen?))
}

/// The place in the list that the next [`pick`] would choose, and what the candidates score that
/// it is among, with their places.
pub fn explain(
    router: &routecore::Router,
    known: &EndpointList,
    state: &mut ListState,
    fleet: Option<&Fleet>,
    kind: Kind,
    wanted: &Wanted,
    lookup: &mut Lookup,
) -> Option<(usize, Vec<(u32, Scored)>)> {
    let disturbed = state.is_disturbed(known, fleet, kind);
    let state = &*state;
    let mut scores = Vec::new();
    let ask = |chosen: &Chosen, forced: Option<usize>| {
        let view = view(router, known, (state, chosen), fleet, kind, wanted, lookup);
        let (at, scored) = router.explain(view, &wanted.key);
        scores = scored;
        forced.or(at)
    };
    let (among, at) = decide(state, fleet.filter(|_| disturbed), kind, ask)?;
    Some((at, among.positions.iter().copied().zip(scores).collect()))
}

/// All that may be chosen, whatever their state of health.
fn all(state: &ListState, kind: Kind) -> &Chosen {
    match kind {
        Kind::Resident => &state.resident,
        Kind::Plain | Kind::Own => &state.plain,
    }
}

/// Whom the choice is among, and the place in the list that it falls on. `ask`: the place among
/// candidates, which is given where health decides it. `fleet`: only where somebody is not in.
fn decide<'a>(
    state: &'a ListState,
    fleet: Option<&Fleet>,
    kind: Kind,
    mut ask: impl FnMut(&'a Chosen, Option<usize>) -> Option<usize>,
) -> Option<(&'a Chosen, usize)> {
    let all = all(state, kind);
    let mut among = |chosen: &'a Chosen, forced: Option<usize>| {
        let at = ask(chosen, forced)?;
        Some((chosen, chosen.positions[at] as usize))
    };
    let Some(fleet) = fleet else { return among(all, None) };
    let rows = all.positions.iter().map(|&at| state.rows[at as usize]);
    if let Some(probe) = fleet.health.due(rows.clone()) {
        return among(all, Some(probe));
    }
    let Around { open, steady, .. } = &state.around;
    if let Some(found) = among(open, None) {
        let row = state.rows[found.1];
        if fleet.health.has_room(row, fleet.table.own(Stat::InFlight, row)) {
            return Some(found);
        }
        if let Some(found) = among(steady, None) {
            return Some(found);
        }
        // What others only say beats what failed here.
        if fleet.health.is_doubted(row) {
            return Some(found);
        }
    }
    match fleet.health.least_recent(rows) {
        Some(tried) => among(all, Some(tried)),
        None => among(open, None),
    }
}

/// Counts the choice as load where there is a table to count in.
#[inline]
pub fn count(
    state: &ListState,
    fleet: Option<&mut Fleet>,
    kind: Kind,
    (at, cached, learned): Choice,
    wanted: &Wanted,
) {
    let Some(fleet) = fleet else { return };
    let row = state.rows[at];
    match wanted.prompt() {
        Some(prompt) if kind == Kind::Own => fleet.chosen_unfollowed(row, prompt, cached),
        Some(prompt) => {
            let id = fleet.table.id(row).filter(|_| !wanted.held.is_empty());
            let reported = id.and_then(|id| reported_by(&wanted.held, id));
            fleet.chosen_by(row, prompt, cached, reported.map(|reported| (reported, learned)));
        }
        None => fleet.chosen(row),
    }
}
