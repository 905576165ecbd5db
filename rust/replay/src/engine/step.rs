//! Steps: what each computes, how long it takes, what comes out at its end.

use super::decoding::Decoding;
use super::{Engine, Happened, State};
use crate::timing::Prefill;
use crate::trace::Grain;

impl Engine {
    pub(super) fn start(&mut self, grain: &Grain<'_>) {
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
    pub(super) fn decode(&mut self, begun: f64, horizon: f64) {
        let reached = self.decode_until(self.decoding_from(begun), horizon);
        self.next = reached.time;
        self.state = State::Decode { begun, steps: reached.steps, blocks: reached.blocks };
        self.looked = None;
    }

    /// Before the first of such steps.
    pub(super) fn decoding_from(&self, begun: f64) -> Decoding {
        let (context, phase) = (self.context as f64, self.phase());
        Decoding { begun, time: begun, steps: 0, blocks: 0, context, phase }
    }

    /// Where such steps get to from there, at least one in all.
    pub(super) fn decode_until(&self, from: Decoding, horizon: f64) -> Decoding {
        let most = self.next_end - self.steps;
        let (timing, speed) = (self.config.timing, self.config.speed);
        let (sequences, capacity) = (self.decoding, self.capacity);
        let available = self.kv.available();
        let Decoding { begun, mut time, mut steps, mut blocks, mut context, mut phase } = from;
        loop {
            if steps > 0 {
                let next = if phase + 1 == self.crossing.len() { 0 } else { phase + 1 };
                let more = blocks + self.crossing[next];
                if steps == most || time >= horizon || more > available {
                    return Decoding { begun, time, steps, blocks, context, phase };
                }
                (context, phase, blocks) = (context + f64::from(sequences), next, more);
            }
            time += timing.decode(sequences, context, capacity) / speed;
            steps += 1;
        }
    }

    /// Ends `steps` steps at once: tokens come out.
    pub(super) fn end(&mut self, steps: u64, grain: &Grain<'_>) {
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
}
