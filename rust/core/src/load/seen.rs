//! What the answers to a request show, for others to learn from.

use super::work::Work;

/// A request in flight, as far as its end needs to know.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Glimpse {
    /// Whether its first token was reported.
    pub reported: bool,
    /// The row's generation when it was sent; see [`crate::health`].
    pub generation: u32,
    /// When it was sent.
    pub start: f64,
    /// Tokens generated, if the engine reported them.
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
    /// Tokens generated, if the engine reported them.
    pub generated: Option<u64>,
    /// The whole request as a wait, where nobody reported its first token.
    pub whole: Option<FirstToken>,
}
