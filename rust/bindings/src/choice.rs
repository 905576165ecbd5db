//! One choice: what it reads, and what it leaves behind.

use routecore::fleet::{Lookup, Told};
use routecore::{Asked, Fleet, Key, View};

use crate::known_list::KnownList;
use crate::known_state::State;
use crate::kv_events::Held;
use crate::table::Table;
use crate::values::Columns;

/// What a strategy looks at of one request.
pub struct Wanted {
    pub key: Key,
    /// What engines told that they hold of its prompt, by endpoint id.
    pub held: Vec<Held>,
}

/// Where a decision reads from.
pub enum Source<'a> {
    /// The columns of the shared table.
    Resident(&'a Table),
    /// Values copied from objects; counts in flight from the table if there is one.
    Plain(Option<Box<Columns>>, Option<&'a Table>),
    /// Values copied from objects; prompts remembered in the router's own table.
    Own(Option<Box<Columns>>, &'a Table),
}

/// What kind of source a decision reads from.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Resident,
    Plain,
    Own,
}

impl Kind {
    pub fn of(source: &Source<'_>) -> Self {
        match source {
            Source::Resident(_) => Self::Resident,
            Source::Plain(..) => Self::Plain,
            Source::Own(..) => Self::Own,
        }
    }
}

/// The candidates, and all there is to read of them for this request.
pub fn view<'a>(
    router: &routecore::Router,
    known: &KnownList,
    state: &'a State,
    fleet: Option<&'a Fleet>,
    kind: Kind,
    wanted: &Wanted,
    lookup: &'a mut Lookup,
) -> (View<'a>, &'a [u32]) {
    let (table, chosen) = match fleet {
        Some(fleet) if kind == Kind::Resident => (&fleet.table, &state.resident),
        _ => (&state.scratch, &state.plain),
    };
    let view = View::new(table, &chosen.candidates);
    let Some(fleet) = fleet.filter(|_| router.needs_prompt()) else {
        return (view, &chosen.positions);
    };
    let Key::Prompt(prompt) = &wanted.key else {
        return (view.asking(Asked::default(), fleet.engine()), &chosen.positions);
    };
    let sizes = fleet.tokens(prompt);
    let rows = chosen.positions.iter().map(|&at| state.rows[at as usize]);
    if kind == Kind::Resident {
        let (rows, runs) = (chosen.candidates.rows.iter().copied(), chosen.candidates.runs());
        lookup.look(rows, runs, sizes, router.needs_in_use());
    } else {
        lookup.look(rows.clone(), &[], sizes, router.needs_in_use());
    }
    if !wanted.held.is_empty() {
        let ids = chosen.positions.iter().map(|&at| known.id(at as usize));
        lookup.hear(rows.zip(ids.map(|id| told(&wanted.held, id))), sizes);
    }
    (view.asking(lookup.asked(sizes), fleet.engine()), &chosen.positions)
}

/// What the engine of this endpoint told.
fn told(held: &[Held], id: u64) -> Option<Told> {
    let at = held.binary_search_by_key(&id, |held| held.id).ok()?;
    Some(Told { tokens: held[at].tokens, exact: held[at].exact })
}

/// A choice: the place in the list, and the tokens of the prompt that are cached there.
pub type Choice = (usize, f64);

pub fn pick(
    router: &mut routecore::Router,
    known: &KnownList,
    state: &State,
    fleet: Option<&Fleet>,
    kind: Kind,
    wanted: &Wanted,
    lookup: &mut Lookup,
) -> Option<Choice> {
    let (view, positions) = view(router, known, state, fleet, kind, wanted, lookup);
    let pos = router.pick(view, &wanted.key)?;
    Some((positions[pos] as usize, view.cached(pos)))
}

/// Counts the choice as load where there is a table to count in.
pub fn count(
    state: &State,
    fleet: Option<&mut Fleet>,
    kind: Kind,
    (at, cached): Choice,
    wanted: &Wanted,
) {
    let Some(fleet) = fleet else { return };
    let row = state.rows[at];
    match &wanted.key {
        Key::Prompt(prompt) if kind == Kind::Own => fleet.chosen_unfollowed(row, prompt, cached),
        Key::Prompt(prompt) => fleet.chosen_for(row, prompt, cached),
        _ => fleet.chosen(row),
    }
}
