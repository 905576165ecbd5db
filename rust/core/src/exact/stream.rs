//! What to do with a message, by its sequence number: a state machine without sockets or time.
//!
//! Engines number their messages from 0 and start again with each process. A loss is therefore a
//! number passed over, a restart a number that falls. A replay is always asked for from the last
//! message that was applied, not behind it: if that one comes back changed, another process answers.

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

/// First forget all blocks, if so told, then do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Whether the engine's blocks, and messages kept back, must be forgotten first.
    pub clear: bool,
    /// What follows.
    pub then: Then,
}

const fn step(clear: bool, then: Then) -> Step {
    Step { clear, then }
}

/// A replay that was asked for.
#[derive(Debug, Clone, Copy)]
struct Replay {
    from: u64,
    /// Fingerprint that the first answer must have, where it is a message applied before.
    anchor: Option<u64>,
    /// Whether an answer came.
    heard: bool,
    /// Highest live number since it was asked.
    live: Option<u64>,
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

/// One publisher's sequence.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    /// Number and fingerprint of the message applied last.
    last: Option<(u64, u64)>,
    /// Whether events may have been missed since the engine's blocks were last forgotten.
    partial: bool,
    replay: Option<Replay>,
    /// What was seen so far.
    pub seen: Seen,
}

impl Stream {
    /// Whether all events since the engine's start, or its last clearing, were applied.
    pub fn is_exact(&self) -> bool {
        self.last.is_some() && !self.partial && self.replay.is_none()
    }

    /// Whether a loss is being made good: what is held must not be served.
    pub fn is_resyncing(&self) -> bool {
        self.replay.is_some()
    }

    /// Number of the message applied last.
    pub fn last(&self) -> Option<u64> {
        self.last.map(|(seq, _)| seq)
    }

    fn apply(&mut self, clear: bool, seq: u64, print: u64) -> Step {
        self.last = Some((seq, print));
        step(clear, Then::Apply)
    }

    /// Asks for all messages that the engine still has, as after a start.
    fn replay_all(&mut self, live: Option<u64>) -> Step {
        self.last = None;
        self.partial = false;
        self.ask(0, None, live);
        step(true, Then::Replay(0))
    }

    fn ask(&mut self, from: u64, anchor: Option<u64>, live: Option<u64>) {
        self.seen.replays += 1;
        self.replay = Some(Replay { from, anchor, heard: false, live });
    }

    /// Replays from the last message applied, or from the start where there is none.
    fn replay_tail(&mut self, live: Option<u64>) -> Step {
        match self.last {
            Some((seq, print)) => {
                self.ask(seq, Some(print), live);
                step(false, Then::Replay(seq))
            }
            None => self.replay_all(live),
        }
    }

    /// A message from the live stream. `print`: fingerprint of its payload. `can_replay`: whether
    /// the engine can be asked now.
    pub fn live(&mut self, seq: u64, print: u64, can_replay: bool) -> Step {
        if let Some(replay) = &mut self.replay {
            match replay.live {
                Some(high) if seq == high => {
                    self.seen.duplicates += 1;
                    return step(false, Then::Drop);
                }
                Some(high) if seq < high => {
                    self.seen.restarts += 1;
                    return self.restarted(seq, print, can_replay);
                }
                _ => {
                    replay.live = Some(seq);
                    return step(false, Then::Hold);
                }
            }
        }
        let Some((last, _)) = self.last else {
            if seq > 0 && can_replay {
                return self.replay_all(Some(seq));
            }
            // Nothing is held then, so a first message is all there is to know.
            self.partial = seq > 0;
            return self.apply(false, seq, print);
        };
        if seq == last + 1 {
            self.apply(false, seq, print)
        } else if seq == last {
            self.seen.duplicates += 1;
            step(false, Then::Drop)
        } else if seq < last {
            self.seen.restarts += 1;
            self.restarted(seq, print, can_replay)
        } else {
            self.seen.gaps += 1;
            if can_replay {
                return self.replay_tail(Some(seq));
            }
            // A removal may be among the lost: what is held could be promised for ever.
            self.partial = true;
            self.apply(true, seq, print)
        }
    }

