//! The table and the load that fills part of it, as one thing under one lock.

use crate::load::Load;
use crate::stats::StatTable;

/// Everything known about the endpoints.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// Packed stats, a row per endpoint.
    pub table: StatTable,
    /// Requests in flight and their windows.
    pub load: Load,
}

impl Fleet {
    /// An empty fleet; see [`Load::new`] for the two durations in seconds.
    pub fn new(span: f64, lease: f64) -> Self {
        Self { table: StatTable::new(), load: Load::new(span, lease) }
    }

    /// Frees a row together with all that is in flight on it.
    pub fn remove(&mut self, row: u32) {
        self.load.forget(row);
        self.table.remove(row);
    }
}
