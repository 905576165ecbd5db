//! Prefill that waits.

use super::work::{Work, pairs};

/// Sums over requests without a first token. Whole numbers, so that nothing drifts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Backlog {
    /// Those with anything to prefill.
    pub requests: u64,
    /// Their uncached tokens …
    pub tokens: u64,
    /// … and the query-key pairs of these.
    pub pairs: u64,
    /// Microseconds that it all should take.
    pub us: u64,
}

impl Backlog {
    fn of(work: &Work) -> Self {
        Self {
            requests: u64::from(work.uncached_tokens > 0),
            tokens: work.uncached_tokens,
            pairs: pairs(work.prompt_tokens as f64, work.uncached_tokens as f64) as u64,
            us: work.prefill_us,
        }
    }

    pub fn add(&mut self, work: &Work) {
        *self = self.with(&Self::of(work));
    }

    /// What it is with these.
    pub fn with(&self, other: &Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            tokens: self.tokens.saturating_add(other.tokens),
            pairs: self.pairs.saturating_add(other.pairs),
            us: self.us.saturating_add(other.us),
        }
    }

    pub fn take(&mut self, work: &Work) {
        *self = self.without(&Self::of(work));
    }

    /// What is left without these.
    pub fn without(&self, other: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            tokens: self.tokens.saturating_sub(other.tokens),
            pairs: self.pairs.saturating_sub(other.pairs),
            us: self.us.saturating_sub(other.us),
        }
    }

    /// What a prefill's time is linear in.
    pub fn features(&self) -> [f64; 3] {
        [self.requests as f64, self.tokens as f64, self.pairs as f64]
    }
}
