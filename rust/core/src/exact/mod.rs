//! The exact index: which token blocks an engine holds, by its own stored and removed events.
//!
//! Read in this order: [`keys`] (how blocks are named), [`holders`] (block → lanes), this file
//! (rows over lanes, and the match), [`decode`] (bytes → events), [`stream`] (sequence numbers →
//! what to do), [`publisher`] (one engine's events → edits), [`feed`] (all publishers).
//!
//! Lookups read [`ExactIndex`] alone, under a read lock. Decoding, hashing and the engines' own
//! hash maps are the [`feed`]'s; it takes the write lock for a few hundred edits at a time.

pub mod counters;
pub mod decode;
mod engine_map;
pub mod event;
pub mod extras;
pub mod feed;
pub mod holders;
pub mod keys;
mod msgpack;
pub mod publisher;
mod slots;
pub mod stream;
mod view;

use std::collections::{HashMap, HashSet};

pub use feed::Feed;
use holders::{Edit, Holders, MAX_LANES};
pub use msgpack::Unreadable;

/// Where in an engine a block lies, fastest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Accelerator memory.
    Device,
    /// The host's memory.
    Host,
    /// Disk or other storage of the engine's own.
    Disk,
}

impl Tier {
    /// Fastest first.
    pub const ALL: [Self; TIERS] = [Self::Device, Self::Host, Self::Disk];
}

/// Adapters that are distinguished from base models, at most.
const MAX_ADAPTERS: usize = 1 << 16;

/// Number of tiers.
pub const TIERS: usize = 3;

/// The lane of each tier "or faster". Tiers that were never seen share the faster one's lane.
pub type Lanes = [u32; TIERS];

/// What one data-parallel rank of a row holds.
#[derive(Debug, Clone)]
struct Rank {
    rank: u32,
    /// Tokens of its blocks; 0 until the first is stored.
    block: u32,
    /// Whether its events are complete. Not so: what it holds may be more, never less.
    exact: bool,
    /// Whether it had nothing to tell so far, as an idle rank beside others.
    fresh: bool,
    /// While a loss is being made good nothing of it counts.
    suspended: bool,
    /// One entry per cache group; a block counts as held where all groups hold it.
    groups: Vec<Lanes>,
}

#[derive(Debug, Clone, Default)]
struct Row {
    id: u64,
    used: bool,
    /// Another endpoint is said to have the same publisher: whose blocks it tells is not known.
    shared: bool,
    /// Answers contradicted its events again and again.
    doubted: bool,
    ranks: Vec<Rank>,
}

/// Working memory of a match, kept by the caller so that a lookup allocates nothing.
#[derive(Debug, Clone, Default)]
pub struct Scratch {
    alive: Vec<u64>,
    depth: Vec<u32>,
}

/// Blocks held per row, answered from packed tables. See the module for who may change it.
#[derive(Debug, Clone)]
pub struct ExactIndex {
    seed: u64,
    holders: Holders,
    rows: Vec<Row>,
    ids: HashMap<u64, u32>,
    lanes: u32,
    free_lanes: Vec<u32>,
    /// Adapters that any engine stored blocks of, by [`keys::text_key`] of their names.
    adapters: HashSet<u64>,
}

