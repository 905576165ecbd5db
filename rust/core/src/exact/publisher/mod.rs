//! One engine's event stream (one data-parallel rank): messages in, edits of the index out.

mod apply;
mod slower;

use std::collections::VecDeque;
use std::sync::{PoisonError, RwLock};

use xxhash_rust::xxh3::xxh3_64;

use super::counters::Counters;
use super::decode::decode;
use super::event::Batch;
use super::holders::Edit;
use super::stream::{Step, Stream, Then};
use super::view::View;
use super::{ExactIndex, RankState};

/// Edits under one write lock: a few microseconds, so that lookups hardly wait.
const EDITS_PER_LOCK: usize = 256;
/// Messages kept back during a replay, in bytes; what comes beyond is lost and asked for again.
const MAX_HELD_BYTES: usize = 16 << 20;

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
    /// Groups whose kind was reported, and whether they keep whole prefixes.
    kinds: Vec<(u32, bool)>,
    held: VecDeque<(u64, Box<[u8]>)>,
    held_bytes: usize,
    max_blocks: usize,
    counters: Counters,
    published: Option<RankState>,
    /// The adapter that was last passed to the index.
    adapter: u64,
    /// The rank that its messages named first.
    named: Option<u32>,
    /// Whether any prompt was under an adapter or salt, and
    tenants: bool,
    /// whether any slower tier keeps chunks.
    chunked: bool,
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
            published: None,
            adapter: 0,
            named: None,
            tenants: false,
            chunked: false,
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
        if ask.is_some() {
            // Another process answers: its replay brings what was kept of it, the rest is void.
            self.tell(index);
            return ask;
        }
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

    /// Forgets all blocks: the engine has lost them, whether it says so or not.
    pub fn forget(&mut self, work: &mut Work, index: &RwLock<ExactIndex>) {
        self.clear(work, index);
        self.tell(index);
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
        self.views.iter().map(View::bytes).sum::<usize>() + self.held_bytes
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
            self.counters.resets += u64::from(self.blocks() > 0);
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
    pub(super) fn tell(&mut self, index: &RwLock<ExactIndex>) {
        let state = RankState {
            block: self.block,
            exact: self.stream.is_exact(),
            fresh: self.stream.is_fresh(),
            suspended: self.stream.is_resyncing(),
        };
        if self.published.replace(state) != Some(state) {
            with(index, |index| index.set_rank(self.row, self.rank, state));
        }
    }
}
