//! What other routers have on the endpoints: added to the columns, and kept apart from own.

use super::parts::{self, Parts};
use super::{Stat, StatTable};

/// The stats that other routers' requests add to.
const SHARED: [Stat; parts::SHARED] = [
    Stat::InFlight,
    Stat::InPrefill,
    Stat::InDecoding,
    Stat::QueuedTokens,
    Stat::QueuedMs,
    Stat::QueuedPairs,
    Stat::ContextTokens,
    Stat::KvTokens,
    Stat::Qps,
    Stat::PrefillSent,
    Stat::RequestsSent,
];

/// Where each stat stands in [`SHARED`].
const PLACES: [Option<u8>; Stat::ALL.len()] = {
    let mut places = [None; Stat::ALL.len()];
    let mut at = 0;
    while at < SHARED.len() {
        places[SHARED[at] as usize] = Some(at as u8);
        at += 1;
    }
    places
};

fn place(stat: Stat) -> Option<usize> {
    PLACES[stat as usize].map(usize::from)
}

impl StatTable {
    /// Changes one value, and the summary of the loads with it.
    pub(super) fn put(&mut self, stat: Stat, row: u32, change: impl FnOnce(f64) -> f64) {
        let column = &mut self.columns[stat as usize];
        let Some(slot) = column.get_mut(row as usize) else { return };
        *slot = match (&mut self.parts, place(stat)) {
            (Some(parts), Some(place)) => parts.change(place, row as usize, change),
            _ => change(*slot),
        };
        if stat == Stat::InFlight {
            self.min_index.update(column, row as usize);
        }
    }

    /// From now on columns may have a part that is others'.
    pub fn share(&mut self) {
        if self.parts.is_none() {
            let own = SHARED.map(|stat| self.column(stat));
            self.parts = Some(Box::new(Parts::of(own)));
        }
    }

    /// Whether columns may have a part that is others'.
    pub fn is_shared(&self) -> bool {
        self.parts.is_some()
    }

    /// What this router has there itself: the value, less what others reported.
    pub fn own(&self, stat: Stat, row: u32) -> f64 {
        match (&self.parts, place(stat)) {
            (Some(parts), Some(place)) => parts.own(place, row as usize),
            _ => self.get(stat, row),
        }
    }

    /// What other routers reported that they have there.
    pub fn others(&self, stat: Stat, row: u32) -> f64 {
        match (&self.parts, place(stat)) {
            (Some(parts), Some(place)) => parts.others(place, row as usize),
            _ => 0.0,
        }
    }

    /// Others have this much there now. For the stats that are sums, once they are
    /// [shared](Self::share); of the others nothing changes.
    pub fn set_others(&mut self, stat: Stat, row: u32, value: f64) {
        if let (Some(parts), Some(place)) = (&mut self.parts, place(stat))
            && value.is_finite()
            && (row as usize) < self.ids.len()
            && parts.others(place, row as usize) != value
        {
            let sum = parts.set_others(place, row as usize, value);
            self.store(stat, row, sum);
        }
    }

    /// All values of a stat times this, whosever they are.
    pub fn scale(&mut self, stat: Stat, factor: f64) {
        for row in 0..self.rows() as u32 {
            let value = match (&mut self.parts, place(stat)) {
                (Some(parts), Some(place)) => parts.scale(place, row as usize, factor),
                _ => factor * self.get(stat, row),
            };
            self.store(stat, row, value);
        }
    }

    fn store(&mut self, stat: Stat, row: u32, value: f64) {
        let column = &mut self.columns[stat as usize];
        column[row as usize] = value;
        if stat == Stat::InFlight {
            self.min_index.update(column, row as usize);
        }
    }
}
