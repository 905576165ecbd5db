//! The least of a column, kept block by block while values change.
//!
//! A pick then looks at one summary per 64 rows instead of at every row.

use std::ops::Range;

/// Rows of a block: a bit of a word each.
const BLOCK: usize = 64;

/// The least value of a block and the rows that have it, a bit each; `NaN` is never the least.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Block {
    least: f64,
    rows: u64,
}

impl Block {
    const NONE: Self = Self { least: f64::INFINITY, rows: 0 };

    /// Looks at up to 64 values. No branches, so that the compiler makes vector code of it.
    fn of(values: &[f64]) -> Self {
        const LANES: usize = 8;
        let mut lanes = [f64::INFINITY; LANES];
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, &value) in lanes.iter_mut().zip(chunk) {
                *lane = if value < *lane { value } else { *lane };
            }
        }
        let least = lanes.iter().chain(rest).copied().fold(f64::INFINITY, f64::min);
        let bits = values.iter().enumerate().map(|(at, &v)| u64::from(v == least) << at);
        Self { least, rows: bits.fold(0, |rows, bit| rows | bit) }
    }
}

impl Block {
    fn count(&self, value: f64) -> usize {
        if self.least == value { self.rows.count_ones() as usize } else { 0 }
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// How many bytes of `counts` are at most `most`; both are less than 128.
fn at_most(counts: u64, most: u64) -> u64 {
    let yes = ((ONES * most) | HIGH).wrapping_sub(counts) & HIGH;
    (yes >> 7).wrapping_mul(ONES) >> 56
}

/// Place of the `nth` bit that is set, of which there are more than `nth`. Without a branch: which
/// bit it is cannot be foreseen.
fn nth_bit(bits: u64, nth: u32) -> usize {
    let pairs = bits - (bits >> 1 & 0x5555_5555_5555_5555);
    let fours = (pairs & 0x3333_3333_3333_3333) + (pairs >> 2 & 0x3333_3333_3333_3333);
    let bytes = (fours + (fours >> 4)) & 0x0F0F_0F0F_0F0F_0F0F;
    // How many there are up to each byte; then, in the byte where it is, up to each bit.
    let upto = bytes.wrapping_mul(ONES);
    let shift = 8 * at_most(upto, u64::from(nth)).min(7);
    let before = (upto << 8) >> shift & 0xFF;
    let spread = (bits >> shift & 0xFF).wrapping_mul(ONES) & 0x8040_2010_0804_0201;
    let each = (spread + !HIGH) >> 7 & ONES;
    let within = at_most(each.wrapping_mul(ONES), u64::from(nth).wrapping_sub(before) & 7);
    (shift + within) as usize
}

/// The least value and how many rows have it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Least {
    /// Infinity where no value is known.
    pub value: f64,
    /// Rows that have it.
    pub equals: usize,
}

/// Some rows as a part of a block, whole blocks, and a part of a block, each with its first row.
struct Cut<'a> {
    head: (usize, Block),
    blocks: (usize, &'a [Block]),
    tail: (usize, Block),
}

impl Cut<'_> {
    fn least(&self) -> Least {
        let less =
            |value: f64, block: &Block| if block.least < value { block.least } else { value };
        let blocks = self.blocks.1;
        let value = blocks.iter().fold(less(self.head.1.least, &self.tail.1), less);
        let ends = self.head.1.count(value) + self.tail.1.count(value);
        let inner: usize = blocks.iter().map(|block| block.count(value)).sum();
        Least { value, equals: ends + inner }
    }

    fn nth(&self, value: f64, mut nth: usize) -> Result<usize, usize> {
        let (start, blocks) = self.blocks;
        let inner = blocks.iter().enumerate().map(|(at, &block)| (start + at * BLOCK, block));
        for (start, block) in [self.head].into_iter().chain(inner).chain([self.tail]) {
            let here = block.count(value);
            if nth < here {
                return Ok(start + nth_bit(block.rows, nth as u32));
            }
            nth -= here;
        }
        Err(nth)
    }
}

/// The least of each block of a column.
#[derive(Debug, Clone, Default)]
pub struct MinIndex {
    blocks: Vec<Block>,
}

impl MinIndex {
    /// Looks at the whole column anew.
    pub fn rebuild(&mut self, column: &[f64]) {
        self.blocks.clear();
        self.blocks.extend(column.chunks(BLOCK).map(Block::of));
    }

