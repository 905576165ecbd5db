//! The first tokens that one step brought.

use crate::load::{FirstToken, pairs};

/// Milliseconds within which what an engine says is of one step.
pub const AT_ONCE_MS: f64 = 1.0;

/// First tokens of one step: their prompts were prefilled together, and each waited for all.
#[derive(Debug, Clone, Copy)]
pub struct Open {
    /// When it ended, seconds.
    pub time: f64,
    /// Milliseconds that the engine was at it: since it was free of what stood before.
    pub took_ms: f64,
    /// Longest that one of them waited, and the work of all that was ahead of it and its own.
    pub waited: (f64, [f64; 3]),
    /// Whether nothing else was prefilled there since it came.
    pub fresh: bool,
    /// Whether a decode step was under way that it had to wait for.
    pub interrupts: bool,
    /// What decodes beside them.
    pub batch: f64,
    pub context_tokens: f64,
    /// Prefill of all: one step, its tokens and pairs.
    pub work: [f64; 3],
    /// Decode steps of those that ended at once, their answer having come in one piece.
    pub steps: f64,
    known: bool,
}

impl Open {
    /// `before`: when the row's last first tokens came. Whoever was there then came next.
    pub fn new(seen: &FirstToken, time: f64, before: f64) -> Self {
        let since = (time - before) * 1e3;
        let fresh = since.is_nan() || since >= seen.waited_ms;
        Self {
            time,
            took_ms: if fresh { seen.waited_ms } else { since },
            waited: (seen.waited_ms, std::array::from_fn(|k| seen.ahead[k] + of(seen)[k])),
            fresh,
            interrupts: fresh && seen.came_beside,
            batch: seen.batch,
            context_tokens: seen.context_tokens,
            work: of(seen),
            steps: 0.0,
            known: teaches(seen),
        }
    }

    /// Whether what happens at `now` is of the same step.
    pub fn is_at(&self, now: f64) -> bool {
        ((now - self.time) * 1e3).abs() <= AT_ONCE_MS
    }

    /// One more came out of it.
    pub fn join(&mut self, seen: &FirstToken, before: f64) {
        let other = Self::new(seen, self.time, before);
        if other.took_ms > self.took_ms {
            (self.took_ms, self.interrupts) = (other.took_ms, other.interrupts);
            self.fresh = other.fresh;
        }
        if other.waited.0 > self.waited.0 {
            self.waited = other.waited;
        }
        let [base, tokens, pairs] = self.work;
        self.work = [base, tokens + other.work[1], pairs + other.work[2]];
        self.known &= other.known;
    }

    /// One of them was answered in one piece, of which so many steps were decoding.
    pub fn and_steps(self, steps: f64) -> Self {
        Self { steps: self.steps.max(steps), ..self }
    }

    /// Whether it is known what it was, and nobody waited for room.
    pub fn teaches(&self) -> bool {
        self.known
    }
}

/// The prefill of its request: one step, its tokens and pairs.
pub fn of(seen: &FirstToken) -> [f64; 3] {
    let (prompt, uncached) = (seen.work.prompt_tokens as f64, seen.work.uncached_tokens as f64);
    [1.0, uncached, pairs(prompt, uncached)]
}

fn teaches(seen: &FirstToken) -> bool {
    seen.work.uncached_tokens > 0 && seen.work.has_room
}
