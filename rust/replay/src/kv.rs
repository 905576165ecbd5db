//! The KV block cache of one engine: counted references, oldest free block out, tail first.
//!
//! Blocks are kept by segment, as runs from its start: whoever uses a block uses all before it,
//! so a segment needs two numbers (present, held) and not a record per block. Free runs stand in
//! one list, least recently freed first, and lose their tail blocks first.

use crate::events::Residency;
use crate::mixed_map::MixedMap;

const NONE: u32 = u32::MAX;

#[derive(Debug, Clone)]
struct Node {
    segment: u64,
    /// Blocks 0..present are in the cache.
    present: u32,
    /// Blocks 0..held belong to running requests, held..present are free runs.
    held: u32,
    holders: u32,
    /// Free run with the lowest blocks, the most recently freed.
    lowest: u32,
}

#[derive(Debug, Clone)]
struct FreeRun {
    node: u32,
    low: u32,
    high: u32,
    older: u32,
    newer: u32,
    /// Runs of the same node with lower and higher blocks.
    below: u32,
    above: u32,
}

/// The cache. Counts are blocks.
#[derive(Debug, Clone)]
pub struct Kv {
    total: u32,
    blank: u32,
    evictable: u32,
    by_segment: MixedMap<u64, u32>,
    nodes: Vec<Node>,
    spare_nodes: Vec<u32>,
    runs: Vec<FreeRun>,
    spare_runs: Vec<u32>,
    oldest: u32,
    newest: u32,
    /// What changed since last asked, where somebody asks.
    changes: Option<Vec<Residency>>,
}

impl Kv {
    /// A cache of `total` blocks, all blank.
    pub fn new(total: u32) -> Self {
        Self {
            total,
            blank: total,
            evictable: 0,
            by_segment: MixedMap::default(),
            nodes: Vec::new(),
            spare_nodes: Vec::new(),
            runs: Vec::new(),
            spare_runs: Vec::new(),
            oldest: NONE,
            newest: NONE,
            changes: None,
        }
    }

    /// From now on changes are kept for [`Kv::drain_changes`].
    pub fn tell(&mut self) {
        self.changes.get_or_insert_default();
    }

    /// Whether they are.
    pub fn tells(&self) -> bool {
        self.changes.is_some()
    }

