//! What an engine is taken to be.

/// Tokens that an engine's KV cache is taken to hold until it is known.
pub const KV_TOKENS: f64 = 400_000.0;

/// Constants of an engine, as they start out.
///
/// The default is that of a mid-sized model on current hardware (Qwen3-32B, two H100; fitted from
/// NVIDIA AIConfigurator tables); what requests show soon outweighs it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    /// Milliseconds of a prefill on an engine that does nothing else, per uncached token, per
    /// query-key pair, and beside requests that decode.
    pub prefill: [f64; 4],
    /// Milliseconds of a decode step, per request in it, per context token.
    pub step: [f64; 3],
    /// Tokens of an answer.
    pub output_tokens: f64,
    /// What a unit of [`Stat::PrefillSent`](crate::Stat::PrefillSent) makes a second …
    pub prefill_rate: f64,
    /// … and one of [`Stat::RequestsSent`](crate::Stat::RequestsSent).
    pub request_rate: f64,
    /// How often a prompt token that an engine computes is found in its cache later.
    pub reuse: f64,
    /// Requests that were seen decoding at once on an engine lately.
    pub sequences: f64,
    /// Tokens of a KV cache whose size the engine has not reported.
    pub kv_tokens: f64,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            prefill: [3.5, 0.05, 1.6e-6, 3.5],
            step: [13.7, 0.026, 4.2e-5],
            output_tokens: 256.0,
            prefill_rate: 0.0,
            request_rate: 0.0,
            reuse: 0.0,
            sequences: 0.0,
            kv_tokens: KV_TOKENS,
        }
    }
}
