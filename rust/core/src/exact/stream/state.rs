//! What is known of one publisher's sequence, and what can follow.

/// What the caller has to do with the message at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Apply its events.
    Apply,
    /// Pass it over.
    Drop,
    /// Keep it, and give it again to [`Stream::live`] when the replay has ended.
    Hold,
    /// Keep it if it is a live one, and ask for a replay from this number on. A replay that still
    /// runs is void.
    Replay(u64),
}

/// First forget all blocks, if so set, then do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Whether the engine's blocks, and messages kept back, must be forgotten first.
    pub clear: bool,
    /// What follows.
    pub then: Then,
}

pub(super) const fn step(clear: bool, then: Then) -> Step {
    Step { clear, then }
}

/// Counts of what was seen; see the fields of the same names in `Counters`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Numbers passed over.
    pub gaps: u64,
    /// Messages heard twice.
    pub duplicates: u64,
    /// Replays asked for.
    pub replays: u64,
    /// Replays that began later than asked.
    pub overruns: u64,
    /// Numbers that fell, or replays answered by another process.
    pub restarts: u64,
}

/// What an engine has that was asked for all its messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kept {
    /// Some, or it was not asked.
    #[default]
    Some,
    /// None, and none was heard: it has said nothing so far.
    Nothing,
    /// None, although one was heard: asking again would go on for ever.
    Never,
}

/// A replay that was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replay {
    pub(super) from: u64,
    /// Fingerprint that the first answer must have, where it is a message applied before.
    pub(super) anchor: Option<u64>,
    /// Whether an answer came.
    pub(super) heard: bool,
    /// Highest live number since it was asked.
    pub(super) live: Option<u64>,
}

/// One publisher's sequence.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    /// Number and fingerprint of the message applied last.
    pub(super) last: Option<(u64, u64)>,
    /// Whether events may have been missed since the engine's blocks were last forgotten.
    pub(super) partial: bool,
    pub(super) replay: Option<Replay>,
    /// The connection is broken; a replay will tell what happened meanwhile.
    pub(super) away: bool,
    pub(super) kept: Kept,
    /// What was seen so far.
    pub seen: Seen,
}

impl Stream {
    /// Whether all events since the engine's start, or its last clearing, were applied.
    pub fn is_exact(&self) -> bool {
        self.last.is_some() && !self.partial && !self.is_resyncing()
    }

    /// Whether the engine was heard to have said nothing so far.
    ///
    /// Less than exact: an engine whose events are off says nothing either.
    pub fn is_fresh(&self) -> bool {
        self.kept == Kept::Nothing && self.last.is_none() && !self.partial && !self.is_resyncing()
    }

    /// Whether a loss is being made good, or may be found once the connection is back: what is
    /// held must not be served.
    pub fn is_resyncing(&self) -> bool {
        self.replay.is_some() || self.away
    }

    /// Number of the message applied last.
    pub fn last(&self) -> Option<u64> {
        self.last.map(|(seq, _)| seq)
    }

    pub(super) fn apply(&mut self, clear: bool, seq: u64, print: u64) -> Step {
        self.last = Some((seq, print));
        step(clear, Then::Apply)
    }
}
