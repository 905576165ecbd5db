//! What hosts show of the load: figures over the window.

use super::row::RowStats;
use super::state::Load;
use crate::stats::{Stat, StatTable};

impl Load {
    /// Figures of one row at `now`; `None` for a row without a request so far.
    pub fn stats(&mut self, row: u32, now: f64) -> Option<RowStats> {
        let (now, span) = (self.clock.at(now), self.span);
        self.rows.get_mut(row as usize)?.stats(now, span)
    }

    /// Writes the window figures of `rows` into their columns.
    pub fn publish_windows(&mut self, table: &mut StatTable, rows: &[u32]) {
        for &row in rows {
            let (now, span) = (self.clock.now(), self.span);
            let stats = self.rows.get_mut(row as usize).and_then(|load| load.stats(now, span));
            table.set(Stat::Qps, row, stats.map_or(0.0, |s| s.qps));
            let unknown = f64::NAN;
            table.set(Stat::Ttft, row, stats.and_then(|s| s.ttft).unwrap_or(unknown));
            table.set(Stat::AvgLatency, row, stats.and_then(|s| s.avg_latency).unwrap_or(unknown));
        }
    }
}
