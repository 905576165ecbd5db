//! What became of the requests of a replay.

use std::time::Duration;

/// No engine: the request was never sent, or never served.
pub const NOWHERE: u32 = u32::MAX;

/// What became of each request, and what happened on the way. Times are milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Engine of each request; [`NOWHERE`] if it was sent to none.
    pub engine: Vec<u32>,
    /// Arrival at the router.
    pub arrival: Vec<f64>,
    /// When it was sent to that engine; `NaN` if it never was.
    pub dispatch: Vec<f64>,
    /// When that engine first admitted it into a batch; `NaN` if it never did.
    pub admitted: Vec<f64>,
    /// When the router turned it away, after it had waited there; `NaN` if it did not.
    pub turned_away: Vec<f64>,
    /// First token; `NaN` if there was none.
    pub first_token: Vec<f64>,
    /// Last token; `NaN` if there was none.
    pub end: Vec<f64>,
    /// Prompt tokens found in the engine's cache at the last admission (there are several only
    /// where a request was preempted): as Dynamo counts, so that its figures can be compared.
    pub cached: Vec<u32>,
    /// Requests that need more KV blocks than their engine has.
    pub rejected: u64,
    /// Requests lost with an engine after their first token, or sent when there was none.
    pub failed: u64,
    /// Requests that were turned away by the router, which had too many waiting or for too long.
    pub shed: u64,
    /// Requests dropped by an engine to be computed again.
    pub preemptions: u64,
    /// Sums over arrivals of the largest and the mean number of requests on an engine.
    pub load_max_and_mean: (f64, f64),
    /// Choices of the gateway.
    pub decisions: u64,
    /// Wall-clock time in them.
    pub deciding: Duration,
}
