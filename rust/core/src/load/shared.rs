//! What is in flight from this router, for others to hear, and what they report of theirs.

use super::others::Others;
use super::state::Load;
use crate::register::{Field, Register};
use crate::stats::{Stat, StatTable};

impl Load {
    /// What this router has on the row.
    pub fn tell(&self, row: u32, into: &mut Register) {
        if let Some(load) = self.rows.get(row as usize) {
            load.tell(into);
        }
    }

    /// Arrivals a second on the row over the window.
    pub fn qps(&mut self, row: u32) -> f64 {
        let (now, span) = (self.clock.now(), self.span);
        self.rows
            .get_mut(row as usize)
            .and_then(|load| load.stats(now, span))
            .map_or(0.0, |s| s.qps)
    }

    /// What all other routers have on the row from now on.
    pub fn hear_others(&mut self, table: &mut StatTable, row: u32, sum: &Register) {
        if table.id(row).is_none() {
            return;
        }
        let now = self.clock.now();
        let load = self.row(row);
        if now.is_finite() {
            load.pass(now);
        }
        let (before, others) = (load.others, Others::of(sum));
        load.others = others;
        load.hear_prefilled(&before.prefilled, &others.prefilled);
        for (stat, field, unit) in [
            (Stat::InFlight, Field::Requests, 1.0),
            (Stat::InPrefill, Field::Prefilling, 1.0),
            (Stat::InDecoding, Field::Decoding, 1.0),
            (Stat::QueuedTokens, Field::QueuedTokens, 1.0),
            (Stat::QueuedPairs, Field::QueuedPairs, 1.0),
            (Stat::QueuedMs, Field::QueuedUs, 1e-3),
            (Stat::ContextTokens, Field::ContextTokens, 1.0),
            (Stat::Qps, Field::Qps, 1e-3),
        ] {
            table.set_others(stat, row, sum.get(field) as f64 * unit);
        }
        self.publish(table, row);
    }
}
