//! What other routers say of one endpoint, and what became of it.

/// What it takes to put an endpoint out: each router's failures count for a part of it.
pub const FULL: u64 = 10;

/// What is remembered of others' words about one row.
#[derive(Debug, Clone, Copy)]
pub struct Hint {
    /// Others' failures there, all together; [`FULL`] of them put it out.
    pub points: u64,
    /// Whether they count beside own failures: nothing was served since they rose.
    pub stands: bool,
    /// When they rose, by the fleet's clock: only what was sent later says anything about them.
    pub at: f64,
    /// Whether something was served meanwhile.
    pub refuted: bool,
    /// Whether the one request of a doubt is under way.
    pub tried: bool,
    /// When the doubt ends, and when others are heard again about it, by the clock of messages.
    pub until: f64,
    pub deaf_until: f64,
    /// Until when others' answers bring no further probe forward, by that clock.
    pub early_until: f64,
}

impl Default for Hint {
    fn default() -> Self {
        Self {
            points: 0,
            stands: false,
            at: f64::NEG_INFINITY,
            refuted: false,
            tried: false,
            until: f64::NEG_INFINITY,
            deaf_until: f64::NEG_INFINITY,
            early_until: f64::NEG_INFINITY,
        }
    }
}

impl Hint {
    /// Others' failures, as far as they count.
    pub fn counts(&self) -> u64 {
        if self.stands { self.points } else { 0 }
    }
}

/// Hints since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HintCounts {
    /// Endpoints that are doubted now.
    pub doubted: u64,
    /// Doubts that began.
    pub heard: u64,
    /// Of these, those that a failure of this router's own bore out,
    pub confirmed: u64,
    /// those that ended by an answer,
    pub refuted: u64,
    /// and those that ended by time, or were taken back.
    pub faded: u64,
    /// Hints that were not followed: half of the endpoints are away, or this one was doubted lately.
    pub passed_over: u64,
}
