//! What a scrape of an engine gives.

/// What an engine reports of itself when it is scraped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// Requests it runs.
    pub running: u32,
    /// Requests in its queue.
    pub waiting: u32,
    /// Share of its KV blocks that running requests hold.
    pub kv_usage: f64,
    /// Prompt tokens found in the cache, a token admitted since it began; `NaN` before any.
    pub hit_rate: f64,
}
