//! Everything known about the endpoints: the table, and what fills parts of it.
//!
//! A router's turn is: [`Fleet::index`] read-locked for [`Lookup::look`] (lookups do not block each
//! other), a pick over the [`View`](crate::View), then [`Fleet::chosen`]. The host's reports follow.

mod forget;
mod placed;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::health::{Health, Policy};
use crate::index::PrefixIndex;
use crate::load::{Load, Work};
pub use crate::lookup::{Lookup, Reported};
use crate::placed::Placed;
pub use crate::placed::Prefixes;
use crate::prompt::{Prompt, Unit};
use crate::sizes::{Belief, Sizes};
use crate::speed::{KV_TOKENS, Profile, Speed};
use crate::stats::{Stat, StatTable};
use crate::trust::Verdict;

/// Share of a KV cache in use up to which nobody should have to wait for room.
const ROOMY: f64 = 0.8;
/// Microseconds that a prefill may be expected to take: a bound on sums, far above any.
const MAX_PREFILL_US: f64 = 3.6e9;

/// The prefix index, shared: a lookup needs no other lock.
#[derive(Debug, Clone, Default)]
pub struct SharedIndex(Arc<RwLock<PrefixIndex>>);

impl SharedIndex {
    /// For lookups, several at once.
    pub fn read(&self) -> RwLockReadGuard<'_, PrefixIndex> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For changes.
    pub fn write(&self) -> RwLockWriteGuard<'_, PrefixIndex> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How good the index's predictions were, by what engines reported of their caches.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Predictions {
    /// Requests whose cached tokens were reported.
    pub reported: u64,
    /// Of these, requests that were promised more than a block beyond what they found.
    pub over: u64,
    /// Tokens predicted to be cached.
    pub predicted_tokens: u64,
    /// Tokens found cached.
    pub actual_tokens: u64,
}

/// All state of a router but its strategy.
#[derive(Debug)]
pub struct Fleet {
    /// Packed stats, a row per endpoint.
    pub table: StatTable,
    /// Requests in flight and their windows.
    pub load: Load,
    /// What the engines' speed is.
    pub speed: Speed,
    /// Who fails, and is left alone.
    pub health: Health,
    pub(crate) index: SharedIndex,
    kv_tokens: f64,
    pub(crate) sizes: Sizes,
    block_tokens: f64,
    pub(crate) beliefs: Vec<Belief>,
    predictions: Predictions,
    /// Prefixes to be told to other routers; none where there are none.
    placed: Option<Box<Placed>>,
}

impl Fleet {
    /// An empty fleet; see [`Load::new`] for the two durations in seconds.
    pub fn new(span: f64, lease: f64) -> Self {
        Self {
            table: StatTable::new(),
            load: Load::new(span, lease),
            speed: Speed::new(Profile::default()),
            health: Health::new(Policy::default(), 0),
            index: SharedIndex::default(),
            kv_tokens: KV_TOKENS,
            sizes: Sizes::default(),
            block_tokens: 0.0,
            beliefs: Vec::new(),
            predictions: Predictions::default(),
            placed: None,
        }
    }

    /// The prefix index, to be kept and read without the fleet's lock.
    pub fn index(&self) -> SharedIndex {
        self.index.clone()
    }

    /// How good the index's predictions were.
    pub fn predictions(&self) -> Predictions {
        self.predictions
    }

    /// What its engines are like.
    pub fn engine(&self) -> Profile {
        Profile { kv_tokens: self.kv_tokens, ..self.speed.profile(self.load.now()) }
    }

    /// Tokens that a KV cache is taken to hold where the engine has not reported it.
    pub fn set_kv_tokens(&mut self, tokens: f64) {
        self.kv_tokens = tokens;
    }

    /// Gives the endpoint a row.
    pub fn add(&mut self, id: u64) -> u32 {
        let row = self.table.add(id);
        self.speed.join(&mut self.table, row);
        row
    }

    /// Frees a row together with all that is in flight on it and all it holds.
    pub fn remove(&mut self, row: u32) {
        self.load.forget(row);
        self.index.write().drop_row(row);
        self.speed.forget(row);
        self.health.forget(row);
        if let Some(belief) = self.beliefs.get_mut(row as usize) {
            *belief = Belief::default();
        }
        self.table.remove(row);
    }

