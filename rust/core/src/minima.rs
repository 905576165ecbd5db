//! The least of a column, kept block by block while values change.
//!
//! A pick then looks at one summary per 64 rows, and at the rows of a single block.

use std::ops::Range;

/// Rows of a block.
const BLOCK: usize = 64;
/// Values compared side by side: what the compiler turns into vector instructions.
const LANES: usize = 8;

/// The least of some values and how many have it; `NaN` is never the least.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Least {
    /// Infinity where no value is known.
    pub value: f64,
    /// How many equal it.
    pub equals: usize,
}

impl Least {
    const NONE: Self = Self { value: f64::INFINITY, equals: 0 };

    /// The least of `values`.
    pub fn of(values: &[f64]) -> Self {
        let mut lanes = [f64::INFINITY; LANES];
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, &value) in lanes.iter_mut().zip(chunk) {
                *lane = if value < *lane { value } else { *lane };
            }
        }
        let value = lanes.iter().chain(rest).copied().fold(f64::INFINITY, f64::min);
        let equals: u64 = values.iter().map(|&v| u64::from(v == value)).sum();
        Self { value, equals: equals as usize }
    }

    /// The least of both parts.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        if other.value < self.value {
            other
        } else if other.value == self.value {
            Self { equals: self.equals + other.equals, ..self }
        } else {
            self
        }
    }
}

/// Place of the `nth` value that equals `value`.
fn nth(values: &[f64], value: f64, mut nth: usize) -> Option<usize> {
    for (at, chunk) in values.chunks(LANES).enumerate() {
        let here: usize = chunk.iter().map(|&v| usize::from(v == value)).sum();
        if nth < here {
            let inside = chunk.iter().enumerate().filter(|&(_, &v)| v == value).nth(nth);
            return inside.map(|(pos, _)| at * LANES + pos);
        }
        nth -= here;
    }
    None
}

/// The [`Least`] of each block of a column.
#[derive(Debug, Clone, Default)]
pub struct Minima {
    blocks: Vec<Least>,
}

impl Minima {
    /// Looks at the whole column anew.
    pub fn rebuild(&mut self, column: &[f64]) {
        self.blocks.clear();
        self.blocks.extend(column.chunks(BLOCK).map(Least::of));
    }

    /// Takes note that a value of the column is no longer `old`; a new last row has none.
    pub fn update(&mut self, column: &[f64], row: usize, old: Option<f64>) {
        let new = column[row];
        let at = row / BLOCK;
        if at == self.blocks.len() {
            self.blocks.push(Least::NONE);
        }
        let block = &mut self.blocks[at];
        if new < block.value {
            *block = Least { value: new, equals: 1 };
            return;
        }
        block.equals -= usize::from(old == Some(block.value));
        block.equals += usize::from(new == block.value);
        if block.equals == 0 {
            let end = column.len().min((at + 1) * BLOCK);
            *block = Least::of(&column[at * BLOCK..end]);
        }
    }

    /// The least among `rows` of the column.
    pub fn least(&self, column: &[f64], rows: Range<usize>) -> Least {
        let parts = parts(rows, column.len());
        parts.fold(Least::NONE, |least, part| least.with(self.part(column, &part)))
    }

    /// The row of the `nth` value among `rows` that equals `value`; else how many do not remain.
    pub fn nth(
        &self,
        column: &[f64],
        rows: Range<usize>,
        value: f64,
        mut left: usize,
    ) -> Result<usize, usize> {
        for part in parts(rows, column.len()) {
            let Least { value: least, equals } = self.part(column, &part);
            let here = if least == value { equals } else { 0 };
            if left < here {
                return nth(&column[part.clone()], value, left)
                    .map(|at| part.start + at)
                    .ok_or(left);
            }
            left -= here;
        }
        Err(left)
    }

    fn part(&self, column: &[f64], part: &Range<usize>) -> Least {
        let whole = part.start % BLOCK == 0 && (part.len() == BLOCK || part.end == column.len());
        if whole { self.blocks[part.start / BLOCK] } else { Least::of(&column[part.clone()]) }
    }
}

/// `rows` cut at the borders of blocks.
fn parts(rows: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    let (start, end) = (rows.start, rows.end.min(len));
    let blocks = start / BLOCK..end.div_ceil(BLOCK).max(start / BLOCK);
    blocks.map(move |at| start.max(at * BLOCK)..end.min((at + 1) * BLOCK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn summaries_stay_true_while_values_change() {
        let mut rng = Rng::new(1);
        let (mut column, mut minima) = (Vec::new(), Minima::default());
        for _ in 0..200 {
            column.push(0.0);
            minima.update(&column, column.len() - 1, None);
        }
        for _ in 0..5_000 {
            let row = rng.below(200);
            let value = if rng.below(20) == 0 { f64::NAN } else { rng.below(3) as f64 };
            let old = std::mem::replace(&mut column[row], value);
            minima.update(&column, row, Some(old));
            let (a, b) = (rng.below(201), rng.below(201));
            let rows = a.min(b)..a.max(b);
            let least = minima.least(&column, rows.clone());
            assert_eq!(least, Least::of(&column[rows.clone()]));
            for left in 0..least.equals {
                let mut same = rows.clone().filter(|&row| column[row] == least.value);
                let found = minima.nth(&column, rows.clone(), least.value, left);
                assert_eq!(found.ok(), same.nth(left));
            }
        }
        let mut anew = Minima::default();
        anew.rebuild(&column);
        assert_eq!(anew.blocks, minima.blocks);
    }
}