    /// What changed since last asked, in order.
    pub fn drain_changes(&mut self) -> Vec<Residency> {
        self.changes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Blocks in all.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Blocks that can be had: blank, or cached and free.
    pub fn available(&self) -> u32 {
        self.blank + self.evictable
    }

    /// Blocks of running requests.
    pub fn active(&self) -> u32 {
        self.total - self.available()
    }

    /// Leading blocks of the segment in the cache, and how many of them running requests hold.
    pub fn look(&self, segment: u64) -> (u32, u32) {
        self.by_segment.get(&segment).map_or((0, 0), |&node| {
            let node = &self.nodes[node as usize];
            (node.present, node.held)
        })
    }

    /// Takes `n` available blocks for a running request, evicting where no blank ones are left.
    pub fn take(&mut self, n: u32) {
        if n > self.blank {
            self.evict(n - self.blank);
        }
        self.blank -= n;
    }

    /// Gives back blocks that hold nothing worth keeping.
    pub fn give(&mut self, n: u32) {
        self.blank += n;
    }

    /// A new holder of the segment, of no block yet.
    pub fn enter(&mut self, segment: u64) -> u32 {
        if let Some(&node) = self.by_segment.get(&segment) {
            self.nodes[node as usize].holders += 1;
            return node;
        }
        let fresh = Node { segment, present: 0, held: 0, holders: 1, lowest: NONE };
        let node = put(&mut self.nodes, &mut self.spare_nodes, fresh);
        self.by_segment.insert(segment, node);
        node
    }

    /// A holder now uses blocks `0..upto`. Returns how many of them were not in the cache: those
    /// the caller must [`Kv::take`] or have taken.
    pub fn hold(&mut self, node: u32, upto: u32) -> u32 {
        let held = self.nodes[node as usize].held;
        if upto <= held {
            return 0;
        }
        let mut run = self.nodes[node as usize].lowest;
        while run != NONE && self.runs[run as usize].low < upto {
            let FreeRun { low, high, above, .. } = self.runs[run as usize];
            if high <= upto {
                self.evictable -= high - low;
                self.unlink(run);
                run = above;
            } else {
                self.evictable -= upto - low;
                self.runs[run as usize].low = upto;
                break;
            }
        }
        let node = &mut self.nodes[node as usize];
        let missing = upto.saturating_sub(node.present);
        node.held = upto;
        node.present = node.present.max(upto);
        let change = Residency { segment: node.segment, present: node.present };
        if missing > 0
            && let Some(changes) = &mut self.changes
        {
            changes.push(change);
        }
        missing
    }

    /// A holder leaves. `others`: the most blocks that one of the remaining holders uses.
    pub fn leave(&mut self, node: u32, others: impl FnOnce() -> u32) {
        let entry = &mut self.nodes[node as usize];
        entry.holders -= 1;
        let left = if entry.holders == 0 { 0 } else { others().min(entry.held) };
        if left < entry.held {
            let (low, high) = (left, entry.held);
            entry.held = left;
            self.free(node, low, high);
        } else if entry.present == 0 && entry.holders == 0 {
            self.forget(node);
        }
    }

    fn free(&mut self, node: u32, low: u32, high: u32) {
        let above = self.nodes[node as usize].lowest;
        let older = self.newest;
        let run = FreeRun { node, low, high, older, newer: NONE, below: NONE, above };
        let run = put(&mut self.runs, &mut self.spare_runs, run);
        match older {
            NONE => self.oldest = run,
            older => self.runs[older as usize].newer = run,
        }
        self.newest = run;
        if above != NONE {
            self.runs[above as usize].below = run;
        }
        self.nodes[node as usize].lowest = run;
        self.evictable += high - low;
    }

    fn evict(&mut self, mut n: u32) {
        while n > 0 && self.oldest != NONE {
            let run = self.oldest;
            let FreeRun { node, low, high, .. } = self.runs[run as usize];
            let gone = n.min(high - low);
            n -= gone;
            self.evictable -= gone;
            self.blank += gone;
            // The oldest run of a node is its highest: the tail is always there to be cut.
            let entry = &mut self.nodes[node as usize];
            entry.present -= gone;
            let change = Residency { segment: entry.segment, present: entry.present };
            if let Some(changes) = &mut self.changes {
                changes.push(change);
            }
            if gone == high - low {
                self.unlink(run);
                let entry = &self.nodes[node as usize];
                if entry.present == 0 && entry.holders == 0 {
                    self.forget(node);
                }
            } else {
                self.runs[run as usize].high = high - gone;
            }
        }
    }

    fn unlink(&mut self, run: u32) {
        let FreeRun { node, older, newer, below, above, .. } = self.runs[run as usize];
        match older {
            NONE => self.oldest = newer,
            older => self.runs[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.runs[newer as usize].older = older,
        }
        match below {
            NONE => self.nodes[node as usize].lowest = above,
            below => self.runs[below as usize].above = above,
        }
        if above != NONE {
            self.runs[above as usize].below = below;
        }
        self.spare_runs.push(run);
    }

    fn forget(&mut self, node: u32) {
        self.by_segment.remove(&self.nodes[node as usize].segment);
        self.spare_nodes.push(node);
    }
}

/// Stores the value in a spare slot, or in a new one.
fn put<T>(slots: &mut Vec<T>, spare: &mut Vec<u32>, value: T) -> u32 {
    if let Some(at) = spare.pop() {
        slots[at as usize] = value;
        return at;
    }
    slots.push(value);
    (slots.len() - 1) as u32
}
