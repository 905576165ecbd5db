//! One engine's event stream (one data-parallel rank): messages in, edits of the index out.

use std::collections::VecDeque;
use std::sync::{PoisonError, RwLock};

use xxhash_rust::xxh3::xxh3_64;

use super::counters::Counters;
use super::decode::decode;
use super::event::{Batch, Event, Kind, Place, Removed, Stored};
use super::holders::{Edit, WINDOW};
use super::stream::{Step, Stream, Then};
use super::view::View;
use super::{ExactIndex, RankState, keys};

/// Edits under one write lock: a few microseconds, so that lookups hardly wait.
const EDITS_PER_LOCK: usize = 256;
/// Messages kept back during a replay, in bytes; what comes beyond is lost and asked for again.
const MAX_HELD_BYTES: usize = 16 << 20;
/// Cache groups of one engine; hybrid models have a handful.
const MAX_GROUPS: usize = 16;

/// Working memory of one call, shared by all publishers.
#[derive(Debug, Default)]
pub struct Work {
    batch: Batch,
    edits: Vec<Edit>,
    keys: Vec<u64>,
}

impl Work {
    fn flush(&mut self, index: &RwLock<ExactIndex>) {
        for edits in self.edits.chunks(EDITS_PER_LOCK) {
            index.write().unwrap_or_else(PoisonError::into_inner).edit(edits);
        }
        self.edits.clear();
    }
}

/// A publisher and what it said so far.
#[derive(Debug)]
pub struct Publisher {
    row: u32,
    rank: u32,
    seed: u64,
    stream: Stream,
    block: u32,
    views: Vec<View>,
    /// Groups whose kind was told, and whether they keep whole prefixes.
    kinds: Vec<(u32, bool)>,
    held: VecDeque<(u64, Box<[u8]>)>,
    held_bytes: usize,
    max_blocks: usize,
    counters: Counters,
    told: Option<RankState>,
}

/// Tells two messages apart: time and first event are in the head.
fn fingerprint(payload: &[u8]) -> u64 {
    xxh3_64(&payload[..payload.len().min(128)]) ^ payload.len() as u64
}

fn with<T>(index: &RwLock<ExactIndex>, f: impl FnOnce(&mut ExactIndex) -> T) -> T {
    f(&mut index.write().unwrap_or_else(PoisonError::into_inner))
}

impl Publisher {
    /// `max_blocks`: most blocks that are kept of it.
    pub fn new(row: u32, rank: u32, seed: u64, max_blocks: usize) -> Self {
        Self {
            row,
            rank,
            seed,
            stream: Stream::default(),
            block: 0,
            views: Vec::new(),
            kinds: Vec::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            max_blocks,
            counters: Counters::default(),
            told: None,
        }
    }

    /// A message of the live stream. Gives the number from which to ask for a replay, if so.
    pub fn live(
        &mut self,
        seq: u64,
        payload: &[u8],
        can_replay: bool,
        work: &mut Work,
        index: &RwLock<ExactIndex>,
    ) -> Option<u64> {
        let step = if self.decode(payload, work) {
            self.stream.live(seq, fingerprint(payload), can_replay)
        } else {
            self.stream.unreadable(seq, can_replay)
        };
        let ask = self.follow(step, work, index);
        if matches!(step.then, Then::Hold | Then::Replay(_)) {
            self.hold(seq, payload);
        }
        self.tell(index);
        ask
    }

    /// One answer of a replay.
    pub fn replayed(
        &mut self,
        seq: u64,
        payload: &[u8],
        work: &mut Work,
        index: &RwLock<ExactIndex>,
    ) -> Option<u64> {
        if !self.decode(payload, work) {
            return None; // the next number shows the loss
        }
        let step = self.stream.replayed(seq, fingerprint(payload));
        let ask = self.follow(step, work, index);
        self.tell(index);
        ask
    }

    /// The replay ended, or gave nothing in time; messages kept back are applied now.
    pub fn replay_end(
        &mut self,
        complete: bool,
        work: &mut Work,
        index: &RwLock<ExactIndex>,
    ) -> Option<u64> {
        let kept = std::mem::take(&mut self.held);
        self.held_bytes = 0;
        let step = if complete { self.stream.replay_end() } else { self.stream.replay_failed() };
        let mut ask = self.follow(step, work, index);
        // A failed replay is not tried again for these: the caller waits a while first.
        for (seq, payload) in kept {
            if ask.is_some() {
                self.hold(seq, &payload);
                continue;
            }
            let step = if self.decode(&payload, work) {
                self.stream.held(seq, fingerprint(&payload), complete)
            } else {
                self.stream.unreadable(seq, complete)
            };
            ask = self.follow(step, work, index);
            if ask.is_some() {
                self.hold(seq, &payload);
            }
        }
        self.tell(index);
        ask
    }

    /// The connection broke.
    pub fn disconnected(&mut self, can_replay: bool, work: &mut Work, index: &RwLock<ExactIndex>) {
        let step = self.stream.disconnected(can_replay);
        self.follow(step, work, index);
        self.tell(index);
    }

