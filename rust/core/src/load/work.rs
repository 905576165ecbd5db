//! What a request asks of an engine.

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
    pub reported_tokens: Option<u64>,
    /// Whether the engine should have had room for it at once.
    pub has_room: bool,
}

/// Query-key pairs of prefilling the last `uncached` of `prompt` tokens.
pub fn pairs(prompt: f64, uncached: f64) -> f64 {
    uncached * (prompt - uncached / 2.0).max(0.0)
}
