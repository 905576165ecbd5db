//! One request on its way, and what its answers teach.

use super::backlog::Backlog;
use crate::index::Pin;

/// What a request asks of the engine it goes to, as known at the choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Those that the engine is not expected to have in its cache.
    pub uncached_tokens: u64,
    /// Microseconds that prefilling them should take.
    pub prefill_us: u64,
    /// Its hold on the prefix it uses.
    pub pin: Option<Pin>,
    /// Whether the tokens are an estimate from text.
    pub text: bool,
    /// Those that images, audio and files were guessed to have.
    pub media_tokens: u64,
    /// Sequences to generate; 0 where that is not known.
    pub sequences: u32,
    /// Tokens that each of them may have at most, where the request says.
    pub max_tokens: Option<u32>,
    /// Tokens in the cache by the engine's own events, where these are complete.
    pub told_tokens: Option<u64>,
    /// Whether the engine should have had room for it at once.
    pub has_room: bool,
}

/// A request that was sent.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    pub row: u32,
    pub start: f64,
    /// When its lease began.
    pub since: f64,
    pub first_token: Option<f64>,
    /// Whether it holds its place, and nobody told that it was sent.
    pub reserved: bool,
    /// Whether that is when it was due, and nobody told yet.
    pub presumed: bool,
    pub work: Work,
    /// What was queued on the row before it.
    pub ahead: Backlog,
    /// Whether anybody decoded there then.
    pub came_beside: bool,
    /// Sums of the row when the first token came.
    pub mark: Meter,
    /// Tokens generated, if the engine told.
    pub generated: Option<u64>,
    /// The row's generation when it was sent; see [`crate::health`].
    pub generation: u32,
    /// Its first token, as long as nothing was learned from it.
    pub put_by: Option<FirstToken>,
}

impl Flight {
    pub fn glimpse(&self) -> Glimpse {
        Glimpse {
            told: !self.waits(),
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

/// A request in flight, as far as its end needs to know.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Glimpse {
    /// Whether a first token of it was told.
    pub told: bool,
    /// The row's generation when it was sent; see [`crate::health`].
    pub generation: u32,
    /// When it was sent.
    pub start: f64,
    /// Tokens generated, if the engine told.
    pub generated: Option<u64>,
    /// What it asked for.
    pub work: Work,
}

/// A first token: how long its request waited, and for what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FirstToken {
    /// Milliseconds from sending to the first token.
    pub waited_ms: f64,
    /// Prefill that was queued on the row before it: requests, uncached tokens, query-key pairs.
    pub ahead: [f64; 3],
    /// Whether anybody decoded on the row when it was sent.
    pub came_beside: bool,
    /// Requests that decode there now.
    pub batch: f64,
    /// Their prompt tokens.
    pub context_tokens: f64,
    /// What it asked for.
    pub work: Work,
}

/// A served request: how long it decoded, and beside what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Served {
    /// Milliseconds from first token to end; next to none where the answer came in one piece.
    pub decode_ms: f64,
    /// Prefill of others that the engine finished meanwhile: requests, tokens, query-key pairs.
    pub prefilled: [f64; 3],
    /// Context tokens decoding on the row on average.
    pub context_tokens: f64,
    /// Requests decoding on the row on average.
    pub batch: f64,
    /// Tokens generated, if the engine told.
    pub generated: Option<u64>,
    /// The whole request as a wait, where nobody told of its first token.
    pub whole: Option<FirstToken>,
}