    /// The connection is back.
    pub fn reconnected(
        &mut self,
        can_replay: bool,
        work: &mut Work,
        index: &RwLock<ExactIndex>,
    ) -> Option<u64> {
        let step = self.stream.reconnected(can_replay);
        let ask = self.follow(step, work, index);
        self.tell(index);
        ask
    }

    /// Forgets everything and gives the lanes back.
    pub fn leave(&mut self, work: &mut Work, index: &RwLock<ExactIndex>) {
        self.clear(work, index);
        with(index, |index| {
            index.set_groups(self.row, self.rank, std::iter::empty());
            self.views.drain(..).for_each(|view| index.free_lanes(view.lanes));
        });
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        let seen = self.stream.seen;
        Counters {
            gaps: seen.gaps,
            duplicates: seen.duplicates,
            replays: seen.replays,
            overruns: seen.overruns,
            restarts: seen.restarts,
            ..self.counters
        }
    }

    /// Its sequence.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Blocks that it holds now, each cache group counted.
    pub fn blocks(&self) -> usize {
        self.views.iter().map(|view| view.map.len()).sum()
    }

    /// Tokens of its blocks; 0 until the first is stored.
    pub fn block(&self) -> u32 {
        self.block
    }

    /// Bytes on the heap: its hash maps and the messages that it keeps back.
    pub fn bytes(&self) -> usize {
        self.views.iter().map(|view| view.map.bytes()).sum::<usize>() + self.held_bytes
    }

    fn decode(&mut self, payload: &[u8], work: &mut Work) -> bool {
        let read = decode(payload, &mut work.batch).is_ok();
        self.counters.unreadable += u64::from(!read);
        read
    }

    fn hold(&mut self, seq: u64, payload: &[u8]) {
        if self.held_bytes + payload.len() <= MAX_HELD_BYTES {
            self.held_bytes += payload.len();
            self.held.push_back((seq, payload.into()));
        }
    }

    fn follow(&mut self, step: Step, work: &mut Work, index: &RwLock<ExactIndex>) -> Option<u64> {
        if step.clear {
            self.counters.resets += 1;
            self.held.clear();
            self.held_bytes = 0;
            self.clear(work, index);
        }
        match step.then {
            Then::Apply => self.apply(work, index),
            Then::Drop | Then::Hold => {}
            Then::Replay(from) => return Some(from),
        }
        None
    }

    /// Tells the index what it must know of this rank, where that changed.
    fn tell(&mut self, index: &RwLock<ExactIndex>) {
        let state = RankState {
            block: self.block,
            exact: self.stream.is_exact(),
            suspended: self.stream.is_resyncing(),
        };
        if self.told.replace(state) != Some(state) {
            with(index, |index| index.set_rank(self.row, self.rank, state));
        }
    }

    fn clear(&mut self, work: &mut Work, index: &RwLock<ExactIndex>) {
        work.flush(index);
        // From here on no lookup sees any of it, however long the clearing takes.
        self.told = Some(RankState { block: self.block, exact: false, suspended: true });
        let state = self.told.unwrap_or_default();
        with(index, |index| index.set_rank(self.row, self.rank, state));
        for view in &mut self.views {
            view.clear(&mut work.edits);
        }
        work.flush(index);
        self.block = 0;
    }

    fn apply(&mut self, work: &mut Work, index: &RwLock<ExactIndex>) {
        self.counters.batches += 1;
        self.counters.malformed += work.batch.malformed;
        self.counters.unknown_types += work.batch.unknown_types;
        self.counters.other_ranks += u64::from(work.batch.rank.is_some_and(|r| r != self.rank));
        if work.batch.malformed > 0 {
            // It may have been a removal: what is held is no longer certain to be all there is.
            self.stream.distrust();
        }
        let events = std::mem::take(&mut work.batch.events);
        for event in &events {
            match event {
                Event::Stored(stored) => self.store(stored, work, index),
                Event::Removed(removed) => self.remove(removed, work),
                Event::Cleared => {
                    self.counters.cleared += 1;
                    self.clear(work, index);
                    self.stream.cleared();
                }
            }
            if work.edits.len() >= EDITS_PER_LOCK {
                work.flush(index);
            }
        }
        work.batch.events = events;
        work.flush(index);
    }

    /// Whether a group keeps whole prefixes. Where no kind was ever told, group 0 does.
    fn is_full(&mut self, group: u32, kind: Option<Kind>) -> bool {
        let known = self.kinds.iter_mut().find(|(known, _)| *known == group);
        match (kind, known) {
            (Some(kind), Some((_, full))) => {
                *full = kind == Kind::Full;
                *full
            }
            (Some(kind), None) => {
                if self.kinds.len() < MAX_GROUPS {
                    self.kinds.push((group, kind == Kind::Full));
                }
                kind == Kind::Full
            }
            (None, Some((_, full))) => *full,
            (None, None) => group == 0,
        }
    }

