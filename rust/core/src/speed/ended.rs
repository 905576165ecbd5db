//! The answers that ended with one step.

use super::open::{AT_ONCE_MS, of};
use crate::load::{FirstToken, Served};

/// Answers of one step that are kept: more of them teach nothing else.
const KEPT: usize = 4;

/// An answer that is over, as far as it teaches what decode steps take.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ended {
    /// Milliseconds from its first token to its end.
    pub decode_ms: f64,
    /// Prefill of others in these.
    pub prefilled: [f64; 3],
    /// What decoded, itself included, on average.
    pub batch: f64,
    pub context_tokens: f64,
    /// Decode steps.
    pub steps: f64,
}

/// Those that ended with the last step of a row. Its first tokens may be reported after them: their
/// prefill was in that step, too.
#[derive(Debug, Clone, Copy, Default)]
pub struct LastEnded {
    time: f64,
    kept: [Ended; KEPT],
    n: usize,
}

impl LastEnded {
    /// One more ended at `now`, seconds, with that step.
    pub fn push(&mut self, seen: &Served, steps: f64, now: f64) {
        let Served { decode_ms, prefilled, context_tokens, batch, .. } = *seen;
        if let Some(slot) = self.kept.get_mut(self.n) {
            *slot = Ended { decode_ms, prefilled, batch, context_tokens, steps };
            (self.n, self.time) = (self.n + 1, now);
        }
    }

    /// A first token came out of it.
    pub fn join(&mut self, seen: &FirstToken, now: f64) {
        if seen.work.uncached_tokens > 0 && self.is_at(now) {
            for ended in &mut self.kept[..self.n] {
                for (sum, more) in ended.prefilled.iter_mut().zip(of(seen)) {
                    *sum += more;
                }
            }
        }
    }

    /// Takes them, if what happens at `now` is of another step.
    pub fn take(&mut self, now: f64) -> impl Iterator<Item = Ended> + use<> {
        let n = if self.is_at(now) { 0 } else { std::mem::take(&mut self.n) };
        self.kept.into_iter().take(n)
    }

    fn is_at(&self, now: f64) -> bool {
        ((now - self.time) * 1e3).abs() <= AT_ONCE_MS
    }
}