impl ExactIndex {
    /// An empty index. `seed` enters all keys: a fixed one makes them repeatable.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            holders: Holders::default(),
            rows: Vec::new(),
            ids: HashMap::new(),
            lanes: 0,
            free_lanes: Vec::new(),
            adapters: HashSet::new(),
        }
    }

    /// What a chain of this model starts from: engines serve adapters under names of their own.
    pub fn root(&self, model: Option<&[u8]>) -> u64 {
        let adapter = model.map(keys::text_key).filter(|key| self.adapters.contains(key));
        keys::root(self.seed, adapter.unwrap_or(0))
    }

    /// Takes note of an adapter, up to a bound that no fleet reaches.
    pub(crate) fn add_adapter(&mut self, key: u64) {
        if self.adapters.len() < MAX_ADAPTERS {
            self.adapters.insert(key);
        }
    }

    /// All endpoints with events: id and row.
    pub fn endpoints(&self) -> impl Iterator<Item = (u64, u32)> {
        self.ids.iter().map(|(&id, &row)| (id, row))
    }

    /// The seed of all keys.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The row of an endpoint id, given one if it has none.
    pub fn add_row(&mut self, id: u64) -> u32 {
        if let Some(&row) = self.ids.get(&id) {
            return row;
        }
        let row = self.rows.iter().position(|row| !row.used).unwrap_or(self.rows.len());
        let fresh = Row { id, used: true, ..Row::default() };
        if row == self.rows.len() {
            self.rows.push(fresh);
        } else {
            self.rows[row] = fresh;
        }
        self.ids.insert(id, row as u32);
        row as u32
    }

    /// The row of an endpoint id; none if no events of it are known.
    pub fn row(&self, id: u64) -> Option<u32> {
        self.ids.get(&id).copied()
    }

    /// Frees a row whose lanes were all given back; it may then be another endpoint's.
    pub(crate) fn free_row(&mut self, row: u32) {
        let row = std::mem::take(&mut self.rows[row as usize]);
        self.ids.remove(&row.id);
    }

    /// Tokens of a row's blocks; 0 while not known.
    pub fn block(&self, row: u32) -> u32 {
        let ranks = self.rows.get(row as usize).map_or(&[][..], |row| &row.ranks);
        ranks.iter().map(|rank| rank.block).find(|&block| block > 0).unwrap_or(0)
    }

    /// Whether the row's events are complete, so that a block not held here is not held at all.
    ///
    /// Where this is false the depths are still true, but other sources may know more.
    pub fn is_exact(&self, row: u32) -> bool {
        self.is_complete(row) && !self.rows[row as usize].doubted
    }

    /// The same, whether what it tells is believed or not.
    pub fn is_complete(&self, row: u32) -> bool {
        self.rows.get(row as usize).is_some_and(|row| {
            !row.shared
                && row.ranks.iter().any(|rank| rank.exact)
                && row.ranks.iter().all(|rank| (rank.exact || rank.fresh) && !rank.suspended)
        })
    }

    /// Sets whether answers contradicted the row's events again and again.
    pub fn set_doubted(&mut self, row: u32, doubted: bool) {
        if let Some(row) = self.rows.get_mut(row as usize) {
            row.doubted = doubted;
        }
    }

    /// Sets whether another endpoint is said to have the same publisher: then neither counts.
    pub fn set_shared(&mut self, row: u32, shared: bool) {
        if let Some(row) = self.rows.get_mut(row as usize) {
            row.shared = shared;
        }
    }

    /// Leading blocks of a chain of keys that each row holds, on any tier.
    ///
    /// Contiguous only, from the first block on. Of several ranks the best counts; a rank whose
    /// blocks have another size than the row's counts as empty. Unknown rows hold nothing.
    pub fn match_into(&self, keys: &[u64], rows: &[u32], out: &mut [u32], scratch: &mut Scratch) {
        self.walk(keys, rows, scratch, TIERS - 1..TIERS);
        for (out, &row) in out.iter_mut().zip(rows) {
            *out = self.depth(row, TIERS - 1, scratch);
        }
    }

    /// Like [`match_into`](Self::match_into), per tier: on the device, or host too, or disk too.
    ///
    /// Each figure includes the faster tiers: an engine first takes its device's prefix, then goes
    /// on from the slower ones. Credit = d + (h - d) × host + (k - h) × disk.
    pub fn match_tiers_into(
        &self,
        keys: &[u64],
        rows: &[u32],
        out: &mut [[u32; TIERS]],
        scratch: &mut Scratch,
    ) {
        self.walk(keys, rows, scratch, 0..TIERS);
        for (out, &row) in out.iter_mut().zip(rows) {
            *out = [0, 1, 2].map(|tier| self.depth(row, tier, scratch));
        }
    }

    fn usable_ranks(&self, row: u32) -> impl Iterator<Item = &Rank> {
        let block = self.block(row);
        let row = self.rows.get(row as usize).filter(|row| !row.shared);
        let ranks = row.map_or(&[][..], |row| &row.ranks);
        ranks.iter().filter(move |rank| !rank.suspended && rank.block == block)
    }

    fn walk(
        &self,
        keys: &[u64],
        rows: &[u32],
        scratch: &mut Scratch,
        tiers: std::ops::Range<usize>,
    ) {
        scratch.alive.clear();
        scratch.alive.resize(self.holders.stride(), 0);
        scratch.depth.resize(self.lanes as usize, 0);
        for &row in rows {
            for lanes in self.usable_ranks(row).flat_map(|rank| &rank.groups) {
                for &lane in &lanes[tiers.clone()] {
                    scratch.alive[lane as usize / 64] |= 1 << (lane % 64);
                    scratch.depth[lane as usize] = keys.len() as u32;
                }
            }
        }
        let depth = &mut scratch.depth;
        self.holders.walk(keys, &mut scratch.alive, |lane, at| depth[lane as usize] = at);
    }

    fn depth(&self, row: u32, tier: usize, scratch: &Scratch) -> u32 {
        let of_rank = |rank: &Rank| {
            let depths = rank.groups.iter().map(|lanes| scratch.depth[lanes[tier] as usize]);
            depths.min().unwrap_or(0)
        };
        self.usable_ranks(row).map(of_rank).max().unwrap_or(0)
    }

    /// Applies changes in order.
    pub(crate) fn edit(&mut self, edits: &[Edit]) {
        self.holders.edit(edits);
    }

    /// A lane that holds nothing yet; none once [`MAX_LANES`] are in use.
    pub(crate) fn take_lane(&mut self) -> Option<u32> {
        if let Some(lane) = self.free_lanes.pop() {
            return Some(lane);
        }
        if self.lanes == MAX_LANES {
            return None;
        }
        self.lanes += 1;
        self.holders.widen(self.lanes as usize);
        Some(self.lanes - 1)
    }

    /// Gives lanes back; they must hold nothing.
    pub(crate) fn free_lanes(&mut self, mut lanes: Lanes) {
        lanes.sort_unstable();
        for (at, lane) in lanes.iter().enumerate() {
            if at == 0 || lanes[at - 1] != *lane {
                self.free_lanes.push(*lane);
            }
        }
    }

    /// Sets what is known of a rank. Rows that were freed stay so.
    pub(crate) fn set_rank(&mut self, row: u32, rank: u32, state: RankState) {
        let Some(row) = self.rows.get_mut(row as usize) else { return };
        let at = row.ranks.iter().position(|known| known.rank == rank).unwrap_or_else(|| {
            let RankState { block, exact, fresh, suspended } = state;
            row.ranks.push(Rank { rank, block, exact, fresh, suspended, groups: Vec::new() });
            row.ranks.len() - 1
        });
        let known = &mut row.ranks[at];
        (known.block, known.exact) = (state.block, state.exact);
        (known.fresh, known.suspended) = (state.fresh, state.suspended);
    }

    /// The lanes of a rank's groups, as they are now.
    pub(crate) fn set_groups(&mut self, row: u32, rank: u32, groups: impl Iterator<Item = Lanes>) {
        let Some(row) = self.rows.get_mut(row as usize) else { return };
        if let Some(known) = row.ranks.iter_mut().find(|known| known.rank == rank) {
            known.groups = groups.collect();
        }
    }

    /// Different blocks that any row holds.
    pub fn blocks(&self) -> usize {
        self.holders.blocks()
    }

    /// Bytes on the heap, without the feed's engine maps.
    pub fn bytes(&self) -> usize {
        self.holders.bytes() + self.rows.capacity() * size_of::<Row>()
    }
}

/// What a publisher tells the index of its rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RankState {
    pub block: u32,
    pub exact: bool,
    pub fresh: bool,
    pub suspended: bool,
}