    /// Takes note of a value of the column that changed, or of a new last row.
    pub fn update(&mut self, column: &[f64], row: usize) {
        let (at, bit) = (row / BLOCK, 1 << (row % BLOCK));
        if at == self.blocks.len() {
            self.blocks.push(Block::NONE);
        }
        let (new, block) = (column[row], &mut self.blocks[at]);
        if new < block.least {
            *block = Block { least: new, rows: bit };
        } else if new == block.least {
            block.rows |= bit;
        } else {
            block.rows &= !bit;
            if block.rows == 0 {
                let end = column.len().min((at + 1) * BLOCK);
                *block = Block::of(&column[at * BLOCK..end]);
            }
        }
    }

    /// The least among `rows` of the column.
    pub fn least(&self, column: &[f64], rows: Range<usize>) -> Least {
        self.cut(column, rows).least()
    }

    /// The row of the `nth` value among `rows` that equals `value`; else how many do not remain.
    ///
    /// # Errors
    /// When fewer have it: `nth` less their number.
    pub fn nth(
        &self,
        column: &[f64],
        rows: Range<usize>,
        value: f64,
        nth: usize,
    ) -> Result<usize, usize> {
        self.cut(column, rows).nth(value, nth)
    }

    /// A row with the least value among `rows`: of so many the one that `which` names. `None`
    /// where no value is known.
    pub fn draw(
        &self,
        column: &[f64],
        rows: Range<usize>,
        which: impl FnOnce(usize) -> usize,
    ) -> Option<usize> {
        let cut = self.cut(column, rows);
        if let (0, [block], 0) = (cut.head.1.rows, cut.blocks.1, cut.tail.1.rows) {
            let equals = block.rows.count_ones();
            let nth = || which(equals as usize) as u32;
            return (equals > 0).then(|| cut.blocks.0 + nth_bit(block.rows, nth()));
        }
        let Least { value, equals } = cut.least();
        if equals == 0 { None } else { cut.nth(value, which(equals)).ok() }
    }

    fn cut(&self, column: &[f64], rows: Range<usize>) -> Cut<'_> {
        let first = rows.start.div_ceil(BLOCK);
        let all = rows.end == column.len();
        let last = if all { self.blocks.len() } else { rows.end / BLOCK }.max(first);
        let head = rows.start..rows.end.min(first * BLOCK);
        let tail = (last * BLOCK).min(rows.end)..rows.end;
        let blocks = &self.blocks[first.min(self.blocks.len())..last.min(self.blocks.len())];
        let start = |rows: &Range<usize>| rows.start / BLOCK * BLOCK;
        Cut {
            head: (start(&head), self.part(column, head)),
            blocks: (first * BLOCK, blocks),
            tail: (start(&tail), self.part(column, tail)),
        }
    }

    /// The summary of the part of a block.
    fn part(&self, column: &[f64], part: Range<usize>) -> Block {
        if part.is_empty() {
            return Block::NONE;
        }
        let (at, shift) = (part.start / BLOCK, part.start % BLOCK);
        let block = self.blocks[at];
        let rows = block.rows & (u64::MAX >> (BLOCK - part.len())) << shift;
        if rows != 0 {
            return Block { rows, ..block };
        }
        let here = Block::of(&column[part]);
        Block { rows: here.rows << shift, ..here }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn summaries_stay_true_while_values_change() {
        let mut rng = Rng::new(1);
        let (mut column, mut min_index) = (Vec::new(), MinIndex::default());
        for row in 0..200 {
            column.push(0.0);
            min_index.update(&column, row);
        }
        for _ in 0..20_000 {
            let row = rng.below(200);
            column[row] = if rng.below(20) == 0 { f64::NAN } else { rng.below(5) as f64 };
            min_index.update(&column, row);
            let (a, b) = (rng.below(200), rng.below(200));
            let rows = a.min(b)..a.max(b) + 1;
            let value = column[rows.clone()].iter().copied().fold(f64::INFINITY, f64::min);
            let same: Vec<usize> = rows.clone().filter(|&row| column[row] == value).collect();
            let least = Least { value, equals: same.len() };
            assert_eq!(min_index.least(&column, rows.clone()), least);
            for (nth, &row) in same.iter().enumerate() {
                assert_eq!(min_index.nth(&column, rows.clone(), value, nth), Ok(row));
            }
            assert_eq!(min_index.nth(&column, rows.clone(), value, same.len() + 3), Err(3));
            for (nth, &row) in same.iter().enumerate() {
                let drawn = min_index.draw(&column, rows.clone(), |equals| {
                    assert_eq!(equals, same.len());
                    nth
                });
                assert_eq!(drawn, Some(row));
            }
        }
        let mut anew = MinIndex::default();
        anew.rebuild(&column);
        assert_eq!(anew.blocks, min_index.blocks);
    }
}