    /// For a process that was forked: what is in flight is its parent's. What is known of the
    /// engines stays.
    pub fn forked(&mut self) {
        self.load.abandon(&mut self.table);
        self.settle();
    }

    /// The row's engine has lost its cache: it was restarted, or slept. Its requests stay.
    pub fn cache_lost(&mut self, row: u32) {
        self.load.unpin(row);
        self.index.write().drop_row(row);
        self.table.set(Stat::KvTokens, row, 0.0);
    }

    /// Tokens of the prompt, and of one of its blocks.
    pub fn tokens(&self, prompt: &Prompt) -> (f64, f64) {
        self.sizes.of(prompt)
    }

    /// A choice without a prompt fell on the row.
    pub fn chosen(&mut self, row: u32) {
        self.health.chosen(row);
        self.load.chosen_bare(&mut self.table, row);
    }

    /// A choice fell on the row, which was found to have `cached` tokens of the prompt. The rest
    /// counts as held from now on, for as long as the request does not fail.
    pub fn chosen_for(&mut self, row: u32, prompt: &Prompt, cached: f64) {
        self.chosen_by(row, prompt, cached, None);
    }

    /// [`Fleet::chosen_for`] of a row whose engine reported what it has of the prompt, beside what
    /// should be there by what was sent before.
    pub fn chosen_by(
        &mut self,
        row: u32,
        prompt: &Prompt,
        cached: f64,
        reported: Option<(Reported, f64)>,
    ) {
        if self.table.id(row).is_none() {
            return;
        }
        if let Some((reported, learned)) = reported {
            let (_, block) = self.tokens(prompt);
            self.belief(row).events.chosen(reported, learned, block);
        }
        if let Some(placed) = &mut self.placed {
            placed.set_exact(row, reported.is_some_and(|(reported, _)| reported.exact));
        }
        self.health.chosen(row);
        let (tokens, _) = self.tokens(prompt);
        // A cache's room is in blocks of text, whatever this prompt is made of.
        let block_tokens = self.sizes.text_block(prompt);
        let uncached = (tokens - cached).max(1.0);
        let capacity = self.capacity(row, block_tokens);
        // An engine refuses what its cache cannot hold, or its model: nothing of it will be there.
        let most = self.kv_size(row).min(self.context_length(row));
        let fits = tokens <= most * f64::from(prompt.sequences.max(1));
        let shared = self.index.clone();
        let mut index = shared.write();
        if index.capacity(row) != capacity {
            index.set_capacity(row, capacity);
        }
        let work = Work {
            prompt_tokens: tokens as u64,
            uncached_tokens: uncached as u64,
            prefill_us: (1e3 * self.speed.prefill_ms(row, tokens, uncached)).min(MAX_PREFILL_US)
                as u64,
            pin: if fits { index.pin(row, &prompt.chain) } else { None },
            text: prompt.unit == Unit::Bytes,
            media_tokens: self.sizes.media(prompt) as u64,
            sequences: prompt.sequences,
            max_tokens: prompt.max_tokens,
            reported_tokens: reported
                .filter(|(reported, _)| reported.exact)
                .map(|(reported, _)| reported.tokens as u64),
            has_room: f64::from(index.pinned(row)) < ROOMY * f64::from(capacity),
        };
        self.speed.sent(&mut self.table, row, &work, self.load.now());
        self.block_tokens = block_tokens;
        self.table.set(Stat::KvTokens, row, f64::from(index.pinned(row)) * block_tokens);
        drop(index);
        self.load.chosen(&mut self.table, row, work);
        self.settle();
    }

    /// [`Fleet::chosen_for`] where no report will follow: the prefix counts as computed and the
    /// request as over at once.
    pub fn chosen_unfollowed(&mut self, row: u32, prompt: &Prompt, cached: f64) {
        self.chosen_for(row, prompt, cached);
        if let Some(pin) = self.load.unpin_last(row) {
            let mut index = self.index.write();
            index.confirm(row, pin);
            index.release(row, pin);
            if let Some(placed) = &mut self.placed {
                placed.computed(row, pin);
            }
        }
    }

