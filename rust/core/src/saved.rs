//! Learned state as bytes, so that a restart is warm: all of it or nothing.
//!
//! Layout: magic, [`VERSION`], what the index's hashes were made with, the learned parts in the order
//! of their `saved!` lines, and xxh3-64 of all that is before it. Requests in flight, windows, scraped
//! stats and clocks are of one process and are not in it.

use crate::bytes::{Reader, Saved, saved};
use crate::error::{RouteError, fail};
use crate::fleet::Fleet;
use crate::hash::digest;
use crate::index::PrefixIndex;
use crate::sizes::{Belief, Sizes};
use crate::speed::Speed;

/// Raise it whenever the layout changes; `the_layout_is_of_this_version` notices.
pub const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"routcore";
/// Blocks of an index that is written, at most: 128 MiB of them. A larger one is left out.
const MOST_BLOCKS: usize = 1 << 24;

/// What the hashes of an index were made with: of another making, they mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashing {
    /// Seed of the hashes.
    pub seed: u64,
    /// Bytes of text in a block; 0: nobody knows, and the index is left out.
    pub block_chars: u32,
    /// Token ids in a block.
    pub block_tokens: u32,
}
saved!(Hashing { seed, block_chars, block_tokens });

/// Reads what the bytes begin with.
///
/// # Errors
/// They are no saved state, or one of another version.
pub fn hashing(bytes: &[u8]) -> Result<Hashing, RouteError> {
    let mut from = Reader(bytes);
    if <[u8; 8]>::take(&mut from) != Some(MAGIC) {
        fail!("no saved state of routecore");
    }
    match u32::take(&mut from) {
        Some(VERSION) => {}
        Some(other) => fail!(
            "saved state has format {other}, this version reads {VERSION}; delete it, and the \
             router learns anew"
        ),
        None => fail!("saved state is cut short"),
    }
    Hashing::take(&mut from).ok_or_else(|| RouteError("saved state is cut short".to_owned()))
}

/// What is read before anything is changed.
#[derive(Debug)]
pub(crate) struct Learned {
    speed: Speed,
    sizes: Sizes,
    beliefs: Vec<Belief>,
    index: Option<PrefixIndex>,
}

impl Fleet {
    /// What was learned, of the endpoints in `rows`, in their order.
    pub fn save(&self, rows: &[u32], hashing: Hashing) -> Vec<u8> {
        self.save_within(rows, hashing, MOST_BLOCKS)
    }

    /// [`Fleet::save`] without an index of more than so many blocks.
    pub(crate) fn save_within(&self, rows: &[u32], hashing: Hashing, most: usize) -> Vec<u8> {
        let mut out = Vec::new();
        MAGIC.put(&mut out);
        VERSION.put(&mut out);
        hashing.put(&mut out);
        rows.len().put(&mut out);
        self.speed.put(rows, &mut out);
        self.sizes.put(&mut out);
        let belief = |&row: &u32| self.beliefs.get(row as usize).copied().unwrap_or_default();
        rows.iter().map(belief).collect::<Vec<_>>().put(&mut out);
        let index = self.index.read();
        let is_kept = hashing.block_chars > 0 && index.blocks() <= most;
        is_kept.put(&mut out);
        if is_kept {
            index.put(rows, &mut out);
        }
        drop(index);
        digest(&out, 0).put(&mut out);
        out
    }

    /// Takes over what [`Fleet::save`] wrote, in place of all that is known of these rows. The index
    /// is taken only where its hashes were made alike. Returns the blocks that it holds then.
    ///
    /// # Errors
    /// Requests are in flight, or the bytes are no state for so many rows; nothing is changed then.
    pub fn load(
        &mut self,
        bytes: &[u8],
        rows: &[u32],
        hashing: Hashing,
    ) -> Result<usize, RouteError> {
        let theirs = self::hashing(bytes)?;
        if self.load.in_flight() > 0 {
            fail!("{} requests are in flight: load before the first one", self.load.in_flight());
        }
        let mut distinct = rows.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() < rows.len() {
            fail!("saved state is damaged: it has an endpoint twice");
        }
        let capacity = self.index.read().default_capacity();
        let Some(found) = Learned::read(bytes, rows, theirs == hashing, capacity) else {
            fail!("saved state is damaged: it does not add up");
        };
        let index = self.take_over(found, rows);
        let Some(index) = index else { return Ok(0) };
        let blocks = index.blocks();
        *self.index.write() = index;
        Ok(blocks)
    }

