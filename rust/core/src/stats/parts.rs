//! Stats that are a sum: what is this router's own, and what others reported of theirs.

/// How many stats others add to.
pub const SHARED: usize = 11;

/// Both parts of the shared stats of one row.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    own: [f64; SHARED],
    others: [f64; SHARED],
}

/// Both parts of every shared stat. The columns have the sums.
#[derive(Debug, Clone, Default)]
pub struct Parts(Vec<Row>);

impl Parts {
    /// Of columns that have been this router's alone.
    pub fn of(columns: [&[f64]; SHARED]) -> Self {
        let rows = columns[0].len();
        let own = |row: usize| columns.map(|column| column.get(row).copied().unwrap_or(0.0));
        Self((0..rows).map(|row| Row { own: own(row), ..Row::default() }).collect())
    }

    /// The own part after a change of it; the sum is returned.
    pub fn change(&mut self, place: usize, row: usize, change: impl FnOnce(f64) -> f64) -> f64 {
        let Row { own, others } = self.row(row);
        own[place] = change(own[place]);
        own[place] + others[place]
    }

    /// Others have this much there now; the sum is returned.
    pub fn set_others(&mut self, place: usize, row: usize, value: f64) -> f64 {
        let Row { own, others } = self.row(row);
        others[place] = value;
        own[place] + value
    }

    /// Both parts times this; the sum is returned.
    pub fn scale(&mut self, place: usize, row: usize, factor: f64) -> f64 {
        let Row { own, others } = self.row(row);
        own[place] *= factor;
        others[place] *= factor;
        own[place] + others[place]
    }

    /// Nobody has anything there.
    pub fn blank(&mut self, row: usize) {
        *self.row(row) = Row::default();
    }

    /// The part of this router.
    pub fn own(&self, place: usize, row: usize) -> f64 {
        self.0.get(row).map_or(0.0, |row| row.own[place])
    }

    /// The part of all others.
    pub fn others(&self, place: usize, row: usize) -> f64 {
        self.0.get(row).map_or(0.0, |row| row.others[place])
    }

    fn row(&mut self, row: usize) -> &mut Row {
        if self.0.len() <= row {
            self.0.resize(row + 1, Row::default());
        }
        &mut self.0[row]
    }
}