    /// See [`Load::sent`].
    pub fn sent(&mut self, row: u32, request: u128, time: f64) {
        let now = self.load.observed(&mut self.table, row, time);
        self.health.tick(self.load.times());
        self.health.sent(row);
        self.speed.pass(&mut self.table, row, now);
        self.load.sent(&mut self.table, row, request, time);
        self.settle();
    }

    /// See [`Load::reserve`]. Choice and reservation are one step if both are under one lock.
    pub fn reserve(&mut self, row: u32, request: u128, time: f64) {
        self.load.reserve(&mut self.table, row, request, time);
        self.settle();
    }

    /// The engine's own count of a request's tokens, reported before its end: in the prompt, of these
    /// found in its cache, and generated.
    pub fn usage(
        &mut self,
        row: u32,
        request: u128,
        prompt: Option<u64>,
        cached: Option<u64>,
        generated: Option<u64>,
    ) {
        let Some(work) = self.load.usage(row, request, generated) else {
            // It outlived its lease: were such answers left out, all would be taken for short.
            self.speed.answered(generated.filter(|_| self.table.id(row).is_some()));
            return;
        };
        let prompt = prompt.filter(|&tokens| tokens > 0);
        if let Some(prompt) = prompt {
            self.sizes.learn(&work, prompt);
        }
        // Some engines tell of cached tokens only where there are some.
        let silence = (prompt.is_some() && self.belief(row).tells).then_some(0);
        let Some(cached) = cached.or(silence) else { return };
        self.belief(row).tells = true;
        let cached = cached.min(prompt.unwrap_or(u64::MAX));
        let predicted = work.prompt_tokens.saturating_sub(work.uncached_tokens);
        // A block's difference is the cut of the blocks, one token more that of rounding.
        let over = predicted as f64 > cached as f64 + self.block_tokens.max(1.0) + 1.0;
        self.predictions.reported += 1;
        self.predictions.over += u64::from(over);
        self.predictions.predicted_tokens =
            self.predictions.predicted_tokens.saturating_add(predicted);
        self.predictions.actual_tokens = self.predictions.actual_tokens.saturating_add(cached);
        let block = self.block_tokens;
        let belief = self.belief(row);
        belief.learn(predicted, cached, over);
        if let Some(reported) = work.reported_tokens {
            let [reported, predicted, cached, tokens] =
                [reported, predicted, cached, work.prompt_tokens].map(|tokens| tokens as f64);
            belief.events.check(reported, predicted, cached, tokens, block);
        }
    }

    /// Whether what the row's engine reports by its events counts.
    pub fn believes(&self, row: u32) -> bool {
        self.beliefs.get(row as usize).is_none_or(|belief| belief.events.believes())
    }

    /// What is new about belief in the row's events, since it was asked last.
    pub fn verdict(&mut self, row: u32) -> Option<Verdict> {
        self.beliefs.get_mut(row as usize)?.events.news()
    }

    /// See [`Load::advance`].
    pub fn advance(&mut self, now: f64) {
        self.load.advance(&mut self.table, now);
        self.health.tick(self.load.times());
        self.settle();
    }

    /// Tokens that the row's cache holds, as it reports or is taken to have.
    fn kv_size(&self, row: u32) -> f64 {
        let reported = self.table.get(Stat::KvCapacity, row);
        if reported > 0.0 { reported } else { self.kv_tokens }
    }

    /// Tokens of the longest request that the row's engine takes, where that is known.
    fn context_length(&self, row: u32) -> f64 {
        let reported = self.table.get(Stat::ContextLength, row);
        if reported > 0.0 { reported } else { f64::INFINITY }
    }

    /// Blocks that the row's cache holds, by what it reports or is taken to have.
    fn capacity(&mut self, row: u32, block_tokens: f64) -> u32 {
        let blocks = self.kv_size(row) * self.belief(row).retention() / block_tokens.max(1e-3);
        // In steps, so that a slowly moving estimate does not resize at every request.
        (blocks as u32).min(1 << 30).next_multiple_of(16)
    }

    pub(crate) fn belief(&mut self, row: u32) -> &mut Belief {
        if self.beliefs.len() <= row as usize {
            self.beliefs.resize(row as usize + 1, Belief::default());
        }
        &mut self.beliefs[row as usize]
    }
}
