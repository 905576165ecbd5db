//! KV events: what engines tell of their caches, when routers hear it, what they then know.

use std::collections::VecDeque;

use crate::mixed_map::MixedMap;
use crate::request::Request;

/// A segment's leading blocks that a cache has from now on: more than before are stored blocks,
/// fewer are removed ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Residency {
    /// Identity of the segment; see [`crate::trace::Grain`].
    pub segment: u64,
    /// Blocks of it in the cache.
    pub present: u32,
}

/// Events that were sent and not heard yet. All are equally long under way.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    delay: f64,
    batches: VecDeque<(f64, u32, Vec<Residency>)>,
}

impl UnderWay {
    pub fn new(delay: f64) -> Self {
        Self { delay, batches: VecDeque::new() }
    }

    /// When the next batch is heard.
    pub fn next(&self) -> f64 {
        self.batches.front().map_or(f64::INFINITY, |batch| batch.0)
    }

    pub fn send(&mut self, now: f64, engine: u32, batch: Vec<Residency>) {
        if !batch.is_empty() {
            self.batches.push_back((now + self.delay, engine, batch));
        }
    }

    pub fn deliver(&mut self) -> Option<(f64, u32, Vec<Residency>)> {
        self.batches.pop_front()
    }

    /// What a dead engine sent does not arrive: its successor's numbers start anew.
    pub fn forget(&mut self, engine: u32) {
        self.batches.retain(|batch| batch.1 != engine);
    }
}

/// One engine's cache as its events have it.
#[derive(Debug, Clone, Default)]
pub struct Held(MixedMap<u64, u32>);

impl Held {
    /// Takes note of what the engine reported.
    pub fn apply(&mut self, batch: &[Residency]) {
        for change in batch {
            if change.present == 0 {
                self.0.remove(&change.segment);
            } else {
                self.0.insert(change.segment, change.present);
            }
        }
    }

    /// The engine's process is another one: nothing is known to be held.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Leading tokens of the prompt that the engine has, in whole blocks of `block` tokens.
    pub fn leading_tokens(&self, request: &Request<'_>, block: u32) -> u32 {
        // As `Trace::at_grain` names them: one id for several engine blocks, or the other way.
        let (ids, ratio) = ((block / request.block).max(1), (request.block / block).max(1));
        let most = request.input_tokens.saturating_sub(1) / block;
        let mut depth = 0;
        for &id in request.blocks.iter().skip(ids as usize - 1).step_by(ids as usize) {
            let present = self.0.get(&u64::from(id)).map_or(0, |&present| present.min(ratio));
            depth += present;
            if present < ratio || depth >= most {
                break;
            }
        }
        depth.min(most) * block
    }
}
