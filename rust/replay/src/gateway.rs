//! What a live router does, and all that it may know.
//!
//! Everything the routing side learns passes through [`Gateway`]: a prompt at its arrival, the
//! first token and the end when they come back. No queue, no output length, no clock of the
//! simulator. `live.rs` has the strategies of the core behind it.

use routecore::hash::mix;

use crate::engine::Report;
use crate::events::Residency;

/// A request as a router sees it on arrival.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Number of the request in the trace.
    pub id: u32,
    /// Prompt tokens.
    pub input_tokens: u32,
    /// The session, if the trace tells.
    pub session: Option<u64>,
    /// Identity of each block of the prompt, in order: equal number, equal prefix up to there.
    pub blocks: &'a [u32],
    /// Tokens a block stands for; the last may be partial.
    pub block: u32,
}

impl Request<'_> {
    /// Chained hashes of the prompt's full blocks of `tokens` each, as a router would compute
    /// them from the text. `tokens` must divide the trace's block, or be a multiple of it.
    pub fn block_hashes(&self, tokens: u32, into: &mut Vec<u64>) {
        into.clear();
        let full = self.input_tokens / tokens;
        for number in 0..full {
            let last = (u64::from(number) + 1) * u64::from(tokens) - 1;
            let Some(&id) = self.blocks.get((last / u64::from(self.block)) as usize) else {
                return;
            };
            let part = last % u64::from(self.block);
            into.push(mix((u64::from(id) << 32 | part) ^ 0x9E37_79B9_7F4A_7C15));
        }
    }
}

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
    /// What an engine told of its cache arrived.
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