    /// The group's view, made where there is none and room for one.
    fn view(&mut self, group: u32, index: &RwLock<ExactIndex>) -> Option<usize> {
        if let Some(at) = self.views.iter().position(|view| view.group == group) {
            return Some(at);
        }
        if self.views.len() == MAX_GROUPS {
            return None;
        }
        self.tell(index); // a rank has to be known before its groups
        let lane = with(index, ExactIndex::take_lane)?;
        self.views.push(View::new(group, lane));
        self.tell_groups(index);
        Some(self.views.len() - 1)
    }

    fn tell_groups(&self, index: &RwLock<ExactIndex>) {
        let groups = self.views.iter().map(|view| view.lanes);
        with(index, |index| index.set_groups(self.row, self.rank, groups));
    }

    fn store(&mut self, stored: &Stored, work: &mut Work, index: &RwLock<ExactIndex>) {
        let count = stored.hashes.len();
        self.counters.stored += count as u64;
        let group = stored.group.unwrap_or(0);
        let tier = match stored.place {
            Place::Own(tier) => tier,
            Place::Shared => return self.counters.shared += 1,
            Place::Unknown => return self.counters.unknown_media += 1,
        };
        if !self.is_full(group, stored.kind) {
            return self.counters.skipped_groups += 1;
        }
        if count == 0 {
            return;
        }
        let (tokens, block) = (stored.tokens.len(), stored.block as usize);
        if tokens > 0 {
            let block = if block == 0 { tokens / count } else { block };
            if block == 0 || tokens != block * count {
                self.stream.distrust();
                return self.counters.malformed += 1;
            }
            if self.block != block as u32 && !self.resize(block as u32, group, work, index) {
                return self.counters.skipped_groups += 1;
            }
        }
        let Some(at) = self.view(group, index) else {
            self.stream.distrust();
            return self.counters.over_capacity += count as u64;
        };
        if self.views[at].lacks(tier) {
            let Some(lane) = with(index, ExactIndex::take_lane) else {
                self.stream.distrust();
                return self.counters.over_capacity += count as u64;
            };
            self.views[at].open(tier, lane, &mut work.edits);
            work.flush(index);
            self.tell_groups(index);
        }
        let free = self.max_blocks.saturating_sub(self.blocks());
        let view = &mut self.views[at];
        let hashes = &work.batch.hashes[stored.hashes.clone()];
        if tokens == 0 {
            // Offload events of older engines: blocks that are known move to a tier more.
            for &hash in hashes {
                match view.map.get(hash) {
                    Some((key, _)) => view.store(hash, key, tier, &mut work.edits),
                    None => self.counters.unknown_hashes += 1,
                }
            }
            return;
        }
        let start = match stored.parent {
            None => keys::root(self.seed, stored.lora),
            Some(parent) => match view.map.get(parent) {
                Some((key, _)) => key,
                None => {
                    // No loss: numbers tell those. A replay would say the same again.
                    self.stream.distrust();
                    return self.counters.unknown_parents += 1;
                }
            },
        };
        let extras = &work.batch.extras[stored.extras.clone()];
        work.keys.clear();
        keys::chain(
            start,
            &work.batch.tokens[stored.tokens.clone()],
            self.block as usize,
            |i| extras.get(i).copied().unwrap_or(0),
            &mut work.keys,
        );
        let taken = count.min(free);
        for (hashes, keys) in hashes[..taken].chunks(WINDOW).zip(work.keys.chunks(WINDOW)) {
            view.map.warm(hashes);
            for (&hash, &key) in hashes.iter().zip(keys) {
                view.store(hash, key, tier, &mut work.edits);
            }
        }
        if free < count {
            self.stream.distrust();
            self.counters.over_capacity += (count - free) as u64;
        }
    }

    /// Takes another block size, if the group is the one that sets it: what was held is void.
    fn resize(
        &mut self,
        block: u32,
        group: u32,
        work: &mut Work,
        index: &RwLock<ExactIndex>,
    ) -> bool {
        if self.block != 0 {
            if self.views.first().is_some_and(|view| view.group != group) {
                return false;
            }
            self.counters.block_sizes += 1;
            self.clear(work, index);
        }
        self.block = block;
        self.tell(index);
        true
    }

    fn remove(&mut self, removed: &Removed, work: &mut Work) {
        self.counters.removed += removed.hashes.len() as u64;
        let group = removed.group.unwrap_or(0);
        let (Place::Own(tier), Some(view)) =
            (removed.place, self.views.iter_mut().find(|view| view.group == group))
        else {
            return;
        };
        for hashes in work.batch.hashes[removed.hashes.clone()].chunks(WINDOW) {
            view.map.warm(hashes);
            for &hash in hashes {
                if !view.remove(hash, tier, &mut work.edits) {
                    self.counters.unknown_removed += 1;
                }
            }
        }
    }
}
