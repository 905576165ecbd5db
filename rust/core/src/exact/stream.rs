//! What to do with a message, by its sequence number: a state machine without sockets or time.
//!
//! Engines number their messages from 0 and start again with each process. A loss is therefore a
//! number passed over, a restart a number that falls (or a copy that came late). A replay is always asked for from the last
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
    /// The connection is broken; a replay will tell what happened meanwhile.
    away: bool,
    /// What was seen so far.
    pub seen: Seen,
}

impl Stream {
    /// Whether all events since the engine's start, or its last clearing, were applied.
    pub fn is_exact(&self) -> bool {
        self.last.is_some() && !self.partial && !self.is_resyncing()
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
        if self.away {
            return step(false, Then::Hold); // heard before the news of the new connection
        }
        if let Some(replay) = &mut self.replay {
            match replay.live {
                Some(high) if seq == high => {
                    self.seen.duplicates += 1;
                    return step(false, Then::Drop);
                }
                Some(high) if seq < high => return self.fell(seq, print, can_replay),
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
            self.fell(seq, print, can_replay)
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

    /// A number that was passed already: a late copy, or another process that counts anew.
    fn fell(&mut self, seq: u64, print: u64, can_replay: bool) -> Step {
        if can_replay && (self.last.is_some() || seq > 0) {
            return self.replay_tail(Some(seq)); // the answer tells which
        }
        self.replay = None;
        self.seen.restarts += 1;
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
        if self.is_resyncing() || self.last.is_some_and(|(last, _)| seq <= last) {
            return step(false, Then::Drop);
        }
        self.seen.gaps += 1;
        if can_replay {
            return self.replay_tail(Some(seq));
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
        self.away = can_replay && self.last.is_some();
        if self.away {
            return step(false, Then::Drop);
        }
        self.replay = None;
        self.last = None;
        self.partial = true;
        step(true, Then::Drop)
    }

    /// The connection is back.
    pub fn reconnected(&mut self, can_replay: bool) -> Step {
        self.away = false;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that applied 0..=3, each with its own number as fingerprint.
    fn at_three() -> Stream {
        let mut stream = Stream::default();
        for seq in 0..4 {
            assert_eq!(stream.live(seq, seq, true), step(false, Then::Apply));
        }
        assert!(stream.is_exact());
        stream
    }

    #[test]
    fn a_gap_is_asked_for_from_the_last_message_and_then_caught_up() {
        let mut stream = at_three();
        assert_eq!(stream.live(6, 6, true), step(false, Then::Replay(3)));
        assert!(stream.is_resyncing() && !stream.is_exact());
        assert_eq!(stream.live(7, 7, true), step(false, Then::Hold));
        assert_eq!(stream.replayed(3, 3), step(false, Then::Drop));
        for seq in 4..7 {
            assert_eq!(stream.replayed(seq, seq), step(false, Then::Apply));
        }
        assert_eq!(stream.replay_end(), step(false, Then::Drop));
        assert_eq!(stream.held(6, 6, true), step(false, Then::Drop));
        assert_eq!(stream.held(7, 7, true), step(false, Then::Apply));
        assert!(stream.is_exact());
    }

    #[test]
    fn a_gap_without_replay_forgets_and_goes_on_in_part() {
        let mut stream = at_three();
        assert_eq!(stream.live(6, 6, false), step(true, Then::Apply));
        assert!(!stream.is_exact());
        assert_eq!(stream.live(7, 7, false), step(false, Then::Apply));
        stream.cleared();
        assert!(stream.is_exact());
    }

    #[test]
    fn a_message_heard_twice_is_dropped() {
        let mut stream = at_three();
        assert_eq!(stream.live(3, 3, true), step(false, Then::Drop));
        assert_eq!(stream.seen.duplicates, 1);
    }

    #[test]
    fn a_late_copy_is_told_from_a_restart_by_the_replay() {
        let mut stream = at_three();
        assert_eq!(stream.live(1, 1, true), step(false, Then::Replay(3)));
        assert_eq!(stream.replayed(3, 3), step(false, Then::Drop));
        stream.replay_end();
        assert_eq!(stream.held(1, 1, true), step(false, Then::Drop));
        assert!(stream.is_exact());
        assert_eq!(stream.seen.restarts, 0);
    }

    #[test]
    fn a_restart_is_seen_by_a_number_that_fell() {
        let mut stream = at_three();
        assert_eq!(stream.live(1, 91, true), step(false, Then::Replay(3)));
        // The young process has no message 3 yet.
        assert_eq!(stream.replay_end(), step(true, Then::Replay(0)));
        assert_eq!(stream.replayed(0, 90), step(false, Then::Apply));
        assert_eq!(stream.replayed(1, 91), step(false, Then::Apply));
        stream.replay_end();
        assert!(stream.is_exact());
        assert_eq!((stream.last(), stream.seen.restarts), (Some(1), 1));
    }

    #[test]
    fn a_restart_without_replay_forgets_at_once() {
        let mut stream = at_three();
        assert_eq!(stream.live(0, 90, false), step(true, Then::Apply));
        assert!(stream.is_exact());
        let mut stream = at_three();
        assert_eq!(stream.live(2, 92, false), step(true, Then::Apply));
        assert!(!stream.is_exact());
    }

    #[test]
    fn a_restart_beyond_the_old_number_is_seen_when_the_connection_returns() {
        let mut stream = at_three();
        assert_eq!(stream.disconnected(true), step(false, Then::Drop));
        assert!(stream.is_resyncing());
        assert_eq!(stream.live(4, 94, true), step(false, Then::Hold));
        assert_eq!(stream.reconnected(true), step(false, Then::Replay(3)));
        assert_eq!(stream.replayed(3, 93), step(true, Then::Replay(0)));
        for seq in 0..6 {
            assert_eq!(stream.replayed(seq, 90 + seq), step(false, Then::Apply));
        }
        stream.replay_end();
        assert!(stream.is_exact());
    }

    #[test]
    fn a_lost_connection_without_replay_forgets() {
        let mut stream = at_three();
        assert_eq!(stream.disconnected(false), step(true, Then::Drop));
        assert_eq!(stream.live(4, 4, false), step(false, Then::Apply));
        assert!(!stream.is_exact());
    }

    #[test]
    fn a_ring_that_ran_over_forgets_and_takes_what_came() {
        let mut stream = at_three();
        stream.live(90, 90, true);
        assert_eq!(stream.replayed(50, 50), step(true, Then::Apply));
        assert_eq!(stream.replayed(51, 51), step(false, Then::Apply));
        stream.replay_end();
        assert!(!stream.is_exact());
        assert_eq!((stream.last(), stream.seen.overruns), (Some(51), 1));
    }

    #[test]
    fn a_replay_with_a_hole_of_its_own_leaves_a_partial_view() {
        let mut stream = at_three();
        stream.live(9, 9, true);
        stream.replayed(3, 3);
        assert_eq!(stream.replayed(4, 4), step(false, Then::Apply));
        assert_eq!(stream.replayed(6, 6), step(true, Then::Apply));
        assert_eq!(stream.replayed(6, 6), step(false, Then::Drop));
        stream.replay_end();
        assert_eq!((stream.last(), stream.is_exact()), (Some(6), false));
    }

    #[test]
    fn who_joins_late_asks_from_the_start() {
        let mut stream = Stream::default();
        assert_eq!(stream.live(9, 9, true), step(true, Then::Replay(0)));
        assert_eq!(stream.replayed(0, 0), step(false, Then::Apply));
        let mut alone = Stream::default();
        assert_eq!(alone.live(9, 9, false), step(false, Then::Apply));
        assert!(!alone.is_exact());
    }

    #[test]
    fn a_failed_replay_forgets_and_starts_from_what_comes() {
        let mut stream = at_three();
        stream.live(6, 6, true);
        assert_eq!(stream.replay_failed(), step(true, Then::Drop));
        assert_eq!(stream.held(6, 6, false), step(false, Then::Apply));
        assert!(!stream.is_exact() && !stream.is_resyncing());
    }

    #[test]
    fn what_cannot_be_read_is_lost() {
        let mut stream = at_three();
        assert_eq!(stream.unreadable(4, true), step(false, Then::Replay(3)));
        let mut stream = at_three();
        assert_eq!(stream.unreadable(4, false), step(true, Then::Drop));
        assert_eq!(stream.live(5, 5, false), step(false, Then::Apply));
        assert!(!stream.is_exact());
        assert_eq!(at_three().unreadable(2, true), step(false, Then::Drop));
    }

    #[test]
    fn a_fresh_engine_with_nothing_to_replay_becomes_exact_with_its_first_message() {
        let mut stream = Stream::default();
        assert_eq!(stream.reconnected(true), step(true, Then::Replay(0)));
        stream.replay_end();
        assert_eq!(stream.live(0, 0, true), step(false, Then::Apply));
        assert!(stream.is_exact());
    }
}
