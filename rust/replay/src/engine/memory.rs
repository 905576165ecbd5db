//! KV blocks: who is admitted, who gives way, what is reused.

use super::{Engine, Happened, Sequence};
use crate::timing::Prefill;
use crate::trace::{Grain, Path};

impl Engine {
    /// Blocks for the decodes of a step, one by one, where they do not suffice for all.
    pub(super) fn squeeze(&mut self, grain: &Grain<'_>) {
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
    pub(super) fn preempt_last(&mut self, grain: &Grain<'_>) {
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

    pub(super) fn admit(&mut self, budget: &mut u32, prefill: &mut Prefill, grain: &Grain<'_>) {
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
            self.tokens.0 += u64::from(computed.min(prompt));
            self.tokens.1 += u64::from(prompt);
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
    pub(super) fn chunk(
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
    pub(super) fn release(&mut self, mut sequence: Sequence, grain: &Grain<'_>) {
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
