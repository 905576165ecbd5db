//! Whom a choice is among.

use routecore::Candidates;

/// Candidates of a bound list, and where each stands in the list.
#[derive(Default)]
pub struct Chosen {
    pub candidates: Candidates,
    pub positions: Vec<u32>,
}
