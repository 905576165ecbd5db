//! One engine: continuous batching with chunked prefill over a paged KV cache, vLLM style.
//!
//! A step serves running requests in admission order (a token for each that decodes, the rest of
//! a half-done prompt), then admits from the queue, first come first served. Steps that only
//! decode are computed in one go up to the next end, since nothing else can change between.

use std::collections::VecDeque;

use routecore::RouteError;

use crate::kv::Kv;
use crate::timing::{Prefill, Timing};
use crate::trace::{Grain, Path};

/// What an engine is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EngineConfig {
    /// Step times.
    pub timing: Timing,
    /// Tokens of a KV block.
    pub block: u32,
    /// KV blocks.
    pub kv_blocks: u32,
    /// Tokens a step computes at most.
    pub token_budget: u32,
    /// Requests that run at once at most.
    pub max_sequences: u32,
    /// Divides step times: 2 is twice as fast.
    pub speed: f64,
}

impl EngineConfig {
    /// vLLM's defaults on large GPUs, with Dynamo's timing and 64-token blocks.
    pub const DEFAULT: Self = Self {
        timing: Timing::Polynomial,
        block: 64,
        kv_blocks: 16_384,
        token_budget: 8192,
        max_sequences: 256,
        speed: 1.0,
    };

    /// Whether the engine can work at all.
    ///
    /// # Errors
    /// Names the setting and what it should be.
    pub fn check(&self) -> Result<(), RouteError> {
        let bad = |text: String| Err(RouteError(text));
        if self.block == 0 || self.kv_blocks == 0 {
            return bad(format!(
                "engine: expected a KV block and a KV cache above 0, got {} tokens × {} blocks",
                self.block, self.kv_blocks
            ));
        }
        if self.max_sequences == 0 || self.token_budget < self.max_sequences {
            return bad(format!(
                "engine: expected a token budget of at least the {} sequences (above 0) that may \
                 run, got {}",
                self.max_sequences, self.token_budget
            ));
        }
        if !self.speed.is_finite() || self.speed <= 0.0 {
            return bad(format!("engine speed: expected a number above 0, got {}", self.speed));
        }
        Ok(())
    }
}

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
    preemptions: u64,
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
            preemptions: 0,
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

    /// Requests in its queue.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests it runs.
    pub fn running(&self) -> usize {
        self.running.len()
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

    fn start(&mut self, grain: &Grain<'_>) {
        let now = self.next;
        let mut preempted = false;
        let need = self.crossing[self.phase()];
        if need <= self.kv.available() {
            self.kv.take(need);
        } else {
            preempted = true;
            self.squeeze(grain);
        }
        let mut prefill = Prefill::default();
        let mut budget = self.config.token_budget - self.decoding;
        if self.half_done() {
            let at = self.running.len() - 1;
            if !self.chunk(at, &mut budget, &mut prefill, grain) {
                preempted = true;
                self.preempt_last(grain);
            }
        }
        if !preempted {
            self.admit(&mut budget, &mut prefill, grain);
        }
        if self.running.is_empty() {
            // A lone request that outgrew the cache waits again, to be rejected.
            let again = preempted && !self.waiting.is_empty();
            self.state = if again { State::Ready } else { State::Idle };
            self.next = if again { now } else { f64::INFINITY };
        } else if prefill.prompts == 0 && !preempted && self.decoding > 0 {
            self.decode(now, f64::INFINITY);
        } else {
            let time = self.config.timing.step(
                &prefill,
                self.decoding,
                self.context as f64,
                self.capacity,
            );
            self.next = now + time / self.config.speed;
            self.state = State::Step;
        }
    }

    /// Steps that only decode, from `begun` to the next end, to where blocks run out, or to the
    /// first boundary at or after `horizon`.
    fn decode(&mut self, begun: f64, horizon: f64) {
        let most = self.next_end - self.steps;
        let (timing, speed) = (self.config.timing, self.config.speed);
        let (sequences, capacity) = (self.decoding, self.capacity);
        let available = self.kv.available();
        let (mut time, mut steps, mut blocks) = (begun, 0_u64, 0_u32);
        let mut context = self.context as f64;
        let mut phase = self.phase();
        loop {
            time += timing.decode(sequences, context, capacity) / speed;
            steps += 1;
            if steps == most || time >= horizon {
                break;
            }
            context += f64::from(sequences);
            phase += 1;
            if phase == self.crossing.len() {
                phase = 0;
            }
            let more = blocks + self.crossing[phase];
            if more > available {
                break;
            }
            blocks = more;
        }
        self.next = time;
        self.state = State::Decode { begun, steps, blocks };
    }

    /// Ends `steps` steps at once: tokens come out.
    fn end(&mut self, steps: u64, grain: &Grain<'_>) {
        if self.decoding > 0 {
            self.steps += steps;
            self.context += u64::from(self.decoding) * steps;
        }
        let mut at = 0;
        while at < self.running.len() {
            let sequence = &mut self.running[at];
            let request = sequence.job.request;
            let done = match sequence.decode {
                Some((_, end)) => end <= self.steps,
                None if sequence.computed < sequence.known => false,
                None => {
                    if sequence.job.generated == 0 {
                        self.happened.push(Happened::FirstToken(request));
                    }
                    let left = grain.trace.outputs[request as usize] - sequence.job.generated - 1;
                    if left > 0 {
                        sequence.decode = Some((self.steps, self.steps + u64::from(left)));
                        self.decoding += 1;
                        self.context += u64::from(sequence.known) + 1;
                        let since = (self.steps % u64::from(self.config.block)) as u32;
                        let phase = self.phase_of(since, self.running[at].known);
                        self.crossing[phase] += 1;
                    }
                    left == 0
                }
            };
            if done {
                let sequence = self.running.remove(at);
                self.release(sequence, grain);
                self.happened.push(Happened::Ended(request));
            } else {
                at += 1;
            }
        }
        self.find_next_end();
        let idle = self.running.is_empty() && self.waiting.is_empty();
        self.state = if idle { State::Idle } else { State::Ready };
        if idle {
            self.next = f64::INFINITY;
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

    /// Blocks for the decodes of a step, one by one, where they do not suffice for all.
    fn squeeze(&mut self, grain: &Grain<'_>) {
        let phase = self.phase();
        let mut at = 0;
        while at < self.running.len() {
            let sequence = &self.running[at];
            if let Some((since, _)) = sequence.decode {
                let since = (since % u64::from(self.config.block)) as u32;
                if self.phase_of(since, sequence.computed) == phase {
                    while self.kv.available() == 0 {
                        self.preempt_last(grain);
                        if self.running.len() == at {
                            return;
                        }
                    }
                    self.kv.take(1);
                }
            }
            at += 1;
        }
    }

    /// The last admitted goes back to the head of the queue.
    fn preempt_last(&mut self, grain: &Grain<'_>) {
        let Some(sequence) = self.running.pop() else { return };
        self.preemptions += 1;
        let mut job = sequence.job;
        if let Some((since, _)) = sequence.decode {
            job.generated += 1 + (self.steps - since) as u32;
        }
        self.release(sequence, grain);
        self.waiting.push_front(job);
        self.find_next_end();
    }

    fn admit(&mut self, budget: &mut u32, prefill: &mut Prefill, grain: &Grain<'_>) {
        while *budget > 0 && !self.half_done_in_step() {
            if self.running.len() >= self.config.max_sequences as usize {
                return;
            }
            let Some(&job) = self.waiting.front() else { return };
            let known = grain.trace.inputs[job.request as usize] + job.generated;
            let need = known.div_ceil(self.config.block);
            if need > self.kv.total() {
                self.waiting.pop_front();
                self.happened.push(Happened::Rejected(job.request));
                continue;
            }
            let path = grain.path(job.request);
            let (found, shared) = self.look(path, (known - 1) / self.config.block);
            if need - shared > self.kv.available() {
                return;
            }
            self.waiting.pop_front();
            let mut nodes = self.spare.pop().unwrap_or_default();
            nodes.clear();
            let computed = found * self.config.block;
            let mut sequence = Sequence { job, known, computed, named: 0, nodes, decode: None };
            // All found: nothing is missing.
            self.name(&mut sequence, path, found);
            let prompt = grain.trace.inputs[job.request as usize];
            self.admitted.push((job.request, computed.min(prompt)));
            self.running.push(sequence);
            self.chunk(self.running.len() - 1, budget, prefill, grain);
        }
    }

    /// Whether the last admitted prompt took all that was left of the budget and wants more.
    fn half_done_in_step(&self) -> bool {
        self.running.last().is_some_and(|s| s.decode.is_none() && s.computed < s.known)
    }

    /// Blocks from the start that are in the cache, at most `limit`; how many of them are held.
    fn look(&self, path: Path<'_>, limit: u32) -> (u32, u32) {
        let (mut found, mut shared) = (0, 0);
        for index in 0.. {
            if found >= limit {
                break;
            }
            let piece = path.piece(index);
            let (present, held) = self.kv.look(piece.segment);
            let want = piece.blocks.min(limit - found);
            found += present.min(want);
            shared += held.min(want);
            if present < piece.blocks {
                break;
            }
        }
        (found, shared)
    }

    /// Computes the next chunk of a prompt; false, and nothing done, where blocks are lacking.
    fn chunk(
        &mut self,
        at: usize,
        budget: &mut u32,
        prefill: &mut Prefill,
        grain: &Grain<'_>,
    ) -> bool {
        let block = self.config.block;
        let sequence = &self.running[at];
        let from = sequence.computed;
        let to = sequence.known.min(from + *budget);
        if to.div_ceil(block) - from.div_ceil(block) > self.kv.available() {
            return false;
        }
        let mut sequence = std::mem::replace(&mut self.running[at], Sequence::blank());
        let before = from.div_ceil(block) - sequence.named;
        let path = grain.path(sequence.job.request);
        let fresh = self.name(&mut sequence, path, to / block);
        let after = u32::from(!to.is_multiple_of(block));
        self.settle(fresh + after, before);
        sequence.computed = to;
        self.running[at] = sequence;
        prefill.add(from, to);
        *budget -= to - from;
        true
    }

    /// Blocks wanted against blocks already there for them.
    fn settle(&mut self, want: u32, have: u32) {
        if want > have {
            self.kv.take(want - have);
        } else {
            self.kv.give(have - want);
        }
    }

    /// Puts the full blocks up to `upto` into the cache under their names, where others find
    /// them. Returns how many were not there yet.
    fn name(&mut self, sequence: &mut Sequence, path: Path<'_>, upto: u32) -> u32 {
        let mut fresh = 0;
        while sequence.named < upto {
            let index = path.index(sequence.named);
            let piece = path.piece(index);
            if sequence.nodes.len() == index {
                sequence.nodes.push(self.kv.enter(piece.segment));
            }
            let end = piece.start.saturating_add(piece.blocks).min(upto);
            fresh += self.kv.hold(sequence.nodes[index], end - piece.start);
            sequence.named = end;
        }
        fresh
    }

    /// Gives back everything a sequence has; full blocks stay cached, the tail goes out first.
    fn release(&mut self, mut sequence: Sequence, grain: &Grain<'_>) {
        let block = self.config.block;
        let path = grain.path(sequence.job.request);
        let mut tokens = sequence.computed;
        if let Some((since, _)) = sequence.decode {
            let done = (self.steps - since) as u32;
            tokens += done;
            self.decoding -= 1;
            self.context -= u64::from(tokens) + 1;
            let since = (since % u64::from(block)) as u32;
            let phase = self.phase_of(since, sequence.computed);
            self.crossing[phase] -= 1;
        }
        let blocks = tokens.div_ceil(block) - sequence.named;
        let fresh = self.name(&mut sequence, path, tokens / block);
        self.kv.give(blocks - fresh);
        for (index, &node) in sequence.nodes.iter().enumerate().rev() {
            let piece = path.piece(index);
            let running = &self.running;
            self.kv.leave(node, || {
                let same = |s: &&Sequence| s.nodes.get(index) == Some(&node);
                let used = |s: &Sequence| {
                    let theirs = grain.path(s.job.request).piece(index);
                    s.named.saturating_sub(theirs.start).min(theirs.blocks)
                };
                running.iter().filter(same).map(used).max().unwrap_or(0)
            });
            debug_assert!(piece.blocks > 0);
        }
        self.spare.push(sequence.nodes);
    }
}

impl Sequence {
    fn blank() -> Self {
        let job = Job { request: 0, generated: 0 };
        Self { job, known: 0, computed: 0, named: 0, nodes: Vec::new(), decode: None }
    }
}