    /// Takes over what another router has learned of these rows, at any time: where it has seen
    /// more than this one. A row that is not there is passed over.
    pub(crate) fn warm(&mut self, found: Learned, rows: &[u32]) -> bool {
        let is_more = found.speed.samples() > self.speed.samples();
        if is_more {
            self.take_over(found, rows);
        }
        is_more
    }

    fn take_over(&mut self, found: Learned, rows: &[u32]) -> Option<PrefixIndex> {
        let Learned { speed, sizes, beliefs, index } = found;
        self.sizes = sizes;
        for (&row, belief) in rows.iter().zip(beliefs) {
            if self.table.id(row).is_some() {
                *self.belief(row) = belief;
            }
        }
        self.speed.restore(&mut self.table, speed, rows);
        index
    }
}

impl Learned {
    /// What was written of so many endpoints. In error: whether it is of another version.
    pub(crate) fn of(bytes: &[u8], count: usize, hashing: Hashing) -> Result<Self, bool> {
        let theirs = self::hashing(bytes).map_err(|_| bytes.starts_with(&MAGIC))?;
        let rows: Vec<u32> = (0..count as u32).collect();
        Self::read(bytes, &rows, theirs == hashing, 0).ok_or(false)
    }

    /// Takes the prefixes that are in it: by endpoint, in the order in which they leave.
    pub(crate) fn take_chains(&mut self) -> Vec<(u32, Vec<u64>)> {
        self.index.take().map_or_else(Vec::new, |index| index.chains())
    }

