//! What a live router does, and all that it may know.
//!
//! Everything the routing side learns passes through [`Gateway`]: a prompt at its arrival, the
//! first token and the end when they come back. No queue, no output length, no clock of the
//! simulator. `live.rs` has the strategies of the core behind it.

use crate::engine::Report;
use crate::events::Residency;
pub use crate::request::Request;

/// The routing side. Times are milliseconds of simulated time.
pub trait Gateway {
    /// The engine for a request that arrives now; `None` where none is to be had.
    fn choose(&mut self, now: f64, request: &Request<'_>) -> Option<u32>;
    /// The first token of a request came back.
    fn on_first_token(&mut self, now: f64, id: u32, engine: u32);
    /// A request ended (`ok`), or failed. The token counts are those of the response's usage.
    fn on_end(&mut self, now: f64, id: u32, engine: u32, usage: Usage, ok: bool);
    /// The engine answered a request with an error of its own.
    fn on_error(&mut self, now: f64, id: u32, engine: u32) {
        self.on_end(now, id, engine, Usage::default(), false);
    }
    /// A scrape of an engine's stats arrived, as old as the conditions say.
    fn on_stats(&mut self, _now: f64, _engine: u32, _report: &Report) {}
    /// News of an engine's cache arrived.
    fn on_kv_events(&mut self, _now: f64, _engine: u32, _batch: &[Residency]) {}
    /// An engine is gone: it was never there, or its first error came back.
    fn on_down(&mut self, _now: f64, _engine: u32) {}
    /// An engine joined, with an empty cache.
    fn on_up(&mut self, _now: f64, _engine: u32) {}
    /// Whether the request, for which there was no engine, waits at the router.
    fn holds(&self, _id: u32) -> bool {
        false
    }
    /// Requests that have waited for too long: they get no engine any more.
    fn expired(&mut self, _now: f64, _into: &mut Vec<u32>) {}
    /// Requests that wait and are to be chosen for again, in order.
    fn due(&mut self, _into: &mut Vec<u32>) {}
    /// When one is due though nothing ended; infinite when nothing is.
    fn wake_at(&self, _now: f64) -> f64 {
        f64::INFINITY
    }
    /// Appends what it tells the routers beside it, if anything.
    fn tell(&mut self, _now: f64, _into: &mut Vec<u8>) {}
    /// A message of a router beside it arrived.
    fn hear(&mut self, _now: f64, _message: &[u8]) {}
    /// Whether to end the replay here.
    fn stopped(&mut self) -> bool {
        false
    }
}

/// Token counts that a finished response carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens.
    pub prompt: u32,
    /// Prompt tokens that the engine had in its cache.
    pub cached: u32,
    /// Generated tokens.
    pub output: u32,
}

/// Engines given beforehand, one a request: replays what an outside router decided.
pub struct Assigned(pub Vec<u32>);

impl Gateway for Assigned {
    fn choose(&mut self, _: f64, request: &Request<'_>) -> Option<u32> {
        self.0.get(request.id as usize).copied()
    }

    fn on_first_token(&mut self, _: f64, _: u32, _: u32) {}

    fn on_end(&mut self, _: f64, _: u32, _: u32, _: Usage, _: bool) {}
}
