//! What was learned of speed, written and read.

use super::{RowSpeed, Speed};
use crate::bytes::{Reader, Saved, saved};
use crate::stats::StatTable;

saved!(RowSpeed { prefill, step, answers; open, before });

impl Speed {
    /// Appends all that does not belong to one process's clock.
    pub(crate) fn put(&self, rows: &[u32], out: &mut Vec<u8>) {
        let Self {
            prefill,
            step,
            whole,
            rows: known,
            output_tokens,
            outputs,
            cached,
            computed,
            sequences,
            epoch: _,
        } = self;
        prefill.put(out);
        step.put(out);
        whole.put(out);
        [*output_tokens, *outputs, *cached, *computed, *sequences].put(out);
        let of = |&row: &u32| known.get(row as usize).copied().unwrap_or_default();
        rows.iter().map(of).collect::<Vec<_>>().put(out);
    }

    /// Reads what [`Speed::put`] wrote of so many rows.
    pub(crate) fn take(from: &mut Reader<'_>, count: usize) -> Option<Self> {
        let (prefill, step, whole) = (Saved::take(from)?, Saved::take(from)?, Saved::take(from)?);
        let [output_tokens, outputs, cached, computed, sequences] = Saved::take(from)?;
        let rows = Vec::take(from)?;
        let found = Self {
            prefill,
            step,
            whole,
            rows,
            output_tokens,
            outputs,
            cached,
            computed,
            sequences,
            epoch: 0.0,
        };
        let is_sane = found.prefill.is_sane() && found.step.is_sane();
        (is_sane && found.rows.len() == count).then_some(found)
    }

    /// Takes the constants over, and of each row what is its own.
    pub(crate) fn restore(&mut self, table: &mut StatTable, saved: Self, rows: &[u32]) {
        let (known, epoch) = (std::mem::take(&mut self.rows), self.epoch);
        let theirs = saved.rows.clone();
        *self = Self { rows: known, epoch, ..saved };
        for (&row, speed) in rows.iter().zip(theirs) {
            *self.row(row) = speed;
            self.publish(table, row);
        }
    }
}
