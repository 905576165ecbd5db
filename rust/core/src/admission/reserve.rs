//! Who has waited longest gets an endpoint kept free.

use crate::stats::StatTable;

/// An endpoint that takes nobody else until the waiter fits.
#[derive(Debug, Clone, Copy)]
struct Reserve {
    waiter: u64,
    row: u32,
    id: Option<u64>,
}

/// All that are kept free.
#[derive(Debug, Default)]
pub(super) struct Reserves(Vec<Reserve>);

impl Reserves {
    /// Whether the row is kept free for anybody but this waiter.
    pub fn is_kept(&self, row: u32, but: Option<u64>) -> bool {
        self.0.iter().any(|reserve| reserve.row == row && Some(reserve.waiter) != but)
    }

    /// Whether one is kept free for the waiter.
    pub fn has(&self, waiter: u64) -> bool {
        self.0.iter().any(|reserve| reserve.waiter == waiter)
    }

    /// The waiter needs none any more.
    pub fn release(&mut self, waiter: u64) {
        self.0.retain(|reserve| reserve.waiter != waiter);
    }

    /// The one of the candidates `rows` that is kept free for the waiter: from now on the one that
    /// would be fullest least, if none was.
    pub fn keep(
        &mut self,
        waiter: u64,
        table: &StatTable,
        rows: impl Iterator<Item = u32> + Clone,
        mut share: impl FnMut(usize, u32) -> f64,
    ) -> Option<(usize, u32)> {
        if let Some(at) = self.0.iter().position(|reserve| reserve.waiter == waiter) {
            let Reserve { row, id, .. } = self.0[at];
            if table.id(row) == id
                && let Some(pos) = rows.clone().position(|other| other == row)
            {
                return Some((pos, row));
            }
            self.0.swap_remove(at); // it is gone, or out
        }
        let mut least: Option<(f64, usize, u32)> = None;
        for (pos, row) in rows.enumerate() {
            if self.is_kept(row, None) {
                continue;
            }
            let share = share(pos, row);
            if least.is_none_or(|(other, ..)| share < other) {
                least = Some((share, pos, row));
            }
        }
        let (_, pos, row) = least?;
        self.0.push(Reserve { waiter, row, id: table.id(row) });
        Some((pos, row))
    }
}
