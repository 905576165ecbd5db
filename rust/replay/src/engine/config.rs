//! What an engine is like.

use routecore::RouteError;
use routecore::error::Shown;

use crate::timing::Timing;

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
            return bad(format!(
                "engine speed: expected a number above 0, got {}",
                Shown(self.speed)
            ));
        }
        if !(1e-6..=1e6).contains(&self.speed) {
            return bad(format!(
                "engine speed: expected from 1e-6 to 1e6, got {}",
                Shown(self.speed)
            ));
        }
        Ok(())
    }
}
