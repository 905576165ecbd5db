//! What is sent to the engines lately, and how much of it was there already.

use super::recent::Recent;
use crate::bytes::saved;
use crate::load::Work;
use crate::stats::{Stat, StatTable};

/// Prefills of mean size that the work sent lately is averaged over: of longer ago nothing is left
/// to wait for. An engine that takes ten times as long has to be looked at for ten times as long.
const PREFILLS: f64 = 20.0;
/// … but never over fewer seconds.
const LEAST_SECONDS: f64 = 0.1;
/// Requests sent lately are averaged over so many seconds at least.
const REQUEST_SECONDS: f64 = 30.0;
/// The longest window, seconds.
const MOST_SECONDS: f64 = 3600.0;
/// The size of a prefill is averaged over about so many requests.
const SIZED: f64 = 256.0;
/// How much of it is found in a cache is averaged over about so many requests.
const REUSED: f64 = 1000.0;
/// The most that a computed token is taken to be used again.
const MOST_REUSE: f64 = 100.0;

/// Decaying sums: those of each row are columns of the table.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    /// Prompt tokens found in caches, and computed, lately.
    cached: f64,
    computed: f64,
    /// Mean milliseconds of a request's prefill, and requests that it is of.
    mean_ms: f64,
    sized: f64,
    prefill: Recent,
    requests: Recent,
}

saved!(Traffic { cached, computed; mean_ms, sized, prefill, requests });

impl Traffic {
    /// A request was sent to the row at `now`, seconds. `occupies`: share of its prefill by which it
    /// keeps others waiting.
    pub fn sent(&mut self, table: &mut StatTable, row: u32, work: &Work, occupies: f64, now: f64) {
        let ms = occupies * work.prefill_us as f64 / 1e3;
        self.sized = (self.sized + 1.0).min(SIZED);
        self.mean_ms += (ms - self.mean_ms) / self.sized;
        let (prefill, requests) = self.windows();
        let counts = self.prefill.add(prefill, now, |by| table.scale(Stat::PrefillSent, by));
        table.bump(Stat::PrefillSent, row, counts * ms);
        let counts = self.requests.add(requests, now, |by| table.scale(Stat::RequestsSent, by));
        table.bump(Stat::RequestsSent, row, counts);
        let (prompt, computed) = (work.prompt_tokens as f64, work.uncached_tokens as f64);
        self.cached += (prompt - computed).max(0.0) - self.cached / REUSED;
        self.computed += computed - self.computed / REUSED;
    }

    /// A newcomer is taken to have had its share of the requests lately: else all those who will
    /// come back would start there.
    pub fn join(&self, table: &mut StatTable, row: u32) {
        if self.computed > 0.0 {
            let others =
                (0..table.rows() as u32).filter(|&other| other != row && table.id(other).is_some());
            let sent = others.map(|other| table.own(Stat::RequestsSent, other));
            let sum: f64 = sent.sum();
            table.set(Stat::RequestsSent, row, sum / table.live().saturating_sub(1).max(1) as f64);
        }
    }

    /// What a unit of [`Stat::PrefillSent`] and of [`Stat::RequestsSent`] makes a second.
    pub fn rates(&self, now: f64) -> [f64; 2] {
        let (prefill, requests) = self.windows();
        [self.prefill.rate(prefill, now), self.requests.rate(requests, now)]
    }

    /// Seconds over which prefill, and requests, that were sent are averaged.
    fn windows(&self) -> (f64, f64) {
        let prefill = (PREFILLS * 1e-3 * self.mean_ms).clamp(LEAST_SECONDS, MOST_SECONDS);
        (prefill, prefill.max(REQUEST_SECONDS))
    }

    /// How often a computed prompt token is found in a cache later.
    pub fn reuse(&self) -> f64 {
        (self.cached / self.computed.max(1.0)).min(MOST_REUSE)
    }

    /// These sums, of what is sent to the rows that `now` counts.
    #[must_use]
    pub fn since(self, now: &Self) -> Self {
        Self { cached: self.cached, computed: self.computed, ..*now }
    }

    /// All prefill was found to take so many times what it was taken to. Other routers find out for
    /// themselves.
    pub fn rescale(&mut self, table: &mut StatTable, factor: f64) {
        self.mean_ms *= factor;
        for row in 0..table.rows() as u32 {
            table.set(Stat::PrefillSent, row, factor * table.own(Stat::PrefillSent, row));
        }
    }
}
