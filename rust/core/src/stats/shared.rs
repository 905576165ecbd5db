//! What other routers have on the endpoints: added to the columns, and told apart from own.

use super::parts::Parts;
use super::{SHARED, Stat, StatTable, place};

impl StatTable {
    /// From now on columns may have a part that is others'.
    pub fn share(&mut self) {
        if self.parts.is_none() {
            let own = SHARED.map(|stat| self.column(stat));
            self.parts = Some(Box::new(Parts::of(own)));
        }
    }

    /// What this router has there itself: the value, less what others told.
    pub fn own(&self, stat: Stat, row: u32) -> f64 {
        match (&self.parts, place(stat)) {
            (Some(parts), Some(place)) => parts.own(place, row as usize),
            _ => self.get(stat, row),
        }
    }

    /// What other routers told that they have there.
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