    fn read(bytes: &[u8], rows: &[u32], alike: bool, capacity: u32) -> Option<Self> {
        let (body, sum) = bytes.split_last_chunk::<8>()?;
        (digest(body, 0) == u64::from_le_bytes(*sum)).then_some(())?;
        let mut from = Reader(body);
        let _: ([u8; 8], u32) = (Saved::take(&mut from)?, Saved::take(&mut from)?);
        Hashing::take(&mut from)?;
        (usize::take(&mut from)? == rows.len()).then_some(())?;
        let speed = Speed::take(&mut from, rows.len())?;
        let sizes = Sizes::take(&mut from)?;
        let beliefs = Vec::<Belief>::take(&mut from)?;
        (beliefs.len() == rows.len()).then_some(())?;
        let mut index = None;
        if bool::take(&mut from)? {
            index = Some(PrefixIndex::take(&mut from, rows, capacity)?);
        }
        from.0.is_empty().then_some(Self { speed, sizes, beliefs, index: index.filter(|_| alike) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::index::Depths;
    use crate::prompt::{Prompt, Unit};
    use crate::stats::Stat;

    const HASHING: Hashing = Hashing { seed: 7, block_chars: 128, block_tokens: 16 };

    fn prompt(name: u64, blocks: u64) -> Prompt {
        let chain = (0..blocks).map(|at| (name << 32) | at).collect();
        Prompt::new(chain, 128 * blocks, 128, Unit::Bytes)
    }

    /// A fleet of three rows, two of which have served; the second is three times as slow.
    fn seasoned() -> Fleet {
        let mut fleet = Fleet::new(60.0, 600.0);
        for id in 0..3 {
            fleet.add(id);
        }
        let mut now = 0.0;
        for n in 0..60_u64 {
            let row = (n % 2) as u32;
            let prompt = prompt(n % 7, 20 + n % 7);
            fleet.chosen_for(row, &prompt, 0.0);
            fleet.sent(row, u128::from(n), now);
            now += if row == 0 { 0.2 } else { 0.6 };
            fleet.first_token(row, u128::from(n), now);
            fleet.usage(row, u128::from(n), Some(900), Some(100), Some(50));
            now += 1.0;
            fleet.end(row, u128::from(n), now, true);
        }
        fleet
    }

    fn restarted(bytes: &[u8], hashing: Hashing) -> Result<Fleet, RouteError> {
        let mut fleet = Fleet::new(60.0, 600.0);
        for id in [9, 0, 1, 2] {
            fleet.add(id);
        }
        fleet.load(bytes, &[1, 2, 3], hashing).map(|_| fleet)
    }

    #[test]
    fn a_restart_knows_speeds_sizes_and_caches() {
        let before = seasoned();
        let after = restarted(&before.save(&[0, 1, 2], HASHING), HASHING).expect("it loads");
        assert_eq!(Profiled::of(&before), Profiled::of(&after));
        for row in 0..3 {
            assert_eq!(before.index.read().held(row), after.index.read().held(row + 1));
            let slow = |fleet: &Fleet, row| fleet.table.get(Stat::PrefillSlowness, row);
            assert_eq!(slow(&before, row), slow(&after, row + 1));
        }
        assert!(after.index.read().held(1) > 0);
        assert!(
            after.table.get(Stat::PrefillSlowness, 2) > after.table.get(Stat::PrefillSlowness, 1)
        );
        let known = prompt(3, 23);
        let (mut ours, mut theirs) = (Depths::default(), Depths::default());
        before.index.read().match_into(&known.chain, &mut ours);
        after.index.read().match_into(&known.chain, &mut theirs);
        assert_eq!((ours.of(0), ours.of(1)), (theirs.of(1), theirs.of(2)));
        assert_eq!(before.tokens(&known), after.tokens(&known));
        assert_eq!(after.save(&[1, 2, 3], HASHING), before.save(&[0, 1, 2], HASHING));
    }

    #[derive(Debug, PartialEq)]
    struct Profiled([f64; 4], [f64; 3], f64, f64);

    impl Profiled {
        fn of(fleet: &Fleet) -> Self {
            let engine = fleet.engine();
            Self(engine.prefill, engine.step, engine.output_tokens, engine.reuse)
        }
    }

    #[test]
    fn hashes_of_another_making_are_left_out() {
        let before = seasoned();
        let other = Hashing { seed: 8, ..HASHING };
        let after = restarted(&before.save(&[0, 1, 2], HASHING), other).expect("it loads");
        assert_eq!(after.index.read().blocks(), 0);
        assert_eq!(Profiled::of(&before), Profiled::of(&after));
    }

    #[test]
    fn what_is_cut_changed_or_of_another_version_changes_nothing() {
        let bytes = seasoned().save(&[0, 1, 2], HASHING);
        for end in 0..bytes.len() {
            assert!(restarted(&bytes[..end], HASHING).is_err());
        }
        for at in (0..bytes.len()).step_by(7) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            assert!(restarted(&changed, HASHING).is_err(), "byte {at}");
        }
        let mut newer = bytes.clone();
        newer[8] += 1;
        let said = restarted(&newer, HASHING).expect_err("another version").0;
        assert!(said.contains("format 2, this version reads 1"), "{said}");
        assert!(restarted(&[], HASHING).expect_err("nothing").0.contains("no saved state"));
    }

    #[test]
    fn bytes_that_lie_are_refused_whatever_they_say() {
        let bytes = seasoned().save(&[0, 1, 2], HASHING);
        let body = bytes.len() - 8;
        for at in (28..body).step_by(5) {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let sum = digest(&changed[..body], 0);
                changed[body..].copy_from_slice(&sum.to_le_bytes());
                // Refused or not: what is loaded can be used.
                if let Ok(mut fleet) = restarted(&changed, HASHING) {
                    fleet.chosen_for(1, &prompt(99, 30), 0.0);
                    fleet.sent(1, 1, 1.0);
                    fleet.first_token(1, 1, 2.0);
                    fleet.end(1, 1, 3.0, true);
                }
            }
        }
    }

    #[test]
    fn a_fleet_that_has_begun_takes_nothing_over() {
        let bytes = seasoned().save(&[0, 1, 2], HASHING);
        let mut busy = seasoned();
        busy.chosen_for(0, &prompt(1, 9), 0.0);
        busy.sent(0, 777, 500.0);
        assert!(busy.load(&bytes, &[0, 1, 2], HASHING).expect_err("busy").0.contains("in flight"));
    }

    #[test]
    fn the_layout_is_of_this_version() {
        // If this fails, what is saved has changed: raise VERSION, and write the new figure here.
        let empty = Fleet::new(60.0, 600.0).save(&[], HASHING).len();
        let seasoned = seasoned().save(&[0, 1, 2], HASHING).len() - empty;
        assert_eq!((VERSION, empty, seasoned), (1, 1133, 1707));
    }
}
