//! What is sent to the engines lately, and how much of it was there already.

use crate::bytes::saved;
use crate::load::Work;
use crate::stats::{Stat, StatTable};

/// What is sent to the engines is averaged over about so many seconds …
const SENT_SECONDS: f64 = 30.0;
/// … or over those since the first request, but never over fewer.
const LEAST_SECONDS: f64 = 3.0;
/// How much of it is found in a cache is averaged over about so many requests.
const REUSED: f64 = 1000.0;
/// The most that a computed token is taken to be used again.
const MOST_REUSE: f64 = 100.0;
/// [`SENT_SECONDS`] at most, until what was sent is counted afresh: e²⁰⁰ is far from overflow.
const OLDEST: f64 = 200.0;

/// Decaying sums: those of each row are columns of the table.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    /// Prompt tokens found in caches, and computed, lately.
    cached: f64,
    computed: f64,
    /// When what was sent counted as it is: what is sent later counts for more, so that
    /// nothing has to be touched to make the rest count for less.
    epoch: f64,
    /// When the first request was sent.
    begun: Option<f64>,
}

saved!(Traffic { cached, computed; epoch, begun });

impl Traffic {
    /// A request was sent to the row at `now`, seconds. `occupies`: share of its prefill by which it
    /// keeps others waiting.
    pub fn sent(&mut self, table: &mut StatTable, row: u32, work: &Work, occupies: f64, now: f64) {
        if self.begun.is_none() {
            (self.begun, self.epoch) = (Some(now), now);
        }
        if self.age(now) > OLDEST {
            let fade = (-self.age(now)).exp();
            table.scale(Stat::PrefillSent, fade);
            table.scale(Stat::RequestsSent, fade);
            self.epoch = now;
        }
        let grown = self.age(now).exp();
        table.bump(Stat::PrefillSent, row, grown * occupies * work.prefill_us as f64 / 1e3);
        table.bump(Stat::RequestsSent, row, grown);
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

    /// What a unit of the columns makes a second. The sums fade over [`SENT_SECONDS`]; young ones
    /// are divided by the time that they are of, so that the first burst counts as the load it is.
    pub fn rate(&self, now: f64) -> f64 {
        let since = now - self.begun.unwrap_or(now);
        let since = since.max(LEAST_SECONDS) / SENT_SECONDS;
        (-self.age(now)).exp() / (SENT_SECONDS * -(-since).exp_m1())
    }

    /// How often a computed prompt token is found in a cache later.
    pub fn reuse(&self) -> f64 {
        (self.cached / self.computed.max(1.0)).min(MOST_REUSE)
    }

    /// These sums, of what is sent to the rows that `now` counts.
    #[must_use]
    pub fn since(self, now: &Self) -> Self {
        Self { epoch: now.epoch, begun: now.begun, ..self }
    }

    /// All prefill was found to take so many times what it was taken to. Other routers find out for
    /// themselves.
    pub fn rescale(table: &mut StatTable, factor: f64) {
        for row in 0..table.rows() as u32 {
            table.set(Stat::PrefillSent, row, factor * table.own(Stat::PrefillSent, row));
        }
    }

    /// Time since the epoch, in [`SENT_SECONDS`].
    fn age(&self, now: f64) -> f64 {
        ((now - self.epoch) / SENT_SECONDS).max(0.0)
    }
}