    fn restarted(&mut self, seq: u64, print: u64, can_replay: bool) -> Step {
        self.replay = None;
        if can_replay && seq > 0 {
            return self.replay_all(Some(seq));
        }
        self.partial = seq > 0;
        self.apply(true, seq, print)
    }

    /// A message kept back, after the replay: like a live one, but may have been replayed already.
    pub fn held(&mut self, seq: u64, print: u64, can_replay: bool) -> Step {
        if self.replay.is_none() && self.last.is_some_and(|(last, _)| seq <= last) {
            return step(false, Then::Drop);
        }
        self.live(seq, print, can_replay)
    }

    /// A live message cannot be read: its events are lost, as if its number had been passed over.
    pub fn unreadable(&mut self, seq: u64, can_replay: bool) -> Step {
        // While a replay runs, the numbers that follow will show what is missing.
        if self.replay.is_some() || self.last.is_some_and(|(last, _)| seq <= last) {
            return step(false, Then::Drop);
        }
        self.seen.gaps += 1;
        if can_replay {
            return self.replay_tail(None);
        }
        self.partial = true;
        self.last = Some((seq, 0));
        step(true, Then::Drop)
    }

    /// One answer of a replay.
    pub fn replayed(&mut self, seq: u64, print: u64) -> Step {
        let Some(replay) = &mut self.replay else { return step(false, Then::Drop) };
        let first = !std::mem::replace(&mut replay.heard, true);
        let Replay { from, anchor, live, .. } = *replay;
        if !first {
            return match self.last {
                Some((last, _)) if seq <= last => step(false, Then::Drop),
                Some((last, _)) if seq > last + 1 => {
                    self.partial = true;
                    self.apply(true, seq, print)
                }
                _ => self.apply(false, seq, print),
            };
        }
        match anchor {
            Some(anchor) if seq == from && print == anchor => step(false, Then::Drop),
            Some(_) if seq <= from => {
                self.seen.restarts += 1;
                self.replay_all(live)
            }
            None if seq == from => self.apply(false, seq, print),
            _ => {
                self.seen.overruns += 1;
                self.partial = true;
                self.apply(true, seq, print)
            }
        }
    }

    /// The replay has ended in good order. Messages kept back follow, through [`held`](Self::held).
    pub fn replay_end(&mut self) -> Step {
        match self.replay {
            Some(Replay { heard: false, anchor: Some(_), live, .. }) => {
                // Not even the message that we know: a younger process has not come so far.
                self.seen.restarts += 1;
                self.replay_all(live)
            }
            Some(Replay { heard: false, .. }) => self.replay_failed(),
            _ => {
                self.replay = None;
                step(false, Then::Drop)
            }
        }
    }

    /// The replay gave nothing in time. What was held is forgotten; go on with what comes.
    pub fn replay_failed(&mut self) -> Step {
        if self.replay.take().is_none() {
            return step(false, Then::Drop);
        }
        self.last = None;
        self.partial = true;
        step(true, Then::Drop)
    }

    /// The connection broke, so that a restart could pass unseen.
    pub fn disconnected(&mut self, can_replay: bool) -> Step {
        if can_replay && self.last.is_some() {
            return step(false, Then::Drop); // checked by the replay once it is back
        }
        self.replay = None;
        self.last = None;
        self.partial = true;
        step(true, Then::Drop)
    }

    /// The connection is back.
    pub fn reconnected(&mut self, can_replay: bool) -> Step {
        if can_replay { self.replay_tail(None) } else { self.disconnected(false) }
    }

    /// The engine said that it holds nothing: from here on everything is known.
    pub fn cleared(&mut self) {
        self.partial = false;
    }

    /// Something did not fit together although nothing seemed lost.
    pub fn distrust(&mut self) {
        self.partial = true;
    }
}
