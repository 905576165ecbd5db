//! Where a decision reads from.

use crate::table::Table;
use crate::values::Columns;

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
