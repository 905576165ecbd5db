//! What of a known list changes: rows, who may be chosen, columns, and what was last compared.

use pyo3::prelude::*;
use pyo3::types::PyList;
use routecore::{Candidates, Fleet, Stat, StatTable};

use crate::around::Around;
use crate::chosen::Chosen;
use crate::endpoint_list::{EndpointList, LOOKS};
use crate::locked::{Kept, Quiet};
use crate::rows::Inner;
use crate::source::Kind;
use crate::values::Columns;

/// What of a known list changes.
pub struct ListState {
    /// Rows in the shared table, as of `epoch`.
    pub resident: Chosen,
    /// Row of each endpoint in the shared table.
    pub rows: Vec<u32>,
    epoch: Option<(u64, u64)>,
    /// Rows of their own for values read from plain objects.
    pub plain: Chosen,
    pub scratch: StatTable,
    /// Who may be chosen while some fail.
    pub around: Around,
    pub columns: Kept<Option<Box<Columns>>>,
    /// The caller's own list when all of it was last compared, and the place to look at next.
    compared: Kept<Option<Py<PyList>>>,
    next: usize,
    /// First of other objects with the same URLs, when such were last met.
    double: Kept<Option<Py<PyAny>>>,
}

impl ListState {
    /// Of a list that was just met.
    pub fn of(known: &EndpointList) -> Self {
        let rows: Vec<u32> = (0..known.len() as u32).collect();
        Self {
            resident: Chosen { candidates: Candidates::default(), positions: Vec::new() },
            plain: known.choose(&rows, |_| true),
            rows: Vec::new(),
            epoch: None,
            scratch: StatTable::scratch(known.len()),
            around: Around::default(),
            columns: Kept::default(),
            compared: Kept::default(),
            next: 0,
            double: Kept::default(),
        }
    }

    /// Notes that all of this list was compared just now.
    pub fn note_compared(&mut self, list: &Py<PyList>, quiet: &Quiet<'_>) {
        if !self.compared.as_ref().is_some_and(|known| known.is(list)) {
            self.compared = Kept::new(Some(quiet.another(list)));
        }
    }

    /// Notes the first of objects that have the same URLs; whether it was met the last time too.
    pub fn note_double(&mut self, first: &Py<PyAny>, quiet: &Quiet<'_>) -> bool {
        let again = self.double.as_ref().is_some_and(|double| double.is(first));
        self.double = Kept::new(Some(quiet.another(first)));
        again
    }

    /// A look at a long list that was compared before, instead of at all of it: both ends and
    /// the next places in turn. An exchange in place is seen within n / 16 looks.
    pub fn glance(&mut self, known: &EndpointList, list: &Py<PyList>, quiet: &Quiet<'_>) -> bool {
        let long = known.is_long() && quiet.len(list) == known.len();
        if !long || !self.compared.as_ref().is_some_and(|known| known.is(list)) {
            return false;
        }
        let from = self.next;
        let to = (from + LOOKS).min(known.len());
        self.next = if to == known.len() { 0 } else { to };
        let ends = [0, known.len() - 1];
        (from..to).chain(ends).all(|at| known.stands(list, at, quiet))
    }

    /// Brings rows and eligibility up to the table's epoch.
    pub fn refresh(&mut self, known: &EndpointList, inner: &mut Inner) {
        let stamp = (inner.serial, inner.fleet.table.epoch());
        if self.epoch == Some(stamp) {
            return;
        }
        inner.tick();
        self.rows = known.names.iter().map(|name| inner.add(name)).collect();
        for (at, tokens) in known.lengths() {
            inner.fleet.table.set(Stat::ContextLength, self.rows[at], tokens);
        }
        let stats = &inner.fleet.table;
        self.resident = known.choose(&self.rows, |row| stats.is_eligible(row));
        self.epoch = Some((stamp.0, stats.epoch()));
    }

    /// Brings up to date who may be chosen; whether anybody of the list is not in.
    pub fn is_disturbed(
        &mut self,
        known: &EndpointList,
        fleet: Option<&Fleet>,
        kind: Kind,
    ) -> bool {
        let Some(fleet) = fleet.filter(|fleet| fleet.health.is_disturbed()) else { return false };
        let all = if kind == Kind::Resident { &self.resident } else { &self.plain };
        self.around.refresh(known, (&self.rows, all), fleet, kind)
    }

    /// Tells the table which of the endpoints sleep, and adds to `slept` the ids of those that fell
    /// asleep just now.
    pub fn fell_asleep(&self, known: &EndpointList, inner: &mut Inner, slept: &mut Vec<u64>) {
        if inner.sleepers() == 0 && !known.has_sleepers() {
            return;
        }
        for (at, &row) in self.rows.iter().enumerate() {
            if known.sleeps(at).is_some_and(|asleep| inner.set_asleep(row, asleep)) {
                slept.push(known.id(at));
            }
        }
    }
}
