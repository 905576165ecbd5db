//! One request on its way.

use super::backlog::Backlog;
use super::seen::{FirstToken, Glimpse};
use super::work::Work;

/// A request that was sent.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    pub row: u32,
    pub start: f64,
    /// When its lease began.
    pub since: f64,
    pub first_token: Option<f64>,
    /// Whether it holds its place, and nobody reported that it was sent.
    pub reserved: bool,
    /// Whether that is when it was due, and nobody reported it yet.
    pub presumed: bool,
    pub work: Work,
    /// What was queued on the row before it.
    pub ahead: Backlog,
    /// Whether anybody decoded there then.
    pub came_beside: bool,
    /// Sums of the row when the first token came.
    pub mark: Meter,
    /// Tokens generated, if the engine reported them.
    pub generated: Option<u64>,
    /// The row's generation when it was sent; see [`crate::health`].
    pub generation: u32,
    /// Its first token, as long as nothing was learned from it.
    pub deferred: Option<FirstToken>,
}

impl Flight {
    pub fn glimpse(&self) -> Glimpse {
        Glimpse {
            reported: !self.waits(),
            generation: self.generation,
            start: self.start,
            generated: self.generated,
            work: self.work,
        }
    }

    /// Whether no first token of it was reported.
    pub fn waits(&self) -> bool {
        self.first_token.is_none() || self.presumed
    }
}

/// Running sums of a row over time; what happened between two moments is their difference.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Meter {
    /// When the sums were last brought forward.
    pub at: f64,
    /// Context tokens decoding, summed over seconds.
    pub context_seconds: f64,
    /// Requests decoding, summed over seconds.
    pub decode_seconds: f64,
    /// Prefill finished since the start.
    pub prefilled: Backlog,
}
