//! What was learned of speed, written and read.

use super::{Overlap, RowSpeed, Speed};
use crate::bytes::{Reader, Saved, saved};
use crate::stats::StatTable;

saved!(RowSpeed { prefill, step, answers; open, before, ended, seen });

impl Speed {
    /// Appends all that does not belong to one process's clock.
    pub(crate) fn put(&self, rows: &[u32], out: &mut Vec<u8>) {
        let Self { prefill, step, whole, rows: known, lengths, traffic, sequences, .. } = self;
        prefill.put(out);
        step.put(out);
        whole.put(out);
        lengths.put(out);
        traffic.put(out);
        sequences.put(out);
        let of = |&row: &u32| known.get(row as usize).copied().unwrap_or_default();
        rows.iter().map(of).collect::<Vec<_>>().put(out);
    }

    /// Reads what [`Speed::put`] wrote of so many rows.
    pub(crate) fn take(from: &mut Reader<'_>, count: usize) -> Option<Self> {
        let (prefill, step, whole) = (Saved::take(from)?, Saved::take(from)?, Saved::take(from)?);
        let (lengths, traffic) = (Saved::take(from)?, Saved::take(from)?);
        let (sequences, rows, overlap) = (Saved::take(from)?, Vec::take(from)?, Overlap::default());
        let found = Self { prefill, step, whole, rows, overlap, lengths, traffic, sequences };
        let is_sane = found.prefill.is_sane() && found.step.is_sane();
        (is_sane && found.rows.len() == count).then_some(found)
    }

    /// First tokens and answers that were learned from, as far as they are remembered.
    pub(crate) fn samples(&self) -> f64 {
        self.prefill.samples() + self.step.samples() + self.whole.samples()
    }

    /// Takes the constants over, and of each row what is its own.
    pub(crate) fn restore(&mut self, table: &mut StatTable, saved: Self, rows: &[u32]) {
        let (known, overlap) = (std::mem::take(&mut self.rows), self.overlap);
        let (theirs, traffic) = (saved.rows.clone(), saved.traffic.since(&self.traffic));
        *self = Self { rows: known, overlap, traffic, ..saved };
        for (&row, speed) in rows.iter().zip(theirs) {
            if table.id(row).is_none() {
                continue;
            }
            let seen = std::mem::take(&mut self.row(row).seen);
            self.overlap.forget(seen);
            *self.row(row) = speed;
            self.publish(table, row);
        }
    }
}
