//! One engine: continuous batching with chunked prefill over a paged KV cache, vLLM style.
//!
//! A step serves running requests in admission order (a token for each that decodes, the rest of
//! a half-done prompt), then admits from the queue, first come first served. Steps that only
//! decode are computed in one go up to the next end, since nothing else can change between.

use std::collections::VecDeque;

use crate::events::Residency;
use crate::kv::Kv;
use crate::trace::Grain;

mod config;
mod decoding;
mod memory;
mod scraped;
mod step;

use decoding::Decoding;

pub use config::EngineConfig;
pub use scraped::Report;

/// What happened to a request at the end of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Happened {
    /// Its first token is out.
    FirstToken(u32),
    /// Its last token is out.
    Ended(u32),
    /// It needs more blocks than the engine has.
    Rejected(u32),
}

/// A request that waits, with the tokens it generated before it was preempted.
#[derive(Debug, Clone, Copy)]
struct Job {
    request: u32,
    generated: u32,
}

#[derive(Debug, Clone)]
struct Sequence {
    job: Job,
    /// Tokens whose KV must be there before the next token: prompt and what was generated.
    known: u32,
    /// Tokens whose KV is there: as of `since` while decoding.
    computed: u32,
    /// Full blocks held under their name.
    named: u32,
    nodes: Vec<u32>,
    /// Decode step in which it joined, and the one after which it ends; `None` in prefill.
    decode: Option<(u64, u64)>,
}

/// Where the engine stands.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Idle,
    /// A step starts at `next`.
    Ready,
    /// A step with prompt chunks, or one alone, ends at `next`.
    Step,
    /// Steps that only decode: begun at, steps, blocks taken after the first step.
    Decode {
        begun: f64,
        steps: u64,
        blocks: u32,
    },
}

/// One engine.
#[derive(Debug, Clone)]
pub struct Engine {
    config: EngineConfig,
    capacity: f64,
    kv: Kv,
    waiting: VecDeque<Job>,
    running: Vec<Sequence>,
    /// Decoding sequences and the sum of their context tokens in the next step.
    decoding: u32,
    context: u64,
    /// Decode steps so far.
    steps: u64,
    /// Sequences that need a new block in the steps ≡ i modulo the block size.
    crossing: Vec<u32>,
    /// Decode step after which the next sequence ends.
    next_end: u64,
    state: State,
    next: f64,
    /// Where the last look at steps that only decode found them.
    looked: Option<Decoding>,
    preemptions: u64,
    /// Prompt tokens found in the cache, and asked for.
    tokens: (u64, u64),
    spare: Vec<Vec<u32>>,
    happened: Vec<Happened>,
    /// Admissions since last asked: request, prompt tokens found in the cache.
    admitted: Vec<(u32, u32)>,
}

impl Engine {
    /// An idle engine with an empty cache.
    pub fn new(config: EngineConfig) -> Self {
        Self {
            capacity: f64::from(config.kv_blocks) * f64::from(config.block),
            kv: Kv::new(config.kv_blocks),
            waiting: VecDeque::new(),
            running: Vec::new(),
            decoding: 0,
            context: 0,
            steps: 0,
            crossing: vec![0; config.block as usize],
            next_end: u64::MAX,
            state: State::Idle,
            next: f64::INFINITY,
            looked: None,
            preemptions: 0,
            tokens: (0, 0),
            spare: Vec::new(),
            happened: Vec::new(),
            admitted: Vec::new(),
            config,
        }
    }

    /// When it next needs attention; infinite while idle.
    pub fn next(&self) -> f64 {
        self.next
    }

    /// Whether a step is to start then, and not one to end.
    pub fn starts(&self) -> bool {
        self.state == State::Ready
    }

    /// Requests preempted so far.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// What it reports of itself at `now`.
    pub fn report(&mut self, now: f64) -> Report {
        let mut active = self.kv.active();
        if let State::Decode { begun, .. } = self.state {
            // From the last look on: from the start each time, long answers take for ever.
            let before = self.looked.filter(|seen| seen.begun == begun);
            let seen = self.decode_until(before.unwrap_or_else(|| self.decoding_from(begun)), now);
            active += seen.blocks;
            self.looked = Some(seen);
        }
        let (found, asked) = self.tokens;
        Report {
            running: self.running.len() as u32,
            waiting: self.waiting.len() as u32,
            kv_usage: f64::from(active) / f64::from(self.kv.total()),
            hit_rate: found as f64 / asked as f64,
        }
    }

    /// It dies and comes back empty: the requests that were on it.
    pub fn fail(&mut self) -> Vec<u32> {
        let running = self.running.iter().map(|sequence| sequence.job);
        let lost = running.chain(self.waiting.iter().copied()).map(|job| job.request).collect();
        let (preemptions, tells) = (self.preemptions, self.kv.tells());
        *self = Self { preemptions, ..Self::new(self.config) };
        if tells {
            self.kv.tell();
        }
        lost
    }

    /// What happened since last asked.
    pub fn drain_happened(&mut self, into: &mut Vec<Happened>) {
        into.append(&mut self.happened);
    }

    /// Admissions since last asked, again after a preemption: request and prompt tokens found in
    /// the cache.
    pub fn drain_admitted(&mut self, into: &mut Vec<(u32, u32)>) {
        into.append(&mut self.admitted);
    }

    /// From now on it tells what happens to its cache.
    pub fn tell_kv(&mut self) {
        self.kv.tell();
    }

    /// What happened to its cache since last asked.
    pub fn drain_kv(&mut self) -> Vec<Residency> {
        self.kv.drain_changes()
    }

    /// A request arrives at `now`: it waits at least for the end of the step.
    pub fn push(&mut self, request: u32, now: f64) {
        self.waiting.push_back(Job { request, generated: 0 });
        match self.state {
            State::Idle => {
                self.state = State::Ready;
                self.next = now;
            }
            // The queue was empty, so the newcomer may be admitted at the next boundary. Behind
            // a queue that decoding cannot unblock it changes nothing.
            State::Decode { begun, .. } if self.waiting.len() == 1 => self.decode(begun, now),
            _ => {}
        }
    }

    /// Goes on at `next`: ends the step, or starts one.
    pub fn proceed(&mut self, grain: &Grain<'_>) {
        match self.state {
            State::Idle => {}
            State::Ready => self.start(grain),
            State::Step => self.end(1, grain),
            State::Decode { steps, blocks, .. } => {
                self.kv.take(blocks);
                self.end(steps, grain);
            }
        }
    }

    fn phase(&self) -> usize {
        (self.steps % u64::from(self.config.block)) as usize
    }

    /// The steps (modulo the block size) in which a sequence that had `computed` tokens at step
    /// `since` needs a new block.
    fn phase_of(&self, since: u32, computed: u32) -> usize {
        let block = self.config.block;
        ((since + block - computed % block) % block) as usize
    }

    fn find_next_end(&mut self) {
        let ends = self.running.iter().filter_map(|s| s.decode).map(|(_, end)| end);
        self.next_end = ends.min().unwrap_or(u64::MAX);
    }

    fn half_done(&self) -> bool {
        self.running.last().is_some_and(|last| last.decode.is_none())
    }
}

impl Sequence {
    fn blank() -> Self {
        let job = Job { request: 0, generated: 0 };
        Self { job, known: 0, computed: 0, named: 0, nodes: Vec::new(), decode: None }
    }
}
